"""Each promise of spec/consistency.md names the tests that hold it, and they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "spec" / "consistency.md").read_text(encoding="utf-8")

#: The number of each promise, and all that belongs to it.
PROMISES = re.findall(r"^- \*\*C(\d+)\*\* (.*?)(?=^- |^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)


def test_the_promises_are_numbered_in_order() -> None:
    assert [int(number) for number, _ in PROMISES] == list(range(1, len(PROMISES) + 1))
    assert len(PROMISES) == TEXT.count("**C")


@pytest.mark.parametrize(("number", "text"), PROMISES, ids=[f"C{number}" for number, _ in PROMISES])
def test_a_promise_names_tests_that_exist(number: str, text: str) -> None:
    named = re.findall(r"`(tests/[^`]+)`", text)
    assert named, f"no test holds C{number}"
    for test in named:
        path, _, function = test.partition("::")
        assert function == "" or function in _functions(ROOT / path), test
        assert (ROOT / path).is_file(), test


def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
