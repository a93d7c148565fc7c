"""A worker of a queue: it takes jobs for the tasks of a program (spec/recipes.md, section 4)."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING, Final, Self

from haptera.client.recipes.candidates import Crowd
from haptera.client.recipes.free_jobs import FreeJobs
from haptera.client.recipes.job_claims import LEASE_ENDED, JobClaims
from haptera.client.trouble import passes
from haptera.errors import ConnectionLost, HapteraError, IntegerOverflow, NotAnInteger
from haptera.peer import Pauses

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client.database import Database
    from haptera.client.recipes.job import Job
    from haptera.client.recipes.queue_keys import QueueKeys

#: Errors of a job whose attempts cannot be counted, because another program has stored something under their key. It
#: is passed over, so that the jobs behind it are taken.
UNCOUNTED: Final = (NotAnInteger, IntegerOverflow)


class Worker:
    """Takes jobs for any number of tasks. Made by `Queue.worker`; use it as ``async with queue.worker() as worker``.

    ``async for job in worker`` waits for one job after the other. The jobs that are in hand when the worker ends are
    given back; those of a worker that was killed or stands still are free when its lease has ended. A store that cannot
    be reached, or refuses for a reason that passes, is waited for, and a lease that is lost meanwhile is followed by
    another.
    """

    def __init__(self, db: Database, keys: QueueKeys, ttl: float, delay: float) -> None:
        self._claims = JobClaims(db, keys, ttl, delay)
        self._jobs = FreeJobs(self._claims, self._wake, self._stop)
        self._crowd = Crowd(random.random)
        self._takers: deque[asyncio.Future[None]] = deque()  # one for each task that waits
        self._following: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()  # set when it knows of a job, or that there is none
        self._end: Exception | None = None  # why no job is taken any more

    async def take(self, *, wait: float | None = None) -> Job | None:
        """Take the first job that is free, as soon as there is one.

        Args:
            wait: Seconds to wait for one at most; 0: take one that the worker knows of now. Unless given, it waits
                without end. A job that is being claimed when the time is over is waited for and given, unless the store
                says that it did not take the claim: then its error is raised.

        Returns:
            The job, or None if there was none in time.

        Raises:
            ConnectionLost: The worker or its database is closed.
        """
        deadline = None if wait is None else asyncio.get_running_loop().time() + wait
        while (digits := await self._candidate(deadline)) is not None:
            claiming = self._claims.carry(self._claimed(digits, deadline))
            try:
                job = await asyncio.shield(claiming)
            except asyncio.CancelledError:
                claiming.add_done_callback(self._claims.give_back)
                raise
            if job is not None:
                return job
        return None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Job:
        job = await self.take()
        assert job is not None, "it waits without end"
        return job

    async def __aenter__(self) -> Self:
        if self._following is not None:
            raise RuntimeError("a worker is entered once")
        await self._claims.lease()
        self._following = asyncio.get_running_loop().create_task(self._jobs.follow())
        try:
            await self._looked.wait()
            self._check()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        assert self._following is not None
        self._stop(ConnectionLost("the worker is closed", outcome="not_applied"))
        self._following.cancel()
        try:
            await asyncio.wait([self._following])
        finally:
            await self._claims.close()

    # -- takers

    async def _candidate(self, deadline: float | None) -> str | None:
        """The digits of a job that may be free; None if there is none by the deadline."""
        while True:
            self._check()
            known = len(self._jobs.candidates)
            if not known:
                if not await self._woken(deadline):
                    return None
                continue
            pause = self._crowd.pause(known)
            if pause:
                await asyncio.sleep(pause)
            digits = self._jobs.pick(self._crowd.place(len(self._jobs.candidates)))
            if digits is not None:
                return digits

    async def _woken(self, deadline: float | None) -> bool:
        """Wait until there may be a job; false if the deadline has passed."""
        taker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._takers.append(taker)
        try:
            async with asyncio.timeout_at(deadline):
                await taker
        except (TimeoutError, asyncio.CancelledError) as error:
            if taker in self._takers:
                self._takers.remove(taker)
            else:
                self._wake()  # what it was woken for is another's
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def _wake(self) -> None:
        """Wake as many takers as there may be jobs."""
        if self._jobs.candidates or self._jobs.candidates.end_reached:
            self._looked.set()
        for _ in range(min(len(self._takers), len(self._jobs.candidates))):
            _set(self._takers.popleft())

    def _stop(self, end: Exception) -> None:
        if self._end is None:
            self._end = end
        self._looked.set()
        while self._takers:
            _set(self._takers.popleft())

    def _check(self) -> None:
        if self._end is not None:
            raise self._end
        if self._following is None:
            raise RuntimeError("a worker takes jobs within its `async with`")

    # -- claims

    async def _claimed(self, digits: str, deadline: float | None) -> Job | None:
        """Claim a job, over trouble on the way to the store; None if it is not free. An attempt that may have been made
        is repeated, because the claim would stand for as long as the lease. Where the lease has ended, it is repeated
        under another one; once, if the time is over.
        """
        time = asyncio.get_running_loop().time
        pauses = Pauses()
        leases = 1
        while True:
            self._check()
            try:
                job = await self._claims.claim(digits)
            except UNCOUNTED:
                raise
            except HapteraError as error:
                over = deadline is not None and time() >= deadline
                if isinstance(error, LEASE_ENDED):
                    given_up = over and leases > 1
                    leases += 1
                else:
                    given_up = (over and error.outcome == "not_applied") or not passes(error)
                if given_up:
                    self._jobs.candidates.free(int(digits), int(digits))
                    self._wake()
                    raise
                await pauses.wait()
            else:
                if job is None:
                    self._crowd.lost()
                else:
                    self._crowd.won()
                return job


def _set(taker: asyncio.Future[None]) -> None:
    if not taker.done():
        taker.set_result(None)
