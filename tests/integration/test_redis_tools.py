"""The tools of Redis beside a node: redis-cli, typed and piped, and redis-benchmark."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import termios
from typing import TYPE_CHECKING

import pytest

from haptera.testing import node_in_thread
from tests.support.processes import start
from tests.support.redis_wire import pack

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    shutil.which("redis-cli") is None or shutil.which("redis-benchmark") is None,
    reason="redis-cli and redis-benchmark are not on PATH (Debian: redis-tools)",
)

#: Seconds that a tool may take, on a machine with much else to do.
TOOL_SECONDS_MAX = 60


@pytest.fixture
def port() -> Iterator[str]:
    """The port of a node that speaks RESP."""
    with node_in_thread(storage="memory", listen="resp://127.0.0.1:0") as url:
        yield url.rpartition(":")[2]


def tool(*command: str, given: str | None = None) -> str:
    """Run a tool, with a text to read, and return its output."""
    process = start(command, stdin=-1 if given is not None else None)
    try:
        output, errors = process.communicate(given, timeout=TOOL_SECONDS_MAX)
    finally:
        process.kill()
    assert process.returncode == 0, (output, errors)
    return output


def test_redis_cli_runs_the_commands_of_its_arguments_and_of_a_pipe(port: str) -> None:
    assert tool("redis-cli", "-p", port, "SET", "a", "1") == "OK\n"
    assert tool("redis-cli", "-3", "-p", port, "GET", "a") == "1\n"
    lines = 'SET b "two words"\nGET b\nINCR a\nLPUSH list x\nMULTI\nGET a\nEXEC\n'
    assert tool("redis-cli", "-p", port, given=lines).splitlines() == [
        "OK",
        "two words",
        "2",
        "ERR unknown command 'LPUSH', with args beginning with: 'list' 'x' ",
        "",
        "OK",
        "QUEUED",
        "2",
    ]


def test_redis_cli_inserts_a_mass_of_keys_and_lists_them(port: str) -> None:
    commands = b"".join(pack((b"SET", b"key:%d" % number, b"%d" % number)) for number in range(1000))
    process = start(["redis-cli", "-p", port, "--pipe"], stdin=-1)
    output, errors = process.communicate(commands.decode(), timeout=TOOL_SECONDS_MAX)
    assert "errors: 0, replies: 1000" in output, errors
    listed = tool("redis-cli", "-p", port, "--scan", "--pattern", "key:1?")
    assert sorted(listed.split()) == [f"key:{number}" for number in range(10, 20)]
    largest = tool("redis-cli", "-p", port, "--bigkeys")
    assert "1000 strings with 2890 bytes" in largest
    assert "Sampled 1000 keys" in tool("redis-cli", "-p", port, "--memkeys")


def test_redis_cli_is_typed_at_on_a_terminal(port: str) -> None:
    """It asks for the table of commands first, and shows the replies of a RESP3 that was chosen by hand."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 120))
    environment = {**os.environ, "TERM": "xterm", "HOME": "/nonexistent"}
    on_terminal = 'exec redis-cli -p "$0" <"$1" >"$1" 2>&1'
    process = start(["sh", "-c", on_terminal, port, os.ttyname(slave)], env=environment)
    try:
        _shown_until(master, "127.0.0.1")
        for line, expected in (("SET a 1", "OK"), ("HELLO 3", '"server" => "redis"'), ("GET missing", "(nil)")):
            os.write(master, line.encode() + b"\r")
            _shown_until(master, expected)
        os.write(master, b"QUIT\r")
        assert process.wait(TOOL_SECONDS_MAX) == 0
    finally:
        process.kill()
        process.communicate()
        os.close(slave)
        os.close(master)


def _shown_until(master: int, expected: str) -> None:
    """Read what a terminal shows until that is some text and a prompt: the tool forgets what is typed before it."""
    shown = ""
    while not re.search(r":\d+> ", "".join(shown.split(expected, 1)[1:])):
        ready, _, _ = select.select([master], [], [], TOOL_SECONDS_MAX)
        assert ready, shown
        shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(master, 4096).decode())


@pytest.mark.parametrize("pipeline", ["1", "16"])
def test_redis_benchmark_measures_a_node(port: str, pipeline: str) -> None:
    tests = "ping_inline,ping_mbulk,set,get,incr,mset"
    output = tool("redis-benchmark", "-p", port, "-n", "400", "-c", "8", "-P", pipeline, "-t", tests, "--csv")
    rates = {line.split(",")[0].strip('"'): float(line.split(",")[1].strip('"')) for line in output.splitlines()[1:]}
    assert set(rates) == {"PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"}
    assert all(rate > 0 for rate in rates.values())
