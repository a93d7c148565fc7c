"""Administration in the audit log: a line before the work, and one before its answer (spec/audit.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from haptera.errors import Code, Failure, failure
from haptera.node.audit.event import NODE, AuditEvent

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Mapping

    from haptera.node.audit.audit import Audit
    from haptera.node.audit.event import AuditCaller, Outcome

__all__ = ["RecordedAdministration", "administered"]

R = TypeVar("R")


class RecordedAdministration:
    """One piece of it. ``target`` is the user, role, token or thing that it is about, and ``detail`` says more."""

    def __init__(
        self,
        audit: Audit,
        method: str,
        caller: AuditCaller = NODE,
        target: str | None = None,
        detail: Mapping[str, str | int] | None = None,
    ) -> None:
        self._audit = audit
        self._method = method
        self._caller = caller
        self._target = target
        self._detail = detail
        self._begun: int | None = None

    def begin(self) -> asyncio.Future[Failure | None]:
        """Record that it begins. The future resolves when that is on the disk, or to why it has to be refused."""
        self._begun = self._audit.monotonic_ns()
        return self._audit.synced(self._event("begun"))

    def end(self, reason: Failure | None) -> asyncio.Future[Failure | None]:
        """Record that it has succeeded, or why it has not. The future resolves when that is on the disk, or cannot be:
        what is done is done, and is answered all the same.
        """
        latency_us = None if self._begun is None else (self._audit.monotonic_ns() - self._begun) // 1000
        if reason is None:
            return self._audit.synced(self._event("done", latency_us=latency_us))
        return self._audit.synced(self._event(reason.outcome, reason.code, latency_us))

    def _event(self, outcome: Outcome, code: int = 0, latency_us: int | None = None) -> AuditEvent:
        return AuditEvent(
            time_ms=self._audit.clock_ms(),
            kind="administration",
            method=self._method,
            caller=self._caller,
            target=self._target,
            outcome=outcome,
            code=code,
            latency_us=latency_us,
            detail=self._detail,
        )


async def administered(told: RecordedAdministration, work: Callable[[], Awaitable[R | Failure]]) -> R | Failure:
    """Do administration that comes on no connection: of the node itself, or of the program that it is embedded in.

    Returns the result of the work, or why it is refused. Where the caller is cancelled, the line of the end says that
    the outcome is unknown.
    """
    refused = await told.begin()
    if refused is not None:
        return refused
    try:
        result = await work()
    except BaseException:
        _ = told.end(failure(Code.CANCELLED, outcome="unknown"))
        raise
    await told.end(result if isinstance(result, Failure) else None)
    return result
