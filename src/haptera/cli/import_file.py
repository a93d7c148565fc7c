"""``haptera import``"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import click

from haptera.cli import output, streams
from haptera.cli.client import Client, client_options
from haptera.cli.codes import DONE, USAGE
from haptera.cli.failures import described, exit_code
from haptera.cli.tsv import BadFile, Batch, Columns, Reader
from haptera.errors import ConnectionLost, HapteraError, ServerError

if TYPE_CHECKING:
    from haptera.client import Database

IN_FLIGHT_MAX = 16
"""Calls under way at once: enough that the disk always has a next batch, at most some megabytes of rows."""

READ_AHEAD_MAX = 4
"""Batches that are read but not yet sent, so that reading and sending overlap."""


@click.command("import")
@click.argument("file", metavar="FILE")
@click.option("--header", is_flag=True, help="The first line names the columns.")
@click.option("--prefix", default="", metavar="TEXT", help="Put this before every key.")
@click.option("--key-column", default="1", metavar="NAME|N", show_default=True, help="The column of the keys.")
@click.option("--value-column", metavar="NAME|N", help="The column of the values; by default all but the keys'.")
@click.option("--skip-bad", is_flag=True, help="Pass over lines that cannot be stored, and count them.")
@client_options(timeout=30.0)
def command(
    file: str, header: bool, prefix: str, key_column: str, value_column: str | None, skip_bad: bool, client: Client
) -> int:
    """Store the rows of a TSV file; - is standard input, and a gzip file is unpacked.

    The key is the first column and the value the rest of the line, tabs included, unless --key-column and
    --value-column (a number from 1 or, with --header, a name) say otherwise. Fields are taken as they stand, without
    quotes or escapes. Of a key that comes twice the later row wins. With --header every line must have as many columns
    as the first.

    Rows are stored in batches, each whole or not at all. When the import ends early, it says how many rows are
    certainly stored and at which line it stopped; to import the file again is always safe.
    """
    columns = Columns(header, key_column, value_column, prefix, skip_bad)
    try:
        raw = open_input(file)
    except OSError as error:
        raise click.UsageError(
            f"cannot read {'standard input' if file == '-' else file}: {error.strerror or error}"
        ) from None
    with raw:
        size = 0 if file == "-" else Path(file).stat().st_size
        return client.run(lambda db: _import(db, Reader(raw, columns), size, client.as_json), change=True)


def open_input(file: str) -> BinaryIO:
    """The file unbuffered; ``-`` is standard input, by its descriptor: its reading thread may outlive the command."""
    return streams.open_input() if file == "-" else open(file, "rb", buffering=0)


@dataclass
class Tally:
    """What became of the rows. ``stopped_at`` is the first line whose row is not certainly stored."""

    stored: int = 0
    uncertain: int = 0
    skipped: int = 0
    stopped_at: int | None = None
    seconds: float = 0.0
    error: BaseException | None = None

    def failed(self, batch: Batch, error: HapteraError) -> None:
        outcome = error.outcome if isinstance(error, ServerError | ConnectionLost) else "unknown"
        if outcome != "not_applied":
            self.uncertain += len(batch.items)
        self.stop(batch.first_line, error)

    def stop(self, line: int, error: BaseException) -> None:
        if self.stopped_at is None or line < self.stopped_at:
            self.stopped_at = line
        if self.error is None or isinstance(self.error, BadFile):
            self.error = error


async def _import(db: Database, reader: Reader, size: int, as_json: bool) -> int:
    started = time.monotonic()
    progress = progress_bar(size)
    with progress:
        tally = await store(db, reader, progress.update)
    tally.seconds = time.monotonic() - started
    _report(tally, as_json)
    return _code(tally.error)


def _code(error: BaseException | None) -> int:
    if error is None:
        return DONE
    if isinstance(error, HapteraError):
        return exit_code(error)
    return USAGE


def _report(tally: Tally, as_json: bool) -> None:
    if as_json:
        output.json_line(
            {
                "stored": tally.stored,
                "skipped": tally.skipped,
                "uncertain": tally.uncertain,
                "stopped_at_line": tally.stopped_at,
                "seconds": round(tally.seconds, 3),
            }
        )
    elif tally.error is None:
        skipped = f", {tally.skipped} bad lines skipped" if tally.skipped else ""
        output.line(f"{tally.stored} rows stored in {tally.seconds:.1f} s{skipped}")
    if tally.error is not None:
        uncertain = f", {tally.uncertain} may be" if tally.uncertain else ""
        output.error_line(
            f"{described(tally.error)}; {tally.stored} rows are certainly stored{uncertain}; "
            f"stopped at line {tally.stopped_at}"
        )


async def store(db: Database, reader: Reader, update: Callable[[int, int], None]) -> Tally:
    """Stores all rows of ``reader``, many calls at a time, until the first that fails.

    Calls under way together are not ordered, so a batch with a key that is also in one under way waits for those: of a
    key that comes twice the later row wins.
    """
    tally = Tally()
    flight = Flight(db, tally)
    batches = read_ahead(reader)
    try:
        async for batch in batches:
            await flight.send(batch)
            update(batch.position, tally.stored)
            if tally.error is not None:
                break
    except (BadFile, OSError) as error:
        tally.stop(error.line if isinstance(error, BadFile) else reader.line + 1, error)
    finally:
        await batches.aclose()
        await flight.landed()
    update(reader.bytes_read, tally.stored)
    tally.skipped = reader.skipped
    return tally


@dataclass
class Flight:
    """The calls under way."""

    db: Database
    tally: Tally
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)

    async def send(self, batch: Batch) -> None:
        """Sends a batch as soon as it may be under way beside the others."""
        keys = {key for key, _ in batch.items}
        while self.tasks and (len(self.tasks) >= IN_FLIGHT_MAX or not self.keys.isdisjoint(keys)):
            await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
        if self.tally.error is not None:
            self.tally.stop(batch.first_line, self.tally.error)
            return
        self.keys |= keys
        task = asyncio.create_task(self._store(batch, keys))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _store(self, batch: Batch, keys: set[str]) -> None:
        try:
            await self.db.set_many(batch.items)
        except HapteraError as error:
            self.tally.failed(batch, error)
        else:
            self.tally.stored += len(batch.items)
        finally:
            self.keys -= keys

    async def landed(self) -> None:
        """Waits for all that are under way."""
        if self.tasks:
            await asyncio.wait(self.tasks)


async def read_ahead(reader: Reader) -> AsyncGenerator[Batch, None]:
    """The batches of a file, read in a thread: a slow disk or pipe does not hold up the connection."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Batch | Exception | None] = asyncio.Queue()
    room = threading.Semaphore(READ_AHEAD_MAX)
    stopped = threading.Event()

    def deliver(item: Batch | Exception | None) -> None:
        try:
            loop.call_soon_threadsafe(arrived.put_nowait, item)
        except RuntimeError:
            stopped.set()  # the loop is closed: the command has ended

    def read() -> None:
        try:
            for batch in reader.batches():
                room.acquire()
                if stopped.is_set():
                    return
                deliver(batch)
        except Exception as error:
            deliver(error)
        else:
            deliver(None)

    # A daemon, because a read of standard input cannot be interrupted, and Ctrl-C must not wait for it.
    threading.Thread(target=read, name="haptera-import", daemon=True).start()
    try:
        while (item := await arrived.get()) is not None:
            if isinstance(item, Exception):
                raise item
            room.release()
            yield item
    finally:
        stopped.set()
        room.release()


class Progress(Protocol):
    """Shows how far an import is."""

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...

    def update(self, position: int, rows: int) -> None: ...


class Silence:
    """Shows nothing: standard error is no terminal."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def update(self, position: int, rows: int) -> None: ...


def progress_bar(size: int) -> Progress:
    """A bar on a terminal, over the ``size`` bytes of the file (0: not known)."""
    if not sys.stderr.isatty():
        return Silence()
    try:
        from haptera.cli.progress import Bar
    except ModuleNotFoundError:
        return Silence()
    return Bar(size)
