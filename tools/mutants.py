"""Breaks the product on purpose, one small change at a time, and says which changes no test notices.

usage: python -m tools.mutants                      all lists of tests/mutants
       python -m tools.mutants storage commit       these lists
       python -m tools.mutants -k sync              the mutants whose names hold a text
       python -m tools.mutants --list               their names alone

Ends with 1 if a mutant survives. A list is a TOML file of `[[mutant]]` tables:

    name     what the mutant does wrong, in words
    file     the file that it changes
    before   a text that is in the file once
    after    what stands there in the mutant
    tests    the tests, files or folders of which one must fail

It works on copies. tests/unit/test_mutants.py checks that the lists fit the sources, and runs them in `make test-long`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
LISTS: Final = ROOT / "tests" / "mutants"
COPIED: Final = ("src", "tests", "tools", "spec", "docs", "fuzz", "bench", "examples")
COPIED_FILES: Final = ("pyproject.toml", "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile")

#: A mutant that hangs its tests for so long is noticed, by whoever waits for them.
TIMEOUT_S: Final = 600

ALL_PASSED: Final = 0
#: Exit codes of pytest.
SOME_FAILED: Final = 1

Fate = Literal["killed", "hangs", "SURVIVES", "CANNOT RUN"]


class Mutant(NamedTuple):
    """One change and the tests that must notice it."""

    area: str
    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def source(self, root: Path = ROOT) -> str:
        """Return the changed file's text. Raises ValueError if the list does not fit the sources."""
        text = (root / self.file).read_text(encoding="utf-8")
        found = text.count(self.before)
        if found != 1:
            raise ValueError(f"{self.area}, {self.name!r}: {self.file} has the text to change {found} times, not once")
        changed = text.replace(self.before, self.after)
        if changed == text:
            raise ValueError(f"{self.area}, {self.name!r}: nothing is changed")
        return changed


def areas() -> list[str]:
    """Return the names of all lists."""
    return sorted(path.stem for path in LISTS.glob("*.toml"))


def load(area: str) -> list[Mutant]:
    """Return the mutants of one list."""
    document = tomllib.loads((LISTS / f"{area}.toml").read_text(encoding="utf-8"))
    return [
        Mutant(area, table["name"], table["file"], table["before"], table["after"], tuple(table["tests"]))
        for table in document["mutant"]
    ]


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a copy of what tests need, removed at the end. What Python has compiled comes with it, and saves seconds."""
    with tempfile.TemporaryDirectory(prefix="haptera-mutant-") as folder:
        copy = Path(folder)
        for name in COPIED:
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.pyc.*"))
        for name in COPIED_FILES:
            shutil.copy(ROOT / name, copy / name)
        yield copy


def run(tests: Sequence[str], root: Path) -> Fate:
    """Run tests in a copy of the sources, up to the first that fails."""
    environ = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    environ.pop("HYPOTHESIS_PROFILE", None)  # the tests that everyone runs are those that must notice
    command = [sys.executable, "-m", "pytest", "-n0", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        ended = subprocess.run(command, cwd=root, env=environ, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return "hangs"
    if ended.returncode == SOME_FAILED:
        return "killed"
    if ended.returncode == ALL_PASSED:
        return "SURVIVES"
    sys.stderr.write(ended.stdout.decode(errors="replace")[-2000:])
    return "CANNOT RUN"


def fate(mutant: Mutant) -> Fate:
    """Run the tests of one mutant."""
    with scratch() as root:
        (root / mutant.file).write_text(mutant.source(), encoding="utf-8")
        return run(mutant.tests, root)


def main() -> int:
    """Run the chosen mutants and print what became of each."""
    parser = argparse.ArgumentParser(description="Breaks the product on purpose, and says what no test notices.")
    parser.add_argument("areas", nargs="*", metavar="LIST", help=f"lists of tests/mutants: {', '.join(areas())}")
    parser.add_argument("-k", dest="text", default="", help="only the mutants whose names hold this text")
    parser.add_argument("--list", action="store_true", help="print their names alone")
    options = parser.parse_args()
    mutants = [mutant for area in options.areas or areas() for mutant in load(area) if options.text in mutant.name]
    survivors = 0
    for mutant in mutants:
        known = "" if options.list else fate(mutant)
        survivors += known not in {"", "killed", "hangs"}
        print(f"{known:10} {mutant.area}: {mutant.name}".strip(), flush=True)
    print(f"{len(mutants)} mutants, {survivors} of them survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
