"""Large changes in the commit pipeline: applied in turns, in the order of the log, and seen whole."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from haptera.errors import Failure
from haptera.node import apply_committed, slice_queue
from haptera.node.commands import ANONYMOUS
from haptera.node.node import Node
from haptera.node.scans import Cursor
from haptera.state import EventBounds, Page, Result
from haptera.state.entries import KEY_WORK
from haptera.state.kv import Kv
from haptera.state.limits import SLICE_WORK_MAX
from haptera.state.operations import Clear, Count, DeleteMany, Exists, Get, OpenScan, Set, SetMany
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.nodes import CONFIG, Asked, ManualWriter, opened, turn

if TYPE_CHECKING:
    from haptera.state import Write
    from haptera.state.sliced_work import Steps

KEYS = [f"k{number:05}" for number in range(5_000)]
ITEMS = [(key, b"new") for key in KEYS]


async def answered(*asked: Asked) -> None:
    while not all(each.answered for each in asked):
        await asyncio.sleep(0)


async def half_applied(node: Node, op: Write) -> Asked:
    """A large change of which some was applied."""
    asked = Asked(node, op)
    while not node._machine.changing:
        await asyncio.sleep(0)
    await turn()
    assert node._machine.changing
    return asked


@pytest.mark.parametrize(
    ("op", "during", "after"),
    [
        (SetMany(ITEMS), 0, 5_000),
        (SetMany([*ITEMS, ("k", b"old"), ("k", b"new")]), 0, 5_001),
        (DeleteMany(["k", *KEYS]), 5_000, 0),
        (Clear("k"), 0, 0),
    ],
    ids=["set_many", "a doubled key", "delete_many", "clear"],
)
async def test_trap_one_callers_long_work_on_the_loop(op: Write, during: int, after: int) -> None:
    """A change of 5,000 keys takes many turns. Meanwhile everyone reads one state, before it or after it."""
    async with opened() as node:
        if not isinstance(op, SetMany):
            await answered(Asked(node, SetMany([(key, b"old") for key in KEYS])))
        revision = node.revision
        asked = await half_applied(node, op)
        loop_turns = 0
        while node._machine.changing:
            reads = Asked(node, *map(Exists, KEYS[::50]), Get(KEYS[0])).results
            assert sum(result == (True,) for result in reads) == during // 50
            assert (node.revision > revision) is isinstance(op, Clear)
            loop_turns += 1
            await asyncio.sleep(0)
        await answered(asked)
        assert loop_turns >= len(KEYS) * KEY_WORK // slice_queue.TURN_WORK_MAX
        assert (node.keys, node.revision) == (after, revision + 1)
        node._machine.check()


async def test_no_turn_of_the_loop_applies_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: one caller's long work on the loop. Also many changes of one entry that are small, each."""
    applied: Counter[int] = Counter()
    put, loop_turn = Kv._put, 0

    def counted(self: Kv, *args: object) -> None:
        applied[loop_turn] += 1
        put(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Kv, "_put", counted)
    async with opened() as node:
        asked = [Asked(node, SetMany(ITEMS))]
        asked += [Asked(node, SetMany(ITEMS[first : first + 200])) for first in range(0, 5_000, 200)]
        asked += [Asked(node, *(Set(key, b"") for key in KEYS[:2000]))]
        while not all(each.answered for each in asked):
            await asyncio.sleep(0)
            loop_turn += 1
        assert [each.results[-1] for each in asked] == [*((version,) for version in range(1, 27)), (2026, None)]
    assert max(applied.values()) <= 2 * slice_queue.TURN_WORK_MAX // 6


async def test_trap_writers_wait_for_a_large_change_behind_all_readers() -> None:
    """Trap: a turn for everyone, per loop and not per caller. While a hundred others read at length, a large change is
    applied in as many turns as half of each gives it.
    """

    def endless() -> Steps[None]:
        while True:
            yield SLICE_WORK_MAX

    async with opened() as node:
        for owner in range(100):
            node.commands.turns.start(owner, endless())
        asked, loop_turns = Asked(node, SetMany(ITEMS)), 0
        while not node._machine.changing:
            await asyncio.sleep(0)
        while not asked.answered:
            await asyncio.sleep(0)
            loop_turns += 1
        assert loop_turns < 12 * len(KEYS) * KEY_WORK // slice_queue.TURN_WORK_MAX


async def test_later_entries_wait_and_the_disk_goes_on() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        large = Asked(node, SetMany(ITEMS))
        await turn()
        behind = Asked(node, Set(KEYS[-1], b"last"))
        await writer.write()
        later = Asked(node, Set("later", b""))
        await writer.write_all()
        assert (large.answered, behind.answered, later.answered) == (False, False, False)
        assert node.metrics.log_entries_total == 3
        draining = asyncio.ensure_future(node.drain())
        await draining
        assert (large.result, behind.result, later.result) == ((1,), (2, None), (3, None))
        assert Asked(node, Get(KEYS[-1])).result == (b"last", 2, None)


