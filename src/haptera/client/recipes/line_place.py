"""A claimant's place in a line (spec/recipes.md, "Lines")."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from haptera.client.once import Once
from haptera.client.recipes.line import LINE
from haptera.errors import LockLost, WaitTimeout

if TYPE_CHECKING:
    from haptera.client.calls.transact import Operation
    from haptera.client.database import Database
    from haptera.client.leases.lease import Lease
    from haptera.client.recipes.line import LineFollower, LineFollowers
    from haptera.peer import Timeout


class LinePlace:
    """A place in a line: an entry that ends with the claimant's lease.

    Its turn has come when fewer than ``limit`` places of a lower version stand. That stays so, because a place that is
    taken later has a higher version. It is ``lost`` with its lease, and when its entry is deleted or written again.
    """

    def __init__(self, lines: LineFollowers, line: LineFollower, lease: Lease, token: int, limit: int) -> None:
        loop = asyncio.get_running_loop()
        self.token = token
        self.key: str = key_of(line.name, lease)
        #: How it ended: with why it was lost, or with None where it was left.
        self.lost: Once[LockLost | None] = Once(loop)
        #: Called when it is lost.
        self.when_lost: Callable[[], None] | None = None
        self._lines = lines
        self._line = line
        self._lease = lease
        self._limit = limit
        #: The line was seen, or why it was not; the turn has come, or why it will not.
        self._seen: Once[Exception | None] = Once(loop)
        self._turn: Once[Exception | None] = Once(loop)
        self._task = loop.create_task(self._await_lease())
        line.join(self)

    @property
    def held(self) -> bool:
        """Whether its turn has come, and it certainly stands at this moment."""
        return self._turn.happened and not self.lost.happened and self._lease.held

    @property
    def seen(self) -> bool:
        """Whether it is known who stands ahead."""
        return self._seen.happened

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
                raise WaitTimeout(f"{self._line.name} is held by others") from None
        error = error or self.loss
        if error is not None:
            raise error

    async def leave(self) -> None:
        """Give it up, and end its lease. It waits for a store that is silent for some seconds at most."""
        self._end(None)
        self._task.cancel()
        await self._lease.close()

    def see(self, ahead: int) -> None:
        """Note that it stands, and how many stand ahead of it."""
        self._seen.happen(None)
        if ahead < self._limit:
            self._turn.happen(None)

    def fail(self, error: Exception) -> None:
        """Take it for lost, because its line cannot be followed: no one knows whether it stands."""
        self._seen.happen(error)
        self._turn.happen(error)
        self.lose(f"its line cannot be followed: {error}", error)

    def lose(self, why: str, cause: Exception | None = None) -> None:
        """Take it for lost."""
        if not self.lost.happened:
            error = LockLost(f"the lock was lost: {why}")
            error.__cause__ = cause
            self._end(error)

    async def _await_lease(self) -> None:
        error = await self._lease.lost
        if error is not None:
            self.lose(str(error), error)

    def _end(self, error: LockLost | None) -> None:
        self._line.leave(self)
        self._lines.drop(self._line)
        self.lost.happen(error)
        self._seen.happen(error)
        self._turn.happen(error)
        if error is not None and self.when_lost is not None:
            self.when_lost()


def key_of(name: str, lease: Lease) -> str:
    """The key of a claimant's place."""
    return f"{name}{LINE}{lease.id:016x}"


async def take_place(
    db: Database, lines: LineFollowers, name: str, value: bytes, limit: int, ttl: float, timeout: Timeout
) -> LinePlace:
    """Take the last place of a line."""
    lease = await db.lease(ttl, timeout=timeout)
    try:
        place: Operation = ("set", [key_of(name, lease), value, {"if": "absent", "lease": lease.id}])
        token = (await lease.transact(then=[place], timeout=timeout)).version
        assert token is not None  # it was written
    except BaseException:
        await lease.close()
        raise
    return LinePlace(lines, lines.of(name, timeout), lease, token, limit)


async def is_full(db: Database, name: str, limit: int, timeout: Timeout) -> bool:
    """Whether so many places of a line are taken that a further one would have to wait."""
    async with db.scan(prefix=name + LINE, limit=limit, keys_only=True, timeout=timeout) as places:
        return len([place async for place in places]) >= limit
