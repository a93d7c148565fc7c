"""The house style of CONTRIBUTING.md, as far as a machine can tell and the linter does not."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from haptera.errors import Code
from tests.support.sources import TREES

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Generated from spec/errors.toml: they say which number a code is.
GENERATED: Final = frozenset({"errors/code_table.py", "errors/codes.py"})
NUMBERS: Final = frozenset(int(code) for code in Code)
#: Nouns and other words that end as a verb does in the third person, and begin docstrings.
NO_VERBS: Final = frozenset({"As", "Its", "This"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


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


def test_an_error_is_named_and_not_numbered() -> None:
    assert [
        f"{name}:{line}: write Code.{{name}}"
        for name, tree in TREES.items()
        if name not in GENERATED
        for line in numbered(tree)
    ] == []


def test_a_name_is_described_above_it() -> None:
    assert [
        f"{name}:{line}: describe it with `#:`, above" for name, tree in TREES.items() for line in described_below(tree)
    ] == []


def test_a_logger_has_the_name_of_all_loggers() -> None:
    assert {name: found for name, tree in TREES.items() if (found := set(loggers(tree)) - {"_logger"})} == {}


def test_a_docstring_begins_in_the_imperative() -> None:
    """A verb is known by another docstring that begins with it."""
    words = [(name, line, word) for name, tree in TREES.items() for line, word in first_words(tree)]
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
