"""The claims of a worker: its lease, the jobs that it claims under it, and those that it has in hand."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from haptera.client.calls.entry import Entry
from haptera.client.recipes.job import Job
from haptera.errors import LeaseLost, LeaseNotFound

if TYPE_CHECKING:
    from haptera.client.calls.transact import Compare, Operation, TransactResult
    from haptera.client.database import Database
    from haptera.client.leases.lease import Lease
    from haptera.client.recipes.interruption import Interruption
    from haptera.client.recipes.queue_keys import QueueKeys

T = TypeVar("T")

#: Errors of a claim under a lease that has ended, which this program was not told yet.
LEASE_ENDED: Final = (LeaseNotFound, LeaseLost)
#: The version with which a compare finds that there is no claim.
UNCLAIMED: Final = 0


class JobClaims:
    """Claims jobs under the lease of a worker, and knows which claims belong to a job in hand.

    A claim under the lease that belongs to none is *forgotten*: the answer to it was lost. It is taken over with the
    next try for its job, because it would stay for as long as the lease.

    Attributes:
        db: The database.
        keys: The keys of the queue.
        delay: Seconds before which a job that is given back by an error is not taken.
        closing: Whether the worker ends: what has failed is not tried again.
    """

    __slots__ = (
        "_being_made",
        "_blocks",
        "_granting",
        "_in_hand",
        "_lease",
        "_tasks",
        "_ttl",
        "_watching",
        "closing",
        "db",
        "delay",
        "keys",
    )

    def __init__(self, db: Database, keys: QueueKeys, ttl: float, delay: float) -> None:
        self.db: Database = db
        self.keys: QueueKeys = keys
        self.delay: float = delay
        self.closing: bool = False
        self._ttl = ttl
        self._lease: Lease | None = None
        self._granting = asyncio.Lock()
        self._being_made: set[str] = set()  # one for each taker
        self._in_hand: set[int] = set()  # tokens, which are the versions of claims; bounded by the keys of a lease
        self._tasks: set[asyncio.Task[Any]] = set()  # one for each taker and each job in hand
        self._blocks: dict[Interruption, Lease] = {}  # of jobs in hand, and the lease of each
        self._watching: set[asyncio.Task[None]] = set()  # one for each lease, until it ends

    async def lease(self) -> Lease:
        """The lease of the worker; another one where the last was lost."""
        async with self._granting:
            if self._lease is None or not self._lease.held:
                self._lease = await self.db.lease(self._ttl)
                self._in_hand.clear()  # they were of the lease of before
                watching = asyncio.ensure_future(self._await_loss(self._lease))
                self._watching.add(watching)
                watching.add_done_callback(self._watching.discard)
            return self._lease

    async def claim(self, digits: str) -> Job | None:
        """Claim a job; None if it is not free. One of `LEASE_ENDED` says that the next claim has another lease."""
        if digits in self._being_made:
            return None
        self._being_made.add(digits)
        try:
            lease = await self.lease()
            try:
                return await self._claim(digits, lease)
            except LEASE_ENDED:
                if self._lease is lease:
                    self._lease = None
                raise
        finally:
            self._being_made.discard(digits)

    def forgotten(self, digits: str, claim: Entry) -> bool:
        """Whether a claim that was read may be taken over."""
        return self._lease is not None and digits not in self._being_made and self._is_forgotten(claim, self._lease)

    def enter(self, block: Interruption, lease: Lease) -> None:
        """Interrupt the block of a job when its lease is lost, or at once where it is."""
        self._blocks[block] = lease
        if not lease.held:
            block.interrupt()

    def leave(self, block: Interruption) -> None:
        """Interrupt it no more."""
        self._blocks.pop(block, None)

    def drop(self, token: int) -> None:
        """Note that a claim belongs to no job in hand any more."""
        self._in_hand.discard(token)

    def carry(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin work that goes on when its caller is cancelled, who awaits it under ``asyncio.shield``."""
        task = asyncio.ensure_future(work)
        self._track(task)
        return task

    def give_back(self, claiming: asyncio.Task[Job | None]) -> None:
        """Give back the job that was claimed for a caller who was cancelled."""
        job = None if claiming.cancelled() or claiming.exception() is not None else claiming.result()
        if job is not None:
            self._track(asyncio.ensure_future(job.release()))

    async def close(self) -> None:
        """Wait for the calls that were begun, and end the lease: with it all claims end."""
        self.closing = True
        try:
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            if self._lease is not None:
                await self._lease.close()

    async def _await_loss(self, lease: Lease) -> None:
        if await lease.lost is not None:
            for block in [block for block, its_lease in self._blocks.items() if its_lease is lease]:
                block.interrupt()

    async def _claim(self, digits: str, lease: Lease) -> Job | None:
        result = await self._try(digits, lease, UNCLAIMED)
        if not result.succeeded:
            claim = result.results[0]
            if not isinstance(claim, Entry) or not self._is_forgotten(claim, lease):
                return None
            result = await self._try(digits, lease, claim.version)
        if not result.succeeded:
            return None
        item, attempts, token = result.results
        assert isinstance(item, Entry)
        assert isinstance(attempts, int)
        assert isinstance(token, int)
        self._in_hand.add(token)
        return Job(self, digits, lease, item.value, attempts, token)

    async def _try(self, digits: str, lease: Lease, version: int) -> TransactResult:
        """Claim a job whose claim is of a version."""
        item, claim = self.keys.items + digits, self.keys.claims + digits
        compare: list[Compare] = [(item, "exists", "=", True), (claim, "version", "=", version)]
        then: list[Operation] = [
            ("get", [item]),
            ("increment", [self.keys.attempts + digits, 1 if version == UNCLAIMED else 0]),
            ("set", [claim, _mark_of(lease), {"lease": lease.id}]),
        ]
        return await lease.transact(compare=compare, then=then, otherwise=[("get", [claim])])

    def _is_forgotten(self, claim: Entry, lease: Lease) -> bool:
        return claim.value == _mark_of(lease) and claim.version not in self._in_hand

    def _track(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # no one is there to be told, where the caller was cancelled


def _mark_of(lease: Lease) -> bytes:
    """The value of a claim, which names its lease."""
    return b"%016x" % lease.id
