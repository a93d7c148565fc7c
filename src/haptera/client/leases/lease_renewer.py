"""Keeps the leases of a database alive: renews those that are due, many with one call, until each is lost or closed."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from haptera.client.leases.instant import Instant
from haptera.client.leases.kept_lease import KeptLease
from haptera.errors import HapteraError
from haptera.key_rules import LEASES_RENEWED_MAX
from haptera.peer import Pauses
from haptera.transport import running_loop, wrong_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haptera.client.database import Database

#: The part of its time after which a lease is renewed: a renewal that fails can be repeated before it is lost.
RENEWED_AT: Final = 1 / 3
#: The part of its time after which it is renewed together with one that is due. So leases that were granted at
#: different times come to be renewed together, and no sooner than a twelfth of their time after the ones before.
RENEWED_WITH_OTHERS_AT: Final = 1 / 4
#: Seconds that a lease is renewed early rather than waited for: timers are no more precise.
TIMER_S: Final = 0.001

_logger = logging.getLogger(__name__)


class LeaseRenewer:
    """The leases that a database keeps alive on one event loop. Its task ends with the last of them.

    ``answered_by`` names the server that has answered the last call of the database, and ``revoke`` ends a lease, by
    its id, at one server and no other, within some seconds.
    """

    def __init__(
        self,
        db: Database,
        answered_by: Callable[[], bytes | None],
        revoke: Callable[[int, bytes | None, float], Awaitable[object]],
    ) -> None:
        self._db = db
        self._answered_by = answered_by
        self._revoke = revoke
        self._loop = asyncio.get_running_loop()
        self._leases: dict[int, KeptLease] = {}  # bounded by the leases that a node grants
        self._task: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()  # each lease is in one of them at most
        self._wake = asyncio.Event()
        self._wakes_at = 0.0  # the time of the loop at which its task looks at the leases again
        self._pauses = Pauses()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it runs on."""
        return self._loop

    def keep(self, lease_id: int, seconds: float, granted: Instant) -> KeptLease:
        """Keep a lease alive, which was asked for at ``granted``, and which the last answer has granted."""
        lease = KeptLease(self._loop, lease_id, seconds, granted, self._answered_by())
        self._leases[lease_id] = lease
        if self._task is None:
            self._task = self._loop.create_task(self._keep())
        self._look_within(seconds * RENEWED_AT)
        return lease

    async def close(self, lease: KeptLease, timeout: float) -> None:
        """Renew a lease no more, and revoke it unless the node has ended it.

        It is waited for until ``timeout`` seconds have passed or the lease has ended by itself. The inherited lease of
        a parent process stays as it is.
        """
        if lease.inherited:
            return
        if running_loop() is not self._loop and not self._loop.is_closed():
            raise wrong_loop(f"the lease {lease.id}", self._loop)
        self._leases.pop(lease.id, None)
        if not self._leases:
            self._wake.set()
        lease.close()
        left = lease.seconds - lease.age(Instant.now(self._loop))
        if not lease.gone and left > 0:
            with suppress(HapteraError):  # it ends by itself
                await self._revoke(lease.id, lease.server_id, min(timeout, left))
                lease.gone = True

    async def aclose(self) -> None:
        """Renew nothing any more: the database is closed."""
        tasks = [task for task in (self._task, *self._calls) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._leave()  # a task that was cancelled before it began has done nothing

    async def _keep(self) -> None:
        try:
            while self._leases:
                self._wake.clear()
                due, pause = self._due()
                self._begin(due)
                self._wakes_at = self._loop.time() + pause
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(None if pause == math.inf else self._wakes_at):
                        await self._wake.wait()
        finally:
            self._leave()

    def _leave(self) -> None:
        self._task = None
        for lease in self._leases.values():
            lease.lose("the database that renews the lease is closed")
        self._leases.clear()

    def _look_within(self, seconds: float) -> None:
        """Have the task look at the leases in so many seconds. It looks at all of them, so it is woken only where it
        would be too late.
        """
        if self._loop.time() + seconds < self._wakes_at:
            self._wake.set()

    def _due(self) -> tuple[list[KeptLease], float]:
        """The leases that are to be renewed now, and the seconds until one of the others is."""
        now = Instant.now(self._loop)
        soonest = later = math.inf
        renewable = []
        for lease in list(self._leases.values()):
            age = lease.age(now)
            if lease.over(age):
                del self._leases[lease.id]
            elif not lease.asked:
                wait = lease.seconds * RENEWED_AT - age
                if age < lease.seconds * RENEWED_WITH_OTHERS_AT:
                    later = min(later, wait)
                else:
                    soonest = min(soonest, wait)
                    renewable.append(lease)
        return ([], min(soonest, later)) if soonest > TIMER_S else (renewable, later)

    def _begin(self, leases: list[KeptLease]) -> None:
        """Renew leases, many with one call."""
        for first in range(0, len(leases), LEASES_RENEWED_MAX):
            renewed = leases[first : first + LEASES_RENEWED_MAX]
            for lease in renewed:
                lease.asked = True
            call = self._loop.create_task(self._renew(renewed))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _renew(self, leases: list[KeptLease]) -> None:
        sent = Instant.now(self._loop)
        shortest = min(lease.seconds for lease in leases)
        try:
            times = await self._db.renew_leases([lease.id for lease in leases], timeout=shortest * RENEWED_AT)
        except Exception as error:  # of a defect, too, another attempt is all that keeps the leases
            if not isinstance(error, HapteraError):
                _logger.exception("lease_renewal_failed")
            for lease in leases:
                lease.trouble = error
            await self._pauses.wait(shortest * RENEWED_WITH_OTHERS_AT)
        else:
            server_id = self._answered_by()
            self._pauses.begin_anew()
            now = Instant.now(self._loop)
            for lease, seconds in zip(leases, times, strict=True):
                if lease.server_id != server_id:
                    lease.end_elsewhere()
                elif seconds is None:
                    lease.gone = True
                    lease.lose("the node has ended the lease")
                else:
                    lease.renew(sent, now)
        for lease in leases:
            lease.asked = False
        self._look_within(shortest * RENEWED_AT - Instant.now(self._loop).since(sent))
