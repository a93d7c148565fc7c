"""The restore drills of docs/operations.md run as they stand there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from haptera.testing.directories import socket_directory
from tests.integration.commands import run
from tests.support.processes import start
from tests.unit.node.process import serving

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def drill(heading: str) -> list[str]:
    """The lines of the script under a heading of the page."""
    block = re.search(rf"### {heading}\n.*?^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1].splitlines()


def follow(lines: list[str], folder: Path) -> list[str]:
    """Run lines of a script as an operator does, in a folder. Returns the lines of its output."""
    tools = os.path.dirname(sys.executable)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HAPTERA_")}
    script = start(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        cwd=folder,
        env={**environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
    )
    out, err = script.communicate(timeout=120)
    assert script.returncode == 0, (out, err)
    return out.splitlines()


def test_the_drill_ends_with_a_second_node_on_the_restored_data() -> None:
    folder = Path(socket_directory())  # whose path is short enough for a socket
    with serving(folder / "haptera-data") as node:
        assert run("set", "greeting", "hello", "--url", node.ready().url).code == 0
        assert follow(drill("The drill"), folder)[-2:] == ["1", "hello"]
        node.signal()
        assert node.end() == 0
    assert [path.name for path in folder.iterdir()] == ["haptera-data"]


@pytest.mark.long
def test_the_drill_of_two_master_keys_ends_with_the_backup_and_the_archive_in_one_store() -> None:
    """The backup is under the first data key and the first master key; the write after it is in an archive under both
    others.
    """
    folder = Path(socket_directory())
    archive = folder / "haptera-archive"
    *steps, cleared = drill("A backup from before a change of the master key")
    with serving(folder / "haptera-data", "--archive-dir", str(archive)) as node:
        assert run("set", "greeting", "hello", "--url", node.ready().url).code == 0
        follow(steps, folder)
        node.signal()
        assert node.end() == 0
    old, new, restored = folder / "old.key", folder / "new.key", folder / "drill-data"
    assert old.read_bytes() != new.read_bytes()
    assert run("storage", "verify", str(restored), "--master-key-file", str(old)).code == 12, "it is under the new key"
    with serving(restored, "--master-key-file", str(new)) as node:
        url = node.ready().url
        assert run("get", "greeting", "--url", url).text == "hello\n"
        assert run("get", "written", "--url", url).text == "later\n"
        node.signal()
        assert node.end() == 0
    follow([cleared], folder)
    assert {path.name for path in folder.iterdir()} == {"haptera-data", "haptera-archive"}
