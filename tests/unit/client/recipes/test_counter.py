"""Counters, on a served and on an embedded store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from haptera.errors import NotAnInteger
from tests.support.stores import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera import Database


@pytest.fixture(params=["served", "embedded"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(request.param, tmp_path) as database:
        yield database


async def test_a_counter_is_the_number_under_its_key(db: Database) -> None:
    hits = db.counter("hits")
    assert await hits.get() == 0
    assert await hits.add() == 1
    assert await hits.add(-6) == -5
    assert await hits.get() == -5
    assert await db.increment("hits") == -4


async def test_what_is_added_around_a_reset_is_neither_lost_nor_told_twice(db: Database) -> None:
    hits = db.counter("hits")

    async def take_off() -> int:
        return sum([await hits.reset() for _ in range(20)])

    taken = asyncio.ensure_future(take_off())
    await asyncio.gather(*(hits.add() for _ in range(400)))
    assert await taken + await hits.get() == 400


async def test_a_reset_leaves_what_is_no_number(db: Database) -> None:
    await db.set("text", "seven")
    counter = db.counter("text")
    with pytest.raises(NotAnInteger):
        await counter.reset()
    with pytest.raises(NotAnInteger, match="text"):
        await counter.get()
    assert (entry := await db.get("text")) is not None
    assert entry.text == "seven"


@pytest.mark.parametrize("text", ["+1", " 1", "1\n", "1_0", "01", "-0", "", "\u0661", str(2**63), str(-(2**63) - 1)])
async def test_a_counter_reads_the_numbers_that_increment_adds_to_and_no_others(db: Database, text: str) -> None:
    await db.set("hits", text)
    counter = db.counter("hits")
    with pytest.raises(NotAnInteger):
        await counter.add(0)
    with pytest.raises(NotAnInteger):
        await counter.get()


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
async def test_a_counter_reads_the_largest_and_the_smallest_number(db: Database, number: int) -> None:
    await db.set("hits", str(number))
    assert await db.counter("hits").get() == number


async def test_a_counter_has_the_name_of_a_key(db: Database) -> None:
    with pytest.raises(TypeError):
        db.counter(b"hits")  # type: ignore[arg-type]
