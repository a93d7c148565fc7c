"""Snapshots of whole nodes: asked for over the wire and on the command line, by served and embedded stores."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

import haptera
from haptera.errors import ServerError, ShuttingDown
from haptera.node import Node, NodeConfig
from haptera.node.commands import ANONYMOUS, Envelope
from haptera.node.snapshots import room
from haptera.peer import dial
from haptera.state.operations import Set
from haptera.testing import node, node_in_thread
from tests.integration.commands import run
from tests.support.processes import children_of
from tests.unit.node.process import Serving, serving

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


async def ask(url: str, method: str = "snapshot") -> Any:
    peer = await dial(url)
    try:
        return decode(await peer.call("server", method, encode([]), timeout=60.0))
    finally:
        await peer.aclose()


def test_a_start_reads_the_snapshot_and_the_log_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "d"

    async def fill(url: str) -> dict[str, Any]:
        async with haptera.connect(url) as db:
            await db.set_many({f"key/{number}": b"value" for number in range(5000)})
            made: dict[str, Any] = await ask(url)
            await db.set("later", b"1")
            return made

    with serving(path) as first:
        made = asyncio.run(fill(first.ready().url))
        first.signal()
        assert first.end() == 0
    assert made["index"] == made["revision"] == 1
    assert made["bytes"] == os.stat(path / "snapshots" / f"{1:016x}.snap").st_size
    with serving(path) as again:
        count = asyncio.run(keys_of(again.ready().url))
        again.signal()
        assert again.end() == 0
    (recovered,) = [event for event in again.events if event["event"] == "recovered"]
    assert (count, recovered["snapshot_index"]) == (5001, 1)
    assert recovered["entries"] <= 2, "the set, and what the client has read"


async def keys_of(url: str) -> int:
    async with haptera.connect(url) as db:
        return await db.count()


def ended_or_zombie(pid: int) -> bool:
    try:
        return "(zombie)" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


async def test_a_state_that_has_its_snapshot_is_answered_at_once() -> None:
    async with node() as url, haptera.connect(url) as db:
        assert await ask(url) == {"index": 0, "revision": 0, "bytes": 0, "seconds": 0.0}
        await db.set("a", b"1")
        first, second = await ask(url), await ask(url)
        assert first["seconds"] > 0
        assert second == {**first, "seconds": 0.0}
        metrics = await ask(url, "metrics")
        assert (metrics["snapshots_total"], metrics["snapshots"], metrics["snapshot_index"]) == (1, 1, 1)
        assert metrics["snapshot_size_bytes"] == metrics["snapshots_size_bytes"] == first["bytes"]


def test_the_command_waits_for_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    with node_in_thread(listen="tcp") as url:
        monkeypatch.setenv("HAPTERA_URL", url)
        assert run("set", "a", "1").code == 0
        document = json.loads(run("snapshot", "--json").text)
        assert document.keys() == {"index", "revision", "bytes", "seconds"}
        assert run("snapshot").text == f"index 1, revision 1: {document['bytes']} bytes in 0.0 s\n"


def test_the_command_says_why_there_is_no_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "available_bytes", lambda: 1 << 20)
    with node_in_thread(listen="tcp") as url:
        monkeypatch.setenv("HAPTERA_URL", url)
        assert run("set", "a", "1").code == 0
        ended = run("snapshot")
        assert ended.code == 5
        assert "SNAPSHOT_FAILED (5008)" in ended.err
        error = json.loads(run("snapshot", "--json").err.splitlines()[-1])["error"]
        assert error["details"]["available_bytes"] == 1 << 20


async def test_a_request_that_is_cancelled_is_answered_as_such() -> None:
    async with node() as url, haptera.connect(url) as db:
        await db.set("a", b"1")
        peer = await dial(url)
        call = asyncio.ensure_future(peer.call("server", "snapshot", encode([]), timeout=0.05))
        with pytest.raises(ServerError):
            await call
        await peer.aclose()
        assert (await ask(url))["index"] == 1, "the snapshot went on"


async def test_an_embedded_store_makes_its_snapshots_in_the_same_way(tmp_path: Path) -> None:
    config = NodeConfig(data_dir=str(tmp_path / "d"), listen=(), segment_size=65536, snapshot_after=65536)
    opened = await Node.open(config)
    for number in range(60):
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        opened.commands.submit(ANONYMOUS, [Envelope(Set(f"key/{number}", bytes(4096)))], done.set_result)
        await done
    while not opened.metrics.snapshots_total:
        await asyncio.sleep(0.05)
    await opened.aclose()
    assert [name for name in os.listdir(tmp_path / "d" / "snapshots") if name.endswith(".snap")]


async def test_a_node_that_is_closed_ends_its_second_process(tmp_path: Path) -> None:
    opened = await Node.open(NodeConfig(data_dir=str(tmp_path / "d"), listen=()))
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    opened.commands.submit(ANONYMOUS, [Envelope(Set("a", b"1"))], done.set_result)
    await done
    answer = opened.snapshots.request()
    maker: Any = opened.snapshots._maker
    while maker._run is None or maker._run.pid is None:
        await asyncio.sleep(0.001)
    pid = maker._run.pid
    await opened.aclose()
    assert (await answer).code == 5005  # type: ignore[union-attr]  # a failure
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not [name for name in os.listdir(tmp_path / "d" / "snapshots") if name.endswith(".tmp")]


async def second_process_of(node: Serving) -> int:
    """The second process, as soon as it runs its own program."""
    while True:
        for pid in children_of(node.process.pid):
            if b"haptera.node.snapshots.process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        await asyncio.sleep(0.001)


def test_a_node_that_is_told_to_stop_lets_no_one_wait_for_a_snapshot(tmp_path: Path) -> None:
    """The drain may take an hour, and the second process is paused: a wait for either has no end here."""

    async def stop_meanwhile(node: Serving) -> None:
        async with haptera.connect(node.ready().url) as db:
            await db.set("a", b"1")
            asked = asyncio.ensure_future(ask(node.url))
            os.kill(await second_process_of(node), signal.SIGSTOP)
            node.signal()
            with pytest.raises(ShuttingDown) as told:
                await asked
            assert told.value.outcome == "not_applied"

    with serving(tmp_path / "d", "--drain-timeout", "3600") as node:
        asyncio.run(stop_meanwhile(node))
        assert node.end() == 0


def test_a_program_that_ends_without_closing_its_store_waits_for_no_snapshot(tmp_path: Path) -> None:
    program = f"""
