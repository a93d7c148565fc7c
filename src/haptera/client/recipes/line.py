"""Places in a line, which locks, elections and semaphores share (spec/recipes.md, section 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from haptera.client.backoff import Backoff
from haptera.client.once import Once
from haptera.errors import (
    ConnectionLost,
    DeadlineExceeded,
    HapteraError,
    LockLost,
    RevisionCompacted,
    TooManyRequests,
    WaitTimeout,
)

if TYPE_CHECKING:
    from haptera.client.database import Database
    from haptera.client.event import Event
    from haptera.client.lease import Lease
    from haptera.client.watch import Watch
    from haptera.peer import Timeout

#: The part of the keys of a line behind its name. The id of the claimant's lease follows.
LINE: Final = "/.line/"

#: Troubles of a watch that pass: another one begins with the places that stand then.
PASSING: Final = (ConnectionLost, DeadlineExceeded, RevisionCompacted, TooManyRequests)


class LinePlace:
    """A claimant's place in the line of a name: an entry that ends with the claimant's lease.

    Its turn has come when fewer than ``limit`` places of a lower version stand. That stays so, because a place that is
    taken later has a higher version. It is ``lost`` with its lease, and when its entry is deleted or written again.
    """

    def __init__(self, db: Database, name: str, lease: Lease, token: int, limit: int, timeout: Timeout) -> None:
        loop = asyncio.get_running_loop()
        self.token = token
        #: How it ended: with why it was lost, or with None where it was left.
        self.lost: Once[LockLost | None] = Once(loop)
        #: Called when it is lost.
        self.when_lost: Callable[[], None] | None = None
        self._db = db
        self._prefix = name + LINE
        self._key = key_of(name, lease)
        self._lease = lease
        self._limit = limit
        self._timeout: Timeout = timeout
        self._ahead: set[str] = set()  # bounded by the places of the line
        #: The line was seen, or why it was not; the turn has come, or why it will not.
        self._seen: Once[HapteraError | None] = Once(loop)
        self._turn: Once[HapteraError | None] = Once(loop)
        self._tasks = [loop.create_task(self._follow()), loop.create_task(self._await_lease())]

    @property
    def held(self) -> bool:
        """Whether its turn has come, and it certainly stands at this moment."""
        return self._turn.happened and not self.lost.happened and self._lease.held

    @property
    def loss(self) -> LockLost | None:
        """Why it does not stand any more."""
        if self.lost.happened:
            return self.lost.result
        return None if self._lease.held else LockLost("the lease of the lock is over")

    async def turn(self, wait: float | None) -> None:
        """Wait until its turn comes, ``wait`` seconds at most once it has seen who is ahead. Raises why it does not."""
        error = await self._seen
        if error is None:
            try:
                async with asyncio.timeout(wait):
                    error = await self._turn
            except TimeoutError:
                raise WaitTimeout(f"{self._prefix.removesuffix(LINE)} is held by others") from None
        error = error or self.loss
        if error is not None:
            raise error

    async def leave(self) -> None:
        """Give it up, and end its lease. It waits for a store that is silent for some seconds at most."""
        self._end(None)
        for task in self._tasks:
            task.cancel()
        await self._lease.close()
        await asyncio.wait(self._tasks)

    async def _await_lease(self) -> None:
        error = await self._lease.lost
        if error is not None:
            self._lose(str(error), error)

    async def _follow(self) -> None:
        backoff, attempt = Backoff(), 0
        while not self.lost.happened:
            try:
                async with self._db.watch(prefix=self._prefix, initial=True, timeout=self._timeout) as events:
                    await self._read(events)
            except PASSING as error:
                if not self._seen.happened:
                    self._fail(error)
                    return
                attempt += 1
                await backoff.wait(attempt)
            except HapteraError as error:
                self._fail(error)

    async def _read(self, events: Watch) -> None:
        """Follow the line from the places that stand now."""
        self._ahead = set()
        synced = standing = False
        while not self.lost.happened:
            for event in await events.next_events():
                if event.kind == "synced":
                    synced = True
                    if not standing:
                        self._lose("its place in the line was deleted")
                elif event.key != self._key:
                    self._note(event)
                elif event.value is not None and event.version == self.token:
                    standing = True
                else:
                    self._lose(f"its place in the line was {'deleted' if event.value is None else 'written again'}")
            if synced and not self.lost.happened:
                self._seen.happen(None)
                if len(self._ahead) < self._limit:
                    self._turn.happen(None)

    def _note(self, event: Event) -> None:
        """Note who stands ahead."""
        if event.value is not None and event.version < self.token:
            self._ahead.add(event.key)
        else:
            self._ahead.discard(event.key)

    def _fail(self, error: HapteraError) -> None:
        """The line cannot be seen: the claimant cannot tell what it holds."""
        self._seen.happen(error)
        self._turn.happen(error)
        self._lose(f"its line cannot be followed: {error}", error)

    def _lose(self, why: str, cause: HapteraError | None = None) -> None:
        if not self.lost.happened:
            error = LockLost(f"the lock was lost: {why}")
            error.__cause__ = cause
            self._end(error)

    def _end(self, error: LockLost | None) -> None:
        self.lost.happen(error)
        self._seen.happen(error)
        self._turn.happen(error)
        if error is not None and self.when_lost is not None:
            self.when_lost()


def key_of(name: str, lease: Lease) -> str:
    """The key of a claimant's place."""
    return f"{name}{LINE}{lease.id:016x}"


async def take_place(db: Database, name: str, value: bytes, limit: int, ttl: float, timeout: Timeout) -> LinePlace:
    """Take the last place of a line."""
    lease = await db.lease(ttl, timeout=timeout)
    try:
        token = await db.set(key_of(name, lease), value, if_absent=True, lease=lease, timeout=timeout)
    except BaseException:
        await lease.close()
        raise
    return LinePlace(db, name, lease, token, limit, timeout)


async def is_full(db: Database, name: str, limit: int, timeout: Timeout) -> bool:
    """Whether so many places of a line are taken that a further one would have to wait."""
    async with db.scan(prefix=name + LINE, limit=limit, keys_only=True, timeout=timeout) as places:
        return len([place async for place in places]) >= limit
