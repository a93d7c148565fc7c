"""Watches of a whole client: served and embedded, over connections that are cut, and on the command line."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera.errors import ConnectionLost, RevisionCompacted
from haptera.testing import node, node_in_thread, proxy
from tests.integration.commands import run
from tests.support.restored import restored
from tests.support.stores import Kind, opened

if TYPE_CHECKING:
    from pathlib import Path

    from haptera import Database, Event


def told(event: Event) -> tuple[Any, ...]:
    return event.version, event.kind, event.key, event.value


async def history(db: Database, last: int, **options: Any) -> list[tuple[Any, ...]]:
    """The changes that a watch from the first revision on tells, up to the revision ``last``."""
    found = []
    async with db.watch(start_revision=1, **options) as events:
        async for event in events:
            found.append(told(event))
            if event.version >= last and not events.ready:
                return found
    raise AssertionError


@pytest.mark.parametrize("kind", ["served", "embedded"])
async def test_a_watch_tells_changes(kind: Kind, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as db:
        await db.set("config/a", "0")
        async with db.watch(prefix="config/", initial=True, previous=True) as events:
            await db.set("config/b", "1")
            await db.set("other", "")
            await db.set("config/a", "2")
            await db.clear(prefix="")
            found = [await anext(events) for _ in range(6)]
            assert list(map(told, found[:4])) == [
                (1, "present", "config/a", b"0"),
                (1, "synced", "", None),
                (2, "put", "config/b", b"1"),
                (4, "put", "config/a", b"2"),
            ]
            assert found[3].previous == haptera.Entry("config/a", b"0", 1)
            assert found[3].text == "2"
            assert sorted(map(told, found[4:])) == [
                (5, "delete", "config/a", None),
                (5, "delete", "config/b", None),
            ]
            assert events.revision == 5
        async with db.watch("other", start_revision=1) as events:
            assert told(await anext(events)) == (3, "put", "other", b"")


@pytest.mark.parametrize("kind", ["served", "embedded"])
async def test_trap_a_cancelled_wait_ends_a_watch_silently(kind: Kind, tmp_path: Path) -> None:
    chance, last, cancelled = random.Random(1), 300, 0
    async with opened(kind, tmp_path) as db, db.watch(start_revision=1) as events:

        async def write() -> None:
            for number in range(last):
                await db.set(f"{number}", "")
                await asyncio.sleep(chance.choice([0.0, 0.001]))

        writing = asyncio.ensure_future(write())
        found: list[int] = []
        while len(found) < last:
            try:
                async with asyncio.timeout(chance.choice([0.0, 0.001, 0.1])):
                    found.append((await anext(events)).version)
            except TimeoutError:
                cancelled += 1
        await writing
        assert found == list(range(1, last + 1))
        assert cancelled > 0
        await events.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(events)


@pytest.mark.parametrize("kind", ["served", "embedded"])
async def test_a_watch_that_cannot_begin_is_refused_alike(kind: Kind, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as db:
        with pytest.raises(RevisionCompacted) as failed:
            await anext(db.watch(start_revision=7))
        assert failed.value.details == {"revision": 7, "oldest": 1, "newest": 0}
        with pytest.raises(haptera.errors.InvalidKey):
            await anext(db.watch(""))
        with pytest.raises(haptera.errors.InvalidArgument):
            await anext(db.watch(progress_interval=0.5))
        with pytest.raises(ValueError, match="exclude each other"):
            db.watch("a", prefix="b")
        with pytest.raises(ValueError, match="exclude each other"):
            db.watch(initial=True, start_revision=1)


@pytest.mark.parametrize("kind", ["served", "embedded"])
async def test_a_watch_ends_with_its_database(kind: Kind, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as db:
        events = db.watch()
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.05)
        await db.drain(timeout=20)
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(waiting, 5)


async def test_progress_shows_how_far_a_quiet_watch_is() -> None:
    async with (
        node(storage="memory") as url,
        haptera.connect(url) as db,
        db.watch("quiet", progress_interval=1) as events,
    ):
        waiting = asyncio.ensure_future(anext(events))
        assert events.revision == 0
        await db.set("busy", "")
        while events.revision != 1:
            await asyncio.sleep(0.05)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])


async def write_for_a_while(db: Database, chance: random.Random, seconds: float) -> int:
    """Changes of every kind; the last revision."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        key = f"{chance.choice('abc')}/{chance.randrange(20)}"
        step = chance.random()
        if step < 0.6:
            await db.set(key, bytes(chance.randrange(200)))
        elif step < 0.8:
            await db.delete(key)
        elif step < 0.9:
            await db.set_many({f"{chance.choice('abc')}/{n}": b"many" * 10 for n in range(chance.choice([5, 3000]))})
        elif step < 0.95:
            await db.clear(prefix=chance.choice(["a", "b/1", ""]))
        else:
            await db.set_many([(key, b"1"), (key, b"2")])
    return await db.set("a/last", b"")


