"""The requests of the kv service in the audit log: those that take long, and the others where that is configured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from haptera.errors import Code, Failure, failure
from haptera.node.audit.callers import caller_of
from haptera.node.audit.command_events import command_event
from haptera.node.services.kv_methods import SERVICE
from haptera.state import Replayed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from haptera.node.audit.audit import Audit
    from haptera.node.commands import Envelope
    from haptera.peer import Request
    from haptera.state import Operation, Result

__all__ = ["RecordedCommands"]


class RecordedCommands:
    """Records the requests of one kv service. ``reads`` and ``writes`` say which of them are recorded in any case.

    ``slow_s`` is the time from which one is recorded as slow. ``followed`` is that of the service's `Replies`.
    """

    def __init__(
        self,
        audit: Audit,
        data: Literal["off", "writes", "all"],
        slow_s: float,
        followed: dict[Request, Failure | None],
    ) -> None:
        self.writes: bool = data != "off"
        self.reads: bool = data == "all"
        self.slow_s: float = slow_s or float("inf")
        #: The time from which a read is recorded.
        self.reads_from_s: float = 0.0 if self.reads else self.slow_s
        self._audit = audit
        self._followed = followed

    def answered(
        self, requests: Sequence[Request], commands: Sequence[Envelope], results: Sequence[Result], seconds: float
    ) -> None:
        """Record requests that have results: a denial has a line of its own already."""
        slow = seconds >= self.slow_s
        for request, command, result in zip(requests, commands, results, strict=True):
            found = result.result if isinstance(result, Replayed) else result
            self._record(request, command.op, found if isinstance(found, Failure) else None, seconds, slow=slow)

    def written(
        self, requests: Sequence[Request], commands: Sequence[Envelope], results: Sequence[Result], begun: float
    ) -> None:
        """Record changes that have results, if they are recorded. ``begun`` is of `time.perf_counter`."""
        seconds = time.perf_counter() - begun
        if self.writes or seconds >= self.slow_s:
            self.answered(requests, commands, results, seconds)

    async def follow(self, request: Request, op: Operation, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work of a long read, and record it if that is done, or if it was slow."""
        begun = time.perf_counter()
        self._followed[request] = None
        try:
            await work()
        finally:
            seconds = time.perf_counter() - begun
            reason = self._followed.pop(request)
            if reason is None and request.cancelled:
                reason = failure(Code.CANCELLED, outcome="not_applied")
            if seconds >= self.reads_from_s:
                self._record(request, op, reason, seconds, slow=seconds >= self.slow_s)

    def opened(self, request: Request, op: Operation, reason: Failure | None) -> None:
        """Record that a watch was opened, if reads are recorded."""
        if self.reads:
            self._record(request, op, reason, None, slow=False)

    def _record(
        self, request: Request, op: Operation, reason: Failure | None, seconds: float | None, *, slow: bool
    ) -> None:
        if reason is not None and reason.code == Code.PERMISSION_DENIED:
            return
        method, caller = f"{SERVICE}.{request.method}", caller_of(request.peer)
        self._audit.record(command_event(self._audit.clock_ms(), caller, method, op, reason, seconds, slow=slow))
