"""Every line of the README's tour does what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import haptera
from haptera.testing import node_in_thread

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIRST_SCREEN = README.partition("## Two commands")[0]
TOUR = README.partition("## A one-minute tour")[2].partition("\n## ")[0]
PROGRAMS = re.findall(r"```python\n(.*?)```", TOUR, re.DOTALL)
SECONDS_MAX = 60


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """What a program sees beside a served store: its URL, and the environment's commands on PATH."""
    with node_in_thread(listen="tcp") as url:
        # First on PATH, so that `haptera` is this environment's.
        yield {**os.environ, "HAPTERA_URL": url, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def sessions() -> Iterator[tuple[str, str]]:
    """Each command line of the tour with the lines that the README shows under it."""
    for command, shown in re.findall(r"^    \$ (.+)\n((?:    (?!\$ ).*\n)*)", TOUR, re.MULTILINE):
        yield command, re.sub(r"^    ", "", shown, flags=re.MULTILINE)


def comparable(output: str) -> str:
    """Without how long something took."""
    return re.sub(r"\d+\.\d s$", "0.0 s", output, flags=re.MULTILINE)


@pytest.mark.skipif(shutil.which("bash") is None, reason="the tour's lines are for a shell, and bash is not installed")
def test_the_command_lines_print_what_is_shown(environment: dict[str, str], tmp_path: Path) -> None:
    ran = 0
    for command, shown in sessions():
        process = subprocess.run(
            ["bash", "-c", command],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert comparable(process.stdout) == comparable(shown), (command, process.stderr)
        ran += 1
    assert ran == TOUR.count("\n    $ ")


def test_the_ten_lines_of_the_first_screen_run(short_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", FIRST_SCREEN, re.DOTALL)
    assert len([line for line in program.splitlines() if line]) <= 10
    command = [sys.executable, "-W", "error", "-c", program]
    process = subprocess.run(command, cwd=short_path, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert process.returncode == 0, process.stderr
    assert "staging" in process.stdout
    assert "1000" in process.stdout


def test_the_figures_of_the_first_screen_are_those_that_were_measured() -> None:
    measured = (ROOT / "bench/README.md").read_text(encoding="utf-8")
    changes, ratio, serial = re.findall(r"(\d+,\d+) changes|(\d\.\d+)\s+times", FIRST_SCREEN)
    # Of rows with the same cells the first: it is of `redis_compare.py`.
    rows = {tuple(cell.strip() for cell in line.split("|")[1:3]): line for line in reversed(measured.splitlines())}
    assert changes[0] in rows["set, 50 in flight", "haptera"]
    assert rows["set, 50 in flight", "redis-py, pool"].endswith(f" {ratio[1]}                 |")
    assert rows["set, serial", "redis-py, one connection"].endswith(f" {serial[1]}                 |")


def test_the_status_names_the_version_and_the_oldest_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"version {haptera.__version__}," in FIRST_SCREEN
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in FIRST_SCREEN


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_the_programs_run(number: int, environment: dict[str, str], short_path: Path) -> None:
    program = PROGRAMS[number].replace("/tmp/home.sock", str(short_path / "home.sock"))
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment,
        cwd=short_path,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout == SHOWN[number]


SHOWN = (
    """\
b'prod' True
VERSION_MISMATCH (4002): the key has another version {key: 'config/env', expected: 0, actual: 1}
config/env b'prod'
""",
    "blue 1\n",
    """\
b'21.5 in the kitchen'
b'21.3'
b'21.4'
b'21.5'
""",
)
