# Generated from tests/unit/client/recipes/test_barrier.py by
# tools/generate_sync_tests.py (make generate). Do not edit.
"""Barriers: on a served and on an embedded store, and with parties that are cut off, on virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from haptera.errors import InvalidKey, WaitTimeout
from haptera.sync import Database
from tests.support.stores import opened_in_thread


@pytest.fixture(params=["served", "embedded"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened_in_thread(request.param, tmp_path) as database:
        yield database


def keys_of(db: Database) -> set[str]:
    return {entry.key for entry in db.scan(prefix="step/", keys_only=True)}


def test_a_party_that_comes_to_an_open_barrier_passes(db: Database) -> None:
    barrier = db.barrier("step", parties=1)
    barrier.wait()
    revision = db.revision
    barrier.wait()
    db.barrier("step", parties=50, wait=0).wait()
    assert db.status()["revision"] == revision, "nothing was written"


def test_a_party_gives_up_when_the_others_have_not_come_in_time(db: Database) -> None:
    with pytest.raises(WaitTimeout, match="step"):
        db.barrier("step", parties=2, wait=0.05).wait()
    assert keys_of(db) == set()
    with pytest.raises(WaitTimeout):
        db.barrier("step", parties=2, wait=0).wait()


def test_mistakes_of_a_program_are_told_when_the_barrier_is_made(db: Database) -> None:
    for parties in (0, 128):
        with pytest.raises(ValueError, match="parties is between 1 and 127"):
            db.barrier("step", parties=parties)
    with pytest.raises(ValueError, match="ttl is between"):
        db.barrier("step", parties=2, ttl=0.5)
    name = "n" * (4096 - len("/.barrier/") - 16)
    db.barrier(name, parties=2)
    for refused in ("", name + "n"):
        with pytest.raises(InvalidKey):
            db.barrier(refused, parties=2)
