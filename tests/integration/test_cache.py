"""A local copy of a prefix: whole, in order, over lost connections and the loss of what was kept."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack, aclosing, suppress
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera.errors import Code, ConnectionLost, RemoteProtocolError
from haptera.testing import node, proxy
from tests.support.restored import restored
from tests.support.stores import Kind, opened

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from haptera import Cache, Database, Event
    from haptera.client.watches.watch import Watch


async def at(cache: Cache, revision: int) -> None:
    """Wait until the copy has this revision."""
    while (cache.revision or 0) < revision:
        await asyncio.sleep(0.01)


async def whole(db: Database, prefix: str) -> dict[str, haptera.Entry]:
    return {entry.key: entry async for entry in db.scan(prefix=prefix)}


def copied(cache: Cache) -> dict[str, Any]:
    return {key: cache.get(key) for key in cache}


@pytest.mark.parametrize("kind", ["served", "embedded"])
async def test_a_copy_is_the_prefix(kind: Kind, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as db:
        await db.set_many({f"flags/{number}": b"%d" % number for number in range(3000)})
        await db.set("other", "")
        told: list[Event] = []
        async with db.cached(prefix="flags/") as cache:
            assert copied(cache) == await whole(db, "flags/")
            assert (len(cache), "flags/7" in cache, "other" in cache) == (3000, True, False)
            assert cache.get("other") is None
            assert abs(cache.fresh_at - time.time()) < 5
            cache.on_change(told.append)
            await db.set("flags/7", "new")
            await db.delete("flags/8")
            revision = await db.set("other", "new")
            await at(cache, revision)
            assert cache.get("flags/7") == haptera.Entry("flags/7", b"new", 3)
            assert "flags/8" not in cache
            assert [(event.kind, event.key, event.text) for event in told] == [
                ("put", "flags/7", "new"),
                ("delete", "flags/8", ""),
            ]
        assert cache.ended
        assert cache.error is None


@pytest.mark.parametrize("kind", ["served", "embedded"])
@pytest.mark.parametrize("end", ["drain", "aclose"])
async def test_a_copy_ends_with_its_database(kind: Kind, end: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as db, db.cached(prefix="") as cache:
        await (db.drain() if end == "drain" else db.aclose())
        with pytest.raises(ConnectionLost, match="is closed"):
            await asyncio.wait_for(anext(cache.changes()), 10)
        assert cache.ended


async def test_a_slow_reader_of_changes_is_told_the_last_of_each_key() -> None:
    async with node(storage="memory") as url, haptera.connect(url) as db, db.cached(prefix="") as cache:
        changes = cache.changes()
        await db.set("a", "0")
        assert (await anext(changes)).text == "0"
        for number in range(5):
            await db.set("a", str(number))
            await db.set("b", str(number))
        await at(cache, db.revision)
        assert [(event.key, event.text) for event in (await anext(changes), await anext(changes))] == [
            ("a", "4"),
            ("b", "4"),
        ]
        await changes.aclose()


async def test_an_error_of_a_callback_is_logged_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async with node(storage="memory") as url, haptera.connect(url) as db, db.cached(prefix="") as cache:

        def fail(event: Event) -> None:
            raise ZeroDivisionError

        cache.on_change(fail)
        await at(cache, await db.set("a", ""))
        assert "a" in cache
        assert [record.message for record in caplog.records if "cache" in record.name] == ["cache_callback_failed"]
        assert not cache.ended


async def test_a_copy_survives_cuts() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    async with (
        node(storage="memory") as url,
        proxy(url) as cut,
        haptera.connect(url) as writer,
        haptera.connect(cut.url) as db,
        db.cached(prefix="a") as cache,
    ):
        versions: dict[str, int] = {}

        def note(event: Event) -> None:
            assert event.version > versions.get(event.key, 0)
            versions[event.key] = event.version

        cache.on_change(note)
        for _ in range(150):
            key = f"{chance.choice('ab')}{chance.randrange(10)}"
            await (writer.set(key, "x") if chance.random() < 0.7 else writer.delete(key))
            if chance.random() < 0.1:
                cut.sever()
                await asyncio.sleep(0.02)
        await asyncio.wait_for(at(cache, await writer.set("a", "end")), 30)
        assert copied(cache) == await whole(writer, "a")


async def test_a_copy_is_read_anew_where_the_changes_are_not_kept() -> None:
    """The store is far ahead when the connection comes back; the differences are told."""
    async with (
        node(storage="memory", history_events=10_000) as url,
        proxy(url) as cut,
        haptera.connect(url) as writer,
        haptera.connect(cut.url) as db,
    ):
        await writer.set_many({"a/stays": "1", "a/changes": "1", "a/goes": "1"})
        async with db.cached(prefix="a/") as cache:
            told: list[Event] = []
            cache.on_change(told.append)
            cut.refuse()
            cut.sever()
            await writer.set_many({"a/changes": "2", "a/comes": "2"})
            await writer.delete("a/goes")
            for _ in range(4):
                await writer.set_many({f"b/{number}": "" for number in range(9000)})
            assert cache.get("a/changes") == haptera.Entry("a/changes", b"1", 1), "it stays as it was"
            await cut.accept()
            while cache.get("a/comes") is None:
                await asyncio.sleep(0.02)
            assert copied(cache) == await whole(writer, "a/")
            assert sorted((event.kind, event.key, event.text) for event in told) == [
                ("delete", "a/goes", ""),
                ("put", "a/changes", "2"),
                ("put", "a/comes", "2"),
            ]


async def test_a_copy_that_is_too_old_is_not_read() -> None:
    async with node(storage="memory") as url, proxy(url) as cut, haptera.connect(cut.url) as db:
        await db.set("a", "")
        for wrong in (1, 2.9, float("nan")):
            with pytest.raises(ValueError, match="at least 3 seconds"):
                db.cached(prefix="", max_staleness=wrong)
        async with db.cached(prefix="", max_staleness=3) as cache:
            assert cache.get("a") is not None
            cut.refuse()
            cut.sever()
            await asyncio.sleep(3.1)
            with pytest.raises(ConnectionLost, match="older than it may be"):
                cache.get("a")
            await cut.accept()
            for _ in range(1000):
                with suppress(ConnectionLost):
                    assert cache.get("a") is not None
                    return
                await asyncio.sleep(0.02)
            raise AssertionError


async def test_a_copy_is_right_again_where_its_store_was_restored(short_path: Path) -> None:
    """The restored store has made other changes than those that the copy has."""
    data, target, listen = short_path / "data", short_path / "restored", f"haptera+unix://{short_path}/s"
    async with haptera.connect(listen) as db, AsyncExitStack() as stack:
        async with node(data_dir=data, listen=listen) as url:
            await db.set("kept", "1")
            await restored(url, data, target)
            cache = await stack.enter_async_context(db.cached(prefix="", max_staleness=10))
            await at(cache, await db.set_many({"differs": "1", "goes": "1"}))
        async with node(data_dir=target, listen=listen), haptera.connect(listen) as writer:
            await writer.set("differs", "2")
            while not (entry := cache.get("differs")) or entry.value != b"2":
                await asyncio.sleep(0.02)
            assert copied(cache) == await whole(writer, "")
            assert entry.version > 2**32, "no version that the store has given before"


async def test_a_copy_of_a_store_that_cannot_be_reached_is_refused() -> None:
    async with haptera.connect("haptera://127.0.0.1:1", timeout=0.3, wait=False) as db:
        with pytest.raises(ConnectionLost):
            async with db.cached(prefix=""):
                pass


async def test_a_copy_goes_on_after_an_answer_that_cannot_be_read() -> None:
    """Trap: one answer of a node that was just replaced ends a copy for good, and it is read on however old it is."""
    async with node(storage="memory") as url, haptera.connect(url) as db:
        await db.set("a", "1")
        cache = db.cached(prefix="")
        begin = cache._begin
        watches: list[Watch] = []

        def begun() -> Watch:
            watch = begin()
            if not watches:
                watch._items = _malformed_after(2, watch._begin())
            watches.append(watch)
            return watch

        cache._begin = begun
        async with cache:
            await db.set("a", "2")
            revision = await db.set("b", "3")
            await at(cache, revision)
            assert copied(cache) == await whole(db, "")
            assert (cache.ended, cache.error, len(watches)) == (False, None, 2)


async def _malformed_after(count: int, items: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    async with aclosing(items):
        for _ in range(count):
            yield await anext(items)
        await anext(items)
        raise RemoteProtocolError(Code.MALFORMED_FRAME, "the server's answer is malformed")
