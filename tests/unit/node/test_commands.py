"""The command interface: reads at once, writes when durable, nothing invalid in the log, scans that end."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from haptera.errors import Failure
from haptera.node.commands import ANONYMOUS, Command, Session
from haptera.node.scans import PROGRESS_TIMEOUT_S, SCANS_PER_OWNER_MAX, SWEEP_INTERVAL_S, Cursor
from haptera.state import Count, Exists, Forget, Get, GetMany, Increment, Page, Replayed, Scan, Set, limits
from haptera.testing import VirtualClockLoop, virtual_clock
from tests.unit.node.nodes import Asked, ManualWriter, opened, turn

if TYPE_CHECKING:
    import pytest

    from haptera.node.node import Node

ID = bytes(range(16))
DIGEST = hashlib.sha256(b"one").digest()
OTHER_DIGEST = hashlib.sha256(b"other").digest()


async def test_reads_are_answered_before_submit_returns() -> None:
    async with opened() as node:
        Asked(node, Set("a", b"1"))
        await turn()
        asked = Asked(node, Get("a"), Exists("b"), GetMany(["a", "b"]), Count())
        assert asked.results == [(b"1", 1, None), (False,), ([(b"1", 1, None), None],), (1,)]


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
        write = Command(Increment("n", 1), ID, DIGEST)
        first, again = Asked(node, write), Asked(node, write)
        await turn()
        assert first.result == (1, 1)
        assert again.result == Replayed((1, 1))
        reused = Asked(node, Command(Increment("n", 2), ID, OTHER_DIGEST))
        await turn()
        assert reused.failures == [(3012, "not_applied")]
        other_user = Asked(node, write, session=Session("bob"))
        await turn()
        assert other_user.result == (2, 2)


async def test_a_forgotten_answer_is_not_remembered() -> None:
    async with opened() as node:
        write = Command(Increment("n", 1), ID, DIGEST)
        Asked(node, write)
        await turn()
        node.commands.forget(ANONYMOUS, [ID])
        await turn()
        again = Asked(node, write)
        await turn()
        assert again.result == (2, 2)


async def test_forgetting_is_logged_for_its_user_alone() -> None:
    async with opened() as node:
        write = Command(Increment("n", 1), ID, DIGEST)
        Asked(node, write)
        Asked(node, Forget("bob", [ID]))
        again = Asked(node, write)
        await turn()
        assert again.result == Replayed((1, 1))


async def some_keys(node: Node, count: int = 3) -> None:
    Asked(node, *(Set(f"k{number}", b"%d" % number) for number in range(count)))
    await turn()


async def cursor_of(node: Node, op: Scan, expired: list[str] | None = None) -> Cursor:
    seen = expired if expired is not None else []
    cursor = await node.commands.open_scan(ANONYMOUS, op, lambda: seen.append("expired"))
    assert isinstance(cursor, Cursor)
    return cursor


async def test_a_scan_sees_the_revision_at_which_it_was_opened() -> None:
    async with opened() as node:
        await some_keys(node)
        cursor = await cursor_of(node, Scan())
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
        refused = await node.commands.open_scan(ANONYMOUS, Scan(limit=-1))
        assert isinstance(refused, Failure)
        assert refused.code == 3003


@virtual_clock
async def test_a_scan_without_progress_loses_its_revision_after_a_minute() -> None:
    async with opened() as node:
        await some_keys(node)
        expired = list[str]()
        idle = await cursor_of(node, Scan(), expired)
        busy = await cursor_of(node, Scan())
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
        cursors = [await cursor_of(node, Scan()) for _ in range(3)]
        for _ in range(3):
            assert len(loop.timers) == before + 1
            await asyncio.sleep(SWEEP_INTERVAL_S + 0.1)
        for cursor in cursors:
            cursor.close()
            cursor.close()
        await asyncio.sleep(SWEEP_INTERVAL_S)
        assert len(loop.timers) == before


async def test_closing_the_node_ends_its_scans() -> None:
    async with opened() as node:
        await some_keys(node)
        cursor = await cursor_of(node, Scan())
    page = cursor.page(1 << 20, 100)
    assert page == Page([], done=True)


async def test_too_many_scans_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CURSORS_MAX", 2)
    async with opened() as node:
        cursors = [await cursor_of(node, Scan()) for _ in range(2)]
        refused = await node.commands.open_scan(ANONYMOUS, Scan())
        assert isinstance(refused, Failure)
        assert (refused.code, refused.outcome) == (3007, "not_applied")
        cursors[0].close()
        assert isinstance(await node.commands.open_scan(ANONYMOUS, Scan()), Cursor)


async def test_no_owner_has_more_than_its_share_of_the_scans() -> None:
    async def opened_by(owner: object) -> Cursor | Failure:
        return await node.commands.open_scan(ANONYMOUS, Scan(), owner=owner)

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
            assert isinstance(await node.commands.open_scan(ANONYMOUS, Scan()), Cursor)
        cursor = cursors[0]
        assert isinstance(cursor, Cursor)
        cursor.close()
        cursor.close()
        assert isinstance(await opened_by(first), Cursor)
        assert isinstance(await opened_by(first), Failure)
