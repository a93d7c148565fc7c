"""Rate limits, on a served and on an embedded store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.stores import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera import Database

LONG_S = 3600.0


@pytest.fixture(params=["served", "embedded"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(request.param, tmp_path) as database:
        yield database


async def test_a_limit_counts_for_all_that_use_its_name(db: Database) -> None:
    limits = [db.rate_limit("login/ann", limit=5, per=LONG_S) for _ in range(8)]
    refused_for = await asyncio.gather(*(limit.take() for limit in limits))
    assert refused_for.count(0.0) == 5
    assert all(0 < seconds <= LONG_S for seconds in refused_for if seconds)
    assert await db.rate_limit("login/bob", limit=5, per=LONG_S).take() == 0.0


async def test_who_was_refused_does_not_ask_again_before_the_window_ends(db: Database) -> None:
    limit = db.rate_limit("mail", limit=1, per=LONG_S)
    assert await limit.take() == 0.0
    first = await limit.take()
    revision = (await db.status())["revision"]
    second = await limit.take()
    assert 0 < second <= first <= LONG_S
    assert (await db.status())["revision"] == revision


async def test_a_window_ends_by_the_clock_of_the_store(db: Database) -> None:
    limit = db.rate_limit("mail", limit=2, per=0.05)
    for _ in range(7):
        await limit.wait()
    assert await db.rate_limit("mail", limit=2, per=0.05).take() <= 0.05


async def test_a_key_that_another_program_stored_without_an_end_refuses_for_one_window(db: Database) -> None:
    await db.set("mail/.rate", "1000")
    assert await db.rate_limit("mail", limit=1, per=LONG_S).take() == LONG_S
    assert await db.ttl("mail/.rate") is not None


@pytest.mark.parametrize(("limit", "per"), [(0, 1.0), (1, 0.0), (1, -1.0)])
async def test_a_limit_that_allows_nothing_is_a_mistake(db: Database, limit: int, per: float) -> None:
    with pytest.raises(ValueError, match="is between"):
        db.rate_limit("mail", limit=limit, per=per)
