# Generated from tests/unit/client/recipes/test_rate_limit.py by
# tools/generate_sync_tests.py (make generate). Do not edit.
"""Rate limits, on a served and on an embedded store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from haptera.sync import Database
from tests.support.stores import opened_in_thread

LONG_S = 3600.0


@pytest.fixture(params=["served", "embedded"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened_in_thread(request.param, tmp_path) as database:
        yield database


def test_who_was_refused_does_not_ask_again_before_the_window_ends(db: Database) -> None:
    limit = db.rate_limit("mail", limit=1, per=LONG_S)
    assert limit.take() == 0.0
    first = limit.take()
    revision = db.status()["revision"]
    second = limit.take()
    assert 0 < second <= first <= LONG_S
    assert db.status()["revision"] == revision


def test_a_window_ends_by_the_clock_of_the_store(db: Database) -> None:
    limit = db.rate_limit("mail", limit=2, per=0.05)
    for _ in range(7):
        limit.wait()
    assert db.rate_limit("mail", limit=2, per=0.05).take() <= 0.05


def test_a_key_that_another_program_stored_without_an_end_refuses_for_one_window(db: Database) -> None:
    db.set("mail/.rate", "1000")
    assert db.rate_limit("mail", limit=1, per=LONG_S).take() == LONG_S
    assert db.ttl("mail/.rate") is not None


@pytest.mark.parametrize(("limit", "per"), [(0, 1.0), (1, 0.0), (1, -1.0)])
def test_a_limit_that_allows_nothing_is_a_mistake(db: Database, limit: int, per: float) -> None:
    with pytest.raises(ValueError, match="is between"):
        db.rate_limit("mail", limit=limit, per=per)
