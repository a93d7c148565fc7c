"""`haptera serve` as a process: how it starts, what it says, and the code with which it ends."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from haptera.errors import ConnectionLost
from haptera.peer import dial
from haptera.storage import DataDirectory, Log, LogEntry, OsFileSystem, open_keyring
from tests.support.planted import SIGNING_KEY as KEY
from tests.support.processes import end_group, start
from tests.unit.node.process import ANY_PORT, serving

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
SECONDS_MAX = 60
# With `haptera` on PATH, as in an environment that is active.
ACTIVE = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}


async def call(url: str, service: str, method: str, *argument: object) -> object:
    peer = await dial(url)
    try:
        return decode(await peer.call(service, method, encode(argument)))
    finally:
        await peer.aclose()


def ends_with(path: Path, *options: str) -> tuple[int, dict[str, object]]:
    """The exit code of a node that cannot serve, and the line that says why."""
    with serving(path, *options) as node:
        code = node.end()
        assert node.names()[-1] == "cannot_serve"
        assert node.names().count("cannot_serve") == 1
        assert "listening" not in node.names()
        return code, node.events[-1]


def filled(path: Path) -> None:
    """A data directory with one write in it."""
    with serving(path) as node:
        asyncio.run(call(node.ready().url, "kv", "set", "a", b"1"))
        node.signal()
        assert node.end() == 0


def test_it_serves_says_so_and_sigterm_ends_it_with_0(tmp_path: Path) -> None:
    path = tmp_path / "d"
    with serving(path) as node:
        node.ready()
        assert asyncio.run(call(node.url, "kv", "set", "a", b"1")) == [1, None]
        local = path / "haptera.sock"
        assert stat.S_IMODE(local.stat().st_mode) == 0o600
        assert asyncio.run(call(f"haptera+unix://{local}", "kv", "get", "a")) == [b"1", 1, None]
        node.signal()
        assert node.end() == 0
        assert node.names()[:3] == ["recovered", "key_file_beside_data", "listening"]
        assert node.names()[-2:] == ["stopping", "stopped"]
        assert not local.exists()
        assert node.process.stdout is not None
        assert node.process.stdout.read() == ""
    with serving(path) as node:
        assert asyncio.run(call(node.ready().url, "kv", "get", "a")) == [b"1", 1, None]
        status = asyncio.run(call(node.url, "server", "status"))
        assert isinstance(status, dict)
        assert (status["durability"], status["encrypted"], status["revision"]) == ("sync", True, 1)
        node.signal(signal.SIGINT)
        assert node.end() == 0


def test_what_is_under_way_is_answered_before_it_ends(tmp_path: Path) -> None:
    async def writes(url: str, pid: int) -> list[int]:
        """Writes until the node has ended; the versions that it answered with."""
        peer = await dial(url)
        versions = []

        async def writer(name: str) -> None:
            while True:
                try:
                    answer = await peer.request("kv", "set", encode([name, b"x"]), timeout=None)
                except ConnectionLost:
                    return  # sent when the last answer had been given: it cannot have been applied, see below
                if answer.failure is not None:
                    assert (answer.failure.code, answer.failure.outcome) == (1014, "not_applied")
                    return
                versions.append(decode(answer.payload)[0])
                if len(versions) == 200:
                    os.kill(pid, signal.SIGTERM)

        await asyncio.gather(*(writer(f"k{number}") for number in range(20)))
        await peer.aclose()
        return versions

    path = tmp_path / "d"
    with serving(path) as node:
        versions = asyncio.run(writes(node.ready().url, node.process.pid))
        assert node.end() == 0
        assert node.events[-1]["revision"] == max(versions) == len(versions), "each change that was made was answered"


def test_text_logs_are_lines_for_people(tmp_path: Path) -> None:
    with serving(tmp_path / "d", "--log-format", "text", environ=ACTIVE) as node:
        lines = []
        assert node.process.stderr is not None
        for line in node.process.stderr:
            lines.append(line.rstrip())
            if line.startswith("Ctrl-C"):
                break
        node.signal()
        assert node.process.wait() == 0
    (url,) = [line.split()[1] for line in lines if line.startswith("  listening   haptera://")]
    assert any(line.endswith(f"INFO listening url={url}") for line in lines)
    assert "  durability  sync (an answered write is on the disk)" in lines
    assert any(line.startswith("  encryption  AES-256-GCM") for line in lines)
    assert f"  haptera set greeting hello --url {url}" in lines
    assert f"  haptera status --url {url}" in lines


def test_in_the_default_directory_the_client_needs_no_url(tmp_path: Path) -> None:
    with serving(tmp_path / "haptera-data", "--log-format", "text", environ=ACTIVE) as node:
        assert node.process.stderr is not None
        for line in node.process.stderr:
            if "haptera set" in line:
                assert line == "  haptera set greeting hello\n"
                break
        else:
            pytest.fail("nothing was said of what to type")


def test_options_come_from_the_environment_too(tmp_path: Path) -> None:
    with serving(tmp_path / "d", environ={"HAPTERA_DURABILITY": "os"}) as node:
        status = asyncio.run(call(node.ready().url, "server", "status"))
        assert isinstance(status, dict)
        assert status["durability"] == "os"
        assert "durability_os" in node.names()


def test_a_data_directory_in_use_ends_with_10(tmp_path: Path) -> None:
    path = tmp_path / "d"
    with serving(path) as node:
        node.ready()
        code, event = ends_with(path)
        assert code == event["exit_code"] == 10
        assert str(node.process.pid) in str(event["reason"])
        assert asyncio.run(call(node.url, "kv", "set", "a", b"1")) == [1, None], "the first goes on"
        assert (path / "haptera.sock").exists(), "its socket is not taken away"


def test_damage_ends_with_11_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "d"
    filled(path)
    (segment,) = (path / "log").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    code, event = ends_with(path)
    assert code == 11
    assert str(segment) in str(event["reason"])


def test_a_missing_or_wrong_key_ends_with_12(tmp_path: Path) -> None:
    path, other = tmp_path / "d", tmp_path / "other"
    filled(path)
    filled(other)
    (path / "keys").write_bytes((other / "keys").read_bytes())
    assert ends_with(path)[0] == 12
    (path / "keys").unlink()
    assert ends_with(path)[0] == 12
    assert not (path / "keys").exists()


def test_a_newer_format_ends_with_13(tmp_path: Path) -> None:
    path = tmp_path / "d"
    directory = DataDirectory.open(OsFileSystem(), str(path))
    log = Log.open(OsFileSystem(), directory, open_keyring(directory), segment_size=65536)
    assert list(log.replay()) == []
    log.append(LogEntry(1, 1, 0, encode([[["kv.touch", "a", 5]]])))
    log.close()
    directory.close()
    code, event = ends_with(path)
    assert code == 13
    assert "kv.touch" in str(event["reason"])


def test_what_cannot_be_written_ends_with_14(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert ends_with(tmp_path / "file")[0] == 14


def test_an_address_in_use_ends_with_15_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"haptera://127.0.0.1:{taken.getsockname()[1]}"
        code, event = ends_with(tmp_path / "d", "--listen", url)
    assert code == 15
    assert event["reason"] == f"cannot listen on {url}: Address already in use"
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_does_not_exist_ends_with_15_before_anything_is_made(short_path: Path) -> None:
    code, event = ends_with(
        short_path / "d", "--listen", f"haptera+unix://{short_path}/s", "--socket-group", "no such group"
    )
    assert (code, event["reason"]) == (15, "there is no group 'no such group'")
    assert list(short_path.iterdir()) == []


def test_a_socket_in_use_ends_with_15_before_anything_is_made(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(short_path / "s"))
        taken.listen()
        code, _ = ends_with(short_path / "d", "--listen", f"haptera+unix://{short_path}/s")
    assert code == 15
    assert [path.name for path in short_path.iterdir()] == ["s"]


def test_a_socket_without_a_directory_ends_with_15_before_anything_is_made(short_path: Path) -> None:
    url = f"haptera+unix://{short_path}/missing/s"
    code, event = ends_with(short_path / "d", "--listen", url)
    assert (code, event["reason"]) == (15, f"cannot listen on {url}: No such file or directory")
    assert list(short_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--durability", "maybe"), "--durability: expected sync or os, not 'maybe'"),
        (("--listen", "http://127.0.0.1"), "--listen: "),
        (("--config", "none.toml"), "--config none.toml: No such file or directory"),
    ],
)
def test_a_wrong_option_ends_with_15_and_one_line(tmp_path: Path, options: tuple[str, str], named: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "haptera", "serve", *options], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 15
    assert result.stderr.startswith(f"haptera: {named}")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "nothing was made"


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """The first one waits for a connection whose scan nobody reads."""

    async def held(url: str) -> None:
        peer = await dial(url)
        for number in range(3):
            await peer.call("kv", "set", encode([f"k{number}", bytes(1 << 20)]))
        scan = peer.stream("kv", "scan", encode([]))
        await anext(aiter(scan))
        node.signal()
        while (event := await asyncio.to_thread(node.read_event)) is not None and event["event"] != "stopping":
            pass
        node.signal()
        assert await asyncio.to_thread(node.process.wait) == 128 + signal.SIGTERM
        await peer.aclose()

    with serving(tmp_path / "d") as node:
        asyncio.run(held(node.ready().url))
        assert "stopped" not in node.names()


IDLE_CLIENT = """
import asyncio, sys, haptera
async def main():
    async with haptera.connect(sys.argv[1]) as db:
        await db.set("k", b"v")
        print("idle", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def test_a_frozen_idle_client_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """Trap: a peer that owes nothing is waited for at shutdown.

    Its kernel takes all it is sent, and it never closes. The drain may take an hour, so a wait for it has no end here.
    """
    with serving(tmp_path / "d", "--drain-timeout", "3600") as node:
        client = start([sys.executable, "-c", IDLE_CLIENT, node.ready().url])
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "idle\n"
            os.kill(client.pid, signal.SIGSTOP)
            node.signal()
            assert node.end() == 0
        finally:
            end_group(client.pid)
            client.communicate()


def test_with_a_key_the_key_is_nowhere_but_in_its_file(tmp_path: Path) -> None:
    key, path = tmp_path / "signing.key", tmp_path / "d"
    key.write_bytes(KEY)
    key.chmod(0o644)
    with serving(path, "--signing-key-file", str(key)) as node:
        url = f"{node.ready().url}?signed=psk&key_file={key}"
        assert asyncio.run(call(url, "kv", "set", "a", b"1")) == [1, None]
        with pytest.raises(ConnectionLost, match="SIGNATURE_MISMATCH"):
            asyncio.run(call(node.url, "kv", "get", "a"))
        assert asyncio.run(call(f"haptera+unix://{path}/haptera.sock", "kv", "get", "a")) == [b"1", 1, None]
        arguments = Path(f"/proc/{node.process.pid}/cmdline")
        if arguments.exists():
            assert KEY not in arguments.read_bytes()
        node.signal()
        assert node.end() == 0
        assert "key_file_open_to_others" in node.names()
        assert KEY.decode() not in str(node.events)
        assert KEY.hex() not in str(node.events)


@pytest.mark.parametrize("content", [None, b"0123-abcd"])
def test_a_key_file_that_cannot_be_used_ends_with_15_before_anything_is_made(
    content: bytes | None, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "signing.key").write_bytes(content)
    before = list(tmp_path.iterdir())
    result = subprocess.run(
        [sys.executable, "-m", "haptera", "serve", "--data-dir", "d", "--signing-key-file", "signing.key"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 15
    assert result.stderr.startswith("haptera: --signing-key-file: the key file signing.key cannot be used: ")
    assert result.stderr.count("\n") == 1
    assert "0123-abcd" not in result.stderr
    assert list(tmp_path.iterdir()) == before


def test_a_variable_that_is_misspelt_has_a_warning(tmp_path: Path) -> None:
    environ = {"HAPTERA_MAX_CONECTIONS": "5", "HAPTERA_URL": "haptera://somewhere"}
    with serving(tmp_path / "d", environ=environ) as node:
        node.ready()
        (warning,) = [event for event in node.events if event["event"] == "unknown_variable"]
        assert (warning["level"], warning["variable"]) == ("warning", "HAPTERA_MAX_CONECTIONS")
        assert warning["did_you_mean"] == "HAPTERA_MAX_CONNECTIONS"
        node.signal()
        assert node.end() == 0


def test_the_commands_it_shows_can_be_typed_where_frames_are_signed(tmp_path: Path) -> None:
    key = tmp_path / "signing.key"
    key.write_bytes(KEY)
    with serving(tmp_path / "d", "--log-format", "text", "--signing-key-file", str(key)) as node:
        assert node.process.stderr is not None
        until = "Ctrl-C answers the requests under way and stops.\n"
        lines = [line.strip() for line in iter(node.process.stderr.readline, until)]
        assert f"signing     every frame, with the key in {key}" in lines
        for command in lines[lines.index("In another terminal:") + 1 :]:
            words = [sys.executable, "-m", "haptera", *shlex.split(command)[1:]]
            subprocess.run(words, check=True, capture_output=True, timeout=SECONDS_MAX, cwd=tmp_path)


@pytest.mark.parametrize("called", ["haptera", "bin/haptera", "path"])
def test_the_commands_it_shows_can_be_typed(called: str, tmp_path: Path) -> None:
    """By name where the shell finds it, by its path beneath the directory, or else by its whole path."""
    environment = Path(sys.executable).parent
    path = [folder for folder in os.environ["PATH"].split(os.pathsep) if not (Path(folder) / "haptera").exists()]
    if called == "haptera":
        path.insert(0, str(environment))
    shell: dict[str, Any] = {
        "cwd": environment.parent if called == "bin/haptera" else tmp_path,
        "env": {"PATH": os.pathsep.join(path)},
        "text": True,
    }
    serve = [sys.executable, "-m", "haptera", "serve", "--data-dir", str(tmp_path / "d"), "--listen", ANY_PORT]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, **shell) as process:
        try:
            assert process.stderr is not None
            shown: list[str] = []
            while not shown or not shown[-1].startswith("Ctrl-C"):
                shown.append(process.stderr.readline().strip())
                assert process.poll() is None, shown
            commands = shown[shown.index("In another terminal:") + 1 : -1]
            word = str(environment / "haptera") if called == "path" else called
            assert [shlex.split(command)[0] for command in commands] == [word] * 3
            for command in commands:
                subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=SECONDS_MAX, **shell)
        finally:
            process.kill()


def found_first(path: Path) -> dict[str, str]:
    """The environment in which a process imports the modules in this directory before all others."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(path), os.environ.get("PYTHONPATH")]))}


@pytest.mark.parametrize("imported", ["click", "msgspec", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_it_starts_ends_it_with_0(imported: str, number: int, tmp_path: Path) -> None:
    """The process is held in one of its imports, the first and the last among them."""
    held = tmp_path / "held"
    held.mkdir()
    (held / f"{imported}.py").write_text("import time; print('held', flush=True); time.sleep(60)")
    with serving(tmp_path / "d", environ=found_first(held)) as node:
        assert node.process.stdout is not None
        assert node.process.stdout.readline() == "held\n"
        node.signal(number)
        assert node.end() == 0
        assert node.events == []
    assert not (tmp_path / "d").exists()


def test_a_hang_up_while_it_starts_is_ignored_where_it_was_from_the_start(tmp_path: Path) -> None:
    held, go_on = tmp_path / "held", tmp_path / "go-on"
    held.mkdir()
    (held / "uvloop.py").write_text(
        "import os, time\n"
        "print('held', flush=True)\n"
        f"while not os.path.exists({str(go_on)!r}): time.sleep(0.001)\n"
        "from asyncio import new_event_loop\n"
    )
    ignoring: Any = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serving(tmp_path / "d", environ=found_first(held)) as node:
            assert node.process.stdout is not None
            assert node.process.stdout.readline() == "held\n"
            node.signal(signal.SIGHUP)
            go_on.touch()
            node.ready()
            node.signal()
            assert node.end() == 0
    finally:
        signal.signal(signal.SIGHUP, ignoring)
