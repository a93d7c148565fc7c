"""Each step of docs/tutorial.md does what the page shows, in its order and in one folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE: Final = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK: Final = re.compile(r"^```(python|ini|console)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Seconds that anything may take. The machine may have much else to do.
PATIENCE_S: Final = 60.0


class Step(NamedTuple):
    """A block of a page: a file, the commands of the reader's terminal, or those of another one, which go on."""

    language: str
    title: str
    text: str

    def commands(self) -> Iterator[tuple[str, str]]:
        """Each command with the lines under it."""
        yield from re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", self.text, re.MULTILINE)


def steps() -> list[Step]:
    text = PAGE.read_text(encoding="utf-8")
    found = [Step(*match.groups(default="")) for match in BLOCK.finditer(text)]
    assert len(found) == len(re.findall(r"^```(?:python|ini|console)", text, re.MULTILINE))
    return found


def comparable(output: str) -> str:
    """Without how long something took."""
    return re.sub(r"in \d+\.\d+s", "in 0.1s", output)


class Terminals:
    """The terminals of a reader, all in one folder."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HAPTERA_")}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {
            **inherited,
            "PATH": path,
            # The usual port may be another node's.
            "HAPTERA_LISTEN": "haptera://127.0.0.1:0",
            # The plugins of this project's tests print lines of their own.
            "PYTEST_ADDOPTS": "-p no:randomly -p no:xdist",
        }

    def run(self, command: str) -> str:
        process = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert process.stderr == ""
        return process.stdout

    def keep_running(self, command: str, shown: str) -> None:
        """Start a program that goes on until the end of the page, and wait until it has printed its lines."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._stack.callback(self._end, process)
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in shown.splitlines()] == shown.splitlines(keepends=True)
        if command == "haptera serve":
            self._wait_for_node(process)

    def _wait_for_node(self, process: subprocess.Popen[str]) -> None:
        last = time.monotonic() + PATIENCE_S
        while not (self.folder / "haptera-data" / "haptera.sock").exists():
            assert process.poll() is None
            assert time.monotonic() < last
            time.sleep(0.05)

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are for a shell, and bash is not installed")
def test_each_step_prints_what_is_shown(short_path: Path) -> None:
    with ExitStack() as stack:
        terminals = Terminals(short_path, stack)
        for step in steps():
            if step.language != "console":
                (short_path / step.title).write_text(textwrap.dedent(step.text))
                continue
            for command, shown in step.commands():
                if step.title:
                    terminals.keep_running(command, shown)
                else:
                    assert comparable(terminals.run(command)) == comparable(shown), command
