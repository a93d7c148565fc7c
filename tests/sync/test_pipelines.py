# Generated from tests/unit/client/calls/test_pipelines.py by
# tools/generate_sync_tests.py (make generate). Do not edit.
"""Pipelines: calls that are collected and sent together, on a served and on an embedded store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import haptera
import haptera.sync
from haptera.errors import DeadlineExceeded
from haptera.sync import Database
from tests.support.stores import opened_in_thread


@pytest.fixture(params=["served", "embedded"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened_in_thread(request.param, tmp_path) as database:
        yield database


def test_the_results_of_a_pipeline_are_those_of_its_calls(db: Database) -> None:
    db.set("a", b"1")
    with db.pipeline() as p:
        entry, missing = (p.get("a"), p.get("b"))
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
    assert db.count(prefix="many/") == 300


def test_the_changes_of_a_pipeline_are_made_in_their_order(db: Database) -> None:
    with db.pipeline() as p:
        for place in range(100):
            p.set("k", str(place))
    assert (entry := db.get("k")) is not None
    assert entry.value == b"99"


def test_the_first_error_is_raised_when_all_calls_are_answered(db: Database) -> None:
    db.set("text", b"seven")
    with pytest.raises(haptera.KeyExists):
        with db.pipeline() as p:
            first = p.set("a", b"1")
            refused = p.set("text", b"8", if_absent=True)
            wrong = p.increment("text")
            last = p.set("b", b"1")
    assert first.error is None
    assert last.result() > first.result()
    assert isinstance(refused.error, haptera.KeyExists)
    with pytest.raises(haptera.errors.NotAnInteger):
        wrong.result()


def test_errors_are_left_to_the_results_where_the_pipeline_does_not_check(db: Database) -> None:
    with db.pipeline(check=False) as p:
        missing = p.expire("no", 5.0)
        number = p.increment("n")
    assert isinstance(missing.error, haptera.KeyNotFound)
    assert number.result() == 1


def test_results_are_there_within_the_block_after_a_send(db: Database) -> None:
    with db.pipeline() as p:
        number = p.increment("n")
        with pytest.raises(RuntimeError, match="not sent yet"):
            number.result()
        p.send()
        copy = p.set("copy", str(number.result()))
    assert copy.error is None
    assert (entry := db.get("copy")) is not None
    assert entry.value == b"1"


def test_a_block_that_raises_sends_nothing(db: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        with db.pipeline() as p:
            waiting = p.set("a", b"1")
            raise ZeroDivisionError
    assert isinstance(waiting.error, RuntimeError)
    assert not db.exists("a")


def test_an_argument_that_cannot_be_used_is_an_error_of_its_call(db: Database) -> None:
    with pytest.raises(TypeError, match="str"):
        with db.pipeline() as p:
            p.get(7)
            other = p.set("a", b"1")
    assert other.result() == 1


def test_a_pipeline_has_a_block_and_then_an_end(db: Database) -> None:
    with db.pipeline() as p:
        pass
    with pytest.raises(ValueError, match="has ended"):
        p.get("a")
    with pytest.raises(ValueError, match="has ended"):
        with p:
            pass


def test_each_call_of_a_pipeline_has_its_own_time(db: Database) -> None:
    db.set("a", b"1")
    with db.pipeline(check=False) as p:
        late = p.increment("n", timeout=1e-09)
        in_time = p.increment("m")
    assert isinstance(late.error, DeadlineExceeded)
    assert in_time.result() == 1


def test_a_pipeline_that_is_dropped_leaves_no_coroutine_behind(db: Database) -> None:
    waiting = db.pipeline().get("a")
    assert waiting.done
    assert isinstance(waiting.error, RuntimeError)
    assert db.get("a") is None
