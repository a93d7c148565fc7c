"""Trap: going on after a failed apply. A node that cannot apply an entry ends, and a restart replays the entry."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.errors import HapteraError, ServerError, StorageError
from haptera.state.kv import Kv
from haptera.state.operations import Set, SetMany
from tests.unit.node.process import serving

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from haptera.state.results import Result
    from haptera.state.sliced_work import Steps

BROKEN_APPLY = """
from haptera.state.operations import Set
from haptera.state.kv import Kv

def half(self, op):
    Kv.set(self, Set(*op.items[0]))
    raise MemoryError("no memory for the second key")

Kv.set_many = half
"""
WHOLE = {"half/1": b"new", "half/2": b"new"}


async def outcome_of(change: Awaitable[object]) -> str:
    """What is said of a change that the node could not apply."""
    with pytest.raises(HapteraError) as error:
        await change
    return error.value.outcome


async def fail(db: haptera.Database) -> None:
    """Write before, at and after the entry that cannot be applied."""
    assert await db.set("before", b"1") == 1
    changes = [asyncio.ensure_future(db.set_many(WHOLE)), asyncio.ensure_future(db.set("before", b"2"))]
    assert [await outcome_of(change) for change in changes] == ["unknown", "unknown"]


async def check(db: haptera.Database) -> None:
    """All that may have been applied is there whole."""
    entry = await db.get("before")
    assert entry is not None
    assert (entry.value, entry.version) == (b"2", 3)
    assert {entry.key: entry.value async for entry in db.scan(prefix="half/")} == WHOLE


def test_a_served_node_ends_and_serves_the_whole_entry_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN_APPLY)

    async def use(url: str) -> None:
        async with haptera.connect(url, timeout=5.0) as db:
            await fail(db)

    async def use_again(url: str) -> None:
        async with haptera.connect(url) as db:
            await check(db)

    with serving(tmp_path / "d", environ={"PYTHONPATH": str(tmp_path)}) as node:
        asyncio.run(use(node.ready().url))
        assert node.end() == 16
        assert node.names().count("apply_failed") == 1
        assert "index 2" in node.events[-1]["reason"]
    with serving(tmp_path / "d", environ={"PYTHONPATH": str(tmp_path)}) as node:
        assert node.end() == 16, "what cannot be applied is not left out"
    with serving(tmp_path / "d") as node:
        asyncio.run(use_again(node.ready().url))
        node.signal()
        assert node.end() == 0


async def test_an_embedded_store_closes_itself_and_opens_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_ = Kv.set

    def half(self: Kv, op: SetMany) -> Result:
        set_(self, Set(*op.items[0]))
        raise MemoryError("no memory for the second key")

    monkeypatch.setattr(Kv, "set_many", half)
    async with haptera.open(tmp_path / "d") as db:
        await fail(db)
        for call in (db.get("half/1"), db.set("later", b""), db.count()):
            with pytest.raises(ServerError) as refused:
                await call
            assert (refused.value.code, refused.value.outcome) == (5001, "not_applied")
            assert "open it again" in str(refused.value)
        with pytest.raises(StorageError, match="index 2"):
            async with haptera.open(tmp_path / "d"):
                pass
        monkeypatch.undo()
        async with haptera.open(tmp_path / "d") as again:
            await check(again)


KEYS = [f"k{number:05}" for number in range(5_000)]
NEW = dict.fromkeys(KEYS, b"new")


@pytest.fixture
def broken_slice(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Storing b"new" under many keys fails in a late slice of it."""
    whole = Kv.set_many

    def fails(self: Kv, op: SetMany) -> Steps[Result]:
        for number, units in enumerate(steps := whole(self, op)):
            if number == 15 and op.items[0][1] == b"new":
                steps.close()
                raise MemoryError("no memory")
            yield units
        return (self.revision,)

    monkeypatch.setattr(Kv, "set_many", fails)
    return monkeypatch


async def test_an_embedded_scan_ends_with_an_error_and_not_as_if_it_were_whole(
    tmp_path: Path, broken_slice: pytest.MonkeyPatch
) -> None:
    """It has begun before the change that cannot be applied. A long read that ended before is whole."""
    async with haptera.open(tmp_path / "d") as db:
        await db.set_many(dict.fromkeys(KEYS, b"old"))
        scan = db.scan()
        assert (await anext(scan)).value == b"old"
        failing = asyncio.ensure_future(db.set_many(NEW))
        reading = asyncio.ensure_future(db.get_many(KEYS))
        assert await outcome_of(failing) == "unknown"

        async def read_on() -> None:
            async for entry in scan:
                assert entry.value == b"old"

        with pytest.raises(ServerError) as told:
            await read_on()
        assert (told.value.code, told.value.outcome) == (5001, "not_applied")
        (read,) = await asyncio.gather(reading, return_exceptions=True)
        assert isinstance(read, ServerError) or {entry.value for entry in read if entry} == {b"old"}  # type: ignore[union-attr]
    broken_slice.undo()
    async with haptera.open(tmp_path / "d") as again:
        assert {entry.value async for entry in again.scan()} == {b"new"}


@pytest.mark.parametrize("end", ["aclose", "drain"])
async def test_an_embedded_store_that_is_ended_meanwhile_tells_its_callers_and_gives_the_directory_back(
    tmp_path: Path, broken_slice: pytest.MonkeyPatch, end: str
) -> None:
    db = haptera.open(tmp_path / "d")
    await db.set("before", b"1")
    failing = asyncio.ensure_future(db.set_many(NEW))
    await asyncio.sleep(0.01)
    await (db.aclose() if end == "aclose" else db.drain())
    logged = await outcome_of(failing) == "unknown"
    broken_slice.undo()
    async with haptera.open(tmp_path / "d") as again:
        assert await again.count() == (5_001 if logged else 1)