async def test_watches_over_connections_that_are_cut_miss_and_repeat_nothing() -> None:
    """The validator: each watch is held against the whole history, told to one that was never cut."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    async with node(storage="memory") as url, proxy(url) as cut, haptera.connect(url) as writer:
        filters: list[dict[str, Any]] = [{}, {"prefix": "a/"}, {"prefix": "b/1"}, {"key": "c/7"}]
        async with haptera.connect(cut.url) as one, haptera.connect(cut.url) as other:

            async def follow(db: Database, options: dict[str, Any], pause: float) -> list[tuple[Any, ...]]:
                found = []
                async for event in db.watch(start_revision=1, **options):
                    found.append(told(event))
                    if (event.key, event.value) == ("a/last", b"") or event.key == "end":
                        return found
                    if pause and len(found) % 500 == 0:
                        await asyncio.sleep(pause)
                raise AssertionError

            following = [
                asyncio.ensure_future(follow(db, options, pause))
                for db, pause in ((one, 0.0), (other, 0.02))
                for options in filters[:2]
            ]
            writing = asyncio.ensure_future(write_for_a_while(writer, chance, 2.0))
            cuts = 0
            while not writing.done():
                await asyncio.sleep(chance.uniform(0.0, 0.3))
                cut.sever()
                cuts += 1
            last = await writing
            found = await asyncio.wait_for(asyncio.gather(*following), 60)
            assert cuts > 5
            assert cut.severed > 3
            for events, options in zip(found, filters[:2] * 2, strict=True):
                assert events == await history(writer, last, **options)
            for options in filters[2:]:
                whole = await history(writer, last)
                wanted = [
                    e for e in whole if e[2] == options.get("key", e[2]) and e[2].startswith(options.get("prefix", ""))
                ]
                async with writer.watch(start_revision=1, **options) as filtered:
                    assert [told(await anext(filtered)) for _ in wanted] == wanted


async def test_a_watch_that_is_lost_among_the_present_entries_says_so() -> None:
    async with node(storage="memory") as url, proxy(url) as cut, haptera.connect(url) as writer:
        await writer.set_many({f"{n:05}": bytes(1000) for n in range(3000)})
        async with haptera.connect(cut.url) as db:
            events = db.watch(initial=True)
            await anext(events)
            cut.sever()
            with pytest.raises(ConnectionLost):
                async for _ in events:
                    pass


async def test_a_watch_ends_where_its_store_was_restored(short_path: Path) -> None:
    """The restored store makes other changes with the revisions that the watch has given or waits for."""
    data, target, listen = short_path / "data", short_path / "restored", f"haptera+unix://{short_path}/s"
    async with haptera.connect(listen) as db:
        async with node(data_dir=data, listen=listen) as url:
            await db.set("a", "kept")
            await restored(url, data, target)
            events = db.watch(start_revision=1)
            await db.set("a", "lost")
            assert [(await anext(events)).text for _ in range(2)] == ["kept", "lost"]
        async with node(data_dir=target, listen=listen), haptera.connect(listen) as writer:
            assert await writer.get("a") == haptera.Entry("a", b"kept", 1)
            for value in ("other", "another"):
                await writer.set("a", value)
            with pytest.raises(RevisionCompacted, match="another server"):
                await anext(events)
            assert [change.text async for change in db.history("a")] == ["kept", "other", "another"]


@pytest.mark.parametrize("kind", ["served", "embedded"])
async def test_a_history_tells_the_versions_of_a_key(kind: Kind, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as db:
        begun = time.time() - 1
        for number in range(1500):
            await db.set_many({"a": b"%d" % number, "b": b""})
        await db.delete("a")
        changes = [change async for change in db.history("a")]
        assert [(change.kind, change.version, change.text) for change in changes] == [
            *(("put", number + 1, str(number)) for number in range(1500)),
            ("delete", 1501, ""),
        ]
        assert all(begun < (change.time or 0) < time.time() + 1 and change.user == "" for change in changes)
        assert [change async for change in db.history("a", after=1000, limit=300)] == changes[1000:1300]
        assert [change async for change in db.history("a", limit=0)] == []
        assert [change async for change in db.history("missing")] == []
        with pytest.raises(haptera.errors.InvalidKey):
            await anext(db.history(""))


# -- the command line


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Any:
    with node_in_thread(listen="tcp") as url:
        monkeypatch.setenv("HAPTERA_URL", url)
        yield url


def test_the_command_follows_changes(url: str) -> None:
    for args in (("set", "a", "1"), ("set", "b", "two\tx"), ("del", "a"), ("set", "a", "3")):
        assert run(*args).code == 0
    assert (
        run("watch", "--from", "1", "--count", "4").text
        == "1\tput\ta\t1\n2\tput\tb\t$'two\\tx'\n3\tdelete\ta\t\n4\tput\ta\t3\n"
    )
    assert run("watch", "a", "--from", "3", "--count", "2", "--previous").text == "3\tdelete\ta\t\t1\n4\tput\ta\t3\t\n"
    assert (
        run("watch", "--initial", "--prefix", "b", "--count", "2").text == "2\tpresent\tb\t$'two\\tx'\n4\tsynced\t\t\n"
    )
    ended = run("watch", "a", "--from", "3", "--count", "2", "--previous", "--json")
    first, second = map(json.loads, ended.text.splitlines())
    before = {"key": "a", "value": "1", "version": 1, "expires_at": None}
    assert first == {"kind": "delete", "key": "a", "value": None, "version": 3, "expires_at": None, "previous": before}
    assert second == {"kind": "put", "key": "a", "value": "3", "version": 4, "expires_at": None, "previous": None}
    refused = run("watch", "--from", "99")
    assert (refused.code, refused.text) == (5, "")
    assert "REVISION_COMPACTED" in refused.err
    assert run("watch", "a", "--prefix", "b").code == 2
    assert run("watch", "--initial", "--from", "1").code == 2


@pytest.mark.parametrize("end", ["SIGINT", "closed pipe"])
def test_the_command_ends_cleanly(url: str, end: str) -> None:
    run("set", "a", "1")
    command = [sys.executable, "-m", "haptera", "watch", "--from", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\tput\ta\t1\n"
        if end == "SIGINT":
            os.kill(process.pid, signal.SIGINT)
        else:
            process.stdout.close()
            run("set", "a", "2")
        assert process.wait(20) == (130 if end == "SIGINT" else 0)
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_key_goes_back_to_a_version(url: str) -> None:
    for args in (("set", "a", "1"), ("set", "a", "2"), ("del", "a"), ("set", "b", "x")):
        assert run(*args).code == 0
    lines = [line.split("\t") for line in run("history", "a").text.splitlines()]
    assert [(line[0], *line[2:]) for line in lines] == [
        ("1", "put", "", "1"),
        ("2", "put", "", "2"),
        ("3", "delete", "", ""),
    ]
    assert all(line[1].endswith("Z") for line in lines)
    found = json.loads(run("history", "a", "--after", "1", "--limit", "1", "--json").text)
    assert found.pop("time").endswith("Z")
    assert found == {"version": 2, "kind": "put", "value": "2", "user": "", "expires_at": None}
    assert run("history", "missing").code == 1
    assert run("revert", "a", "--to-version", "1").text == "5\n"
    assert run("get", "a").text == "1\n"
    assert run("revert", "a", "--to-version", "3", "--json").text == '{"key":"a","version":6}\n'
    assert run("get", "a").code == 1
    assert run("revert", "a", "--to-version", "3").text == "6\n", "it is deleted already"
    missing = run("revert", "a", "--to-version", "4")
    assert (missing.code, missing.text) == (1, "")
    assert "no version 4 of 'a'" in missing.err


def test_two_revisions_are_compared(url: str) -> None:
    changes = (
        ("set", "a", "1"),
        ("set", "b", "1"),
        ("set", "a", "2"),
        ("del", "b"),
        ("set", "c", "x\ty"),
        ("set", "a", "1"),
    )
    for args in changes:
        assert run(*args).code == 0
    assert run("diff", "--from", "0").text == "+\ta\t\t1\n+\tc\t\t$'x\\ty'\n"
    assert run("diff", "--from", "2", "--to", "5").text == "*\ta\t1\t2\n-\tb\t1\t\n+\tc\t\t$'x\\ty'\n"
    assert run("diff", "--from", "2").text == "-\tb\t1\t\n+\tc\t\t$'x\\ty'\n", "a has its value again"
    assert run("diff", "--from", "1", "--prefix", "b").text == ""
    assert run("diff", "--from", "6").text == run("diff", "--from", "5", "--to", "5").text == ""
    found = json.loads(run("diff", "--from", "3", "--to", "4", "--json").text)
    assert found == {"key": "b", "before": {"value": "1"}, "after": {"value": None}}
    assert run("diff", "--from", "99").code == 5


@pytest.mark.parametrize("kind", ["served", "embedded"])
async def test_the_largest_values_are_told_with_what_they_replaced(kind: Kind, tmp_path: Path) -> None:
    """Trap: an event that no message can have, at which a watch ends for ever."""
    first, second = b"1" * (8 << 20), b"2" * (8 << 20)
    async with opened(kind, tmp_path) as db:
        await db.set("a", first)
        await db.set("a", second)
        await db.delete("a")
        async with db.watch(start_revision=1, previous=True) as events:
            told_events = [await anext(events) for _ in range(3)]
        assert [(event.version, event.previous_omitted) for event in told_events] == [(1, False), (2, True), (3, False)]
        assert [event.previous and event.previous.version for event in told_events] == [None, 1, 2]
        assert told_events[2].previous == haptera.Entry("a", second, 2)
        assert await db.get("a", at_revision=1) == haptera.Entry("a", first, 1)


@pytest.mark.parametrize("kind", ["served", "embedded"])
async def test_trap_expiry_events_missing_from_watches(kind: Kind, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as db, db.watch(previous=True) as events:
        await db.set("a", "x", ttl=0.2)
        put = await anext(events)
        assert (put.kind, put.version) == ("put", 1)
        assert abs((put.expires_at or 0) - time.time()) < 5
        expired = await asyncio.wait_for(anext(events), 20)
        assert (told(expired), expired.previous) == (
            (2, "expire", "a", None),
            haptera.Entry("a", b"x", 1, put.expires_at),
        )
        assert [change.kind async for change in db.history("a")] == ["put", "expire"]
