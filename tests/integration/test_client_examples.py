"""The programs under examples/ do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from haptera.testing import node_in_thread

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *args: str, **environ: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", str(EXAMPLES / name), *args],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_config_store() -> None:
    with node_in_thread(listen="tcp") as url:
        lines = run("config_store.py", HAPTERA_URL=url)
    assert lines == ["config/mail at version 21 has 22 settings", "KEY_EXISTS not_applied"]


def test_embedded(tmp_path: Path) -> None:
    first, second = (run("embedded.py", str(tmp_path / "state")) for _ in range(2))
    assert first[0] == "run 1"
    assert second[0] == "run 2"
    assert [line.split()[0] for line in second[1:]] == ["run/000002", "run/000001"]


def test_two_peers() -> None:
    assert run("two_peers.py") == [
        "kitchen: 21.5",
        "kitchen was: 19.5",
        "kitchen was: 20.0",
        "kitchen was: 21.5",
        "display: kitchen is at 23.0",
        "loaded: 3",
        "10001 NO_SUCH_ROOM",
    ]
