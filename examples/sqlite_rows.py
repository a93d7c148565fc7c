"""Rows of a SQLite table, streamed to a client that takes its time, leaves half-way, and reads the rest later.

The program makes the database, serves it on a Unix socket and is its own client. Memory stays small on both sides
however large the table is: the server reads on only as fast as the client takes rows.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import haptera

ROWS = 20_000
SENSORS = 7
#: Rows that one trip to SQLite's thread brings.
PAGE_ROWS = 100
#: More rows than a stream's window of 256 KiB, and what else is on its way, can hold.
AHEAD_MAX = 2_000

#: The application's own code of an error: those from 10,000 are free.
NO_SUCH_SENSOR = 10_001

_T = TypeVar("_T")


def make_database(path: Path) -> None:
    """A table of about 4 MB."""
    database = sqlite3.connect(path)
    with database:
        database.execute("CREATE TABLE measurement (id INTEGER PRIMARY KEY, sensor INTEGER, degrees REAL, note TEXT)")
        database.executemany(
            "INSERT INTO measurement VALUES (?, ?, ?, ?)",
            ((n, n % SENSORS, 15 + n % 100 / 10, f"note {n} ".ljust(150, ".")) for n in range(1, ROWS + 1)),
        )
    database.close()


class Measurements(haptera.Service):
    """Serves the table of one database file, which it only reads."""

    name = "measurements"

    def __init__(self, path: Path) -> None:
        self.rows_read = 0
        self.cursor_closed = asyncio.Event()
        # SQLite blocks, so it has a thread; one only, which is what orders a cursor's use and its end.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False)

    async def _run(self, function: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    @haptera.method
    async def mean(self, request: haptera.Request) -> bytes:
        """One answer: a sensor's mean, or an error for a sensor that there is not."""
        sensor = json.loads(request.payload)
        query = "SELECT avg(degrees) FROM measurement WHERE sensor = ?"
        mean = (await self._run(lambda: self._database.execute(query, (sensor,)).fetchone()))[0]
        if mean is None:
            raise haptera.CallError(
                NO_SUCH_SENSOR, "NO_SUCH_SENSOR", "there is no such sensor", details={"sensor": sensor}
            )
        return json.dumps(mean).encode()

    @haptera.method
    async def rows(self, request: haptera.Request) -> AsyncIterator[bytes]:
        """The rows with an id above the argument, in their order, one an item."""
        after = json.loads(request.payload)
        query = "SELECT id, sensor, degrees, note FROM measurement WHERE id > ? ORDER BY id"
        cursor = await self._run(self._database.execute, query, (after,))
        try:
            while page := await self._run(cursor.fetchmany, PAGE_ROWS):
                for row in page:
                    self.rows_read += 1
                    # Waits here while the client's window is full, and is left here when the client cancels.
                    yield json.dumps(row).encode()
        finally:
            await self._run(cursor.close)
            self.cursor_closed.set()

    def close(self) -> None:
        self._thread.submit(self._database.close).result()
        self._thread.shutdown()


async def standstill(served: Measurements) -> int:
    """Wait until the server reads no further, and return how many rows it has read."""
    before = -1
    while before != served.rows_read:
        before = served.rows_read
        await asyncio.sleep(0.1)
    return before


async def read_half(peer: haptera.Peer, served: Measurements) -> list[int]:
    """Take ten rows, pause, take more, and leave half-way: leaving the stream cancels the call."""
    ids = []
    async with peer.stream("measurements", "rows", b"0") as rows:
        async for row in rows:
            ids.append(json.loads(row)[0])
            if len(ids) == 10:
                ahead = await standstill(served) - len(ids)
                print(
                    "the client pauses after 10 rows, and the server reads", "on" if ahead > AHEAD_MAX else "no further"
                )
            if len(ids) == ROWS // 2:
                break
    return ids


async def use(peer: haptera.Peer, served: Measurements) -> None:
    mean = await peer.call("measurements", "mean", b"3", timeout=2.0)
    print(f"sensor 3: {json.loads(mean):.2f}")
    try:
        await peer.call("measurements", "mean", b"99")
    except haptera.CallError as error:
        print(f"sensor {error.details['sensor']}: {error.code} {error.name}")

    first = await read_half(peer, served)
    print(f"the client left after {len(first)} rows")
    await served.cursor_closed.wait()
    print("the server closed its cursor before the end:", served.rows_read < ROWS)

    rest = [json.loads(row)[0] async for row in peer.stream("measurements", "rows", json.dumps(first[-1]).encode())]
    print(f"another call brought the other {len(rest)} rows; each came once:", [*first, *rest] == [*range(1, ROWS + 1)])


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "measurements.db"
        make_database(path)
        served = Measurements(path)
        url = f"haptera+unix://{Path(directory) / 'rows.sock'}"
        try:
            async with haptera.listen(url, services=[served]), haptera.dial(url) as peer:
                await use(peer, served)
                await peer.drain()
        finally:
            served.close()


if __name__ == "__main__":
    asyncio.run(main())
