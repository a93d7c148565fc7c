"""The restore drill of docs/operations.md runs as it stands there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from haptera.testing.directories import socket_directory
from tests.integration.commands import run
from tests.support.processes import start
from tests.unit.node.process import serving

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def test_the_drill_ends_with_a_second_node_on_the_restored_data() -> None:
    block = re.search(r"### The drill\n.*?^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert block is not None
    folder = Path(socket_directory())  # whose path is short enough for a socket
    tools = os.path.dirname(sys.executable)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HAPTERA_")}
    with serving(folder / "haptera-data") as node:
        assert run("set", "greeting", "hello", "--url", node.ready().url).code == 0
        drill = start(
            ["bash", "-euo", "pipefail", "-c", block[1]],
            cwd=folder,
            env={**environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
        )
        out, err = drill.communicate(timeout=60)
        assert drill.returncode == 0, (out, err)
        assert out.splitlines()[-2:] == ["1", "hello"]
        node.signal()
        assert node.end() == 0
    assert [path.name for path in folder.iterdir()] == ["haptera-data"]
