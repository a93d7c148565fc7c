"""The command interface: reads at once, writes when durable, nothing invalid in the log, scans that end."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest

from haptera.errors import Failure, failure
from haptera.node.commands import ANONYMOUS, STRANGER, Envelope, Submitter
from haptera.node.scans import PROGRESS_TIMEOUT_S, SCANS_PER_OWNER_MAX, SWEEP_INTERVAL_S, Cursor
from haptera.state import Page, Replayed, Write, limits
from haptera.state.operations import (
    Clear,
    Count,
    Delete,
    DeleteMany,
    Exists,
    Forget,
    Get,
    GetMany,
    Increment,
    OpenScan,
    Rename,
    Set,
    SetMany,
)
from haptera.testing import VirtualClockLoop, virtual_clock
from tests.unit.dialects.resp.talks import Clock as StandingClock
from tests.unit.dialects.resp.talks import Limited, at_a_time
from tests.unit.node.nodes import Asked, ManualWriter, opened, turn

if TYPE_CHECKING:
    from haptera.node.node import Node
    from haptera.state import Result

ID = bytes(range(16))
DIGEST = hashlib.sha256(b"one").digest()
OTHER_DIGEST = hashlib.sha256(b"other").digest()


async def test_reads_are_answered_before_submit_returns() -> None:
    async with opened() as node:
        Asked(node, Set("a", b"1"))
        await turn()
        asked = Asked(node, Get("a"), Exists("b"), GetMany(["a", "b"]), Count())
        assert asked.results == [(b"1", 1, None), (False,), ([(b"1", 1, None), None],), (1,)]


@pytest.mark.parametrize("submitter", [ANONYMOUS, Limited(("a*", ["read"])), STRANGER])
@pytest.mark.parametrize("is_broken", [False, True])
async def test_reads_of_keys_in_a_row_have_the_results_of_a_list_of_gets(submitter: Submitter, is_broken: bool) -> None:
    clock = StandingClock()
    async with at_a_time(clock) as node:
        Asked(node, Set("a", b"1"), Set("ab", b"2", ttl_ms=1000), Set("b", b"3"))
        await node.drain()
        clock.now_ms += 1000
        assert node.commands.get_each(ANONYMOUS, ["a", "b"]) == [(b"1", 1, None), (b"3", 3, None)]
        if is_broken:
            node._machine.abandon(failure(5001))
        for keys in (["a", "a"], ["a", "b", "ab", "", "a\0", "x" * 5000, "a" + "x" * 5000, "a-missing", "missing"], []):
            asked: list[Result] = []
            node.commands.submit(submitter, [Envelope(Get(key)) for key in keys], asked.extend)
            assert node.commands.get_each(submitter, keys) == asked
            assert [node.commands.read_one(submitter, Get(key)) for key in keys] == asked
        for op in (Count(), Exists("b"), GetMany(["a", "b"])):
            asked = []
            node.commands.submit(submitter, [Envelope(op)], asked.extend)
            assert [node.commands.read_one(submitter, op)] == asked


async def test_an_empty_list_is_answered_at_once() -> None:
    async with opened() as node:
        assert Asked(node).results == []


async def test_a_list_with_a_write_is_answered_once_with_all_results_in_order() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        asked = Asked(node, Get("a"), Set("a", b"1"), Exists("a"), Increment("n", 5))
        assert not asked.answered
        await writer.write_all()
        missing, *rest = asked.results
        assert isinstance(missing, Failure)
        assert missing.code == 4001
        assert rest == [(1, None), (False,), (5, 2)]


async def test_what_is_invalid_never_reaches_the_log() -> None:
    async with opened() as node:
        asked = Asked(node, Set("", b""), Set("a\0", b""), Set("a", bytes((8 << 20) + 1)), Get(""))
        assert [code for code, _ in asked.failures] == [4006, 4006, 4007, 4006]
        assert all(outcome == "not_applied" for _, outcome in asked.failures)
        await turn()
        assert node.index == 0


async def test_a_write_with_a_request_id_is_applied_once() -> None:
    async with opened() as node:
        write = Envelope(Increment("n", 1), ID, DIGEST)
        first, again = Asked(node, write), Asked(node, write)
        await turn()
        assert first.result == (1, 1)
        assert again.result == Replayed((1, 1))
        reused = Asked(node, Envelope(Increment("n", 2), ID, OTHER_DIGEST))
        await turn()
        assert reused.failures == [(3012, "not_applied")]
        other_user = Asked(node, write, submitter=Submitter("bob"))
        await turn()
        assert other_user.result == (2, 2)


async def test_a_forgotten_answer_is_not_remembered() -> None:
    async with opened() as node:
        write = Envelope(Increment("n", 1), ID, DIGEST)
        Asked(node, write)
        await turn()
        node.commands.forget(ANONYMOUS, [ID])
        await turn()
        again = Asked(node, write)
        await turn()
        assert again.result == (2, 2)


async def test_forgetting_is_logged_for_its_user_alone() -> None:
    async with opened() as node:
        write = Envelope(Increment("n", 1), ID, DIGEST)
        Asked(node, write)
        Asked(node, Forget("bob", [ID]))
        again = Asked(node, write)
        await turn()
        assert again.result == Replayed((1, 1))


UNCHANGING: dict[str, Write] = {
    "if_version": Set("k", b"", if_version=9),
    "if absent": Set("k", b"", condition="absent"),
    "if present": Set("none", b"", condition="present"),
    "delete of nothing": Delete("none"),
    "delete with if_version": Delete("k", if_version=9),
    "increment of no number": Increment("k"),
    "increment too far": Increment("n", 2**63 - 1),
    "rename of nothing": Rename("none", "other"),
    "rename to what is there": Rename("k", "n", if_absent=True),
    "set_many of nothing": SetMany([]),
    "delete_many of nothing": DeleteMany(["none", "nor this"]),
    "clear of nothing": Clear("none"),
}


@pytest.mark.parametrize("what", UNCHANGING)
async def test_what_changes_nothing_takes_no_entry_where_nothing_is_on_its_way(what: str) -> None:
    """Trap: refused changes are logged and synced, and the log is for ever. The answer is that of the log."""
    op = UNCHANGING[what]
    async with opened() as node:
        Asked(node, Set("k", b"text"), Set("n", b"1"))
        await turn()
        index = node.index
        at_once = Asked(node, Envelope(op, ID, DIGEST))
        assert at_once.answered
        await turn()
        assert (node.index, node.metrics.writes_unlogged_total) == (index, 1)
        behind_another = Asked(node, Set("other", b""), Envelope(op, OTHER_DIGEST[:16], DIGEST))
        assert not behind_another.answered
        await turn()
        answer = behind_another.results[1]
        assert answer == ((node.revision,) if what == "set_many of nothing" else at_once.result)
        assert node.metrics.writes_unlogged_total == 1


CHANGING: dict[str, tuple[Write, Result]] = {
    "set": (Set("k", b""), (3, None)),
    "set with if_version": (Set("k", b"", if_version=1), (3, None)),
    "set if absent": (Set("new", b"", condition="absent"), (3, None)),
    "delete": (Delete("k", return_previous=True), (True, 3, (b"text", 1, None))),
    "increment": (Increment("n"), (2, 3)),
    "rename": (Rename("k", "n"), (3,)),
    "rename to a new key": (Rename("k", "new", if_absent=True), (3,)),
    "set_many": (SetMany([("k", b"")]), (3,)),
    "delete_many": (DeleteMany(["none", "k"]), (1, 3)),
    "clear": (Clear("k"), (1, 3)),
}


@pytest.mark.parametrize("what", CHANGING)
async def test_a_change_is_made_once_and_by_the_log_where_nothing_is_on_its_way(what: str) -> None:
    op, result = CHANGING[what]
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        Asked(node, Set("k", b"text"))
        Asked(node, Set("n", b"1"))
        await writer.write_all()
        index = node.index
        asked = Asked(node, op)
        assert (asked.answered, node.revision) == (False, 2)
        await writer.write_all()
        assert (asked.result, node.revision, node.index) == (result, 3, index + 1)
        assert node.metrics.writes_unlogged_total == 0


async def test_a_condition_is_judged_behind_everything_that_is_on_its_way() -> None:
    """Trap: a condition that is judged before the log and not in its order."""
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        taken = Asked(node, Set("lock", b"mine"))
        released = Asked(node, Delete("lock"))
        taken_again = Asked(node, Set("lock", b"yours", condition="absent"))
        refused = Asked(node, Set("lock", b"theirs", condition="absent"))
        assert not any(asked.answered for asked in (taken, released, taken_again, refused))
        await writer.write_all()
        assert (taken.result, released.result, taken_again.result) == ((1, None), (True, 2, None), (3, None))
        assert refused.failures == [(4003, "not_applied")]


async def test_a_repetition_takes_no_entry_and_neither_does_its_id_for_another_change() -> None:
    async with opened() as node:
        Asked(node, Envelope(Increment("n", 1), ID, DIGEST))
        await turn()
        assert Asked(node, Envelope(Increment("n", 1), ID, DIGEST)).result == Replayed((1, 1))
        assert Asked(node, Envelope(Increment("n", 2), ID, OTHER_DIGEST)).failures == [(3012, "not_applied")]
        await turn()
        assert node.index == 1


async def test_what_may_come_again_on_another_connection_is_judged_in_the_log() -> None:
    """Its failure is remembered, for its late copy; that takes an entry."""
    async with opened() as node:
        refused = Asked(node, Envelope(Set("k", b"", condition="present"), ID, DIGEST, resent=True))
        assert not refused.answered
        await turn()
        assert (refused.failures, node.index) == ([(4001, "not_applied")], 1)


async def test_a_full_table_is_refused_without_the_log_but_once_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers age by entries: a table that is full when everything stops must empty all the same."""
    monkeypatch.setattr(limits, "ANSWERS_PER_USER_MAX", 3)
    clock = Clock(1_000_000)
    async with opened(clock_ms=clock, monotonic_ns=lambda: clock() * 1_000_000) as node:
        for number in range(3):
            Asked(node, Envelope(Increment("n", 1), bytes([number]) * 16, DIGEST))
        await turn()
        index = node.index
        for _ in range(5):
            assert Asked(node, Envelope(Increment("n", 1), ID, DIGEST)).failures == [(3008, "not_applied")]
        assert node.index == index
        late: Result = failure(3008)
        asked = 0
        while isinstance(late, Failure):
            clock.now_ms += 1000
            again = Asked(node, Envelope(Increment("n", 1), ID, DIGEST))
            await turn()
            late, asked = again.result, asked + 1
        assert (late, asked) == ((4, 4), 601)


