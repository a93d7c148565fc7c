"""Makes `haptera.sync` of the asynchronous sources, and the pipeline of the calls of a database.

usage: python -m tools.generate_sync            writes the files
       python -m tools.generate_sync --check    writes nothing; ends with 1 if one is not current

A method is made of the syntax tree of its source: the signature without `async`, the docstring without `await`, and a
body that has the coroutine run by the loop's thread. The wire machine, the recipes and the leases are asyncio's, with
tasks of their own that go on between two calls. So the bodies are not translated: both surfaces run the same code.
`tools/sync_classes.py` has the table of the classes.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.sync_classes import (
    ATTRIBUTES,
    BODIES,
    DIRECT,
    ITEMS,
    LEFT_OUT,
    MODULES,
    MORE,
    OPENINGS,
    RETURNS,
    SLOTS,
    UNDO,
    Made,
    MadeFunction,
)
from tools.sync_docstrings import DOCSTRINGS, quoted, translated, without_examples
from tools.sync_imports import imports_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = ROOT / "src" / "haptera"
TARGET: Final = SOURCE / "sync"
FACADES: Final = {made.name for _, classes in MODULES.values() for made in classes}
#: The module of each class.
HOMES: Final = {
    made.name: f"haptera.sync.{path.removesuffix('.py')}" for path, (_, classes) in MODULES.items() for made in classes
}
NOTE: Final = "# Generated from {} by tools/generate_sync.py (make generate). Do not edit.\n"

Function = ast.FunctionDef | ast.AsyncFunctionDef

#: The special methods of classes for `async with` and `async for`, and theirs for threads.
SPECIAL: Final = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}
KEPT: Final = {"__contains__", "__len__", "__iter__", "__index__"}
#: The other name of `aclose`.
CLOSE: Final = '''
def close(self) -> None:
    """As `aclose`, by the name that ``contextlib.closing`` knows."""
    self.aclose()
'''.strip()


class Maker:
    """Makes one class."""

    def __init__(self, made: Made) -> None:
        self.made = made
        self.functions: dict[str, list[tuple[Function, str]]] = {}  # the last source counts
        self.docstring = ""
        for source in made.sources:
            path, _, name = source.partition(":")
            class_ = class_of(path, name)
            self.docstring = ast.get_docstring(class_) or ""
            found: dict[str, list[tuple[Function, str]]] = {}
            for node in class_.body:
                if isinstance(node, Function):
                    found.setdefault(node.name, []).append((node, path))
            self.functions.update(found)

    def text(self) -> str:
        """Return the class."""
        name = self.made.name
        parameters = {
            "Facade": f'["Async{name}[T]"]' if self.made.generic else f'["Async{name}"]',
            "Arriving": f'["Async{name}", {ITEMS.get(name)}]',
        }.get(self.made.base, "")
        bases = f"{self.made.base}{parameters}, Generic[T]" if self.made.generic else f"{self.made.base}{parameters}"
        body = [quoted(DOCSTRINGS.get(name) or translated(name, self.docstring), 4)]
        body.append(f"__slots__ = ({''.join(f'{slot!r}, ' for slot in SLOTS.get(name, ()))})")
        body += [part.strip() for part in [MORE.get(name, "")] if part]
        body += [attribute(*each) for each in ATTRIBUTES.get(name, ())]
        for function_name, versions in self.functions.items():
            if self.wanted(function_name):
                body += [self.function(node, path) for node, path in versions]
        if "aclose" in self.functions and "close" not in self.functions:
            body.append(CLOSE)
        return f"class {name}({bases}):\n" + textwrap.indent("\n\n".join(body), "    ")

    def wanted(self, name: str) -> bool:
        """Whether a method is one for threads."""
        if f"{self.made.name}.{name}" in LEFT_OUT:
            return False
        return name in SPECIAL or name in KEPT or not name.startswith("_")

    def function(self, node: Function, path: str) -> str:
        """Return one method."""
        qualified = f"{self.made.name}.{node.name}"
        decorators = [ast.unparse(each) for each in node.decorator_list if ast.unparse(each) != "opening"]
        returns = ast.unparse(node.returns) if node.returns else "None"
        outer = RETURNS.get(qualified) or for_threads(returns)
        if node.name == "__aiter__" or (node.name == "__aenter__" and returns == self.made.name):
            outer = "Self"
        lines = [f"@{each}" for each in decorators]
        name = SPECIAL.get(node.name, node.name)
        lines.append(f"def {name}({signature(node, path)}) -> {outer}:")
        documentation = ast.get_docstring(node)
        body = []
        if documentation and not name.startswith("__"):
            body.append(quoted(DOCSTRINGS.get(qualified) or translated(qualified, documentation)))
        if "overload" in decorators:
            body.append("...")
        else:
            body.append((BODIES.get(qualified) or self.body(node, returns)).strip())
        return "\n".join(lines) + "\n" + textwrap.indent("\n".join(body), "    ")

    def body(self, node: Function, returns: str) -> str:
        """Return the statements of a method that is nothing but a call."""
        qualified = f"{self.made.name}.{node.name}"
        if any(ast.unparse(each) == "property" for each in node.decorator_list):
            return wrapped(returns, f"self._inner.{node.name}")
        call = f"self._inner.{node.name}({arguments(node)})"
        if node.name == "__aenter__":
            entered = f"self._run({later(call)}, undo=lambda _: self._inner.__aexit__(None, None, None))"
            return f"{entered}\nreturn self" if returns in {"Self", self.made.name} else wrapped(returns, entered)
        if node.name == "__aiter__":
            return "return self"
        if node.name == "__anext__":
            taken = self.taken(call, returns)
            return f"try:\n    {wrapped(returns, taken)}\nexcept StopAsyncIteration:\n    raise StopIteration from None"
        if isinstance(node, ast.AsyncFunctionDef) and "AsyncGenerator" not in returns:
            return wrapped(returns, self.taken(call, returns))
        if qualified in DIRECT or self.made.name == "Pipeline" or node.name in KEPT:
            return wrapped(returns, call)
        return wrapped(returns, f"self._on_loop({later(call)})")

    def taken(self, call: str, returns: str) -> str:
        """Return the expression of a coroutine's result, with that which undoes it."""
        undo = UNDO.get(returns.removesuffix(" | None"))
        if undo is None:
            return f"self._run({later(call)})"
        if returns.endswith("| None"):
            return f"self._run({later(call)}, undo=lambda found: nothing() if found is None else found.{undo}())"
        return f"self._run({later(call)}, undo=lambda found: found.{undo}())"


