"""Draws random pieces of the sources, for a reader who shall say from the names of the files where each belongs.

usage: python -m tools.snippets --seed 7 --key /tmp/key      print 20 snippets, and write their places to a file
       python -m tools.snippets --seed 7 --files             print the files to choose from

A name is right if a stranger finds the place of a line by it: of 20 snippets 19 or more. The same seed draws the same
snippets from the same tree. A snippet is five consecutive lines of code, without blank lines, comments and docstrings.
At least one of them begins a statement in the body of a function, so that a snippet of imports, `__slots__` or
`__all__` alone, which says nothing of its subject, is never drawn. Each line of the sources that can begin a snippet is
equally likely.
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import sys
import tokenize
from pathlib import Path
from typing import Final, NamedTuple

SOURCE: Final = Path(__file__).resolve().parent.parent / "src"
LINES: Final = 5
#: Tokens that make no line one of code.
SILENT: Final = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)
FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED: Final = (ast.Module, ast.ClassDef, *FUNCTIONS)


class Snippet(NamedTuple):
    """Five lines of a file, and the number of the first."""

    path: str
    line: int
    text: str


def docstring(node: ast.AST) -> ast.stmt | None:
    """Return the statement that is the docstring of a module, a class or a function."""
    if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        return node.body[0]
    return None


def code_lines(text: str, tree: ast.Module) -> list[int]:
    """Return the numbers of the lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        documentation = docstring(node)
        if documentation is not None:
            lines.difference_update(range(documentation.lineno, (documentation.end_lineno or 0) + 1))
    written = text.splitlines()
    return sorted(line for line in lines if written[line - 1].strip())


def body_lines(tree: ast.Module) -> set[int]:
    """Return the lines on which a statement of a function's body begins."""
    lines: set[int] = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)):
        documentation = docstring(function)
        for statement in function.body:
            if statement is not documentation:
                lines.update(node.lineno for node in ast.walk(statement) if isinstance(node, ast.stmt))
    return lines


def snippets_of(path: Path) -> list[Snippet]:
    """Return all snippets of a file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    code, body, written = code_lines(text, tree), body_lines(tree), text.splitlines()
    found = []
    for first in range(len(code) - LINES + 1):
        numbers = code[first : first + LINES]
        if not body.isdisjoint(numbers):
            piece = "\n".join(written[number - 1] for number in numbers)
            found.append(Snippet(path.relative_to(SOURCE).as_posix(), numbers[0], piece))
    return found


def files() -> list[Path]:
    """Return the sources in order."""
    return sorted(SOURCE.rglob("*.py"))


def draw(seed: int, count: int) -> list[Snippet]:
    """Return ``count`` snippets, no two of one file."""
    choice = random.Random(seed)
    everything = [snippet for path in files() for snippet in snippets_of(path)]
    drawn: dict[str, Snippet] = {}
    while len(drawn) < count:
        snippet = choice.choice(everything)
        drawn.setdefault(snippet.path, snippet)
    return list(drawn.values())


def main(argv: list[str] | None = None) -> int:
    """Print snippets; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Draws snippets of five lines from src, to be placed by the names of the files alone. At least one "
        "line of each is a statement of a function's body: imports, __slots__ and __all__ alone are left out."
    )
    parser.add_argument("--seed", type=int, default=0, help="draw the snippets of this number")
    parser.add_argument("--count", type=int, default=20, help="how many snippets, each of another file (default: 20)")
    parser.add_argument("--key", type=Path, help="write the file and the line of each to this file")
    parser.add_argument("--files", action="store_true", help="print the files to choose from, and no snippet")
    options = parser.parse_args(argv)
    if options.files:
        print("\n".join(path.relative_to(SOURCE).as_posix() for path in files()))
        return 0
    drawn = draw(options.seed, options.count)
    for number, snippet in enumerate(drawn, 1):
        print(f"--- {number}\n{snippet.text}\n")
    if options.key is not None:
        lines = (f"{number} {snippet.path}:{snippet.line}\n" for number, snippet in enumerate(drawn, 1))
        options.key.write_text("".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
