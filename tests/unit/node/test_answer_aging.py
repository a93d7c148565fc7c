"""Remembered answers that are many age by themselves.

Trap: a bounded table for everyone that nobody empties.
"""

from __future__ import annotations

from asyncio import sleep

import pytest

from haptera.node.answer_aging import AGE_EVERY_S
from haptera.node.services import share_sizes
from haptera.state import limits
from haptera.testing import MemoryFileSystem, node, virtual_clock
from tests.unit.node.doubles import FakePeer
from tests.unit.node.test_answer_shares import change
from tests.unit.node.test_kv import Served


@pytest.fixture(autouse=True)
def a_small_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWERS_PER_USER_MAX", 10)


async def fill(store: Served, count: int = 10) -> None:
    """Changes of clients that never say what they have read."""
    for number in range(count):
        assert (await change(store, number, FakePeer())).failure is None


@virtual_clock
async def test_a_full_table_is_empty_after_a_quiet_night() -> None:
    async with node(storage="memory") as url:
        store = Served(url.node)
        await fill(store)
        assert (await change(store, 100)).code == 3008
        before = url.node.index
        await sleep(8 * 3600)
        written = url.node.index - before
        assert (await change(store, 101)).failure is None
        assert written <= limits.ANSWER_KEPT_MS / 1000 / AGE_EVERY_S + 2


@virtual_clock
async def test_a_table_that_was_full_before_a_restart_empties_in_ten_minutes() -> None:
    fs = MemoryFileSystem()
    async with node(storage=fs) as url:
        await fill(Served(url.node))
    await sleep(86400)
    async with node(storage=fs) as url:
        assert url.node.remembered_answers == (10, 10)
        await sleep(11 * 60)
        assert (await change(Served(url.node), 101)).failure is None


@virtual_clock
async def test_a_table_with_room_writes_nothing_by_itself() -> None:
    async with node(storage="memory") as url:
        await fill(Served(url.node), 6)
        await sleep(3600)
        assert url.node.index == 6


@virtual_clock
async def test_a_connection_alone_whose_share_is_full_has_room_again_in_ten_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its refusals make no entries, by which alone answers age."""
    monkeypatch.setattr(share_sizes, "ANSWERS_PER_CONNECTION_MAX", 5)
    async with node(storage="memory") as url:
        store = Served(url.node)
        for number in range(5):
            assert (await change(store, number)).failure is None
        before = url.node.index
        minutes = 0
        while (await change(store, 100)).failure is not None:
            assert minutes < 12
            await sleep(60)
            minutes += 1
        assert minutes > 5
        assert url.node.index - before <= limits.ANSWER_KEPT_MS / 1000 / AGE_EVERY_S + 2


@virtual_clock
async def test_a_share_that_refuses_nothing_any_more_writes_nothing_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share_sizes, "ANSWERS_PER_CONNECTION_MAX", 1)
    async with node(storage="memory") as url:
        store = Served(url.node)
        for number in range(2):
            await change(store, number)
        assert url.node.index == 1
        await sleep(3600)
        assert url.node.index == 2
