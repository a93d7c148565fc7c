"""Each program of docs/database.md runs as it stands, and prints what the page shows under it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from haptera.testing import node_in_thread

PAGE = (Path(__file__).parents[2] / "docs" / "database.md").read_text(encoding="utf-8")
SECTIONS = dict(section.partition("\n")[::2] for section in PAGE.split("\n## ")[1:])
SECONDS_MAX = 60


def program_of(section: str) -> tuple[str, str]:
    """The program of a section, and the lines under it that it prints."""
    ((program, shown),) = re.findall(r"^```python\n(.*?)^```\n\n((?:    [^\n]*\n)+)", section, re.MULTILINE | re.DOTALL)
    return program, textwrap.dedent(shown)


@pytest.mark.parametrize("title", SECTIONS)
def test_a_program_prints_what_is_shown(title: str, tmp_path: Path) -> None:
    program, shown = program_of(SECTIONS[title] + "\n")
    with node_in_thread(listen="tcp") as url:
        process = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            env={**os.environ, "HAPTERA_URL": url},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
    assert (process.returncode, process.stderr, process.stdout) == (0, "", shown)
