# Generated from tests/unit/client/recipes/test_locks.py by
# tools/generate_sync_tests.py (make generate). Do not edit.
"""Locks, semaphores and elections: who holds them, in which order, and how a holder learns that it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haptera.client.recipes.line import LINE
from haptera.errors import Fenced, InvalidKey, WaitTimeout
from haptera.sync import Database
from tests.support.stores import opened_in_thread


@pytest.fixture(params=["served", "embedded"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened_in_thread(request.param, tmp_path) as database:
        yield database


def places(db: Database, name: str = "jobs") -> list[bytes]:
    return [place.value for place in db.scan(prefix=name + LINE)]


def test_a_lock_has_a_token_that_is_good_until_the_block_ends(db: Database) -> None:
    with db.lock("jobs", value=b"me") as lock:
        assert lock.held
        db.set("report", b"1", fence=lock.token)
        [place] = [place for place in db.scan(prefix="jobs/.line/")]
        assert (place.value, place.version) == (b"me", lock.token)
        [lease] = [lease for lease in db.leases()]
        assert place.key == f"jobs/.line/{lease.id:016x}"
        assert repr(lock) == f"<haptera.sync.Holding {lock.token}, held>"
    assert lock.lost.wait() is None
    assert repr(lock).endswith("ended>")
    assert places(db) == []
    with pytest.raises(Fenced):
        db.set("report", b"2", fence=lock.token)


def test_who_does_not_wait_is_refused_at_once_and_leaves_nothing_behind(db: Database) -> None:
    with db.lock("jobs"):
        revision = db.status()["revision"]
        with pytest.raises(WaitTimeout, match="jobs is held by others"):
            db.lock("jobs", wait=0).__enter__()
        assert db.status()["revision"] == revision, "a claim that cannot succeed is not written"
        with pytest.raises(TimeoutError):
            db.lock("jobs", wait=0.01).__enter__()
        assert len(places(db)) == 1
    with db.lock("jobs", wait=0) as lock:
        assert lock.held


def test_a_claim_is_for_one_holder_at_a_time_and_may_be_entered_again(db: Database) -> None:
    claim = db.lock("jobs")
    with claim as first:
        with pytest.raises(RuntimeError, match="the claim to jobs is entered already"):
            claim.__enter__()
    with claim as second:
        assert second.token > first.token


@pytest.mark.parametrize(
    ("claim", "error"),
    [
        (lambda db: db.lock("jobs", ttl=0.1), "ttl is between"),
        (lambda db: db.lock("jobs", wait=-1.0), "wait is a number of seconds"),
        (lambda db: db.lock("jobs", wait=float("nan")), "wait is a number of seconds"),
        (lambda db: db.semaphore("jobs", limit=0), "limit is between"),
    ],
)
def test_a_claim_that_cannot_succeed_is_a_mistake(
    db: Database, claim: Callable[[Database], object], error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        claim(db)


def test_a_name_that_is_no_key_is_refused_and_leaves_no_lease(db: Database) -> None:
    with pytest.raises(InvalidKey):
        db.lock("x" * 4090).__enter__()
    assert [lease for lease in db.leases()] == []
