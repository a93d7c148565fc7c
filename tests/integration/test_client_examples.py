"""The programs under examples/ do what they say."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import haptera
from haptera.testing import node_in_thread
from tests.support.processes import without_slow_turns

EXAMPLES = Path(__file__).parents[2] / "examples"


def start(name: str, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", str(EXAMPLES / name), *args],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def run(name: str, *args: str, **environ: str) -> list[str]:
    ended = start(name, *args, **environ)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_config_store() -> None:
    with node_in_thread(listen="tcp") as url:
        lines = run("config_store.py", HAPTERA_URL=url)
        again = run("config_store.py", HAPTERA_URL=url)
    assert lines == ["settings/mail at version 21 has 22 settings", "KEY_EXISTS not_applied"]
    assert again[0].startswith("settings/mail at version 42 ")


def test_config_store_goes_with_what_the_tour_of_the_readme_leaves() -> None:
    async def tour(url: str) -> None:
        async with haptera.connect(url) as db:
            await db.set("config/env", "prod")

    with node_in_thread(listen="tcp") as url:
        asyncio.run(tour(url))
        assert len(run("config_store.py", HAPTERA_URL=url)) == 2


def test_config_store_without_a_node(unused_port: int) -> None:
    place = f"127.0.0.1:{unused_port}"
    ended = start("config_store.py", HAPTERA_URL=f"haptera://{place}")
    assert ended.returncode == 1
    refused = f"cannot connect to {place}: Connection refused"
    line = f"no connection to haptera://{place} in time ({refused}): is a node there?\n"
    assert without_slow_turns(ended.stderr) == line


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
