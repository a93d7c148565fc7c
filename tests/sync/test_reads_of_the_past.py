# Generated from tests/integration/test_reads_of_the_past.py by
# tools/generate_sync_tests.py (make generate). Do not edit.
"""The store as it was: served and embedded, while it goes on, over a restart, and on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

import haptera
import haptera.sync
from haptera.errors import InvalidArgument
from haptera.kv_groups import HISTORY, KV_GROUPS
from haptera.sync import Database
from haptera.testing import node_in_thread
from tests.support.stores import Kind, opened_in_thread

KINDS = pytest.mark.parametrize("kind", ["served", "embedded"])


def rows(db: Database, **options: Any) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in db.scan(**options)}


@KINDS
def test_each_read_is_of_the_revision_that_is_asked_for(kind: Kind, tmp_path: Path) -> None:
    with opened_in_thread(kind, tmp_path) as db:
        db.set_many({"a": "1", "b": "2"})
        db.delete("b")
        db.clear(prefix="")
        db.set("c", "3")
        assert rows(db, at_revision=1) == {"a": b"1", "b": b"2"}
        assert rows(db, at_revision=2, reverse=True) == {"a": b"1"}
        assert rows(db, at_revision=3) == rows(db, at_revision=0) == {}
        assert rows(db, at_revision=4, prefix="c") == {"c": b"3"}
        assert [db.count(at_revision=revision) for revision in range(5)] == [0, 2, 1, 0, 1]
        assert db.count(glob="*b*", at_revision=1) == 1
        one = db.get("b", at_revision=1)
        assert (one, db.revision) == (haptera.Entry("b", b"2", 1), 1)
        assert db.get("b", at_revision=2) is None
        assert db.get_many(["b", "a"], at_revision=2) == [None, haptera.Entry("a", b"1", 1)]
        assert db.revision == 2
        scan = db.scan(at_revision=2)
        assert [entry.key for entry in scan] == ["a"]
        assert (scan.revision, scan.count, scan.last_key) == (2, 1, "a")


def test_the_past_is_there_after_a_restart(tmp_path: Path) -> None:
    with haptera.sync.open(tmp_path / "data") as db:
        for number in range(1, 6):
            db.set("a", str(number))
    with haptera.sync.open(tmp_path / "data") as db:
        for number in range(1, 6):
            assert db.get("a", at_revision=number) == haptera.Entry("a", b"%d" % number, number)


def test_without_the_capability_the_options_are_not_known() -> None:
    groups = tuple((group for group in KV_GROUPS if group != HISTORY))
    with node_in_thread(storage="memory") as url, haptera.sync.dial(url, groups=groups) as peer:
        with pytest.raises(InvalidArgument) as caught:
            peer.call("kv", "get", msgspec.msgpack.encode(["a", {"at_revision": 0}]))
        assert caught.value.details == {"unknown": "at_revision"}
