"""Rows into a store: many calls at a time, and an exact account of each row's fate."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from haptera.cli.transfer.errors import BadFile
from haptera.errors import HapteraError
from haptera.key_rules import TTL_MAX_MS

if TYPE_CHECKING:
    from haptera.cli.transfer.import_state import ImportPlace
    from haptera.cli.transfer.row_batches import Reader, RowBatch
    from haptera.client import Database

#: Calls under way at once: enough that the disk always has a next batch, at most some megabytes of rows.
IN_FLIGHT_MAX: Final = 16

#: Seconds of the shortest time to live.
TTL_MIN_S: Final = 0.001

#: Batches that are read but not yet sent, so that reading and sending overlap.
READ_AHEAD_MAX: Final = 4

#: Batches behind one whose call is late that an import with a place sends: some megabytes of rows.
ORDER_MAX: Final = 8 * IN_FLIGHT_MAX

#: An import that is interrupted waits so long for the answers that are under way: Ctrl-C means now.
INTERRUPTED_SECONDS_MAX: Final = 1.0


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""

    def __str__(self) -> str:
        return "interrupted"


@dataclass
class Tally:
    """The fate of the rows. ``stopped_at`` is the first place in the file whose row is not certainly stored.
    ``expired`` are the rows that were left out because their time was over.
    """

    stored: int = 0
    expired: int = 0
    uncertain: int = 0
    stopped_at: int | None = None
    error: BaseException | None = None

    def failed(self, batch: RowBatch, error: HapteraError) -> None:
        if error.outcome != "not_applied":
            self.uncertain += len(batch.items)
        self.stop(batch.first, error)

    def unanswered(self, batch: RowBatch, *, sent: bool) -> None:
        if sent:
            self.uncertain += len(batch.items)
        self.stop(batch.first, Interrupted())

    def stop(self, place: int, error: BaseException) -> None:
        if self.stopped_at is None or place < self.stopped_at:
            self.stopped_at = place
        if self.error is None or isinstance(self.error, BadFile):
            self.error = error


async def store(
    db: Database,
    reader: Reader,
    update: Callable[[int, int], None],
    read: Callable[[Reader], AsyncGenerator[RowBatch, None]] | None = None,
    *,
    fence: int | None = None,
    place: ImportPlace | None = None,
) -> Tally:
    """Store all rows of ``reader``, many calls at a time, until the first that fails or Ctrl-C.

    ``update`` is told how far the file is read and how many rows are stored. ``read`` is `read_ahead`; a test on a
    virtual clock has another, without a thread. Each call is made only while the lock of the token ``fence`` is held.
    ``place`` is told how far all rows are stored.

    Calls under way together are not ordered, so a batch with a key that is also in batches under way waits for them:
    of a key that comes twice the later row wins.
    """
    tally = Tally()
    flight = InFlight(db, tally, fence, place)
    batches = (read or read_ahead)(reader)
    try:
        try:
            async for batch in batches:
                await flight.send(batch)
                update(batch.position, tally.stored)
                if tally.error is not None:
                    break
        except (BadFile, OSError) as error:
            tally.stop(error.place if isinstance(error, BadFile) else reader.place + 1, error)
        await flight.landed()
    except asyncio.CancelledError:
        tally.stop(flight.sent_to + 1, Interrupted())
        await flight.land_within(INTERRUPTED_SECONDS_MAX)
    finally:
        await batches.aclose()
    update(reader.bytes_read, tally.stored)
    return tally


@dataclass
class Sent:
    """A batch that was sent. ``stored`` is False where all of it had expired, and None where that is not known yet."""

    batch: RowBatch
    stored: bool | None = None


@dataclass
class InFlight:
    """The calls under way. ``sent_to`` is the last place in the file that belongs to a batch that was sent.

    ``order`` has the batches that were sent, in the order of the file, from the first one that is not done on. It is
    empty without a ``place``, which is behind the ones before.
    """

    db: Database
    tally: Tally
    fence: int | None
    place: ImportPlace | None = None
    sent_to: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    order: deque[Sent] = field(default_factory=deque)

    async def send(self, batch: RowBatch) -> None:
        """Send a batch as soon as it may be under way beside the others."""
        keys = {key for key, _ in batch.items}
        while self.tasks and (
            len(self.tasks) >= IN_FLIGHT_MAX or len(self.order) >= ORDER_MAX or not self.keys.isdisjoint(keys)
        ):
            await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
        if self.tally.error is not None:
            self.tally.stop(batch.first, self.tally.error)
            return
        self.keys |= keys
        self.sent_to = batch.last
        sent = Sent(batch)
        if self.place is not None:
            self.order.append(sent)
        task = asyncio.create_task(self._store(sent, keys))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _store(self, sent: Sent, keys: set[str]) -> None:
        batch = sent.batch
        ttl = None if batch.expires_at is None else min(batch.expires_at - time.time(), TTL_MAX_MS / 1000)
        if ttl is not None and ttl < TTL_MIN_S:
            self.tally.expired += len(batch.items)
            self.keys -= keys
            self._done(sent, stored=False)
            return
        try:
            await self.db.set_many(batch.items, ttl=ttl, fence=self.fence)
        except HapteraError as error:
            self.tally.failed(batch, error)
        except asyncio.CancelledError:
            self.tally.unanswered(batch, sent=self.db.connected_once)
        else:
            self.tally.stored += len(batch.items)
            self._done(sent, stored=True)
        finally:
            self.keys -= keys

    def _done(self, sent: Sent, *, stored: bool) -> None:
        """Take the batches that are done off the beginning of the order: the place is behind them."""
        sent.stored = stored
        while self.place is not None and self.order and self.order[0].stored is not None:
            first = self.order.popleft()
            try:
                self.place.advance(first.batch, stored=first.stored is True)
            except OSError as error:
                self.tally.stop(first.batch.last + 1, error)

    async def landed(self) -> None:
        """Wait for all that are under way."""
        if self.tasks:
            await asyncio.wait(self.tasks)

    async def land_within(self, seconds: float) -> None:
        """Wait for the calls under way, and give up calls that take longer."""
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await self.landed()


async def read_ahead(reader: Reader) -> AsyncGenerator[RowBatch, None]:
    """The batches of a file, read in a thread: a slow disk or pipe does not hold up the connection."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[RowBatch | Exception | None] = asyncio.Queue()
    room = threading.Semaphore(READ_AHEAD_MAX)
    stopped = threading.Event()

    def deliver(item: RowBatch | Exception | None) -> None:
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