def later(call: str) -> str:
    """Return a function that makes a call."""
    return call.removesuffix("()") if call.endswith("()") else f"lambda: {call}"


@cache
def tree_of(path: str) -> ast.Module:
    """Return the syntax tree of a source."""
    return ast.parse((SOURCE / path).read_text(encoding="utf-8"))


def class_of(path: str, name: str) -> ast.ClassDef:
    """Return the class of that name in a source."""
    for node in tree_of(path).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise LookupError(f"{path} has no class {name}")


def signature(node: Function, path: str) -> str:
    """Return the parameters as a thread gives them: defaults that are constants of the source as their values."""
    arguments = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(arguments, Function)
    taken = arguments.args
    for each in [*taken.args, *taken.kwonlyargs, *([taken.kwarg] if taken.kwarg else [])]:
        if each.annotation is not None:
            each.annotation = ast.parse(for_threads(ast.unparse(each.annotation)), mode="eval").body
    taken.defaults = [literal(each, path) for each in taken.defaults]
    taken.kw_defaults = [None if each is None else literal(each, path) for each in taken.kw_defaults]
    return ast.unparse(taken)


def literal(default: ast.expr, path: str) -> ast.expr:
    """Return the value of a named constant in place of its name."""
    if not isinstance(default, ast.Name) or default.id == "DEFAULT":
        return default
    module = importlib.import_module(f"haptera.{path.removesuffix('.py').replace('/', '.')}")
    return ast.Constant(getattr(module, default.id))