class Clock:
    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


async def some_keys(node: Node, count: int = 3) -> None:
    Asked(node, *(Set(f"k{number}", b"%d" % number) for number in range(count)))
    await turn()


async def cursor_of(node: Node, op: OpenScan, expired: list[str] | None = None) -> Cursor:
    seen = expired if expired is not None else []
    cursor = await node.commands.open_scan(ANONYMOUS, op, lambda: seen.append("expired"))
    assert isinstance(cursor, Cursor)
    return cursor


async def test_a_scan_sees_the_revision_at_which_it_was_opened() -> None:
    async with opened() as node:
        await some_keys(node)
        cursor = await cursor_of(node, OpenScan())
        Asked(node, Set("k1", b"new"), Set("k9", b""))
        await turn()
        page = cursor.page(1 << 20, 100)
        assert isinstance(page, Page)
        assert page.rows == [("k0", b"0", 1, None), ("k1", b"1", 2, None), ("k2", b"2", 3, None)]
        assert page.done
        assert cursor.result == (3, "k2", 3)
        assert node.metrics.values()["scans_open"] == 0


async def test_an_invalid_scan_is_refused() -> None:
    async with opened() as node:
        refused = await node.commands.open_scan(ANONYMOUS, OpenScan(limit=-1))
        assert isinstance(refused, Failure)
        assert refused.code == 3003


