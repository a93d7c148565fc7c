"""The database's calls, on a served and on an embedded store."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any

import pytest

from haptera.client import connect, open_embedded
from haptera.errors import ConnectionLost, ServerError, StorageError
from haptera.testing import node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera.client import Database

INTEGER_MAX = 2**63 - 1


@pytest.fixture(params=["served", "embedded"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "embedded":
        async with open_embedded(tmp_path / "data") as database:
            yield database
    else:
        async with node(listen="tcp") as url, connect(url) as database:
            yield database


async def refused(call: Any) -> tuple[int, str]:
    with pytest.raises(ServerError) as error:
        await call
    return error.value.code, error.value.outcome


async def test_set_get_and_versions(db: Database) -> None:
    assert await db.get("k") is None
    first = await db.set("k", "text")
    second = await db.set("k", b"bytes")
    assert second > first > 0
    entry = await db.get("k")
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
        b"\0\xff",
        bytearray(b"ba"),
        memoryview(b"mv"),
        memoryview(b"abcd")[::2],
        "grün",
        Digest(b"own"),
        Growing(b"own"),
    ],
)
async def test_values_of_each_type(db: Database, value: Any) -> None:
    """Trap: served and embedded store that differ."""
    await db.set("k", value)
    entry = await db.get("k")
    assert entry is not None
    assert entry.value == (value.encode() if isinstance(value, str) else bytes(value))
    await db.set_many([("m", value)])
    assert (await db.get_many(["m"]))[0] is not None


async def test_stored_value_is_a_copy(db: Database) -> None:
    value = bytearray(b"before")
    await db.set("k", value)
    value[:] = b"after!"
    entry = await db.get("k")
    assert entry is not None
    assert entry.value == b"before"


async def test_conditions(db: Database) -> None:
    version = await db.set("k", b"1", if_absent=True)
    assert await refused(db.set("k", b"2", if_absent=True)) == (4003, "not_applied")
    assert await refused(db.set("new", b"2", if_present=True)) == (4001, "not_applied")
    assert await refused(db.set("k", b"2", if_version=version + 9)) == (4002, "not_applied")
    assert await refused(db.set("k", b"2", if_version=0)) == (4002, "not_applied")
    version = await db.set("k", b"2", if_version=version, if_present=True)
    assert await refused(db.delete("k", if_version=version - 1)) == (4002, "not_applied")
    assert await db.delete("k", if_version=version)
    assert not await db.delete("k")
    assert await db.set("k", b"3", if_version=0) > version


async def test_failed_condition_names_what_was_expected_and_found(db: Database) -> None:
    version = await db.set("k", b"1")
    with pytest.raises(ServerError) as error:
        await db.set("k", b"2", if_version=version + 1)
    assert error.value.details == {"key": "k", "expected": version + 1, "actual": version}


async def test_get_and_set(db: Database) -> None:
    assert await db.get_and_set("k", b"1") is None
    version = db.revision
    old = await db.get_and_set("k", b"2")
    assert old is not None
    assert (old.key, old.value, old.version) == ("k", b"1", version)
    entry = await db.get("k")
    assert entry is not None
    assert entry.version == version + 1


async def test_many(db: Database) -> None:
    version = await db.set_many({"a": b"1", "b": "2"})
    await db.set_many([("c", b"1"), ("c", b"2")])
    entries = await db.get_many(["b", "missing", "a", "c"])
    assert [entry and (entry.key, entry.value) for entry in entries] == [("b", b"2"), None, ("a", b"1"), ("c", b"2")]
    assert entries[0] is not None
    assert entries[0].version == version
    assert await db.delete_many(["a", "b", "missing"]) == 2
    assert await db.exists("c")
    assert not await db.exists("a")


async def test_increment(db: Database) -> None:
    assert await db.increment("n") == 1
    assert await db.increment("n", -5) == -4
    assert await db.increment("m", 1, initial=10) == 11
    await db.set("n", str(INTEGER_MAX))
    assert await refused(db.increment("n")) == (4005, "not_applied")
    await db.set("n", "no number")
    assert await refused(db.increment("n")) == (4004, "not_applied")


async def test_rename(db: Database) -> None:
    await db.set_many({"a": b"1", "b": b"2"})
    assert await refused(db.rename("a", "b", if_absent=True)) == (4003, "not_applied")
    assert await refused(db.rename("missing", "b")) == (4001, "not_applied")
    version = await db.rename("a", "b")
    entry = await db.get("b")
    assert entry is not None
    assert (entry.value, entry.version) == (b"1", version)
    assert await db.get("a") is None


async def test_count_and_clear(db: Database) -> None:
    await db.set_many({f"x/{n}": b"" for n in range(10)} | {"y": b""})
    assert await db.count() == 11
    assert await db.count(prefix="x/") == 10
    assert await db.count(start="x/5", end="y") == 5
    assert await db.count(glob="*/[0-2]") == 3
    assert await db.clear(prefix="x/") == 10
    assert await db.clear(prefix="") == 1
    assert await db.count() == 0


async def test_scan(db: Database) -> None:
    await db.set_many({f"k{n:04}": f"v{n}" for n in range(3000)})
    async with db.scan(prefix="k", start="k0010") as scan:
        keys = [entry.key async for entry in scan]
    assert keys == [f"k{n:04}" for n in range(10, 3000)]
    assert [scan.count, scan.last_key, scan.revision] == [2990, "k2999", db.revision]
    assert [entry.key async for entry in db.scan(limit=2, reverse=True)] == ["k2999", "k2998"]
    assert [entry.value async for entry in db.scan(keys_only=True, end="k0001")] == [b""]
    assert [entry.text async for entry in db.scan(glob="k00?1", limit=2)] == ["v1", "v11"]
    assert [entry async for entry in db.scan(prefix="none")] == []
    assert [entry async for entry in db.scan(limit=0)] == []


async def test_scan_is_of_one_revision(db: Database) -> None:
    await db.set_many({f"k{n:04}": b"old" for n in range(3000)})
    scan = db.scan()
    first = await anext(scan)
    await db.set_many({f"k{n:04}": b"new" for n in range(3000)})
    assert {entry.value async for entry in scan} | {first.value} == {b"old"}


async def test_scan_left_early_does_not_hold_up_the_database(db: Database) -> None:
    await db.set_many({f"k{n:04}": b"x" * 200 for n in range(3000)})
    for _ in range(200):  # more than may be open at once
        async for _ in db.scan():
            break
    gc.collect()
    assert len([entry async for entry in db.scan()]) == 3000


async def test_what_only_the_store_can_judge_is_refused_alike(db: Database) -> None:
    for key in ("", "a\0b", "k" * 4097, "\ud800"):
        assert await refused(db.set(key, b"")) == (4006, "not_applied")
        assert await refused(db.get(key)) == (4006, "not_applied")
    assert await refused(db.set("k", bytes(8 * 1024 * 1024 + 1))) == (4007, "not_applied")
    assert await db.set("k", bytes(8 * 1024 * 1024))


async def test_mistakes_of_the_program(db: Database) -> None:
    bad: list[Any] = [
        lambda: db.get(b"k"),  # type: ignore[arg-type]
        lambda: db.set("k", 5),  # type: ignore[arg-type]
        lambda: db.set("k", b"", if_version=True),
        lambda: db.get_many("ab"),
        lambda: db.increment("k", 1.5),  # type: ignore[arg-type]
    ]
    for call in bad:
        with pytest.raises(TypeError):
            await call()
    for call in (
        lambda: db.set("k", b"", if_absent=True, if_present=True),
        lambda: db.set("k", b"", if_version=-1),
        lambda: db.get("k", timeout=0),
        lambda: db.increment("k", 2**63),
    ):
        with pytest.raises(ValueError, match=r".+"):
            await call()
    assert await db.count() == 0


async def test_a_number_of_a_subclass_of_int_is_that_number(db: Database) -> None:
    """Trap: served and embedded store that differ."""

    class Number(int):
        pass

    three = Number(3)
    assert await db.increment("n", three, initial=three) == 6
    assert await db.set("k", b"", if_version=await db.set("k", b"")) == 3
    assert await db.set("k", b"", if_version=three) == 4
    assert [entry.key async for entry in db.scan(limit=three)] == ["k", "n"]


async def test_status_and_name(db: Database) -> None:
    await db.set("k", b"v")
    status = await db.status()
    assert (status["keys"], status["revision"], status["durability"], status["encrypted"]) == (1, 1, "sync", True)
    assert "Database" in repr(db)


async def test_many_calls_at_once(db: Database) -> None:
    versions = await asyncio.gather(*(db.set(f"k{n}", str(n)) for n in range(300)))
    assert len(set(versions)) == 300
    entries = await asyncio.gather(*(db.get(f"k{n}") for n in range(300)))
    assert [entry and (entry.text, entry.version) for entry in entries] == [(str(n), v) for n, v in enumerate(versions)]


async def test_closed_database_refuses_calls(db: Database) -> None:
    await db.set("k", b"v")
    await db.drain()
    with pytest.raises(ConnectionLost, match="closed"):
        await db.get("k")
    await db.aclose()


async def test_embedded_store_keeps_what_it_was_given_and_locks_its_directory(tmp_path: Path) -> None:
    db = await open_embedded(tmp_path / "data")
    version = await db.set("k", b"v")
    with pytest.raises(StorageError):
        await open_embedded(tmp_path / "data").get("k")
    await db.aclose()
    async with open_embedded(tmp_path / "data", durability="os") as db:
        entry = await db.get("k")
        assert entry is not None
        assert (entry.value, entry.version) == (b"v", version)
        assert (await db.status())["durability"] == "os"


async def test_thousand_gets_among_durable_sets_on_one_connection_each_get_their_own_answer() -> None:
    """Traps: requests with ids that are nevertheless run one at a time; an answer that leaks into another call."""
    async with node(listen="tcp") as url, connect(url) as db:
        await db.set_many({f"k{n}": f"v{n}" for n in range(1250)})
        done: list[str] = []

        async def get(n: int) -> None:
            entry = await db.get(f"k{n}")
            done.append("get")
            assert entry is not None
            assert (entry.key, entry.text) == (f"k{n}", f"v{n}")

        async def put(n: int) -> None:
            assert await db.set(f"new{n}", f"new{n}") > 1
            done.append("set")

        calls = [put(n) if n % 5 == 0 else get(n) for n in range(1250)]
        await asyncio.gather(*calls)
        assert done.count("get") == 1000
        assert done[0] == "get"  # the set that was sent before it waits for the disk
        assert (await db.status())["connections"] == 1


async def test_client_of_a_restarted_node_goes_on(tmp_path: Path) -> None:
    async with node(data_dir=tmp_path / "data", listen="tcp") as url:
        db = connect(url)
        version = await db.set("k", b"v")
    reading = asyncio.ensure_future(db.get("k"))
    writing = asyncio.ensure_future(db.set("k2", b"v"))
    await asyncio.sleep(0)
    async with node(data_dir=tmp_path / "data", listen=url):
        entry = await reading
        assert entry is not None
        assert entry.version == version
        assert await writing == version + 1
        await db.aclose()


async def test_keys_that_expire(db: Database) -> None:
    before = time.time()
    version = await db.set("k", "v", ttl=60.0)
    entry = await db.get("k")
    assert entry is not None
    assert entry.expires_at is not None
    assert before + 59 < entry.expires_at < time.time() + 61
    left = await db.ttl("k")
    assert left is not None
    assert 59 < left <= 60
    assert await db.persist("k") == version + 1 == db.revision
    assert await db.ttl("k") is None
    assert await db.expire("k", 30) == version + 2
    await db.set("k", "kept", keep_ttl=True)
    assert (await db.ttl("k") or 0) > 29
    old = await db.get_and_set("k", "1", ttl=90)
    assert old is not None
    assert old.value == b"kept"
    await db.increment("k")
    assert (await db.ttl("k") or 0) > 89
    found = await db.get_and_expire("k", ttl=None)
    assert found is not None
    assert (found.value, found.version, found.expires_at) == (b"2", db.revision, None)
    taken = await db.get_and_delete("k")
    assert taken is not None
    assert (taken.value, taken.version, db.revision) == (b"2", found.version, found.version + 1)
    await db.set_many({"a": "1", "b": "2"}, ttl=60)
    rows = [row async for row in db.scan(prefix="")]
    assert all(row.expires_at is not None for row in rows)
    assert [entry and entry.expires_at for entry in await db.get_many(["a", "b"])] == [row.expires_at for row in rows]


async def test_a_key_that_has_expired_is_gone(db: Database) -> None:
    version = await db.set("k", "v", ttl=0.03)
    await db.set_many({"a": "1", "b": "2"}, ttl=0.03)
    await asyncio.sleep(0.06)
    assert await db.get("k") is None
    assert await db.exists("a") is False
    assert await db.count() == 0
    assert [row async for row in db.scan()] == []
    assert await db.delete("k") is False
    for call in (db.ttl("k"), db.persist("k"), db.expire("k", 5), db.set("k", "", if_present=True)):
        assert await refused(call) == (4001, "not_applied")
    assert await db.get_and_delete("k") is None
    assert await db.get_and_expire("k", ttl=5) is None
    assert await db.set("k", "again", if_absent=True) > version


async def test_times_that_no_key_may_have_are_mistakes_of_the_program(db: Database) -> None:
    for ttl in (0, -1, 0.0001, 4e9, float("nan"), float("inf")):
        for call in (db.set("k", "", ttl=ttl), db.expire("k", ttl), db.set_many({"k": ""}, ttl=ttl)):
            with pytest.raises(ValueError, match="ttl is between"):
                await call
    for wrong in ("5", True):
        with pytest.raises(TypeError):
            await db.set("k", "", ttl=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="exclude each other"):
        await db.set("k", "", ttl=5, keep_ttl=True)
    assert await db.get("k") is None


async def test_a_transaction_may_give_times(db: Database) -> None:
    result = await db.transact(then=[("set", ["k", b"1", {"ttl_ms": 60_000}]), ("ttl", ["k"]), ("expire", ["k", None])])
    assert result.succeeded
    assert await db.ttl("k") is None
