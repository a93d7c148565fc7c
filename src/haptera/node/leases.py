"""Keeps the leases alive that are renewed, and ends the others.

A renewal is not logged: it moves a time in this process alone, and so costs no more than a read. The end of a lease is
logged, so that each replay and each replica removes the same keys at the same revision, and every watcher sees it. From
the moment at which the end is on its way, a renewal answers that the lease is not there.

A lease has its whole time again when the node starts, because nothing says when it was renewed last. With several nodes
a renewal will need what a linearizable read needs: the proof that this node still leads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.errors import Failure
from haptera.node.commit import RETRY_S
from haptera.node.lease_clock import TICK_MS, LeaseClock
from haptera.node.lease_deadlines import LeaseDeadlines
from haptera.state import ListLeasesOf, Logged, operations

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from haptera.node.commit import CommitPipeline
    from haptera.node.metrics import Metrics
    from haptera.node.slice_queue import Turns
    from haptera.state import Result, StateMachine, Steps

#: Leases that one command ends, and the keys for which a lease counts as one more of them. The keys are removed in
#: slices, but all writers wait for that: 0.2 s for 16,384, while the 131,072 of one lease are one change anyway.
ENDED_TOGETHER_MAX: Final = 1024
KEYS_PER_LEASE: Final = 16


class LeaseKeeper:
    """The times of the leases of a node. ``monotonic_ns`` is its clock that is never set."""

    __slots__ = (
        "_clock",
        "_deadlines",
        "_due_ms",
        "_ending",
        "_loop",
        "_machine",
        "_metrics",
        "_monotonic_ns",
        "_pipeline",
        "_stopped",
        "_timer",
        "_turns",
    )

    def __init__(
        self,
        machine: StateMachine,
        pipeline: CommitPipeline,
        turns: Turns,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        monotonic_ns: Callable[[], int],
    ) -> None:
        self._machine = machine
        self._pipeline = pipeline
        self._turns = turns
        self._loop = loop
        self._metrics = metrics
        self._monotonic_ns = monotonic_ns
        self._clock = LeaseClock(monotonic_ns())
        self._deadlines = LeaseDeadlines()
        self._due_ms = 0  # leases whose time is over by then may be ended
        self._ending: list[int] | None = None  # leases that are looked for, or whose end is on its way
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        machine.answer_with(operations.RenewLease, self._renew)
        machine.answer_with(operations.ListLeases, self._list)
        machine.answer_with(ListLeasesOf, self._list)
        machine.leases.granted = self._granted
        machine.leases.ended = self._deadlines.remove

    @property
    def count(self) -> int:
        """How many leases there are."""
        return len(self._machine.leases.by_id)

    def begin(self) -> None:
        """Begin the time of all leases that there are: the node serves from now on."""
        for lease_id, lease in self._machine.leases.by_id.items():
            self._deadlines.remove(lease_id)
            self._granted(lease_id, lease.ttl_ms)

    def stop(self) -> None:
        """End no more leases: the node ends."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _now_ms(self) -> int:
        return self._clock.now_ms(self._monotonic_ns())

    def _granted(self, lease_id: int, ttl_ms: int) -> None:
        if self._timer is None and not self._stopped:
            self._clock.resume(self._monotonic_ns())
            self._tick_later()
        self._deadlines.add(lease_id, ttl_ms, self._now_ms())

    def _renew(self, op: operations.RenewLease) -> Result:
        return (self._deadlines.renew(op.leases, self._now_ms()),)

    def _list(self, op: operations.ListLeases | ListLeasesOf) -> Result:
        now_ms, left_ms = self._now_ms(), self._deadlines.left_ms
        return self._machine.list_leases(op, lambda lease_id: left_ms(lease_id, now_ms))

    def _tick_later(self) -> None:
        self._timer = self._loop.call_later(TICK_MS / 1000, self._tick)

    def _tick(self) -> None:
        self._timer = None
        may_end = self._clock.tick(self._monotonic_ns())
        if may_end:
            self._due_ms = self._clock.ticked_ms
        if self._stopped or self._machine.abandoned is not None:
            return
        if may_end and self._ending is None:
            self._ending = []
            self._turns.start(self, self._steps())
        if self._deadlines or self._ending:
            self._tick_later()

    def _steps(self) -> Steps[None]:
        """End the leases whose time is over, if there are any."""
        due = yield from self._deadlines.take_due(self._due_ms, ENDED_TOGETHER_MAX, self._weight)
        if due and not self._stopped:
            self._end(due)
        else:
            self._ending = None

    def _weight(self, lease_id: int) -> int:
        return 1 + len(self._machine.leases.by_id[lease_id].keys) // KEYS_PER_LEASE

    def _end(self, lease_ids: list[int]) -> None:
        """Log the end of leases. They are not renewed any more, so it is tried until the log takes it."""
        self._ending = lease_ids
        if self._stopped:
            return
        refused = self._pipeline.append_own(Logged(operations.EndLeases(lease_ids)), self._done)
        if refused is not None:
            self._done([refused])

    def _done(self, results: list[Result]) -> None:
        [result] = results
        if isinstance(result, Failure):
            assert self._ending is not None
            self._loop.call_later(RETRY_S, self._end, self._ending)
            return
        assert isinstance(result, tuple)
        self._metrics.leases_ended_total += result[0]
        self._metrics.keys_expired_total += result[1]
        self._turns.start(self, self._steps())  # for the others
