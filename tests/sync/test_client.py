# Generated from tests/integration/test_client.py by
# tools/generate_sync_tests.py (make generate). Do not edit.
"""The database's calls, on a served and on an embedded store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haptera.errors import ConnectionLost, ServerError, StorageError
from haptera.sync import Database, connect, open
from haptera.testing import node_in_thread

INTEGER_MAX = 2**63 - 1


@pytest.fixture(params=["served", "embedded"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "embedded":
        with open(tmp_path / "data") as database:
            yield database
    else:
        with node_in_thread(listen="tcp") as url, connect(url) as database:
            yield database


def refused(call: Any) -> tuple[int, str]:
    with pytest.raises(ServerError) as error:
        call()
    return (error.value.code, error.value.outcome)


def test_set_get_and_versions(db: Database) -> None:
    assert db.get("k") is None
    first = db.set("k", "text")
    second = db.set("k", b"bytes")
    assert second > first > 0
    entry = db.get("k")
    assert entry is not None
    assert (entry.key, entry.value, entry.version, entry.expires_at) == ("k", b"bytes", second, None)
    assert db.revision == second


class Digest(bytes):
    """A value of a class of the program's own, as some libraries have."""


class Growing(bytearray):
    """The same, of bytes that can be changed."""


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x00\xff",
        bytearray(b"ba"),
        memoryview(b"mv"),
        memoryview(b"abcd")[::2],
        "grün",
        Digest(b"own"),
        Growing(b"own"),
    ],
)
def test_values_of_each_type(db: Database, value: Any) -> None:
    """Trap: served and embedded store that differ."""
    db.set("k", value)
    entry = db.get("k")
    assert entry is not None
    assert entry.value == (value.encode() if isinstance(value, str) else bytes(value))
    db.set_many([("m", value)])
    assert db.get_many(["m"])[0] is not None


def test_stored_value_is_a_copy(db: Database) -> None:
    value = bytearray(b"before")
    db.set("k", value)
    value[:] = b"after!"
    entry = db.get("k")
    assert entry is not None
    assert entry.value == b"before"


def test_conditions(db: Database) -> None:
    version = db.set("k", b"1", if_absent=True)
    assert refused(lambda: db.set("k", b"2", if_absent=True)) == (4003, "not_applied")
    assert refused(lambda: db.set("new", b"2", if_present=True)) == (4001, "not_applied")
    assert refused(lambda: db.set("k", b"2", if_version=version + 9)) == (4002, "not_applied")
    assert refused(lambda: db.set("k", b"2", if_version=0)) == (4002, "not_applied")
    version = db.set("k", b"2", if_version=version, if_present=True)
    assert refused(lambda: db.delete("k", if_version=version - 1)) == (4002, "not_applied")
    assert db.delete("k", if_version=version)
    assert not db.delete("k")
    assert db.set("k", b"3", if_version=0) > version


def test_failed_condition_names_what_was_expected_and_found(db: Database) -> None:
    version = db.set("k", b"1")
    with pytest.raises(ServerError) as error:
        db.set("k", b"2", if_version=version + 1)
    assert error.value.details == {"key": "k", "expected": version + 1, "actual": version}


def test_get_and_set(db: Database) -> None:
    assert db.get_and_set("k", b"1") is None
    version = db.revision
    old = db.get_and_set("k", b"2")
    assert old is not None
    assert (old.key, old.value, old.version) == ("k", b"1", version)
    entry = db.get("k")
    assert entry is not None
    assert entry.version == version + 1


def test_many(db: Database) -> None:
    version = db.set_many({"a": b"1", "b": "2"})
    db.set_many([("c", b"1"), ("c", b"2")])
    entries = db.get_many(["b", "missing", "a", "c"])
    assert [entry and (entry.key, entry.value) for entry in entries] == [("b", b"2"), None, ("a", b"1"), ("c", b"2")]
    assert entries[0] is not None
    assert entries[0].version == version
    assert db.delete_many(["a", "b", "missing"]) == 2
    assert db.exists("c")
    assert not db.exists("a")


def test_increment(db: Database) -> None:
    assert db.increment("n") == 1
    assert db.increment("n", -5) == -4
    assert db.increment("m", 1, initial=10) == 11
    db.set("n", str(INTEGER_MAX))
    assert refused(lambda: db.increment("n")) == (4005, "not_applied")
    db.set("n", "no number")
    assert refused(lambda: db.increment("n")) == (4004, "not_applied")


def test_rename(db: Database) -> None:
    db.set_many({"a": b"1", "b": b"2"})
    assert refused(lambda: db.rename("a", "b", if_absent=True)) == (4003, "not_applied")
    assert refused(lambda: db.rename("missing", "b")) == (4001, "not_applied")
    version = db.rename("a", "b")
    entry = db.get("b")
    assert entry is not None
    assert (entry.value, entry.version) == (b"1", version)
    assert db.get("a") is None


def test_count_and_clear(db: Database) -> None:
    db.set_many({f"x/{n}": b"" for n in range(10)} | {"y": b""})
    assert db.count() == 11
    assert db.count(prefix="x/") == 10
    assert db.count(start="x/5", end="y") == 5
    assert db.count(glob="*/[0-2]") == 3
    assert db.clear(prefix="x/") == 10
    assert db.clear(prefix="") == 1
    assert db.count() == 0