def arguments(node: Function) -> str:
    """Return the arguments that hand the parameters on."""
    taken = node.args
    given = [each.arg for each in taken.args if each.arg != "self"]
    given += [f"{each.arg}={each.arg}" for each in taken.kwonlyargs]
    given += [f"**{taken.kwarg.arg}"] if taken.kwarg else []
    return ", ".join(given)


def for_threads(annotation: str) -> str:
    """Return a type as a thread sees it."""
    annotation = re.sub(r"\bAsyncGenerator\[(.+), None\]", r"Items[\1]", annotation)
    annotation = re.sub(r"\bAsyncIterator\[", "Items[", annotation)
    annotation = re.sub(r"\bAsyncIterable\[", "Iterable[", annotation)
    annotation = re.sub(r"Callable\[\[Transaction\], Awaitable\[T\]\]", "Callable[[Transaction], T]", annotation)
    return re.sub(r"\bAwaitable\[", "End[", annotation)


def wrapped(returns: str, expression: str) -> str:
    """Return the statements that give a result as a thread sees it."""
    kind = re.split(r"[\[ ]", for_threads(returns))[0]
    if returns == "None":
        return expression
    if returns == "set[Peer]":
        return f"return {{Peer(each, self) for each in {expression}}}"
    if returns.endswith(" | None") and kind in FACADES:
        return f"found = {expression}\nreturn None if found is None else {kind}(found, self)"
    if kind in FACADES | {"Items", "End"}:
        return f"return {kind}({expression}, self)"
    return f"return {expression}"


def attribute(name: str, kind: str, docstring: str) -> str:
    """Return a property that shows an attribute of the asynchronous object."""
    return f"@property\ndef {name}(self) -> {kind}:\n" + textwrap.indent(
        f"{quoted(docstring)}\nreturn self._inner.{name}", "    "
    )


def module(name: str) -> str:
    """Return one file of `haptera.sync`."""
    purpose, classes = MODULES[name]
    sources = sorted({source.partition(":")[0] for made in classes for source in made.sources})
    body = "\n\n\n".join(Maker(made).text() for made in classes)
    body = body if "[T]" not in body and " T:" not in body else f'T = TypeVar("T")\n\n\n{body}'
    defined = {made.name for made in classes}
    note = NOTE.format(", ".join(sources))
    return f'{wrapped_comment(note)}"""{purpose}"""\n\n{imports_of(body, defined, HOMES)}\n{body}\n'


def wrapped_comment(note: str) -> str:
    """Return a comment in lines."""
    return "\n".join(textwrap.wrap(note, 119, subsequent_indent="# ")) + "\n"


def pipeline() -> str:
    """Return the asynchronous pipeline: each call of a key, and transact, as a call that waits to be sent."""
    sources = (("client/calls/key_calls.py", "KeyCalls"), ("client/calls/transaction_calls.py", "TransactionCalls"))
    parts = [
        pending(node, path)
        for path, name in sources
        for node in class_of(path, name).body
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_") and node.name != "run"
    ]
    body = (
        "class Pipeline(PendingCalls):\n"
        '    """Calls that are sent together. Made by `Database.pipeline`, for ``async with db.pipeline() as p``.\n\n'
        "    Each call gives a `Pending`, whose ``result()`` is there when the block has ended. Arguments are looked\n"
        "    at when the call is sent. `Pipeline.send` has the results of the calls before it there within the block.\n"
        '    """\n\n    __slots__ = ("_db",)\n\n'
        "    def __init__(self, db: Database, *, check: bool) -> None:\n"
        "        super().__init__(check=check)\n        self._db = db\n\n"
        "    def _sends_at_once(self) -> bool:\n        return self._db._channel.sends_at_once\n\n"
        + textwrap.indent("\n\n".join(parts), "    ")
    )
    note = wrapped_comment(NOTE.format(", ".join(path for path, _ in sources)))
    purpose = '"""A pipeline: calls of a database that are collected and sent together."""'
    return f"{note}{purpose}\n\n{imports_of(body, {'Pipeline'}, {}, inside='client')}\n{body}\n"


