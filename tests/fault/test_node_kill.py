"""`kill -9` of a serving node under load: what it acknowledged is there, and what it did not is whole or absent.

That it was on the disk too is shown where the file system loses what was not synced: tests/fault/test_storage_crash.py
for the log, tests/unit/node/test_commit.py for a node.

The record of what was acknowledged is kept here, by the clients, and owes nothing to the node.
"""

from __future__ import annotations

import asyncio
import random
import signal
import uuid
from typing import TYPE_CHECKING

import msgspec
import pytest

from haptera.errors import ConnectionLost
from haptera.peer import Peer, dial
from haptera.storage import OsFileSystem
from tests.unit.node.process import Serving, serving
from tests.unit.storage.stores import check_soundness

if TYPE_CHECKING:
    from pathlib import Path

WRITERS = 16
encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


class Writer:
    """Owns two keys that are always written together, and a counter. Knows what was answered and what was sent."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent = 0
        self.answered = 0
        self.version = 0
        self.counts_sent = 0
        self.counts_answered = 0

    async def write(self, peer: Peer) -> None:
        """Write until the connection is lost."""
        try:
            while True:
                self.sent += 1
                value = b"%d" % self.sent * 50
                items = [[f"{self.name}/a", value], [f"{self.name}/b", value]]
                self.version = decode(await peer.call("kv", "set_many", encode([items]), timeout=None))[0]
                self.answered = self.sent
                self.counts_sent += 1
                argument = encode([f"{self.name}/count", 1])
                answer = await peer.request("kv", "increment", argument, timeout=None, request_id=uuid.uuid4().bytes)
                assert decode(answer.result())[0] >= self.counts_answered
                self.counts_answered += 1
        except ConnectionLost:
            pass

    async def check(self, peer: Peer) -> None:
        """Everything acknowledged is there, nothing is half there; go on from what is found."""
        keys = [f"{self.name}/a", f"{self.name}/b", f"{self.name}/count"]
        first, second, count = decode(await peer.call("kv", "get_many", encode([keys])))[0]
        assert first == second, "a set_many is all or nothing"
        found = 0 if first is None else int(first[0][: len(first[0]) // 50])
        assert self.answered <= found <= self.sent
        if first is not None:
            assert first[1] >= self.version
            assert first[0] == b"%d" % found * 50
        counted = 0 if count is None else int(count[0])
        assert self.counts_answered <= counted <= self.counts_sent
        self.answered = self.sent = found
        self.counts_answered = self.counts_sent = counted


async def round_of(node: Serving, writers: list[Writer], chance: random.Random) -> int:
    """Check what is there, write more, and kill the node in the middle of it. Returns how many writes were answered."""
    peer = await dial(node.ready().url)
    for writer in writers:
        await writer.check(peer)
    before = sum(writer.answered for writer in writers)
    writing = [asyncio.ensure_future(writer.write(peer)) for writer in writers]
    enough = before + chance.randrange(1, 400)
    while sum(writer.answered for writer in writers) < enough:
        await asyncio.wait(writing, timeout=0.001, return_when=asyncio.FIRST_EXCEPTION)
        assert not any(task.done() for task in writing), "the node goes on until it is killed"
    node.signal(signal.SIGKILL)
    await asyncio.gather(*writing)
    await peer.aclose()
    return sum(writer.answered for writer in writers) - before


async def verify(node: Serving, writers: list[Writer]) -> None:
    peer = await dial(node.ready().url)
    for writer in writers:
        await writer.check(peer)
    count = decode(await peer.call("kv", "count", encode([])))[0]
    assert count == sum(2 * (writer.sent > 0) + (writer.counts_sent > 0) for writer in writers)
    await peer.aclose()


def kill_and_recover(path: Path, kills: int, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    writers = [Writer(f"w{number}") for number in range(WRITERS)]
    for _ in range(kills):
        with serving(path) as node:
            asyncio.run(round_of(node, writers, chance))
            assert node.end() == -signal.SIGKILL
        check_soundness(OsFileSystem(), str(path))
    with serving(path) as node:
        asyncio.run(verify(node, writers))
        node.signal()
        assert node.end() == 0
    check_soundness(OsFileSystem(), str(path))


@pytest.mark.parametrize("part", range(2))
def test_kill_9_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path, part: int) -> None:
    kill_and_recover(tmp_path / "d", kills=5, seed=random.randrange(1 << 32) + part)


@pytest.mark.long
def test_kill_9_under_load_two_hundred_times(tmp_path: Path) -> None:
    kill_and_recover(tmp_path / "d", kills=200, seed=random.randrange(1 << 32))
