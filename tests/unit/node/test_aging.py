"""Remembered answers that are many age by themselves.

Trap: a bounded table for everyone that nobody empties.
"""

from __future__ import annotations

from asyncio import sleep
from typing import TYPE_CHECKING

import pytest

from haptera.errors import Failure
from haptera.node.aging import AGE_EVERY_S
from haptera.node.commands import Command
from haptera.state import Increment, limits
from haptera.testing import MemoryFileSystem, node, virtual_clock
from tests.unit.node.nodes import Asked

if TYPE_CHECKING:
    from haptera.node.node import Node


@pytest.fixture(autouse=True)
def a_small_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWERS_PER_USER_MAX", 10)


async def change(node: Node, number: int) -> int | None:
    """Change the store by a client that never says what it has read; gives the code of its refusal."""
    asked = Asked(node, Command(Increment("n", 1), number.to_bytes(16, "big"), bytes(32)))
    while not asked.answered:
        await sleep(0)
    return asked.result.code if isinstance(asked.result, Failure) else None


async def fill(node: Node, count: int = 10) -> None:
    for number in range(count):
        assert await change(node, number) is None
    node.commands.aging.look()  # as the service does with the results


@virtual_clock
async def test_a_full_table_is_empty_after_a_quiet_night() -> None:
    async with node(storage="memory") as url:
        await fill(url.node)
        assert await change(url.node, 100) == 3008
        await sleep(8 * 3600)
        written = url.node.index - 10
        assert await change(url.node, 101) is None
        assert written <= limits.ANSWER_KEPT_MS / 1000 / AGE_EVERY_S + 2


@virtual_clock
async def test_a_table_that_was_full_before_a_restart_empties_in_ten_minutes() -> None:
    fs = MemoryFileSystem()
    async with node(storage=fs) as url:
        await fill(url.node)
    await sleep(86400)
    async with node(storage=fs) as url:
        assert await change(url.node, 100) == 3008
        await sleep(11 * 60)
        assert await change(url.node, 101) is None


@virtual_clock
async def test_a_table_with_room_writes_nothing_by_itself() -> None:
    async with node(storage="memory") as url:
        await fill(url.node, 7)
        await sleep(3600)
        assert url.node.index == 7
