"""The bound on the memory of the store: what it refuses, what it lets pass, and what it tells."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
from typing import TYPE_CHECKING

import msgspec
import pytest

from haptera.node.commands import Envelope
from haptera.node.health import Health, health
from haptera.node.services.server import status
from haptera.state import Replayed
from haptera.state.entry_sizes import entry_size
from haptera.state.operations import Clear, Delete, DeleteMany, Increment, Rename, Set, SetMany
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.nodes import CONFIG, Asked, ManualWriter, opened

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig
    from haptera.node.node import Node
    from haptera.state import Write

#: Bytes of one entry of the tests: a key of two characters, a value of 18 bytes.
SIZE = entry_size("k0", bytes(18), None)
VALUE = bytes(18)
FULL = [(5007, "not_applied")]


def limited(memory_max: int) -> NodeConfig:
    return msgspec.structs.replace(CONFIG, memory_max=memory_max)


async def ask(node: Node, op: Write) -> Asked:
    """The change, and what came of it."""
    asked = Asked(node, op)
    while not asked.answered:
        await asyncio.sleep(0)
    return asked


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    names = [record.message for record in caplog.records if record.message.startswith("memory")]
    caplog.clear()
    return names


async def test_a_change_that_fits_exactly_is_taken_and_the_next_byte_is_refused() -> None:
    async with opened(config=limited(2 * SIZE)) as node:
        assert (await ask(node, Set("k0", VALUE))).result == (1, None)
        assert (await ask(node, Set("k1", VALUE + b"!"))).failures == FULL
        assert (await ask(node, Set("k1", VALUE))).result == (2, None)
        refused = await ask(node, Set("k0", VALUE + b"!"))
        assert refused.failures == FULL
        assert refused.result.details == {"limit": 2 * SIZE}  # type: ignore[union-attr]
        assert (node.memory.size, node.index) == (2 * SIZE, 2)
        assert node.metrics.values()["entries_size_bytes"] == 2 * SIZE
        assert node.metrics.writes_out_of_memory_total == 2


async def test_writes_that_wait_for_the_disk_count_with_what_they_will_add() -> None:
    disk = ManualWriter()
    async with opened(config=limited(3 * SIZE), writer=disk) as node:
        taken = [Asked(node, Set(f"k{number}", VALUE)) for number in range(3)]
        refused = Asked(node, Set("k3", VALUE))
        assert refused.failures == FULL
        await disk.write_all()
        assert [asked.result for asked in taken] == [(1, None), (2, None), (3, None)]
        assert node.memory.size == 3 * SIZE


async def test_a_write_that_is_taken_back_or_refused_by_the_disk_gives_its_memory_back() -> None:
    fs, disk = MemoryFileSystem(), ManualWriter()
    large = bytes(80_000)  # which needs a segment of its own
    async with opened(fs, config=limited(entry_size("k0", large, None)), writer=disk) as node:
        first = Asked(node, Set("k0", large))
        assert node.commands.drop(first.submission, 0)
        second = Asked(node, Set("k1", large))
        assert not second.answered
        fs.failing, fs.fail_with = frozenset({"allocate"}), errno.ENOSPC
        await disk.write_all()
        assert second.failures == [(5002, "not_applied")]
        fs.failing = frozenset()
        third = Asked(node, Set("k2", large))
        await disk.write_all()
        assert third.result == (1, None)
        assert node._pipeline._growth == 0


async def test_a_set_many_is_taken_or_refused_as_a_whole() -> None:
    async with opened(config=limited(2 * SIZE)) as node:
        assert (await ask(node, SetMany([(f"k{number}", VALUE) for number in range(3)]))).failures == FULL
        assert node.keys == 0
        assert (await ask(node, SetMany([("k0", VALUE), ("k1", VALUE), ("k0", VALUE)]))).result == (1,)
        assert (await ask(node, SetMany([("k0", b""), ("k1", VALUE + VALUE)]))).result == (2,)
        assert (await ask(node, SetMany([("k0", b""), ("k1", VALUE + VALUE + b"!")]))).failures == FULL


@pytest.mark.parametrize(
    "op",
    [
        Set("k0", VALUE),
        Set("k0", b""),
        Set("k0", VALUE + VALUE, if_version=77),
        Delete("k0"),
        DeleteMany(["k0", "k1"]),
        Clear(),
        Clear("k"),
        Increment("n1", 1, 0),
        Rename("k0", "k2"),
        Rename("k0", "k"),
    ],
    ids=repr,
)
async def test_what_adds_nothing_goes_on_above_the_bound(op: Write) -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        await ask(node, SetMany([("k0", VALUE), ("k1", VALUE), ("n1", b"1")]))
    async with opened(fs, config=limited(SIZE)) as node:
        assert node.memory.size > SIZE
        assert (await ask(node, Set("k9", b""))).failures == FULL
        before = node.memory.size
        asked = await ask(node, op)
        result = asked.result
        assert isinstance(result, tuple) or result.code == 4002  # type: ignore[union-attr]
        assert node.memory.size <= before


async def test_a_repetition_of_a_change_that_was_applied_has_its_answer_though_the_memory_is_full() -> None:
    disk = ManualWriter()
    async with opened(config=limited(SIZE), writer=disk) as node:
        envelope = Envelope(Set("k0", VALUE), bytes(16), bytes(32))
        for change in (envelope, Delete("k0"), Set("k1", VALUE)):
            Asked(node, change)
            await disk.write_all()
        Asked(node, Set("k1", b""))  # the state is not at rest, so the repetition goes to the log
        again = Asked(node, envelope)
        await disk.write_all()
        assert again.result == Replayed((1, None))
        assert node.keys == 1


async def test_no_sequence_of_changes_passes_the_bound() -> None:
    chance = random.Random(5)
    limit = 10 * SIZE
    async with opened(config=limited(limit)) as node:
        refused = 0
        for _ in range(2000):
            key, other = f"k{chance.randrange(20)}", f"k{chance.randrange(20)}" * chance.randrange(1, 40)
            op: Write = chance.choice(
                [
                    Set(key, bytes(chance.randrange(60))),
                    Set(key, bytes(chance.randrange(60))),
                    SetMany([(key, VALUE), (other, b""), (key, bytes(40))]),
                    Increment(other, 10**17, 0),
                    Rename(key, other),
                    Delete(key),
                ]
            )
            asked = await ask(node, op)
            assert node.memory.size <= limit
            refused += getattr(asked.result, "code", 0) == 5007
        assert 100 < refused < 1900
        node._machine.check()


async def test_scarce_and_full_memory_are_told_once_and_again_after_there_was_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with opened(config=limited(100 * SIZE)) as node:

        async def put(first: int, last: int) -> Asked:
            return await ask(node, SetMany([(f"{number:02}", VALUE) for number in range(first, last)]))

        async def take(first: int, last: int) -> Asked:
            return await ask(node, DeleteMany([f"{number:02}" for number in range(first, last)]))

        await put(0, 79)
        assert health(node) == Health("ok")
        assert told(caplog) == []
        await put(79, 81)
        state, reason, *_ = health(node)
        assert state == "ok"
        assert reason.startswith(f"keys and values take {81 * SIZE} of {100 * SIZE} bytes of memory")
        assert told(caplog) == ["memory_high"]
        await take(76, 81)
        await put(76, 81)
        assert (health(node)[0], told(caplog)) == ("ok", [])
        await put(81, 100)
        assert (await put(100, 101)).failures == (await put(100, 102)).failures == FULL
        assert (health(node)[0], told(caplog)) == ("full", ["memory_full"])
        assert status(node)["health"] == "full"
        await take(96, 100)
        assert (await put(100, 105)).failures == FULL
        assert health(node)[0] == "full"
        assert told(caplog) == []
        await take(90, 96)
        assert health(node)[0] == "ok"
        assert told(caplog) == ["memory_has_room"]
        await take(70, 90)
        assert health(node) == Health("ok")
        await put(70, 85)
        assert health(node)[0] == "ok"
        assert told(caplog) == ["memory_high"]


async def test_a_store_that_is_above_the_bound_opens_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        await ask(node, Set("k0", VALUE))
    caplog.clear()
    async with opened(fs, config=limited(SIZE // 2)) as node:
        assert told(caplog) == ["memory_high"]
        assert status(node)["memory"] == SIZE
        assert status(node)["memory_max"] == SIZE // 2


async def test_without_a_bound_nothing_is_judged() -> None:
    async with opened() as node:
        assert (await ask(node, SetMany([(f"k{number}", VALUE) for number in range(1000)]))).result == (1,)
        assert node._pipeline._growth == 0
        assert health(node) == Health("ok")


async def test_a_node_that_stops_says_that_and_not_that_its_memory_is_full() -> None:
    async with opened(config=limited(1)) as node:
        assert (await ask(node, Set("k0", VALUE))).failures == FULL
    assert (await ask(node, Set("k0", VALUE))).failures == [(5005, "not_applied")]