def test_scan(db: Database) -> None:
    db.set_many({f"k{n:04}": f"v{n}" for n in range(3000)})
    with db.scan(prefix="k", start="k0010") as scan:
        keys = [entry.key for entry in scan]
    assert keys == [f"k{n:04}" for n in range(10, 3000)]
    assert [scan.count, scan.last_key, scan.revision] == [2990, "k2999", db.revision]
    assert [entry.key for entry in db.scan(limit=2, reverse=True)] == ["k2999", "k2998"]
    assert [entry.value for entry in db.scan(keys_only=True, end="k0001")] == [b""]
    assert [entry.text for entry in db.scan(glob="k00?1", limit=2)] == ["v1", "v11"]
    assert [entry for entry in db.scan(prefix="none")] == []
    assert [entry for entry in db.scan(limit=0)] == []


def test_scan_is_of_one_revision(db: Database) -> None:
    db.set_many({f"k{n:04}": b"old" for n in range(3000)})
    scan = db.scan()
    first = next(scan)
    db.set_many({f"k{n:04}": b"new" for n in range(3000)})
    assert {entry.value for entry in scan} | {first.value} == {b"old"}


def test_what_only_the_store_can_judge_is_refused_alike(db: Database) -> None:
    for key in ("", "a\x00b", "k" * 4097, "\ud800"):
        assert refused(lambda: db.set(key, b"")) == (4006, "not_applied")
        assert refused(lambda: db.get(key)) == (4006, "not_applied")
    assert refused(lambda: db.set("k", bytes(8 * 1024 * 1024 + 1))) == (4007, "not_applied")
    assert db.set("k", bytes(8 * 1024 * 1024))


def test_mistakes_of_the_program(db: Database) -> None:
    bad: list[Any] = [
        lambda: db.get(b"k"),
        lambda: db.set("k", 5),
        lambda: db.set("k", b"", if_version=True),
        lambda: db.get_many("ab"),
        lambda: db.increment("k", 1.5),
    ]
    for call in bad:
        with pytest.raises(TypeError):
            call()
    for call in (
        lambda: db.set("k", b"", if_absent=True, if_present=True),
        lambda: db.set("k", b"", if_version=-1),
        lambda: db.get("k", timeout=0),
        lambda: db.increment("k", 2**63),
    ):
        with pytest.raises(ValueError, match=".+"):
            call()
    assert db.count() == 0


def test_a_number_of_a_subclass_of_int_is_that_number(db: Database) -> None:
    """Trap: served and embedded store that differ."""

    class Number(int):
        pass

    three = Number(3)
    assert db.increment("n", three, initial=three) == 6
    assert db.set("k", b"", if_version=db.set("k", b"")) == 3
    assert db.set("k", b"", if_version=three) == 4
    assert [entry.key for entry in db.scan(limit=three)] == ["k", "n"]


def test_status_and_name(db: Database) -> None:
    db.set("k", b"v")
    status = db.status()
    assert (status["keys"], status["revision"], status["durability"], status["encrypted"]) == (1, 1, "sync", True)
    assert "Database" in repr(db)


def test_closed_database_refuses_calls(db: Database) -> None:
    db.set("k", b"v")
    db.drain()
    with pytest.raises(ConnectionLost, match="closed"):
        db.get("k")
    db.aclose()


def test_embedded_store_keeps_what_it_was_given_and_locks_its_directory(tmp_path: Path) -> None:
    db = open(tmp_path / "data")
    version = db.set("k", b"v")
    with pytest.raises(StorageError):
        open(tmp_path / "data").get("k")
    db.aclose()
    with open(tmp_path / "data", durability="os") as db:
        entry = db.get("k")
        assert entry is not None
        assert (entry.value, entry.version) == (b"v", version)
        assert db.status()["durability"] == "os"


def test_keys_that_expire(db: Database) -> None:
    before = time.time()
    version = db.set("k", "v", ttl=60.0)
    entry = db.get("k")
    assert entry is not None
    assert entry.expires_at is not None
    assert before + 59 < entry.expires_at < time.time() + 61
    left = db.ttl("k")
    assert left is not None
    assert 59 < left <= 60
    assert db.persist("k") == version + 1 == db.revision
    assert db.ttl("k") is None
    assert db.expire("k", 30) == version + 2
    db.set("k", "kept", keep_ttl=True)
    assert (db.ttl("k") or 0) > 29
    old = db.get_and_set("k", "1", ttl=90)
    assert old is not None
    assert old.value == b"kept"
    db.increment("k")
    assert (db.ttl("k") or 0) > 89
    found = db.get_and_expire("k", ttl=None)
    assert found is not None
    assert (found.value, found.version, found.expires_at) == (b"2", db.revision, None)
    taken = db.get_and_delete("k")
    assert taken is not None
    assert (taken.value, taken.version, db.revision) == (b"2", found.version, found.version + 1)
    db.set_many({"a": "1", "b": "2"}, ttl=60)
    rows = [row for row in db.scan(prefix="")]
    assert all((row.expires_at is not None for row in rows))
    assert [entry and entry.expires_at for entry in db.get_many(["a", "b"])] == [row.expires_at for row in rows]


def test_a_transaction_may_give_times(db: Database) -> None:
    result = db.transact(then=[("set", ["k", b"1", {"ttl_ms": 60000}]), ("ttl", ["k"]), ("expire", ["k", None])])
    assert result.succeeded
    assert db.ttl("k") is None
