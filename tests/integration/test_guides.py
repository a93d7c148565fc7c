"""The programs and commands of docs/start.md print what the page shows, in its order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from haptera.testing import node_in_thread

PAGE = Path(__file__).parents[2] / "docs" / "start.md"
SECONDS_MAX = 60
#: A program with the lines under it, or a command with the lines under it.
PIECE = re.compile(
    r"^```python\n(?P<program>.*?)^```\n(?:\n(?P<shown>(?:    [^\n]*\n)+))?"
    r"|^    \$ (?P<command>[^\n]+)\n(?P<answer>(?:    (?!\$ )[^\n]*\n)*)",
    re.MULTILINE | re.DOTALL,
)


class Piece(NamedTuple):
    """The arguments of a process, and what the page shows of its output."""

    command: list[str]
    shown: str


def pieces(folder: Path) -> Iterator[Piece]:
    """Give the programs and commands of the page in their order, with their sockets in the folder."""
    text = PAGE.read_text(encoding="utf-8").replace("unix:///tmp/", f"unix://{folder}/")
    for found in PIECE.finditer(text):
        if found["command"] is not None:
            yield Piece(["bash", "-c", found["command"]], textwrap.dedent(found["answer"]))
        else:
            shown = found["shown"]
            yield Piece([sys.executable, "-W", "error", "-c", found["program"]], textwrap.dedent(shown or ""))


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are for a shell, and bash is not installed")
def test_the_page_prints_what_it_shows(short_path: Path) -> None:
    ran = 0
    with node_in_thread(listen="tcp") as url:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # `haptera` is this environment's
        environment = {**os.environ, "HAPTERA_URL": url, "PATH": path}
        for piece in pieces(short_path):
            process = subprocess.run(
                piece.command,
                env=environment,
                cwd=short_path,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SECONDS_MAX,
                check=False,
            )
            assert (process.stdout, process.stderr) == (piece.shown, ""), piece.command
            ran += 1
    assert ran == 7