import asyncio
from haptera.node import Node, NodeConfig
from haptera.node.commands import ANONYMOUS, Envelope
from haptera.state.operations import Set

async def main():
    node = await Node.open(NodeConfig(data_dir={str(tmp_path / "d")!r}, listen=()))
    done = asyncio.get_running_loop().create_future()
    node.commands.submit(ANONYMOUS, [Envelope(Set("a", b"1"))], done.set_result)
    await done
    node.snapshots.request()
    while node.snapshots._maker._run is None or node.snapshots._maker._run.pid is None:
        await asyncio.sleep(0.001)
    print(node.snapshots._maker._run.pid)

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50)
    pid = int(ended.stdout)
    for _ in range(500):
        if ended_or_zombie(pid):
            return
        time.sleep(0.02)
    raise AssertionError("the second process goes on")


async def test_a_forked_child_makes_no_snapshot_and_leaves_its_parents_alone(tmp_path: Path) -> None:
    opened = await Node.open(NodeConfig(data_dir=str(tmp_path / "d"), listen=()))
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    opened.commands.submit(ANONYMOUS, [Envelope(Set("a", b"1"))], done.set_result)
    await done
    answer = opened.snapshots.request()
    maker: Any = opened.snapshots._maker
    while maker._run is None or maker._run.pid is None:
        await asyncio.sleep(0.001)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            refused = opened.snapshots.request()
            code = 0 if refused.done() and getattr(refused.result(), "code", 0) == 5001 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    made = await answer
    assert getattr(made, "index", None) == 1, made
    await opened.aclose()
