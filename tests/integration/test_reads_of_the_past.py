"""The store as it was: served and embedded, while it goes on, over a restart, and on the command line."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import haptera
from haptera.errors import InvalidArgument, RevisionCompacted
from haptera.kv_groups import HISTORY, KV_GROUPS
from haptera.testing import node, node_in_thread
from tests.integration.commands import run
from tests.support.stores import Kind, opened

if TYPE_CHECKING:
    from pathlib import Path

    from haptera import Database

KINDS = pytest.mark.parametrize("kind", ["served", "embedded"])


async def rows(db: Database, **options: Any) -> dict[str, bytes]:
    return {entry.key: entry.value async for entry in db.scan(**options)}


@KINDS
async def test_each_read_is_of_the_revision_that_is_asked_for(kind: Kind, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as db:
        await db.set_many({"a": "1", "b": "2"})
        await db.delete("b")
        await db.clear(prefix="")
        await db.set("c", "3")
        assert await rows(db, at_revision=1) == {"a": b"1", "b": b"2"}
        assert await rows(db, at_revision=2, reverse=True) == {"a": b"1"}
        assert await rows(db, at_revision=3) == await rows(db, at_revision=0) == {}
        assert await rows(db, at_revision=4, prefix="c") == {"c": b"3"}
        assert [await db.count(at_revision=revision) for revision in range(5)] == [0, 2, 1, 0, 1]
        assert await db.count(glob="*b*", at_revision=1) == 1
        one = await db.get("b", at_revision=1)
        assert (one, db.revision) == (haptera.Entry("b", b"2", 1), 1)
        assert await db.get("b", at_revision=2) is None
        assert await db.get_many(["b", "a"], at_revision=2) == [None, haptera.Entry("a", b"1", 1)]
        assert db.revision == 2
        scan = db.scan(at_revision=2)
        assert [entry.key async for entry in scan] == ["a"]
        assert (scan.revision, scan.count, scan.last_key) == (2, 1, "a")


@KINDS
async def test_a_time_is_the_last_change_up_to_it(kind: Kind, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as db:
        for value in ("1", "2", "3"):
            await db.set("a", value)
            await asyncio.sleep(0.005)
        times = [change.time async for change in db.history("a")]
        for version, at in enumerate(times, 1):
            assert at is not None
            assert await db.get("a", at_time=at) == haptera.Entry("a", b"%d" % version, version)
            assert db.revision == version
            assert await db.get("a", at_time=at + 0.001) == haptera.Entry("a", b"%d" % version, version)
        assert times[0] is not None
        assert await db.get("a", at_time=times[0] - 0.001) is None
        assert await rows(db, at_time=times[0]) == {"a": b"1"}
        assert await db.count(at_time=0) == 0


@KINDS
async def test_a_key_is_dead_by_the_time_that_is_asked_for(kind: Kind, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as db:
        await db.set("a", "1", ttl=0.5)
        entry = await db.get("a")
        assert entry is not None
        assert entry.expires_at is not None
        while await db.count(prefix="a") or db.revision < 2:
            await asyncio.sleep(0.02)
        assert await db.get("a", at_revision=1) == entry
        assert await db.get("a", at_time=entry.expires_at - 0.001) == entry
        assert await db.get("a", at_time=entry.expires_at) is None
        assert await db.count(at_time=entry.expires_at) == 0


@KINDS
async def test_moments_that_are_not_kept_are_refused(kind: Kind, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as db:
        await db.set("a", "1")
        for read in (db.get("a", at_revision=2), db.get_many(["a"], at_revision=2), db.count(at_revision=2)):
            with pytest.raises(RevisionCompacted) as caught:
                await read
            assert caught.value.details == {"revision": 2, "oldest": 1, "newest": 1}
        with pytest.raises(RevisionCompacted):
            await rows(db, at_revision=2)
        with pytest.raises(RevisionCompacted):
            await db.get("a", at_time=time.time() + 3600)
        with pytest.raises(ValueError, match="exclude each other"):
            await db.get("a", at_revision=1, at_time=1.0)
        with pytest.raises(TypeError):
            await db.count(at_time="now")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="at_revision is between"):
            await db.get_many(["a"], at_revision=-1)


@KINDS
async def test_many_keys_are_read_while_others_write(kind: Kind, tmp_path: Path) -> None:
    """Against a copy of each revision, with more keys than a slice looks at."""
    choose = random.Random(7)
    keys = [f"key/{number:04}" for number in range(1500)]
    async with opened(kind, tmp_path) as db:
        kept: dict[int, dict[str, bytes]] = {}
        model: dict[str, bytes] = {}

        async def change() -> None:
            some = choose.sample(keys, 300)
            if choose.random() < 0.3:
                await db.delete_many(some)
                for key in some:
                    model.pop(key, None)
            else:
                value = b"%d" % choose.randrange(1000)
                await db.set_many(dict.fromkeys(some, value))
                model.update(dict.fromkeys(some, value))
            kept[db.revision] = dict(model)

        async def read(revision: int) -> None:
            assert await rows(db, at_revision=revision) == kept[revision]
            found = await db.get_many(keys, at_revision=revision)
            assert {entry.key: entry.value for entry in found if entry is not None} == kept[revision]
            assert await db.count(glob="*/*", at_revision=revision) == len(kept[revision])

        for number in range(20):
            await change()
            if number == 9:
                await db.clear(prefix="")
                model.clear()
                kept[db.revision] = {}
        async with asyncio.TaskGroup() as readers:
            for revision in choose.sample(sorted(kept), 6):
                readers.create_task(read(revision))
            for _ in range(10):
                await change()


async def test_the_past_is_there_after_a_restart(tmp_path: Path) -> None:
    async with haptera.open(tmp_path / "data") as db:
        for number in range(1, 6):
            await db.set("a", str(number))
    async with haptera.open(tmp_path / "data") as db:
        for number in range(1, 6):
            assert await db.get("a", at_revision=number) == haptera.Entry("a", b"%d" % number, number)


async def test_without_the_capability_the_options_are_not_known() -> None:
    groups = tuple(group for group in KV_GROUPS if group != HISTORY)
    async with node(storage="memory") as url, haptera.dial(url, groups=groups) as peer:
        with pytest.raises(InvalidArgument) as caught:
            await peer.call("kv", "get", msgspec.msgpack.encode(["a", {"at_revision": 0}]))
        assert caught.value.details == {"unknown": "at_revision"}


def test_the_command_line_reads_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    with node_in_thread(listen="tcp") as url:
        monkeypatch.setenv("HAPTERA_URL", url)
        for args in (("set", "a", "1"), ("set", "a", "2"), ("del", "a"), ("set", "b", "3")):
            assert run(*args).code == 0
            time.sleep(0.005)
        assert run("get", "a", "--at-revision", "2").text == "2\n"
        assert run("get", "a", "b", "--at-revision", "1").text == "a\t1\n"
        assert run("get", "a", "--at-revision", "3").code == 1
        assert run("scan", "--at-revision", "1").text == "a\t1\n"
        assert run("count", "--at-revision", "3").text == "0\n"
        first, second, *_ = (json.loads(line)["time"] for line in run("history", "a", "--json").text.splitlines())
        assert run("get", "a", "--at-time", first).text == "1\n"
        assert run("scan", "--at-time", second).text == "a\t2\n"
        assert run("count", "--at-time", "0").text == "0\n"
        assert run("diff", "--from", first, "--to", second).text == "*\ta\t1\t2\n"
        assert run("diff", "--from", second).text == run("diff", "--from", "2").text == "-\ta\t2\t\n+\tb\t\t3\n"
        assert run("diff", "--from", "0.0", "--to", first).text == "+\ta\t\t1\n"
        for future, moments in (
            ("999999", ("--from", "2", "--to", "999999")),
            ("999999", ("--from", "999999")),
            ("888888", ("--from", "888888", "--to", "1")),
        ):
            ended = run("diff", *moments, "--timeout", "5")
            assert (ended.code, ended.out) == (5, b"")
            assert ended.err == f"haptera: the revision {future} is not reached yet: the newest one is 4\n"
        assert run("get", "a", "--at-revision", "1", "--at-time", first).code == 2
        assert run("get", "a", "--at-time", "yesterday").code == 2
        assert run("get", "a", "--at-revision", "9").code == 5
