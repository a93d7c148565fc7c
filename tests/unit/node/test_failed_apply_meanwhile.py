"""Trap: going on after a failed apply. Readers, other failures and ends that come in the middle of it, and what the log
makes of it afterwards.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from haptera.errors import Failure, ShuttingDown
from haptera.node.apply_committed import ApplyFailed
from haptera.node.commands import ANONYMOUS, Envelope
from haptera.node.health import health
from haptera.node.node import Node
from haptera.node.services.server import status
from haptera.state import Replayed
from haptera.state.kv import Kv
from haptera.state.operations import Clear, Count, Delete, DeleteMany, Get, GetMany, OpenScan, Set, SetMany
from haptera.state.requests import Requests
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.nodes import CONFIG, Asked, ManualWriter, opened, turn

if TYPE_CHECKING:
    from haptera.state import Write
    from haptera.state.sliced_work import Steps

KEYS = [f"k{number:05}" for number in range(5_000)]
ITEMS = [(key, b"new") for key in KEYS]
BROKEN = [(5001, "not_applied")]
UNKNOWN = [(5001, "unknown")]
ID = bytes(range(16))


class Stop(BaseException):
    """As KeyboardInterrupt is, which asyncio has a mind of its own about."""


def fails_in_slice(node: Node, kind: type, number: int, error: BaseException | None = None) -> None:
    """Let changes of one kind fail in one of their slices."""
    whole = node._machine._many[kind]

    def steps(op: Write) -> Steps[object]:
        each = whole(op)
        for count, units in enumerate(each):
            if count == number:
                raise error or MemoryError("no memory")
            yield units
        return ()

    node._machine._many[kind] = steps  # type: ignore[assignment]


async def started(fs: MemoryFileSystem, writer: ManualWriter, *ops: Write) -> Node:
    node = await Node.open(CONFIG, filesystem=fs, writer=writer)
    before = [Asked(node, op) for op in (Set("before", b"1"), *ops)]
    while not all(asked.answered for asked in before):
        await writer.write_all()
    return node


async def applying(node: Node, writer: ManualWriter, op: Write | Envelope) -> Asked:
    """A large change that is durable, and applied in part."""
    asked = Asked(node, op)
    await turn()
    await writer.write()
    while not node._machine.changing:
        await asyncio.sleep(0)
    return asked


async def answered(*asked: Asked) -> None:
    while not all(each.answered for each in asked):
        await asyncio.sleep(0)


@pytest.mark.parametrize("op", [Clear("k"), DeleteMany(KEYS), SetMany(ITEMS)], ids=["clear", "delete_many", "set_many"])
async def test_readers_of_a_change_that_fails_in_the_middle_are_told(op: Write) -> None:
    """A scan that was open before, a get_many in slices, a scan and counts that wait for the end of the change."""
    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await started(fs, writer, SetMany([(key, b"old") for key in KEYS]))
    before = await node.commands.open_scan(ANONYMOUS, OpenScan())
    fails_in_slice(node, type(op), 6)
    failing = await applying(node, writer, op)
    waiting = [
        asyncio.ensure_future(
            node.commands.turns.run("a", node.commands.read_steps(ANONYMOUS, GetMany(KEYS), 1 << 24))
        ),
        asyncio.ensure_future(node.commands.open_scan(ANONYMOUS, OpenScan())),
        asyncio.ensure_future(node.commands.count(ANONYMOUS, Count("k"))),
        asyncio.ensure_future(node.commands.count(ANONYMOUS, Count(glob="*k*"))),
    ]
    await answered(failing)
    assert failing.failures == UNKNOWN
    assert not isinstance(before, Failure)
    told = [before.page(1 << 16, 100), *await asyncio.gather(*waiting)]
    assert [result.code for result in told if isinstance(result, Failure)] == [5001] * 5
    before.close()
    assert Asked(node, Get(KEYS[0])).failures == BROKEN
    await node.drain()
    await node.aclose()
    async with opened(fs) as again:
        assert again.keys == 1 + 5_000 * isinstance(op, SetMany), "the next start applies the whole change"
        again._machine.check()


async def test_an_answer_that_cannot_be_remembered_is_unknown_and_remembered_after_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The keys have the change by then; a repetition after the restart is not applied again."""
    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await started(fs, writer)

    def no_memory(*_: object) -> None:
        raise MemoryError("no memory for the answer")

    monkeypatch.setattr(Requests, "remember", no_memory)
    once = Envelope(Set("a", b"1"), ID, bytes(32))
    failing = Asked(node, once)
    await writer.write_all()
    assert failing.failures == UNKNOWN
    assert isinstance(node.failed.result(), ApplyFailed)
    await node.aclose()
    monkeypatch.undo()
    async with opened(fs) as again:
        assert Asked(again, once).result == Replayed((2, None))
        assert Asked(again, Get("a")).result == (b"1", 2, None)


