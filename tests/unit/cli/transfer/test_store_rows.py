"""Rows into a store that answers as it likes."""

from __future__ import annotations

import asyncio
import io
import json
import time
from typing import TYPE_CHECKING, Any, cast

from haptera.cli.transfer.columns import Wanted
from haptera.cli.transfer.import_state import ImportPlace
from haptera.cli.transfer.row_batches import BATCH_ROWS_MAX, Reader, RowBatch
from haptera.cli.transfer.store_rows import IN_FLIGHT_MAX, Interrupted, store
from haptera.key_rules import TTL_MAX_MS
from haptera.testing import virtual_clock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from haptera.client import Database


class Unordered:
    """A store that carries out calls that are under way together in the reverse of their order."""

    connected_once = True

    def __init__(self, silent_after: int | None = None) -> None:
        self.entries: dict[str, bytes] = {}
        self.calls = 0
        self.most = 0
        self.ttls: list[float | None] = []
        self.fences: set[int | None] = set()
        self._under_way = 0
        self._silent_after = silent_after

    async def set_many(self, items: list[tuple[str, bytes]], *, ttl: float | None, fence: int | None) -> int:
        self.calls += 1
        self.ttls.append(ttl)
        self.fences.add(fence)
        number = self.calls
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            if self._silent_after is not None and number > self._silent_after:
                await asyncio.Event().wait()
            await asyncio.sleep(IN_FLIGHT_MAX - number % IN_FLIGHT_MAX)
        finally:
            self._under_way -= 1
        self.entries.update(items)
        return number


def rows_of(pairs: list[tuple[str, str]]) -> Reader:
    data = "".join(f"{key}\t{value}\n" for key, value in pairs).encode()
    return Reader(io.BytesIO(data), "-", Wanted(), form=None)


async def at_once(reader: Reader) -> AsyncGenerator[RowBatch, None]:
    for batch in reader.batches():
        yield batch


def nothing(*_: int) -> None: ...


@virtual_clock
async def test_the_later_row_of_a_key_wins_however_the_store_orders_calls() -> None:
    """Trap: an import that does not order doubled keys."""
    pairs = [(f"k{n % (BATCH_ROWS_MAX + 7)}", str(n)) for n in range(BATCH_ROWS_MAX * 12)]
    db = Unordered()
    tally = await store(cast("Database", db), rows_of(pairs), nothing, at_once)
    assert (tally.error, tally.stored) == (None, len(pairs))
    assert db.entries == {key: value.encode() for key, value in pairs}


@virtual_clock
async def test_rows_of_different_keys_are_stored_side_by_side() -> None:
    db = Unordered()
    pairs = [(f"k{n}", "") for n in range(BATCH_ROWS_MAX * 40)]
    await store(cast("Database", db), rows_of(pairs), nothing, at_once, fence=7)
    assert db.most == IN_FLIGHT_MAX
    assert db.fences == {7}, "each call has the token"


@virtual_clock
async def test_an_interrupted_import_tells_what_is_certain() -> None:
    """Trap: Ctrl-C after which nobody knows what was stored."""
    db = Unordered(silent_after=3)
    reader = rows_of([(f"k{n}", "") for n in range(BATCH_ROWS_MAX * 5)])
    importing: asyncio.Task[Any] = asyncio.ensure_future(store(cast("Database", db), reader, nothing, at_once))
    await asyncio.sleep(100)
    importing.cancel()
    tally = await importing
    assert isinstance(tally.error, Interrupted)
    assert (tally.stored, tally.uncertain) == (BATCH_ROWS_MAX * 3, BATCH_ROWS_MAX * 2)
    assert tally.stopped_at == BATCH_ROWS_MAX * 3 + 1
    assert len(db.entries) == tally.stored


@virtual_clock
async def test_rows_that_expire_get_the_time_that_is_left_and_those_whose_time_is_over_are_left_out() -> None:
    now = time.time()
    rows = [("a", None), ("b", now + 100), ("c", now + 100), ("d", now - 1), ("e", now + 10**12), ("f", None)]
    lines = [json.dumps({"key": key, "value": key, "expires_at": expires}) for key, expires in rows]
    db = Unordered()
    reader = Reader(io.BytesIO("\n".join(lines).encode()), "-", Wanted(), form=None)
    tally = await store(cast("Database", db), reader, nothing, at_once)
    assert (tally.error, tally.stored, tally.expired) == (None, 5, 1)
    assert set(db.entries) == {"a", "b", "c", "e", "f"}
    none, soon, longest, last = db.ttls
    assert none is last is None
    assert soon is not None
    assert 99 < soon <= 100
    assert longest == TTL_MAX_MS / 1000


@virtual_clock
async def test_the_place_is_never_behind_a_row_that_is_not_stored(tmp_path: Path) -> None:
    """Calls end in another order than that of the file, and the place moves in that of the file alone."""
    pairs = [(f"k{n}", str(n)) for n in range(BATCH_ROWS_MAX * 40)]
    db = Unordered()

    class Watched(ImportPlace):
        def advance(self, batch: RowBatch, *, stored: bool) -> None:
            super().advance(batch, stored=stored)
            assert stored
            assert self.state.place == self.state.stored  # a row a line
            assert {key for key, _ in pairs[: self.state.place]} <= db.entries.keys()

    place = Watched(str(tmp_path / "rows"), None, {})
    tally = await store(cast("Database", db), rows_of(pairs), nothing, at_once, place=place)
    assert (tally.error, place.state.place, place.state.stored) == (None, len(pairs), len(pairs))
    assert db.most == IN_FLIGHT_MAX


@virtual_clock
async def test_a_call_that_is_never_answered_holds_the_place_and_bounds_the_rows_behind_it(tmp_path: Path) -> None:
    db = Unordered(silent_after=5)
    pairs = [(f"k{n}", str(n)) for n in range(BATCH_ROWS_MAX * 40)]
    place = ImportPlace(str(tmp_path / "rows"), None, {})
    task = asyncio.create_task(store(cast("Database", db), rows_of(pairs), nothing, at_once, place=place))
    await asyncio.sleep(100)
    task.cancel()
    tally = await task
    assert place.state.place == BATCH_ROWS_MAX * 5
    assert tally.stopped_at == BATCH_ROWS_MAX * 5 + 1
    assert db.calls <= IN_FLIGHT_MAX + 5
