"""`kill -9` of the second process and of the node at random moments of snapshots: nothing acknowledged is lost, nothing
half made stays, and the node goes on.

The record of what was acknowledged is kept by the clients (tests/fault/test_node_kill.py).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.errors import ServerError
from haptera.peer import Peer, dial
from tests.fault.test_node_kill import Writer, verify
from tests.support.processes import children_of
from tests.unit.node.process import serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.node.process import Serving

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode

#: A snapshot for each second full segment, and little that is kept.
SMALL = ("--segment-size", "65536", "--snapshot-after", "131072", "--retain-bytes", "786432")


async def snapshot(peer: Peer) -> dict[str, Any] | int:
    """The answer of `server.snapshot`, or the code of its error."""
    try:
        answer: dict[str, Any] = decode(await peer.call("server", "snapshot", encode([]), timeout=60.0))
    except ServerError as error:
        return error.code
    return answer


async def kill_children(node: Serving, kills: int, chance: random.Random) -> tuple[int, int]:
    """Kill second processes while clients write. Returns how many were killed and how many snapshots failed."""
    peer = await dial(node.ready().url)
    writers = [Writer(f"w{number}") for number in range(4)]
    writing = [asyncio.ensure_future(writer.write(peer)) for writer in writers]
    killed = failed = 0
    while killed < kills:
        answer = asyncio.ensure_future(snapshot(peer))
        while not answer.done():
            children = children_of(node.process.pid)
            if children:
                await asyncio.sleep(chance.random() * 0.4)
                with suppress(ProcessLookupError):
                    os.kill(children[0], signal.SIGKILL)
                    killed += 1
                break
            await asyncio.sleep(0.005)
        result = await answer
        if isinstance(result, int):
            assert result == 5008
            failed += 1
        assert not any(task.done() for task in writing), "the node goes on"
    while isinstance(result := await snapshot(peer), int):
        assert result == 5008  # of the last one that was killed, which this request had joined
    assert result["index"] > 0
    for task in writing:
        task.cancel()
    await asyncio.gather(*writing, return_exceptions=True)
    for writer in writers:
        writer.sent += 1  # the one that was given up may be there or not
        writer.counts_sent += 1
    metrics = decode(await peer.call("server", "metrics", encode([])))
    assert metrics["snapshots_total"] >= 1
    await peer.aclose()
    return killed, failed


def kill_second_processes(path: Path, kills: int, seed: int) -> None:
    print(f"seed {seed}")
    with serving(path, *SMALL) as node:
        killed, failed = asyncio.run(kill_children(node, kills, random.Random(seed)))
        assert killed >= kills
        node.signal()
        assert node.end() == 0
        told = [event for event in node.events if event["event"] == "snapshot_failed"]
        assert len(told) >= failed
        assert not [name for name in os.listdir(path / "snapshots") if name.endswith(".tmp")]
    with serving(path, *SMALL) as node:
        node.ready()
        node.signal()
        assert node.end() == 0
        assert not [event for event in node.events if event["event"] == "snapshot_damaged"]


async def round_of(node: Serving, writers: list[Writer], chance: random.Random, *, after_one: bool) -> None:
    """Check what is there, write more, and kill the node in the middle of a snapshot or just after one, as chance will
    have it unless it is to be ``after_one``.
    """
    peer = await dial(node.ready().url)
    for writer in writers:
        await writer.check(peer)
    writing = [asyncio.ensure_future(writer.write(peer)) for writer in writers]
    asked = asyncio.ensure_future(snapshot(peer))
    if chance.random() < 0.5 or after_one:
        await asked
    await asyncio.sleep(chance.random())
    assert not any(task.done() for task in writing), "the node goes on until it is killed"
    node.signal(signal.SIGKILL)
    await asyncio.gather(*writing)
    await asyncio.gather(asked, return_exceptions=True)
    await peer.aclose()


def kill_nodes(path: Path, kills: int, seed: int) -> None:
    """Kill a node that makes snapshots all the time, as tests/fault/test_node_kill.py does without them."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    writers = [Writer(f"w{number}") for number in range(16)]
    made = 0
    for number in range(kills):
        with serving(path, *SMALL) as node:
            # One is made at last, also where the machine is so busy that it takes longer than all rounds so far.
            asyncio.run(round_of(node, writers, chance, after_one=number == kills - 1 and not made))
            assert node.end() == -signal.SIGKILL
            made += sum(event["event"] == "snapshot_made" for event in node.events)
            assert not [event for event in node.events if event["event"] == "snapshot_damaged"]
    with serving(path, *SMALL) as node:
        asyncio.run(verify(node, writers))
        node.signal()
        assert node.end() == 0
    assert made


def test_kill_9_of_the_second_process_loses_nothing_and_stops_nothing(tmp_path: Path) -> None:
    kill_second_processes(tmp_path / "d", kills=5, seed=random.randrange(1 << 32))


def test_kill_9_of_a_node_that_makes_snapshots_loses_nothing(tmp_path: Path) -> None:
    kill_nodes(tmp_path / "d", kills=3, seed=random.randrange(1 << 32))


@pytest.mark.long
def test_kill_9_of_the_second_process_two_hundred_times(tmp_path: Path) -> None:
    kill_second_processes(tmp_path / "d", kills=200, seed=random.randrange(1 << 32))


@pytest.mark.long
def test_kill_9_of_a_node_that_makes_snapshots_two_hundred_times(tmp_path: Path) -> None:
    kill_nodes(tmp_path / "d", kills=200, seed=random.randrange(1 << 32))
