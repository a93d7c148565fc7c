"""The script of docs/redis.md runs as it stands there, and the replies are those that the page tells."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from haptera.testing.directories import socket_directory
from tests.integration.test_restore_drill import follow
from tests.unit.node.process import serving

PAGE = (Path(__file__).parents[2] / "docs" / "redis.md").read_text(encoding="utf-8")
SCRIPTS = [found[1] for found in re.finditer(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not on PATH (Debian: redis-tools)")
def test_the_user_of_the_page_writes_its_own_keys_by_redis_cli_and_no_others() -> None:
    [script] = SCRIPTS
    folder = Path(socket_directory())  # whose path is short enough for a socket
    with serving(folder / "haptera-data", "--listen", "resp://127.0.0.1:0", auth=True) as node:
        node.ready()  # at its own protocol, and then at the second listener
        port = node.ready().url.rpartition(":")[2]
        lines = [line.replace("redis-cli", f"redis-cli -p {port}") for line in script.splitlines()]
        replies = follow([f"redis-cli -p {port} set greeting hello", *lines], folder)
        assert [line for line in replies if line] == [
            "NOAUTH Authentication required.",
            *["added"] * 3,
            "OK",
            "NOPERM No permissions to access a key",
        ]