async def test_a_large_change_that_is_durable_is_applied_although_the_disk_fails_meanwhile() -> None:
    """Only what was with the disk is unknown, and reads go on."""
    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await started(fs, writer)
    large = await applying(node, writer, SetMany(ITEMS))
    with_disk = Asked(node, Set("with the disk", b""))
    await turn()
    waiting = Asked(node, Set("waiting", b""))
    fs.failing = frozenset({"fdatasync"})
    await writer.write()
    assert (with_disk.failures, waiting.failures) == (UNKNOWN, BROKEN)
    await answered(large)
    assert large.result == (2,)
    assert Asked(node, Get(KEYS[-1])).result == (b"new", 2, None)
    assert health(node)[0] == "failed"
    await node.drain()
    fs.failing = frozenset()
    await node.aclose()


async def test_an_apply_that_fails_after_the_disk_has_failed_leaves_nothing_to_be_read() -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await started(fs, writer)
    fails_in_slice(node, SetMany, 18)
    large = await applying(node, writer, SetMany(ITEMS))
    durable = Asked(node, Set("durable", b""))
    await turn()
    await writer.write()
    with_disk = Asked(node, Set("with the disk", b""))
    await turn()
    fs.failing = frozenset({"fdatasync"})
    await writer.write()
    assert with_disk.failures == UNKNOWN
    await answered(large, durable)
    assert (large.failures, durable.failures) == (UNKNOWN, UNKNOWN)
    assert Asked(node, Get("before")).failures == BROKEN
    assert "nothing is read" in health(node)[1]
    await node.drain()
    fs.failing = frozenset()
    await node.aclose()


async def test_a_change_that_was_taken_back_before_it_is_answered_once() -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await started(fs, writer)
    fails_in_slice(node, SetMany, 16)
    large = await applying(node, writer, SetMany(ITEMS))
    with_disk = Asked(node, Set("with the disk", b""))
    await turn()
    taken_back, waiting = Asked(node, Set("taken back", b"")), Asked(node, Set("waiting", b""))
    assert node.commands.drop(taken_back.submission, 0)
    await answered(large, waiting)
    for asked in (large, with_disk, taken_back, waiting):
        assert not node.commands.drop(asked.submission, 0)
    await writer.write_all()
    assert (taken_back.failures, waiting.failures) == ([(3006, "not_applied")], BROKEN)
    assert with_disk.failures == UNKNOWN
    await node.aclose()


async def test_an_interrupt_in_a_later_slice_is_a_failed_apply() -> None:
    """It is raised in a turn of the node, from which the loop is run again to close the store."""
    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await started(fs, writer)
    fails_in_slice(node, SetMany, 6, Stop())
    loop, raised = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: raised.append(context.get("exception")))
    turning = node.commands.turns._turn

    def caught() -> None:
        try:
            turning()
        except Stop as stop:
            raised.append(stop)

    node.commands.turns._turn = caught  # type: ignore[method-assign]
    large = await applying(node, writer, SetMany(ITEMS))
    waiting = asyncio.ensure_future(
        node.commands.turns.run("a", node.commands.read_steps(ANONYMOUS, GetMany(KEYS), 1 << 24))
    )
    await answered(large)
    assert (large.failures, len(raised)) == (UNKNOWN, 1)
    assert Asked(node, Get("before")).failures == BROKEN
    await node.drain()
    await node.aclose()
    with pytest.raises(ShuttingDown):
        await waiting


async def test_what_the_node_writes_by_itself_ends_with_it() -> None:
    """Answers that wait to be forgotten, and the entries by which they age."""
    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await started(fs, writer)
    fails_in_slice(node, SetMany, 6)
    large = await applying(node, writer, SetMany(ITEMS))
    node.commands.forget(ANONYMOUS, [ID])
    behind = Asked(node, Delete("before"))
    await answered(large)
    node.commands.forget(ANONYMOUS, [ID])
    node.commands.aging.refused()
    node.commands.aging._age()
    node.commands.write_forgotten()
    await writer.write_all()
    assert behind.failures == UNKNOWN
    index = node.index
    await node.aclose()
    assert (node.index, writer.jobs) == (index, type(writer.jobs)())


async def test_status_and_metrics_of_a_broken_state_are_still_told() -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await started(fs, writer, SetMany([(key, b"old") for key in KEYS]))
    fails_in_slice(node, DeleteMany, 6)
    failing = await applying(node, writer, DeleteMany(KEYS))
    await answered(failing)
    assert status(node)["health"] == "failed"
    assert node.metrics.values()["pending_writes"] == 0
    await node.aclose()


async def test_a_condition_that_fails_in_a_broken_state_is_not_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state says nothing that is true any more, so that nothing is judged by it before the log either."""
    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await started(fs, writer)

    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Kv, "_put", broken)
    failing = Asked(node, Envelope(Set("a", b""), ID, bytes(32)))
    await writer.write_all()
    refused = Asked(
        node, Set("before", b"", condition="absent"), Delete("none"), Envelope(Set("a", b""), ID, bytes(32))
    )
    assert failing.failures == UNKNOWN
    assert refused.failures == BROKEN * 3
    await node.aclose()
