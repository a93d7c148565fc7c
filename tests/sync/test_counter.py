# Generated from tests/unit/client/recipes/test_counter.py by
# tools/generate_sync_tests.py (make generate). Do not edit.
"""Counters, on a served and on an embedded store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from haptera.errors import NotAnInteger
from haptera.sync import Database
from tests.support.stores import opened_in_thread


@pytest.fixture(params=["served", "embedded"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened_in_thread(request.param, tmp_path) as database:
        yield database


def test_a_counter_is_the_number_under_its_key(db: Database) -> None:
    hits = db.counter("hits")
    assert hits.get() == 0
    assert hits.add() == 1
    assert hits.add(-6) == -5
    assert hits.get() == -5
    assert db.increment("hits") == -4


def test_a_reset_leaves_what_is_no_number(db: Database) -> None:
    db.set("text", "seven")
    counter = db.counter("text")
    with pytest.raises(NotAnInteger):
        counter.reset()
    with pytest.raises(NotAnInteger, match="text"):
        counter.get()
    assert (entry := db.get("text")) is not None
    assert entry.text == "seven"


@pytest.mark.parametrize("text", ["+1", " 1", "1\n", "1_0", "01", "-0", "", "١", str(2**63), str(-(2**63) - 1)])
def test_a_counter_reads_the_numbers_that_increment_adds_to_and_no_others(db: Database, text: str) -> None:
    db.set("hits", text)
    counter = db.counter("hits")
    with pytest.raises(NotAnInteger):
        counter.add(0)
    with pytest.raises(NotAnInteger):
        counter.get()


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_a_counter_reads_the_largest_and_the_smallest_number(db: Database, number: int) -> None:
    db.set("hits", str(number))
    assert db.counter("hits").get() == number


def test_a_counter_has_the_name_of_a_key(db: Database) -> None:
    with pytest.raises(TypeError):
        db.counter(b"hits")
