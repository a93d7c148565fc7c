"""Every example in the docstring of a public name is run as it stands, and gives what it shows.

An example awaits at its top level, as in ``python -m asyncio``. It finds ``haptera`` and ``db``, a store of its own.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import doctest
import importlib
import inspect
import io
from typing import TYPE_CHECKING, Any, Final

import pytest

import haptera
from haptera.testing import node

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES: Final = ("haptera", "haptera.authentication", "haptera.recipes", "haptera.typed", "haptera.notebook")
#: Names whose page in ``help`` shows how they are used.
WITH_EXAMPLES: Final = {
    "haptera",
    "haptera.connect",
    "haptera.open",
    "haptera.Database.set",
    "haptera.Database.scan",
    "haptera.Database.typed",
    "haptera.Database.run",
    "haptera.Database.get",
    "haptera.Database.delete",
    "haptera.Database.increment",
    "haptera.Database.get_many",
    "haptera.Database.watch",
    "haptera.Database.cached",
    "haptera.Database.history",
    "haptera.Database.lock",
    "haptera.Database.queue",
    "haptera.Database.lease",
    "haptera.Database.transaction",
    "haptera.Database.pipeline",
    "haptera.Peer.call",
    "haptera.Service",
    "haptera.typed.method",
    "haptera.notebook.table",
}

_parser: Final = doctest.DocTestParser()


def documented() -> Iterator[tuple[str, str]]:
    """The public modules, names and members with a docstring that has an example."""
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        yield module_name, inspect.getdoc(module) or ""
        for name in module.__all__:
            thing = getattr(module, name)
            if not (inspect.isclass(thing) or inspect.isfunction(thing)):
                continue
            yield f"{module_name}.{name}", inspect.getdoc(thing) or ""
            for member in dir(thing) if inspect.isclass(thing) else ():
                if not member.startswith("_"):
                    yield f"{module_name}.{name}.{member}", inspect.getdoc(getattr(thing, member)) or ""


EXAMPLES: Final = {name: text for name, text in documented() if ">>> " in text}


async def run(example: doctest.Example, namespace: dict[str, Any]) -> str:
    """What one example prints at a prompt: its output, its value, or the last line of its error."""
    output = io.StringIO()
    code = compile(example.source, "<example>", "single", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with contextlib.redirect_stdout(output):
        try:
            result = eval(code, namespace)
            if inspect.iscoroutine(result):
                await result
        except haptera.HapteraError as error:
            print(f"Traceback (most recent call last):\n{type(error).__module__}.{type(error).__name__}: {error}")
    vars(builtins).pop("_", None)  # a prompt keeps the last value there
    return output.getvalue()


def shown(example: doctest.Example) -> str:
    """What an example says that it prints; of a traceback its last line, as `run` has it."""
    if example.exc_msg is None:
        return example.want
    return f"Traceback (most recent call last):\n{example.exc_msg}"


def test_the_names_that_a_program_begins_with_have_examples() -> None:
    assert set(EXAMPLES) >= WITH_EXAMPLES


@pytest.mark.parametrize("name", sorted(EXAMPLES))
async def test_an_example_gives_what_it_shows(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    checker = doctest.OutputChecker()
    async with node(listen="tcp", storage="memory") as url, haptera.connect(url) as db:
        monkeypatch.setenv("HAPTERA_URL", url)
        namespace: dict[str, Any] = {"__name__": "__main__", "haptera": haptera, "db": db}
        for example in _parser.get_examples(EXAMPLES[name]):
            printed = await run(example, namespace)
            wanted = shown(example)
            assert checker.check_output(wanted, printed, doctest.ELLIPSIS), (
                f"{name}: {example.source}shows\n{wanted}and gives\n{printed}"
            )


async def test_an_example_that_gives_something_else_is_seen() -> None:
    first, second = _parser.get_examples(">>> 1 + 1\n3\n>>> x = 2\n")
    assert await run(first, {}) == "2\n"
    assert not doctest.OutputChecker().check_output(first.want, "2\n", 0)
    assert await run(second, {}) == ""
