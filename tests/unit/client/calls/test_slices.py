"""Long lists of a call are converted in slices: other work of the program goes on between two."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera.client.calls.slices import SLICE_LENGTH, in_slices
from haptera.testing import node, virtual_clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haptera import Database

LENGTH = 3 * SLICE_LENGTH + 1
KEYS = [f"k{number:06}" for number in range(LENGTH)]


async def turns_of(work: Awaitable[Any]) -> int:
    """How many turns other work has before ``work`` ends."""
    turns = 0
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    await task
    return turns


@virtual_clock
async def test_each_slice_is_a_turn_and_the_result_is_whole() -> None:
    sizes: list[int] = []

    def double(numbers: list[int]) -> list[int]:
        sizes.append(len(numbers))
        return [2 * number for number in numbers]

    assert await in_slices(list(range(LENGTH)), double) == [2 * number for number in range(LENGTH)]
    assert sizes == [SLICE_LENGTH] * 3 + [1]
    assert await turns_of(in_slices(list(range(LENGTH)), double)) > 3
    sizes.clear()
    assert await in_slices(list(range(SLICE_LENGTH)), double) == [2 * number for number in range(SLICE_LENGTH)]
    assert sizes == [SLICE_LENGTH]


@pytest.mark.parametrize(
    "work",
    [
        lambda db: db.set_many(dict.fromkeys(KEYS, "v")),
        lambda db: db.set_many((key, b"v") for key in KEYS),
        lambda db: db.delete_many(KEYS),
        lambda db: db.get_many(iter(KEYS)),
    ],
    ids=["set_many of a mapping", "set_many of pairs", "delete_many", "get_many"],
)
async def test_a_call_with_a_long_list_checks_it_in_turns(
    work: Callable[[Database], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: one caller's long work on the loop. The conversion of the caller's own list is such work."""
    async with node() as url, haptera.connect(url) as db:
        sent = asyncio.Event()
        turns_before = 0

        async def call(*_: Any) -> Any:
            sent.set()
            raise ZeroDivisionError

        monkeypatch.setattr(db._channel, "call", call)
        calling = asyncio.ensure_future(work(db))
        while not sent.is_set():
            await asyncio.sleep(0)
            turns_before += 1
        assert turns_before > 3
        with pytest.raises(ZeroDivisionError):
            await calling


async def test_a_mapping_that_changes_meanwhile_is_stored_as_it_was() -> None:
    async with node() as url, haptera.connect(url) as db:
        items = dict.fromkeys(KEYS, b"before")
        storing = asyncio.ensure_future(db.set_many(items))
        await asyncio.sleep(0)
        items[KEYS[-1]] = b"after"
        items["new"] = b"after"
        await storing
        assert await db.count() == LENGTH
        found = await db.get_many([KEYS[-1]])
        assert found[0] is not None
        assert found[0].value == b"before"


async def test_a_wrong_element_of_a_later_slice_is_refused_before_anything_is_sent() -> None:
    async with node() as url, haptera.connect(url) as db:
        with pytest.raises(TypeError, match="a key is a str"):
            await db.set_many([*((key, b"v") for key in KEYS), (7, b"v")])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="a key is a str"):
            await db.get_many([*KEYS, 7])  # type: ignore[list-item]
        assert await db.count() == 0


async def test_a_drain_waits_for_a_call_that_is_being_converted() -> None:
    async with node() as url:
        db = haptera.connect(url)
        await db.set("k", b"v")
        storing = asyncio.ensure_future(db.set_many(dict.fromkeys(KEYS, b"v")))
        await asyncio.sleep(0)
        await db.drain()
        await storing
        async with haptera.connect(url) as other:
            assert await other.count() == LENGTH + 1
