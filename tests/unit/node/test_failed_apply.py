"""Trap: going on after a failed apply. The state may hold half an entry: nothing is applied, read or answered."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from haptera.errors import Failure
from haptera.node import commit
from haptera.node.apply_committed import ApplyFailed
from haptera.node.commands import ANONYMOUS
from haptera.node.health import health
from haptera.node.node import Node
from haptera.state.kv import Kv
from haptera.state.operations import Count, Get, OpenScan, Set, SetMany
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.nodes import CONFIG, Asked, ManualWriter, opened, turn

if TYPE_CHECKING:
    from haptera.state.results import Result

HALF = SetMany([("half/1", b"new"), ("half/2", b"new")])
BROKEN = [(5001, "not_applied")]
UNKNOWN = [(5001, "unknown")]


@pytest.fixture
def broken_apply(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Applying a set_many fails after its first key."""
    whole = Kv.set

    def half(self: Kv, op: SetMany) -> Result:
        whole(self, Set(*op.items[0]))
        raise MemoryError("no memory for the second key")

    monkeypatch.setattr(Kv, "set_many", half)
    return monkeypatch


async def started(fs: MemoryFileSystem, writer: ManualWriter) -> Node:
    node = await Node.open(CONFIG, filesystem=fs, writer=writer)
    Asked(node, Set("before", b"1"))
    await writer.write_all()
    return node


@pytest.mark.parametrize("disk", ["writes", "fails", "is full"])
async def test_nothing_is_applied_or_acknowledged_after_it(
    broken_apply: pytest.MonkeyPatch, disk: str, caplog: pytest.LogCaptureFixture
) -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await started(fs, writer)
    failing = Asked(node, HALF, Set("same entry", b""))
    await turn()
    with_disk = Asked(node, Set("before", b"2"), *([Set("large", bytes(80_000))] if disk == "is full" else []))
    await writer.write()
    assert failing.failures == UNKNOWN * 2
    assert not with_disk.answered, "the disk has it, and it may be in the log"
    assert isinstance(node.failed.result(), ApplyFailed)
    assert "index 2" in str(node.failed.result())
    assert Asked(node, Set("later", b"")).failures == BROKEN
    fs.failing = {"writes": frozenset(), "fails": frozenset({"fdatasync"}), "is full": frozenset({"allocate"})}[disk]
    fs.fail_with = errno.ENOSPC
    await writer.write()
    assert with_disk.failures == (BROKEN * 2 if disk == "is full" else UNKNOWN)
    assert (node.index, node.metrics.values()["pending_writes"]) == (2, 0)
    assert caplog.messages.count("apply_failed") == 1, "the entry behind it is not tried"
    assert not writer.jobs
    fs.failing = frozenset()
    await node.aclose()


async def test_writes_that_wait_are_refused_at_once(broken_apply: pytest.MonkeyPatch) -> None:
    broken_apply.setattr(commit, "BATCH_COMMANDS_MAX", 1)
    node = await started(MemoryFileSystem(), writer := ManualWriter())
    failing = Asked(node, HALF)
    await turn()
    with_disk, *waiting = (Asked(node, Set(key, b"")) for key in ("with the disk", "full batch", "open batch"))
    await writer.write()
    assert failing.failures == UNKNOWN
    assert [each.failures for each in waiting] == [BROKEN, BROKEN]
    assert not with_disk.answered
    await writer.write()
    assert with_disk.failures == UNKNOWN
    await node.aclose()


async def test_half_an_entry_is_served_to_nobody(broken_apply: pytest.MonkeyPatch) -> None:
    node = await started(MemoryFileSystem(), writer := ManualWriter())
    scan = await node.commands.open_scan(ANONYMOUS, OpenScan())
    assert not isinstance(scan, Failure)
    Asked(node, HALF)
    await writer.write_all()
    for read in (Get("half/1"), Get("before"), Count()):
        assert Asked(node, read).failures == BROKEN
    refused = (
        scan.page(1000, 10),
        await node.commands.open_scan(ANONYMOUS, OpenScan()),
        await node.commands.count(ANONYMOUS, Count(glob="*1")),
    )
    assert [result.code for result in refused if isinstance(result, Failure)] == [5001] * 3
    assert "could not apply" in str(refused[0])
    assert health(node)[:2] == ("failed", "a stored change could not be applied: nothing is read or written any more")
    await node.aclose()


async def test_the_next_start_replays_what_was_unknown(broken_apply: pytest.MonkeyPatch) -> None:
    """And the versions are those of the log: none was given out twice."""
    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await started(fs, writer)
    Asked(node, HALF)
    await turn()
    Asked(node, Set("before", b"2"))
    await writer.write_all()
    await node.aclose()
    with pytest.raises(ApplyFailed, match="index 2"):
        await Node.open(CONFIG, filesystem=fs)
    broken_apply.undo()
    async with opened(fs) as again:
        assert Asked(again, Get("half/1"), Get("half/2"), Get("before")).results == [
            (b"new", 2, None),
            (b"new", 2, None),
            (b"2", 3, None),
        ]


async def test_an_interrupt_in_the_middle_of_an_entry_is_a_failed_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop may be run again after it, to close the store for instance."""

    def interrupted(self: Kv, op: SetMany) -> Result:
        raise KeyboardInterrupt

    monkeypatch.setattr(Kv, "set_many", interrupted)
    node = await started(MemoryFileSystem(), writer := ManualWriter())
    failing = Asked(node, HALF)
    await turn()
    pipeline = node.commands._pipeline
    write = writer.jobs.popleft()
    monkeypatch.setattr(pipeline._cluster, "_loop", Now())
    with pytest.raises(KeyboardInterrupt):
        write()
    assert failing.failures == UNKNOWN
    assert node.failed.done()
    assert Asked(node, Get("before")).failures == BROKEN
    await node.drain()
    await node.aclose()


class Now:
    """A loop that does at once what it is told to do from another thread."""

    def call_soon_threadsafe(self, callback: object, *args: object) -> None:
        assert callable(callback)
        callback(*args)
