"""ARCHITECTURE.md tells the life of one `db.set` by the files that it passes, in order, and it passes these."""

from __future__ import annotations

import re
import sys
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING

from haptera.testing.clock import run
from tools.call_files import set_files

if TYPE_CHECKING:
    import pytest

ARCHITECTURE = Path(__file__).parents[2] / "ARCHITECTURE.md"
HEADING = "## The life of one `db.set`\n"
ADVICE = (
    "ARCHITECTURE.md names other files (-) than `python -m tools.call_files set` sees (+): "
    "name each in the step in which the call enters it first"
)


def told(text: str) -> list[str]:
    """Return the files that the steps of the section name, in order."""
    section = text.partition(HEADING)[2].partition("\n## ")[0]
    return [path for step in re.findall(r"^\d+\. .*(?:\n   .*)*", section, re.MULTILINE) for path in paths(step)]


def paths(step: str) -> list[str]:
    """Return the files that a step names."""
    return re.findall(r"`([\w/]+\.py)`", step)


def difference(told: list[str], passed: list[str]) -> str:
    """Return what is missing, too much or out of order, a file a line; nothing where there is none."""
    lines = list(unified_diff(told, passed, lineterm="", n=1))[3:]
    return "\n".join((ADVICE, *lines)) if lines else ""


def test_the_life_of_a_set_names_the_files_that_it_passes_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    # Other tests of the process import OpenTelemetry, and then each call passes the files of spans as well.
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    found = difference(told(ARCHITECTURE.read_text(encoding="utf-8")), list(run(set_files())))
    assert not found, found


def test_it_is_told_in_a_dozen_steps() -> None:
    section = ARCHITECTURE.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    assert [int(number) for number in re.findall(r"^(\d+)\. ", section, re.MULTILINE)] == list(range(1, 13))


def test_a_file_that_was_moved_is_shown_at_its_place() -> None:
    text = (
        f"# A\n\n{HEADING}\n1. First `a/b.py`,\n   then `a/c.py`.\n2. Then `d/e.py`.\n\n## Next\n\n1. Not `f/g.py`.\n"
    )
    assert told(text) == ["a/b.py", "a/c.py", "d/e.py"]
    assert difference(["a/b.py", "a/c.py"], ["a/b.py", "a/c.py"]) == ""
    assert difference(["a/b.py", "a/c.py"], ["a/b.py", "x/c.py"]).splitlines()[1:] == [" a/b.py", "-a/c.py", "+x/c.py"]
