"""Trap: a turn for everyone, per loop and not per caller. Scans and counts of many connections begin and end together,
and long lists are freed: each turn of the loop has a bounded part of it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from haptera.node import scans, slice_queue
from haptera.node.scans import PROGRESS_TIMEOUT_S, Cursor, Scans
from haptera.node.services import kv, write_requests
from haptera.node.services.tasks import TASK_WORK
from haptera.state import sliced_work
from tests.unit.node.test_kv import Served, served
from tests.unit.node.test_large import KEYS, Calls, filled

if TYPE_CHECKING:
    from haptera.state.sliced_work import Steps
    from tests.unit.node.doubles import FakeRequest

#: Tasks that may begin or end in one turn of the loop: beside the queue, and from it.
TASKS_MAX = 2 * (slice_queue.TURN_WORK_MAX // TASK_WORK + 1)


def ask_all(store: Served, method: str, options: dict[str, Any]) -> list[FakeRequest]:
    """32 requests of each of 16 connections, in one turn of the loop."""
    asked = []
    for _ in range(16):
        other = Served(store.node)
        requests = [other.peer.request(method, options) for _ in range(32)]
        other.handle(*requests)
        asked += requests
    return asked


async def all_answered(asked: list[FakeRequest]) -> None:
    while not all(request.answered for request in asked):
        await asyncio.sleep(0)


@pytest.mark.parametrize("method", ["scan", "count"])
async def test_of_many_that_come_in_one_turn_a_bounded_number_begins_in_each(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served() as store:
        await filled(store, KEYS[:10])
        opened = Calls(monkeypatch, Scans, "open")
        asked = ask_all(store, method, {"glob": "*0*"})
        await all_answered(asked)
        opened.stop()
        assert sum(opened.per_turn.values()) == len(asked) == 512
        assert max(opened.per_turn.values()) <= TASKS_MAX


async def blocked(store: Served) -> list[FakeRequest]:
    """512 scans under way, whose readers take nothing behind the first page."""
    await filled(store, KEYS[:2000])
    asked = []
    for _ in range(16):
        other = Served(store.node)
        requests = [other.peer.request("scan", {}) for _ in range(32)]
        for request in requests:
            request.blocked = asyncio.Event()
        other.handle(*requests)
        asked += requests
    while not all(request.items for request in asked):
        await asyncio.sleep(0)
    return asked


async def test_of_many_that_are_cancelled_together_a_bounded_number_ends_in_each_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served() as store:
        asked = await blocked(store)
        closed = Calls(monkeypatch, Cursor, "close")
        for request in asked:
            request.cancel()
        await all_answered(asked)
        closed.stop()
        assert {request.code for request in asked} == {3006}
        assert len(store.node.commands._scans) == 0
        assert max(closed.per_turn.values()) <= TASKS_MAX


async def test_of_many_that_lose_their_revision_together_a_bounded_number_ends_in_each_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served() as store:
        asked = await blocked(store)
        open_scans = store.node.commands._scans
        now = open_scans.time()
        open_scans.time = lambda: now + PROGRESS_TIMEOUT_S
        removed = Calls(monkeypatch, Scans, "remove")
        open_scans.sweep()
        await all_answered(asked)
        removed.stop()
        assert {request.code for request in asked} == {4009}
        # Each is closed twice: when its revision is lost, and by its task.
        assert max(removed.per_turn.values()) <= TASKS_MAX + slice_queue.TURN_WORK_MAX // scans.EXPIRY_WORK


class Freed:
    """The lists that were freed in slices, and how long each was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lengths: list[int] = []
        self.lists: list[list[Any]] = []
        for module in (kv, write_requests):
            monkeypatch.setattr(module, "free_steps", self._free_steps)

    def _free_steps(self, elements: list[Any]) -> Steps[None]:
        self.lengths.append(len(elements))
        self.lists.append(elements)
        return sliced_work.free_steps(elements)

    async def all(self, store: Served) -> None:
        """Wait until all that is to be freed is."""
        for _ in range(3):
            await asyncio.sleep(0)
        while len(store.node.commands.turns):
            await asyncio.sleep(0)
        assert not any(self.lists)


LONG = 3000
ITEMS = [[key, b""] for key in KEYS[:LONG]]


@pytest.mark.parametrize(
    ("method", "argument", "length"),
    [
        ("set_many", ITEMS, LONG),
        ("get_many", KEYS[:LONG], LONG),
        ("delete_many", KEYS[:LONG], LONG),
        ("set_many", [*ITEMS, ["", b""]], LONG + 1),
        ("delete_many", [*KEYS[:LONG], 7], LONG // 512 * 512),
    ],
    ids=["changed", "read", "deleted", "refused", "malformed"],
)
async def test_the_long_list_of_a_request_is_freed_in_slices(
    method: str, argument: list[Any], length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed = Freed(monkeypatch)
    async with served() as store:
        await store.ask(method, argument)
        await freed.all(store)
        assert freed.lengths == [length]


async def test_the_long_list_of_a_request_that_is_cancelled_is_freed_in_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    freed = Freed(monkeypatch)
    async with served() as store:
        request = store.peer.request("set_many", [[key, b""] for key in KEYS])
        store.handle(request)
        for _ in range(6):  # a slice or two of its decoding
            await asyncio.sleep(0)
        request.cancel()
        await all_answered([request])
        await freed.all(store)
        assert 0 < freed.lengths[0] < len(KEYS)


async def test_a_list_is_freed_in_pieces() -> None:
    elements = [bytes(1) for _ in range(10_000)]
    left = [len(elements) for _ in sliced_work.free_steps(elements)]
    assert left == [10_000 - 2048, 10_000 - 2 * 2048, 10_000 - 3 * 2048, 10_000 - 4 * 2048, 0]