@virtual_clock
async def test_a_scan_without_progress_loses_its_revision_after_a_minute() -> None:
    async with opened() as node:
        await some_keys(node)
        expired = list[str]()
        idle = await cursor_of(node, OpenScan(), expired)
        busy = await cursor_of(node, OpenScan())
        await asyncio.sleep(PROGRESS_TIMEOUT_S - 0.1)
        assert isinstance(busy.page(1 << 20, 1), Page)
        assert expired == []
        await asyncio.sleep(SWEEP_INTERVAL_S + 0.1)
        assert expired == ["expired"]
        lost = idle.page(1 << 20, 100)
        assert isinstance(lost, Failure)
        assert (lost.code, lost.details) == (4009, {"revision": 3})
        assert isinstance(busy.page(1 << 20, 1), Page)
        assert node.metrics.scans_expired_total == 1


@virtual_clock
async def test_one_timer_sweeps_while_a_scan_is_open_and_none_when_all_are_closed() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    async with opened() as node:
        before = len(loop.timers)
        cursors = [await cursor_of(node, OpenScan()) for _ in range(3)]
        for _ in range(3):
            assert len(loop.timers) == before + 1
            await asyncio.sleep(SWEEP_INTERVAL_S + 0.1)
        for cursor in cursors:
            cursor.close()
            cursor.close()
        await asyncio.sleep(SWEEP_INTERVAL_S)
        assert len(loop.timers) == before