def pending(node: ast.AsyncFunctionDef, path: str) -> str:
    """Return a call of the pipeline."""
    returns = f"Pending[{ast.unparse(node.returns) if node.returns else 'None'}]"
    decorators = [f"@{ast.unparse(each)}\n" for each in node.decorator_list]
    head = f"{''.join(decorators)}def {node.name}({signature(node, path)}) -> {returns}:"
    if decorators:
        return f"{head} ..."
    documentation = (
        without_examples(ast.get_docstring(node) or "").replace("The new version is in `revision`.", "").rstrip()
    )
    return (
        head
        + "\n"
        + textwrap.indent(f"{quoted(documentation)}\nreturn self._add(self._db.{node.name}({arguments(node)}))", "    ")
    )


def openings() -> str:
    """Return the file of the functions that open something."""
    body = "\n\n\n".join(opening(made) for made in OPENINGS)
    body += """


def _begun(inner: AsyncDatabase) -> Database:
    db = Database(inner)
    try:
        return db.__enter__()
    except BaseException:
        db.aclose()
        raise
"""
    note = wrapped_comment(NOTE.format(", ".join(sorted({made.source.partition(":")[0] for made in OPENINGS}))))
    purpose = '"""The beginnings: databases, peers and servers, for threads."""'
    return f"{note}{purpose}\n\n{imports_of(body, set(), HOMES)}\n{body}\n"


def opening(made: MadeFunction) -> str:
    """Return one function that opens something."""
    path, _, name = made.source.partition(":")
    # The last of that name: overloads come before it.
    node = [each for each in tree_of(path).body if isinstance(each, Function) and each.name == name][-1]
    parameters = signature(node, path)
    documentation = translated(name, ast.get_docstring(node) or "")
    if made.keyword:
        parameters = parameters.replace("**options", f"{made.keyword}, **options")
        word = made.keyword.partition(":")[0]
        documentation = documentation.replace("    options: ", f"    {word}: {made.documentation}\n    options: ")
    given = arguments(node).replace("services=services", "services=threads.services")
    given = given.replace("on_peer=on_peer", "on_peer=None if on_peer is None else threads.met(on_peer)")
    body = made.body.strip().replace("{arguments}", given)
    returns = made.returns or (ast.unparse(node.returns) if node.returns else "None")
    forms = [
        f"@overload\ndef {made.name}({parameters.replace(parameter, text)}) -> {result}: ...\n\n\n"
        for parameter, text, result in made.forms
    ]
    return (
        "".join(forms)
        + f"def {made.name}({parameters}) -> {returns}:\n"
        + textwrap.indent(f"{quoted(documentation, 4)}\n{body}", "    ")
    )


def formatted(text: str) -> str:
    """Return a source in the house's format."""
    command = [sys.executable, "-m", "ruff"]
    made = text
    for step in (["check", "--select", "I", "--fix", "--quiet", "-"], ["format", "--quiet", "-"]):
        done = subprocess.run([*command, *step], input=made, capture_output=True, text=True, check=True, cwd=ROOT)
        made = done.stdout
    return made


def files() -> Iterator[tuple[Path, str]]:
    """Give each file that is made, and its text."""
    yield SOURCE / "client" / "calls" / "pipeline.py", formatted(pipeline())
    yield TARGET / "openings.py", formatted(openings())
    for name in MODULES:
        yield TARGET / name, formatted(module(name))


def write_or_check(made: Iterable[tuple[Path, str]], description: str) -> int:
    """Write files that are made, or with ``--check`` say which are not current. Return the exit status."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if a file is not current")
    check = parser.parse_args().check
    status = 0
    for path, text in made:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if check:
            print(f"{path.relative_to(ROOT)} is not current: make generate", file=sys.stderr)
            status = 1
        else:
            path.write_text(text, encoding="utf-8")
            tree_of.cache_clear()  # the pipeline for threads is made of the pipeline
    return status


if __name__ == "__main__":
    sys.exit(write_or_check(files(), "makes haptera.sync of the asynchronous sources"))
