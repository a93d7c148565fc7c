"""The guides for new users, docs/start.md and docs/tutorial.md, print what they show, in the order of the page."""

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

DOCS = Path(__file__).parents[2] / "docs"
SECONDS_MAX = 60
#: A program with the lines under it, or a command with the lines under it.
PIECE = re.compile(
    r"^```python\n(?P<program>.*?)^```\n(?:\n(?P<shown>(?:    [^\n]*\n)+))?"
    r"|^    \$ (?P<command>[^\n]+)\n(?P<answer>(?:    (?!\$ )[^\n]*\n)*)",
    re.MULTILINE | re.DOTALL,
)


class Piece(NamedTuple):
    """The arguments of a process, and what a page shows of its output; None where it shows none."""

    command: list[str]
    shown: str | None


def pieces(page: str, folder: Path) -> Iterator[Piece]:
    """Give the programs and commands of a page in their order, with their sockets in the folder."""
    text = (DOCS / page).read_text(encoding="utf-8").replace("unix:///tmp/", f"unix://{folder}/")
    for found in PIECE.finditer(text):
        if found["command"] is not None:
            yield Piece(["bash", "-c", found["command"]], textwrap.dedent(found["answer"]))
        elif "async def test_" in found["program"]:
            test = f"import pathlib; pathlib.Path('test_page.py').write_text({found['program']!r}, encoding='utf-8')"
            run = "import pytest, sys; sys.exit(pytest.main(['-q', '-o', 'asyncio_mode=auto', 'test_page.py']))"
            yield Piece([sys.executable, "-c", f"{test}\n{run}"], None)
        else:
            shown = found["shown"]
            yield Piece([sys.executable, "-W", "error", "-c", found["program"]], textwrap.dedent(shown or ""))


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are for a shell, and bash is not installed")
@pytest.mark.parametrize(("page", "count"), [("start.md", 7), ("tutorial.md", 7)])
def test_a_guide_prints_what_it_shows(page: str, count: int, short_path: Path) -> None:
    ran = 0
    with node_in_thread(listen="tcp") as url:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # `haptera` is this environment's
        environment = {**os.environ, "HAPTERA_URL": url, "PATH": path}
        for piece in pieces(page, short_path):
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
            if piece.shown is not None:
                assert (process.stdout, process.stderr) == (piece.shown, ""), piece.command
            else:
                assert process.returncode == 0, process.stdout
            ran += 1
    assert ran == count
