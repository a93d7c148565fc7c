"""The audit log as services see it: what a request, a change of users and an attempt to authenticate are there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from msgspec import structs

from haptera.errors import Code, Failure, failure
from haptera.node.audit.callers import caller_of
from haptera.node.audit.event import AuditEvent

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from haptera.node.audit.audit import Audit
    from haptera.peer import Peer, Request

__all__ = ["RecordedRequests"]


class RecordedRequests:
    """Records requests. Administration takes three steps: ``begin``, the work itself, and ``respond`` or ``fail``."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        # By request, until it is answered: when it began, and what it is about. Streams and connections bound them.
        self._begun: WeakKeyDictionary[Request, tuple[float, str | None]] = WeakKeyDictionary()

    def denied(self, request: Request, reason: Failure) -> None:
        """Record that a request was refused because its user may not make it (2004)."""
        details = reason.details
        key, permission = details.get("key"), details.get("permission")
        self._audit.record(
            AuditEvent(
                time_ms=self._audit.clock_ms(),
                kind="denied",
                method=_method_of(request),
                caller=caller_of(request.peer),
                key=key if isinstance(key, str) else None,
                outcome=reason.outcome,
                code=reason.code,
                detail={"permission": permission} if isinstance(permission, str) else None,
            )
        )

    # -- administration ---------------------------------------------------------------------------------------------

    def begin(self, request: Request, work: Callable[[], None], target: str | None = None) -> None:
        """Record that administration begins, and start its work when that is on the disk. Where it cannot be recorded
        the request fails, and the work is not started.
        """
        self._begun[request] = time.perf_counter(), target
        told = self._audit.synced(self._event(request, target, "begun"))

        def go_on(told: asyncio.Future[Failure | None]) -> None:
            refused = failure(Code.SHUTTING_DOWN, outcome="not_applied") if told.cancelled() else told.result()
            if refused is None and request.cancelled:
                refused = failure(Code.CANCELLED, outcome="not_applied")
            if refused is not None:
                self.fail(request, refused)
            else:
                work()

        told.add_done_callback(go_on)

    def respond(self, request: Request, payload: bytes = b"") -> None:
        """Record that administration has succeeded, and answer when that is on the disk.

        What is done is done: the answer says so even where its end cannot be recorded.
        """
        self._end(request, None, lambda: request.respond(payload))

    def fail(self, request: Request, reason: Failure) -> None:
        """Record that administration has failed or was refused, and answer when that is on the disk."""
        if reason.code == Code.PERMISSION_DENIED and request not in self._begun:
            self.denied(request, reason)
            request.fail(reason)
        else:
            self._end(request, reason, lambda: request.fail(reason))

    def _end(self, request: Request, reason: Failure | None, answer: Callable[[], None]) -> None:
        begun, target = self._begun.pop(request, (None, None))
        latency_us = None if begun is None else round((time.perf_counter() - begun) * 1_000_000)
        event = self._event(request, target, "done" if reason is None else reason.outcome)
        ended = structs.replace(event, code=0 if reason is None else reason.code, latency_us=latency_us)
        self._audit.synced(ended).add_done_callback(lambda _: answer())

    def _event(self, request: Request, target: str | None, outcome: str) -> AuditEvent:
        return self._administration(request.peer, _method_of(request), target, outcome)

    def _administration(
        self, peer: Peer, method: str, target: str | None, outcome: str, detail: Mapping[str, str | int] | None = None
    ) -> AuditEvent:
        return AuditEvent(
            time_ms=self._audit.clock_ms(),
            kind="administration",
            method=method,
            caller=caller_of(peer),
            target=target,
            outcome=outcome,  # type: ignore[arg-type]  # of a failure, or one of ours
            detail=detail,
        )

    # -- for services that are told when something is on the disk ----------------------------------------------------

    def on_change(
        self, peer: Peer, method: str, target: str | None, ended: Failure | None, *, begins: bool = False
    ) -> asyncio.Future[Failure | None]:
        """Record administration that another service does: once with ``begins`` before it, and once at its ``ended``.

        The future resolves when the line is on the disk, or to the failure with which a change that ``begins`` has to
        be refused. A change that has been made is answered as it is.
        """
        if ended is not None and ended.code == Code.PERMISSION_DENIED:
            event = AuditEvent(
                time_ms=self._audit.clock_ms(),
                kind="denied",
                method=method,
                caller=caller_of(peer),
                target=target,
                outcome=ended.outcome,
                code=ended.code,
            )
        else:
            outcome = "begun" if begins else "done" if ended is None else ended.outcome
            event = self._administration(peer, method, target, outcome)
            event = structs.replace(event, code=0 if ended is None else ended.code)
        return self._audit.synced(event)

    def ended(self, peer: Peer, name: str, mechanism: str, reason: str | None) -> None:
        """Record the end of an attempt to authenticate: ``reason`` says why it failed, None that it succeeded.

        The name is the one that the other side gave, and may be no user's.
        """
        self._audit.record(
            AuditEvent(
                time_ms=self._audit.clock_ms(),
                kind="authentication",
                method="session.authenticate",
                caller=structs.replace(caller_of(peer), user=name, mechanism=mechanism),
                outcome="done" if reason is None else "not_applied",
                code=0 if reason is None else int(Code.AUTHENTICATION_FAILED),
                detail=None if reason is None else {"reason": reason},
            )
        )


def _method_of(request: Request) -> str:
    return f"{request.service}.{request.method}"
