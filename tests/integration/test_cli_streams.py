"""Commands whose standard streams are closed, full or without a reader (docs/command-line.md, "Standard streams")."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.peer import dial
from haptera.testing import node_in_thread
from tests.integration.commands import run
from tests.support.processes import end_group, start
from tests.unit.node.process import ANY_PORT, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANGES = (("set", "k", "new"), ("del", "k"), ("incr", "n"), ("import", "-"))


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with node_in_thread(listen="tcp") as url:
        monkeypatch.setenv("HAPTERA_URL", url)
        assert run("set", "k", "old").code == 0
        yield url


def redirected(
    redirection: str, *args: str, stdin: bytes = b"", buffered: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Runs ``haptera`` with ``args`` as a shell does whose line ends with ``redirection``. Without ``buffered`` each
    write of Python is one of the system, as PYTHONUNBUFFERED has it.
    """
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "haptera", *args],
        input=stdin,
        capture_output=True,
        check=False,
        env=environ if buffered else {**environ, "PYTHONUNBUFFERED": "1"},
    )


def content() -> str:
    return run("scan").text


@pytest.mark.parametrize(
    ("command", "redirection"),
    [*((command, ">&-") for command in CHANGES), (CHANGES[0], ">&- 2>&-"), (CHANGES[0], "1</dev/null")],
)
def test_nothing_is_changed_where_the_result_cannot_be_written(
    url: str, command: tuple[str, ...], redirection: str
) -> None:
    """Trap: standard streams that are closed, full or without a reader."""
    ended = redirected(redirection, *command, stdin=b"a\tb\n")
    said = b"" if "2>&-" in redirection else b"haptera: standard output is closed\n"
    assert (ended.returncode, ended.stderr) == (14, said)
    assert content() == "k\told\n"


def test_nothing_is_changed_where_nobody_reads_the_result(url: str) -> None:
    """Trap: standard streams that are closed, full or without a reader."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        ended = subprocess.run(
            [sys.executable, "-m", "haptera", "set", "k", "new"],
            stdout=gone,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (14, b"haptera: standard output has no reader\n")
    assert content() == "k\told\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here, which stands for a full disk")
@pytest.mark.parametrize("buffered", [True, False])
def test_a_change_whose_result_finds_the_disk_full_is_told_as_applied(url: str, buffered: bool) -> None:
    ended = redirected(">/dev/full", "set", "k", "new", buffered=buffered)
    said = b"haptera: the change was applied, but cannot write the result: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (14, said)
    assert content() == "k\tnew\n"


@pytest.mark.parametrize("command", [("get", "k"), ("metrics",), ("--help",)])
def test_a_result_without_a_place_to_go_is_no_answer(url: str, command: tuple[str, ...]) -> None:
    ended = redirected(">&-", *command)
    assert ended.returncode == 14
    assert b"Traceback" not in ended.stderr
    assert ended.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("redirection", "command", "code"),
    [
        ("<&- 2>&-", ("get", "k"), 0),
        ("2>&-", ("get", "missing"), 1),
        ("2>/dev/full", ("get", "missing"), 1),
        ("2>/dev/full", ("get",), 2),
    ],
)
def test_an_error_that_cannot_be_told_keeps_its_exit_code(
    url: str, redirection: str, command: tuple[str, ...], code: int
) -> None:
    ended = redirected(redirection, *command)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, b"old\n" if code == 0 else b"", b"")


@pytest.mark.parametrize("command", [("set", "k", "-"), ("import", "-")], ids=lambda command: command[0])
def test_a_closed_standard_input_is_not_an_empty_one(url: str, command: tuple[str, ...]) -> None:
    ended = redirected("<&-", *command)
    assert ended.returncode == 2
    assert b"cannot read standard input" in ended.stderr
    assert content() == "k\told\n"


class Unheard:
    """`haptera serve` in a process whose standard streams are redirected; its address is that of its local socket."""

    def __init__(self, path: Path, redirection: str, *, program: str = "") -> None:
        self.url = f"haptera+unix://{path}/d/haptera.sock"
        arguments = ["serve", "--data-dir", str(path / "d"), "--listen", ANY_PORT]
        how = ["-c", program] if program else ["-m", "haptera"]
        self.process = start(["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, *how, *arguments], cwd=path)

    def __enter__(self) -> Unheard:
        while run("get", "k", "--url", self.url).code == 3:
            assert self.process.poll() is None
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            end_group(self.process.pid)
        self.process.communicate()


@pytest.mark.parametrize("redirection", ["2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_node_serves_without_standard_streams(short_path: Path, redirection: str) -> None:
    """Trap: standard streams that are closed, full or without a reader."""
    with Unheard(short_path, redirection) as node:
        assert run("set", "k", "v", "--url", node.url).code == 0
        for number in range(3) if Path("/proc/self/fd").exists() else ():
            # Descriptors that were closed have not become a listener or a file of the store.
            mode = os.stat(f"/proc/{node.process.pid}/fd/{number}").st_mode
            assert stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait() == 0


def test_a_node_goes_on_when_the_reader_of_its_log_ends(short_path: Path) -> None:
    with serving(short_path / "d") as node:
        node.ready()
        assert node.process.stderr is not None
        node.process.stderr.close()
        assert run("set", "k", "v", "--url", node.url).code == 0
        node.signal()
        assert node.process.wait() == 0
        node.process.stderr = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - `communicate` closes it


def test_a_terminal_that_closes_ends_a_node_as_sigterm_does(short_path: Path) -> None:
    with serving(short_path / "d") as node:
        node.ready()
        node.signal(signal.SIGHUP)
        assert node.end() == 0
        assert node.names()[-2:] == ["stopping", "stopped"]


def test_a_second_hangup_is_no_impatience(short_path: Path) -> None:
    """The kernel and the shell of a terminal that closes send one each. An unread scan keeps the node from ending."""

    async def held() -> None:
        async with dial(node.url) as peer:
            for number in range(60):
                await peer.call("kv", "set", msgspec.msgpack.encode([f"k{number}", bytes(100_000)]))
            scan = peer.stream("kv", "scan", msgspec.msgpack.encode([]))
            pages = aiter(scan)
            await anext(pages)
            node.signal(signal.SIGHUP)
            while "stopping" not in node.names():
                assert await asyncio.to_thread(node.read_event) is not None
            node.signal(signal.SIGHUP)
            for _ in range(20):  # more than was on its way: it goes on sending after it has heard the signal
                await anext(pages)
            node.signal(signal.SIGTERM)
            assert await asyncio.to_thread(node.process.wait) == 128 + signal.SIGTERM
            await scan.aclose()

    with serving(short_path / "d") as node:
        node.ready()
        asyncio.run(held())


def test_a_node_under_nohup_outlives_its_terminal(short_path: Path) -> None:
    ignoring: Any = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        node = Unheard(short_path, "2>&-")
    finally:
        signal.signal(signal.SIGHUP, ignoring)
    with node:
        node.process.send_signal(signal.SIGHUP)
        assert run("set", "k", "v", "--url", node.url).code == 0
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait() == 0