async def test_closing_the_node_ends_its_scans() -> None:
    """And not with an empty last page, as if there were no more keys."""
    async with opened() as node:
        await some_keys(node)
        cursor = await cursor_of(node, OpenScan())
    page = cursor.page(1 << 20, 100)
    assert page == failure(5005, outcome="not_applied")


async def test_too_many_scans_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CURSORS_MAX", 2)
    async with opened() as node:
        cursors = [await cursor_of(node, OpenScan()) for _ in range(2)]
        refused = await node.commands.open_scan(ANONYMOUS, OpenScan())
        assert isinstance(refused, Failure)
        assert (refused.code, refused.outcome) == (3007, "not_applied")
        cursors[0].close()
        assert isinstance(await node.commands.open_scan(ANONYMOUS, OpenScan()), Cursor)


async def test_no_owner_has_more_than_its_share_of_the_scans() -> None:
    async def opened_by(owner: object) -> Cursor | Failure:
        return await node.commands.open_scan(ANONYMOUS, OpenScan(), owner=owner)

    async def counted_by(owner: object) -> tuple[tuple[int], int] | Failure:
        return await node.commands.count(ANONYMOUS, Count(glob="a*z"), owner)

    async with opened() as node:
        first, second = object(), object()
        cursors = [await opened_by(first) for _ in range(SCANS_PER_OWNER_MAX)]
        assert all(isinstance(cursor, Cursor) for cursor in cursors)
        for refused in (await opened_by(first), await counted_by(first)):
            assert isinstance(refused, Failure)
            assert (refused.code, refused.outcome) == (3007, "not_applied")
        assert isinstance(await opened_by(second), Cursor)
        assert await counted_by(second) == ((0,), 0)
        for _ in range(SCANS_PER_OWNER_MAX + 1):
            assert isinstance(await node.commands.open_scan(ANONYMOUS, OpenScan()), Cursor)
        cursor = cursors[0]
        assert isinstance(cursor, Cursor)
        cursor.close()
        cursor.close()
        assert isinstance(await opened_by(first), Cursor)
        assert isinstance(await opened_by(first), Failure)
