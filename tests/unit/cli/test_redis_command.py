"""The command of redis-cli in the greeting of `haptera serve`."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from haptera.cli.redis_command import redis_command
from haptera.testing import node_in_thread


@pytest.mark.parametrize(
    ("url", "user", "command"),
    [
        ("resp://127.0.0.1:6379", None, "redis-cli ping"),
        ("resp://127.0.0.1:7000", None, "redis-cli -p 7000 ping"),
        ("resp://0.0.0.0:7000", None, "redis-cli -p 7000 ping"),
        ("resp://[::]:6379", None, "redis-cli -h ::1 ping"),
        ("resps://db.example:7000", None, "redis-cli -h db.example -p 7000 --tls ping"),
        ("resp+unix:///run/my%20node/s", None, "redis-cli -s '/run/my node/s' ping"),
        ("resp://127.0.0.1:7000", "ada's", """redis-cli -p 7000 --user 'ada'"'"'s' --askpass ping"""),
    ],
)
def test_it_reaches_the_first_listener_for_resp(url: str, user: str | None, command: str) -> None:
    assert redis_command(["haptera://127.0.0.1:7457", url, "resp://127.0.0.1:9"], user) == command


def test_there_is_none_without_such_a_listener() -> None:
    assert redis_command(["haptera://127.0.0.1:7457", "haptera+unix:///s"], None) is None


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not on PATH (Debian: redis-tools)")
def test_it_is_answered() -> None:
    with node_in_thread(listen="resp://127.0.0.1:0") as url:
        command = redis_command([url], None)
        assert command is not None
        assert subprocess.run(command.split(), capture_output=True, check=True).stdout == b"PONG\n"
