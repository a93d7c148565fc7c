"""Pipelines: calls that are collected and sent together, on a served and on an embedded store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.client.calls import pending_calls
from haptera.client.calls.pending_calls import PENDING_CALLS_MAX
from haptera.errors import DeadlineExceeded
from tests.support.stores import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera import Database


@pytest.fixture(params=["served", "embedded"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(request.param, tmp_path) as database:
        yield database


async def test_the_results_of_a_pipeline_are_those_of_its_calls(db: Database) -> None:
    await db.set("a", b"1")
    async with db.pipeline() as p:
        entry, missing = p.get("a"), p.get("b")
        number = p.increment("n", 5)
        versions = [p.set(f"many/{place}", str(place)) for place in range(300)]
        many = p.set_many({"x": b"1", "y": b"2"})
        both = p.transact(then=[("get", ["a"])])
        assert len(p) == 305
        assert [entry.done, missing.done] == [False, False]
    assert [entry.done, missing.done, len(p)] == [True, True, 0]
    assert (found := entry.result()) is not None
    assert found.value == b"1"
    assert missing.result() is None
    assert number.result() == 5
    assert [each.result() for each in versions] == list(range(3, 303))
    assert many.result() == 303
    assert both.result().succeeded
    assert await db.count(prefix="many/") == 300


async def test_the_changes_of_a_pipeline_are_made_in_their_order(db: Database) -> None:
    async with db.pipeline() as p:
        for place in range(100):
            p.set("k", str(place))
    assert (entry := await db.get("k")) is not None
    assert entry.value == b"99"


async def test_the_first_error_is_raised_when_all_calls_are_answered(db: Database) -> None:
    await db.set("text", b"seven")
    with pytest.raises(haptera.KeyExists):  # noqa: PT012
        async with db.pipeline() as p:
            first = p.set("a", b"1")
            refused = p.set("text", b"8", if_absent=True)
            wrong = p.increment("text")
            last = p.set("b", b"1")
    assert first.error is None
    assert last.result() > first.result()
    assert isinstance(refused.error, haptera.KeyExists)
    with pytest.raises(haptera.errors.NotAnInteger):
        wrong.result()


async def test_errors_are_left_to_the_results_where_the_pipeline_does_not_check(db: Database) -> None:
    async with db.pipeline(check=False) as p:
        missing = p.expire("no", 5.0)
        number = p.increment("n")
    assert isinstance(missing.error, haptera.KeyNotFound)
    assert number.result() == 1


async def test_results_are_there_within_the_block_after_a_send(db: Database) -> None:
    async with db.pipeline() as p:
        number = p.increment("n")
        with pytest.raises(RuntimeError, match="not sent yet"):
            number.result()
        await p.send()
        copy = p.set("copy", str(number.result()))
    assert copy.error is None
    assert (entry := await db.get("copy")) is not None
    assert entry.value == b"1"


async def test_a_block_that_raises_sends_nothing(db: Database) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with db.pipeline() as p:
            waiting = p.set("a", b"1")
            raise ZeroDivisionError
    assert isinstance(waiting.error, RuntimeError)
    assert not await db.exists("a")


async def test_an_argument_that_cannot_be_used_is_an_error_of_its_call(db: Database) -> None:
    with pytest.raises(TypeError, match="str"):  # noqa: PT012
        async with db.pipeline() as p:
            p.get(7)  # type: ignore[arg-type]
            other = p.set("a", b"1")
    assert other.result() == 1


async def test_a_pipeline_has_a_block_and_then_an_end(db: Database) -> None:
    async with db.pipeline() as p:
        pass
    with pytest.raises(ValueError, match="has ended"):
        p.get("a")
    with pytest.raises(ValueError, match="has ended"):
        async with p:
            pass


async def test_the_calls_of_a_pipeline_are_bounded(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PENDING_CALLS_MAX >= 10_000
    monkeypatch.setattr(pending_calls, "PENDING_CALLS_MAX", 3)
    async with db.pipeline() as p:
        for sent in range(2):
            calls = [p.increment("n") for _ in range(3)]
            with pytest.raises(ValueError, match="takes 3 calls"):
                p.increment("n")
            await p.send()
            assert calls[-1].result() == 3 * (sent + 1)


async def test_each_call_of_a_pipeline_has_its_own_time(db: Database) -> None:
    await db.set("a", b"1")
    async with db.pipeline(check=False) as p:
        late = p.increment("n", timeout=1e-9)
        in_time = p.increment("m")
    assert isinstance(late.error, DeadlineExceeded)
    assert in_time.result() == 1


async def test_a_pipeline_that_is_dropped_leaves_no_coroutine_behind(db: Database) -> None:
    waiting = db.pipeline().get("a")
    assert waiting.done
    assert isinstance(waiting.error, RuntimeError)
    assert await db.get("a") is None
