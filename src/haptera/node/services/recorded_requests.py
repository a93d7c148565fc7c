"""The audit log as services see it: what a request, a change of users and an attempt to authenticate are there."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from msgspec import structs

from haptera.errors import Code, Failure, failure
from haptera.node.audit.callers import caller_of
from haptera.node.audit.command_events import denied_event
from haptera.node.audit.event import AuditEvent
from haptera.node.audit.recorded_administration import RecordedAdministration

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from haptera.node.audit.audit import Audit
    from haptera.node.visitor import Visitor
    from haptera.peer import Request

__all__ = ["RecordedRequests"]


class RecordedRequests:
    """Records requests. Administration takes three steps: ``begin``, the work itself, and ``respond`` or ``fail``."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        # By request, until it is answered. Streams and connections bound them.
        self._begun: WeakKeyDictionary[Request, RecordedAdministration] = WeakKeyDictionary()

    def denied(self, request: Request, reason: Failure) -> None:
        """Record that a request was refused because its user may not make it (2004)."""
        event = denied_event(self._audit.clock_ms(), caller_of(request.peer), _method_of(request), reason)
        self._audit.record(event)

    # -- administration ---------------------------------------------------------------------------------------------

    def begin(
        self,
        request: Request,
        work: Callable[[], None],
        target: str | None = None,
        detail: Mapping[str, str | int] | None = None,
    ) -> None:
        """Record that administration begins, and start its work when that is on the disk. Where it cannot be recorded
        the request fails, and the work is not started.
        """
        told = RecordedAdministration(self._audit, _method_of(request), caller_of(request.peer), target, detail)
        self._begun[request] = told

        def go_on(begun: asyncio.Future[Failure | None]) -> None:
            refused = failure(Code.SHUTTING_DOWN, outcome="not_applied") if begun.cancelled() else begun.result()
            if refused is None and request.cancelled:
                refused = failure(Code.CANCELLED, outcome="not_applied")
            if refused is not None:
                self.fail(request, refused)
            else:
                work()

        told.begin().add_done_callback(go_on)

    def respond(self, request: Request, payload: bytes = b"", entries: bytes = b"") -> None:
        """Record that administration has succeeded, and answer when that is on the disk.

        The answer tells of a change that was made even where its end cannot be recorded.
        """
        self._begun.pop(request).end(None).add_done_callback(lambda _: request.respond(payload, entries))

    def fail(self, request: Request, reason: Failure, entries: bytes = b"") -> None:
        """Record that administration has failed, and answer when that is on the disk. A request that has not begun is
        answered at once, and recorded if its user may not make it.
        """
        told = self._begun.pop(request, None)
        if told is not None:
            told.end(reason).add_done_callback(lambda _: request.fail(reason, entries))
            return
        if reason.code == Code.PERMISSION_DENIED:
            self.denied(request, reason)
        request.fail(reason, entries)

    # -- attempts to authenticate -----------------------------------------------------------------------------------

    def ended(
        self, peer: Visitor, name: str, mechanism: str, reason: str | None, code: Code = Code.AUTHENTICATION_FAILED
    ) -> None:
        """Record the end of an attempt to authenticate: ``reason`` says why it failed, with ``code``, None that it
        succeeded.

        The name is the one that the other side gave, and may be no user's.
        """
        self._audit.record(
            AuditEvent(
                time_ms=self._audit.clock_ms(),
                kind="authentication",
                method="session.authenticate",
                caller=structs.replace(caller_of(peer), user=name, mechanism=mechanism),
                outcome="done" if reason is None else "not_applied",
                code=0 if reason is None else int(code),
                detail=None if reason is None else {"reason": reason},
            )
        )


def _method_of(request: Request) -> str:
    return f"{request.service}.{request.method}"
