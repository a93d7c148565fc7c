"""The house style of CONTRIBUTING.md, as far as a machine can tell and the linter does not."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from haptera.errors import Code

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES: Final = Path(__file__).parents[2] / "src/haptera"
#: Generated from spec/errors.toml: they say which number a code is.
GENERATED: Final = frozenset({"errors/code_table.py", "errors/codes.py"})
NUMBERS: Final = frozenset(int(code) for code in Code)
#: Nouns and other words that end as a verb does in the third person, and begin docstrings.
NO_VERBS: Final = frozenset({"As", "Its", "This"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, ast.Module]:
    return {
        path.relative_to(SOURCES).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(SOURCES.rglob("*.py"))
    }


def numbered(tree: ast.Module) -> Iterator[int]:
    """Yield the lines on which an error's code stands as a number."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in NUMBERS:
            yield node.lineno


def described_below(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of strings that describe the name above them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef):
            for statement, following in zip(node.body, node.body[1:], strict=False):
                if isinstance(statement, ast.Assign | ast.AnnAssign) and _is_text(following):
                    yield following.lineno


def loggers(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module gives to its loggers."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("logging.getLogger("):
            yield from (ast.unparse(target) for target in node.targets)


def first_words(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the first word of each function's docstring, and its line; a property is described by a noun."""
    for node in ast.walk(tree):
        if not isinstance(node, Function) or any("property" in ast.unparse(each) for each in node.decorator_list):
            continue
        text = ast.get_docstring(node)
        if text:
            yield node.lineno, text.split()[0].rstrip(".,:;")


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def imperatives(word: str) -> set[str]:
    """Return the words of which ``word`` may be the third person: `Pass` of `Passes`, `Carry` of `Carries`."""
    if not word.endswith("s") or word.endswith("ss"):
        return set()
    return {word[:-1], word.removesuffix("es"), word.removesuffix("ies") + "y"} - {word}


@pytest.mark.parametrize("name", sorted(modules().keys() - GENERATED))
def test_an_error_is_named_and_not_numbered(name: str) -> None:
    assert [f"{name}:{line}: write Code.{{name}}" for line in numbered(modules()[name])] == []


@pytest.mark.parametrize("name", modules())
def test_a_name_is_described_above_it(name: str) -> None:
    assert [f"{name}:{line}: describe it with `#:`, above" for line in described_below(modules()[name])] == []


@pytest.mark.parametrize("name", modules())
def test_a_logger_has_the_name_of_all_loggers(name: str) -> None:
    assert set(loggers(modules()[name])) <= {"_logger"}


def test_a_docstring_begins_in_the_imperative() -> None:
    """A verb is known by another docstring that begins with it."""
    words = [(name, line, word) for name, tree in modules().items() for line, word in first_words(tree)]
    used = {word for _, _, word in words}
    assert [
        f"{name}:{line}: {word}" for name, line, word in words if word not in NO_VERBS and imperatives(word) & used
    ] == []


def test_the_checks_see_what_breaks_them() -> None:
    tree = ast.parse(
        'A = 4001\n"""Below."""\nlog = logging.getLogger(__name__)\n'
        'def f():\n    """Returns it."""\n\n\n@property\ndef g():\n    """Names of all."""\n'
    )
    assert list(numbered(tree)) == [1]
    assert list(described_below(tree)) == [2]
    assert list(loggers(tree)) == ["log"]
    assert list(first_words(tree)) == [(4, "Returns")]
    assert imperatives("Returns") == {"Return", "Returnsy"}
    assert imperatives("Passes") >= {"Pass"}
    assert imperatives("Carries") >= {"Carry"}
    assert imperatives("Pass") == set()
