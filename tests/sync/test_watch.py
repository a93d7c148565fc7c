# Generated from tests/integration/test_watch.py by
# tools/generate_sync_tests.py (make generate). Do not edit.
"""Watches of a whole client: served and embedded, over connections that are cut, and on the command line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import haptera
import haptera.sync
from haptera import Event
from haptera.errors import RevisionCompacted
from tests.support.stores import Kind, opened_in_thread


def told(event: Event) -> tuple[Any, ...]:
    return (event.version, event.kind, event.key, event.value)


@pytest.mark.parametrize("kind", ["served", "embedded"])
def test_a_watch_tells_changes(kind: Kind, tmp_path: Path) -> None:
    with opened_in_thread(kind, tmp_path) as db:
        db.set("config/a", "0")
        with db.watch(prefix="config/", initial=True, previous=True) as events:
            db.set("config/b", "1")
            db.set("other", "")
            db.set("config/a", "2")
            db.clear(prefix="")
            found = [next(events) for _ in range(6)]
            assert list(map(told, found[:4])) == [
                (1, "present", "config/a", b"0"),
                (1, "synced", "", None),
                (2, "put", "config/b", b"1"),
                (4, "put", "config/a", b"2"),
            ]
            assert found[3].previous == haptera.Entry("config/a", b"0", 1)
            assert found[3].text == "2"
            assert sorted(map(told, found[4:])) == [(5, "delete", "config/a", None), (5, "delete", "config/b", None)]
            assert events.revision == 5
        with db.watch("other", start_revision=1) as events:
            assert told(next(events)) == (3, "put", "other", b"")


@pytest.mark.parametrize("kind", ["served", "embedded"])
def test_a_watch_that_cannot_begin_is_refused_alike(kind: Kind, tmp_path: Path) -> None:
    with opened_in_thread(kind, tmp_path) as db:
        with pytest.raises(RevisionCompacted) as failed:
            next(db.watch(start_revision=7))
        assert failed.value.details == {"revision": 7, "oldest": 1, "newest": 0}
        with pytest.raises(haptera.errors.InvalidKey):
            next(db.watch(""))
        with pytest.raises(haptera.errors.InvalidArgument):
            next(db.watch(progress_interval=0.5))
        with pytest.raises(ValueError, match="exclude each other"):
            db.watch("a", prefix="b")
        with pytest.raises(ValueError, match="exclude each other"):
            db.watch(initial=True, start_revision=1)


@pytest.mark.parametrize("kind", ["served", "embedded"])
def test_a_history_tells_the_versions_of_a_key(kind: Kind, tmp_path: Path) -> None:
    with opened_in_thread(kind, tmp_path) as db:
        begun = time.time() - 1
        for number in range(1500):
            db.set_many({"a": b"%d" % number, "b": b""})
        db.delete("a")
        changes = [change for change in db.history("a")]
        assert [(change.kind, change.version, change.text) for change in changes] == [
            *(("put", number + 1, str(number)) for number in range(1500)),
            ("delete", 1501, ""),
        ]
        assert all((begun < (change.time or 0) < time.time() + 1 and change.user == "" for change in changes))
        assert [change for change in db.history("a", after=1000, limit=300)] == changes[1000:1300]
        assert [change for change in db.history("a", limit=0)] == []
        assert [change for change in db.history("missing")] == []
        with pytest.raises(haptera.errors.InvalidKey):
            next(db.history(""))


@pytest.mark.parametrize("kind", ["served", "embedded"])
def test_the_largest_values_are_told_with_what_they_replaced(kind: Kind, tmp_path: Path) -> None:
    """Trap: an event that no message can have, at which a watch ends for ever."""
    first, second = (b"1" * (8 << 20), b"2" * (8 << 20))
    with opened_in_thread(kind, tmp_path) as db:
        db.set("a", first)
        db.set("a", second)
        db.delete("a")
        with db.watch(start_revision=1, previous=True) as events:
            told_events = [next(events) for _ in range(3)]
        assert [(event.version, event.previous_omitted) for event in told_events] == [(1, False), (2, True), (3, False)]
        assert [event.previous and event.previous.version for event in told_events] == [None, 1, 2]
        assert told_events[2].previous == haptera.Entry("a", second, 2)
        assert db.get("a", at_revision=1) == haptera.Entry("a", first, 1)
