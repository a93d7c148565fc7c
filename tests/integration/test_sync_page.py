"""Every example of docs/sync.md is run, in order, as one program."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import haptera.sync
from haptera.sync.services import HANDLER_THREADS
from haptera.testing import node_in_thread

PAGE = (Path(__file__).parents[2] / "docs" / "sync.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_example_runs() -> None:
    assert len(EXAMPLES) == PAGE.count("```python")
    with node_in_thread(listen="tcp") as url:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", "\n".join(EXAMPLES)],
            env={"HAPTERA_URL": url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_page_says_how_many_handlers_run() -> None:
    for opening in (haptera.sync.listen, haptera.sync.dial):
        assert inspect.signature(opening).parameters["handler_threads"].default == HANDLER_THREADS
    assert f"handle {HANDLER_THREADS} requests at once" in PAGE