async def test_a_drain_waits_for_the_last_answer_of_a_large_batch() -> None:
    async with opened() as node:
        each = [Asked(node, Set(key, b"")) for key in KEYS[:3000]]
        await node.drain()
        assert all(asked.answered for asked in each)


async def test_trap_a_node_that_is_closed_while_it_answers_answers_all() -> None:
    """Trap: one caller's long work on the loop. The answers of a large batch take turns; an end between two of them
    must not leave the rest without an answer, though every change is applied by then.
    """
    async with opened() as node:
        each = [Asked(node, Set(key, b"")) for key in KEYS[:3000]]
        while not each[0].answered:
            await asyncio.sleep(0)
        assert not each[-1].answered
        await node.aclose()
        assert all(asked.answered for asked in each)


async def test_a_write_taken_back_while_another_is_applied_makes_no_entry() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        large = await half_applied(node, SetMany(ITEMS))
        later = Asked(node, Set("later", b""))
        assert node.commands.drop(later.submission, 0)
        await answered(large)
        await node.drain()
        assert node.metrics.log_entries_total == 1


async def test_scans_and_counts_begin_before_or_after_a_large_change_and_never_in_it() -> None:
    async with opened() as node:
        await answered(Asked(node, SetMany([(key, b"old") for key in KEYS[:100]])))
        before = await node.commands.open_scan(ANONYMOUS, OpenScan())
        asked = await half_applied(node, SetMany(ITEMS))
        for op in (Count(), Count("k"), Count(glob="k*")):
            assert not node.commands.counts_at_once(ANONYMOUS, op)
        opening = [
            asyncio.ensure_future(node.commands.open_scan(ANONYMOUS, OpenScan())),
            asyncio.ensure_future(node.commands.count(ANONYMOUS, Count("k"))),
            asyncio.ensure_future(node.commands.count(ANONYMOUS, Count(glob="*k*"))),
        ]
        behind = Asked(node, Clear())
        await turn()
        assert not any(each.done() for each in opening)
        assert isinstance(before, Cursor)
        page = before.page(1 << 20, 1000)
        assert isinstance(page, Page)
        assert [row[1] for row in page.rows] == [b"old"] * 100
        after, counted, matched = await asyncio.gather(*opening)
        assert (asked.answered, counted, matched) == (True, ((5_000,), 2), ((5_000,), 2))
        assert isinstance(after, Cursor)
        assert after.revision == 2
        await answered(behind)
        page = after.page(1 << 20, 3)
        assert isinstance(page, Page)
        assert [row[:2] for row in page.rows] == ITEMS[:3]
        after.close()


async def test_what_no_reader_needs_is_freed_in_turns() -> None:
    async with opened() as node:
        node._machine.kv.events.bounds = EventBounds(events=0, size=0)
        await answered(Asked(node, SetMany(ITEMS)))
        scan = await node.commands.open_scan(ANONYMOUS, OpenScan())
        cleared = Asked(node, Clear())
        await answered(cleared)
        assert cleared.result == (5_000, 2)
        history = node._machine.kv.held
        assert history.size > 5_000 * 100
        assert isinstance(scan, Cursor)
        scan.close()
        assert history.size == 0, "the event of the clear has the store alone"
        await answered(Asked(node, *[Set("b", b"")] * 5))
        loop_turns = 0
        while not history.idle:
            await asyncio.sleep(0)
            loop_turns += 1
        assert loop_turns > 2
        assert history.size == 0
        node._machine.check()


async def test_a_large_change_that_fails_in_the_middle_ends_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: going on after a failed apply. Those who wait for its end are answered, and later entries are not."""
    whole = Kv.set_many

    def fails(self: Kv, op: SetMany) -> Steps[Result]:
        for number, units in enumerate(whole(self, op)):
            if number == 3:
                raise MemoryError("no memory")
            yield units
        return (0,)

    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await Node.open(CONFIG, filesystem=fs, writer=writer)
    Asked(node, Set("before", b""))
    await writer.write_all()
    monkeypatch.setitem(node._machine._many, SetMany, lambda op: fails(node._machine.kv, op))
    failing = Asked(node, SetMany(ITEMS))
    await turn()
    durable = Asked(node, Set("durable", b""))
    await writer.write()
    with_disk = Asked(node, Set("with the disk", b""))
    counting = asyncio.ensure_future(node.commands.count(ANONYMOUS, Count()))
    await writer.write()
    await answered(failing, durable)
    assert failing.failures == durable.failures == [(5001, "unknown")]
    await writer.write_all()
    assert with_disk.failures in ([(5001, "unknown")], [(5001, "not_applied")])
    counted = await counting
    assert isinstance(counted, Failure)
    assert counted.code == 5001
    assert Asked(node, Get("before")).failures == [(5001, "not_applied")]
    assert isinstance(node.failed.result(), apply_committed.ApplyFailed)
    await node.aclose()
    async with opened(fs) as again:
        assert again.keys >= len(KEYS) + 2, "the next start applies what was in the log"
