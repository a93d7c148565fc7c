"""The calls of a database whose values are of a type of the program, served and embedded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_type

import msgspec
import pytest

import haptera
from haptera import typed
from haptera.client.typed.typed_entries import EntryCodec
from haptera.errors import UnexpectedValue
from haptera.value_codecs import ValueCodec
from tests.support.stores import Kind, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Config(msgspec.Struct):
    host: str
    port: int = 80


@dataclass
class Account:
    balance: int


BAD = b'{"host": 7}'


@pytest.fixture(params=["served", "embedded"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[haptera.Database]:
    kind: Kind = request.param
    async with opened(kind, tmp_path) as store:
        yield store


async def test_a_value_is_written_and_read_with_its_type(db: haptera.Database) -> None:
    configs = db.typed(Config)
    assert_type(configs, typed.TypedDatabase[Config])
    version = await configs.set("a", Config("x"), if_absent=True, ttl=60.0)
    entry = await configs.get("a")
    assert entry is not None
    assert_type(entry, typed.TypedEntry[Config])
    assert (entry.key, entry.value, entry.version) == ("a", Config("x"), version)
    plain = await db.get("a")
    assert plain is not None
    assert (plain.value, plain.expires_at) == (b'{"host":"x","port":80}', entry.expires_at)
    assert entry.expires_at is not None
    assert await configs.get("nothing") is None


async def test_conditions_of_a_write_hold(db: haptera.Database) -> None:
    configs = db.typed(Config, codec="msgpack")
    version = await configs.set("a", Config("x"))
    with pytest.raises(haptera.KeyExists):
        await configs.set("a", Config("y"), if_absent=True)
    with pytest.raises(haptera.VersionMismatch):
        await configs.set("a", Config("y"), if_version=version + 1)
    with pytest.raises(haptera.KeyNotFound):
        await configs.set("b", Config("y"), if_present=True)
    lease = await db.grant_lease(10.0)
    token = await configs.set("owned", Config("z"), lease=lease)
    await configs.set("a", Config("y"), fence=token)
    await db.revoke_lease(lease)
    with pytest.raises(haptera.errors.Fenced):
        await configs.set("a", Config("y"), fence=token)


async def test_calls_that_give_the_entry_of_before_have_its_type(db: haptera.Database) -> None:
    configs = db.typed(Config)
    assert await configs.get_and_set("a", Config("x")) is None
    before = await configs.get_and_set("a", Config("y"))
    assert before is not None
    assert before.value == Config("x")
    expiring = await configs.get_and_expire("a", ttl=9.0)
    assert expiring is not None
    assert expiring.value == Config("y")
    assert expiring.expires_at is not None
    gone = await configs.get_and_delete("a")
    assert gone is not None
    assert gone.value == Config("y")
    assert await configs.get_and_delete("a") is None
    assert await configs.get_and_expire("a", ttl=None) is None


async def test_many_are_read_and_written_at_once(db: haptera.Database) -> None:
    configs = db.typed(Config)
    version = await configs.set_many({"a": Config("x"), "b": Config("y")})
    assert await configs.set_many([("b", Config("z"))]) == version + 1
    found = await configs.get_many(["a", "c", "b"])
    assert [entry and entry.value for entry in found] == [Config("x"), None, Config("z")]
    earlier = await configs.get_many(["b"], at_revision=version)
    assert [entry and entry.value for entry in earlier] == [Config("y")]
    with pytest.raises(UnexpectedValue) as refused:
        await configs.set_many({"c": Config("x"), "d": Config("y", port="z")})  # type: ignore[arg-type]
    assert (refused.value.key, refused.value.outcome) == ("d", "not_applied")
    assert await db.count() == 2


async def test_a_value_that_does_not_fit_names_its_key_and_the_reason(db: haptera.Database) -> None:
    await db.set("a", BAD)
    configs = db.typed(Config)
    with pytest.raises(UnexpectedValue) as found:
        await configs.get("a")
    error = found.value
    assert str(error) == "the value of 'a' does not fit Config: Expected `str`, got `int` - at `$.host`"
    assert (error.key, error.reason, error.outcome) == ("a", "Expected `str`, got `int` - at `$.host`", "not_applied")
    assert error.details == {"key": "a", "reason": error.reason}
    assert isinstance(error, haptera.HapteraError)
    assert isinstance(error, ValueError)
    assert error.__cause__ is None
    assert error.__suppress_context__


async def test_a_change_that_was_made_says_so_where_the_entry_of_before_does_not_fit(db: haptera.Database) -> None:
    configs = db.typed(Config)
    await db.set_many({"a": BAD, "b": BAD, "c": BAD})
    for call in (
        configs.get_and_set("a", Config("x")),
        configs.get_and_delete("b"),
        configs.get_and_expire("c", ttl=9),
    ):
        with pytest.raises(UnexpectedValue) as found:
            await call
        assert found.value.outcome == "applied"
    assert await db.get("b") is None
    assert await configs.get("a") is not None


async def test_a_value_that_would_not_fit_is_not_sent(db: haptera.Database) -> None:
    configs = db.typed(Config)
    wrong: Any = Config("x", port="y")  # type: ignore[arg-type]
    for call in (configs.set("a", wrong), configs.get_and_set("a", wrong)):
        with pytest.raises(UnexpectedValue) as refused:
            await call
        assert (refused.value.key, refused.value.outcome) == ("a", "not_applied")
    with pytest.raises(TypeError):
        await configs.set("a", "text")  # type: ignore[arg-type]
    assert await db.get("a") is None


async def test_a_scan_goes_on_behind_a_value_that_does_not_fit(db: haptera.Database) -> None:
    configs = db.typed(Config)
    await db.set_many({"a": b'{"host":"x"}', "b": BAD, "c": b'{"host":"z"}'})
    async with configs.scan(prefix="", reverse=True) as rows:
        assert (await anext(rows)).value == Config("z")
        with pytest.raises(UnexpectedValue) as found:
            await anext(rows)
        assert found.value.key == "b"
        assert (await anext(rows)).value == Config("x")
        with pytest.raises(StopAsyncIteration):
            await anext(rows)
        assert (rows.count, rows.last_key, rows.revision) == (3, "a", db.revision)
    assert [row.key async for row in configs.scan(start="c")] == ["c"]


async def test_a_watch_goes_on_behind_a_value_that_does_not_fit(db: haptera.Database) -> None:
    configs = db.typed(Config)
    await configs.set("a", Config("x"))
    async with configs.watch(prefix="", initial=True, previous=True) as events:
        first = await anext(events)
        assert_type(first, typed.TypedEvent[Config])
        assert (first.kind, first.value) == ("present", Config("x"))
        assert (await anext(events)).kind == "synced"
        await db.set("a", BAD)
        await configs.set("b", Config("y"))
        await db.delete("b")
        with pytest.raises(UnexpectedValue):
            await anext(events)
        put, deleted = await anext(events), await anext(events)
        assert (put.kind, put.value, put.previous) == ("put", Config("y"), None)
        assert (deleted.kind, deleted.value) == ("delete", None)
        assert deleted.previous is not None
        assert deleted.previous.value == Config("y")
        assert events.revision == db.revision
        assert events.server_id is not None
        assert not events.ready


async def test_a_local_copy_gives_each_reader_an_object_of_its_own(db: haptera.Database) -> None:
    configs = db.typed(Config)
    await configs.set("a", Config("x"))
    await db.set("bad", BAD)
    async with configs.cached(prefix="") as cache:
        told: list[typed.TypedEvent[Config]] = []
        cache.on_change(told.append)
        changes = cache.changes()
        entry, again = cache.get("a"), cache.get("a")
        assert entry is not None
        assert again is not None
        assert entry.value == again.value == Config("x")
        assert entry.value is not again.value
        with pytest.raises(UnexpectedValue):
            cache.get("bad")
        assert (len(cache), sorted(cache), "a" in cache, cache.ended) == (2, ["a", "bad"], True, False)
        await configs.set("a", Config("y"))
        change = await anext(changes)
        assert (change.value, told[0].value) == (Config("y"), Config("y"))
        await changes.aclose()
        assert cache.error is None
        assert cache.fresh_at > 0
        assert cache.revision == db.revision
    assert cache.ended


async def test_a_transaction_has_values_of_several_types(db: haptera.Database) -> None:
    accounts, configs = db.typed(Account), db.typed(Config, codec="msgpack")
    await accounts.set_many({"ann": Account(5), "bob": Account(0)})
    async with db.transaction() as tx:
        mine = accounts.within(tx)
        ann, bob = await mine.get_many(["ann", "bob"])
        assert ann is not None
        assert bob is not None
        mine.set("ann", Account(ann.value.balance - 2))
        mine.set("bob", Account(bob.value.balance + 2))
        configs.within(tx).set("last", Config("ann"))
        own = await mine.get("bob")
        assert own is not None
        assert own.value == Account(2)
        with pytest.raises(UnexpectedValue):
            mine.set("carol", Account("much"))  # type: ignore[arg-type]
    found = await accounts.get_many(["ann", "bob", "carol"])
    assert [entry and entry.value for entry in found] == [Account(3), Account(2), None]
    last = await configs.get("last")
    assert last is not None
    assert last.value == Config("ann")


async def test_the_objects_name_their_type(db: haptera.Database) -> None:
    configs = db.typed(list[int])
    assert repr(configs) == "<haptera TypedDatabase of list[int]>"
    assert repr(configs.scan()) == "<haptera TypedScan of list[int]>"


def test_the_entry_of_before_is_none_where_its_value_was_left_out() -> None:
    codec = EntryCodec(ValueCodec(Config, "json"))
    omitted = haptera.Event("put", "a", b'{"host":"x"}', 3, haptera.Entry("a", b"", 2), previous_omitted=True)
    told = codec.event(omitted)
    assert (told.value, told.previous, told.previous_omitted) == (Config("x"), None, True)
