"""The README's tour and every example run from the wheel with all extras, in an environment without anything else."""

from __future__ import annotations

import ast
import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_readme import FIRST_SCREEN, PROGRAMS, SHOWN, TOUR, comparable, sessions
from tools.distributions import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.distribution.conftest import Maker
    from tests.distribution.environments import Cell


def imported(path: Path) -> set[str]:
    """The packages that a program imports."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module is not None}
    return {name.partition(".")[0] for name in found}


#: The examples that need no package of others.
EXAMPLES = [
    path for path in sorted((ROOT / "examples").glob("*.py")) if imported(path) <= {"haptera", *sys.stdlib_module_names}
]
#: Parts of what they print.
PARTS = {
    "config_store.py": "KEY_EXISTS not_applied\n",
    "embedded.py": "run 1\nrun/000001 ",
    "smart_home.py": "panel: good night, kitchen at 23.0, attic at 12.0\n",
    "sqlite_rows.py": "another call brought the other 10000 rows; each came once: True\n",
    "two_peers.py": "10001 NO_SUCH_ROOM\n",
}

IMPORTS = """
import importlib, pkgutil
import haptera
for module in pkgutil.walk_packages(haptera.__path__, "haptera."):
    if module.name != "haptera.__main__":
        importlib.import_module(module.name)
        print(module.name)
"""


def test_the_command_lines_of_the_tour_print_what_is_shown(environment: Maker, short_path: Path) -> None:
    made = environment("all")
    ran = 0
    with made.node(short_path) as node:
        for command, shown in sessions():
            done = made.run(["bash", "-c", command], short_path, HAPTERA_URL=node.url)
            assert comparable(done.stdout) == comparable(shown), (command, done.stderr)
            ran += 1
    assert ran == TOUR.count("\n    $ ")


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_of_the_tour_prints_what_is_shown(number: int, environment: Maker, short_path: Path) -> None:
    made = environment("all")
    program = PROGRAMS[number].replace("/tmp/home.sock", str(short_path / "home.sock"))
    with made.node(short_path) as node:
        assert made.run_program(program, short_path, HAPTERA_URL=node.url) == SHOWN[number]


def test_the_program_of_the_first_screen_runs(environment: Maker, short_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", FIRST_SCREEN, re.DOTALL)
    assert "staging" in environment("all").run_program(program, short_path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(path: Path, environment: Maker, short_path: Path) -> None:
    made = environment("all")
    with made.node(short_path) as node:
        shown = made.run_program(path, short_path, HAPTERA_URL=node.url)
    assert PARTS.get(path.name, "") in shown


def test_the_examples_that_need_no_package_of_others_are_found() -> None:
    assert {path.name for path in EXAMPLES} >= set(PARTS)


def test_every_module_is_imported_without_a_warning(environment: Maker, cell: Cell, short_path: Path) -> None:
    """Of the oldest dependencies some warn of themselves with a Python that is newer than they are."""
    made = environment("all", beside=("pytest>=8.4",))
    warnings = ("-W", "error") if cell.versions == "newest" else ()
    done = made.run([made.python, "-I", *warnings, "-c", IMPORTS], short_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "haptera.cli.shell" in done.stdout.splitlines()
