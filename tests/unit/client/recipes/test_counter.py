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


async def test_a_counter_has_the_name_of_a_key(db: Database) -> None:
    with pytest.raises(TypeError):
        db.counter(b"hits")  # type: ignore[arg-type]
