"""The events of commands: what the audit log is told of a request of the store, by whichever protocol it came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from haptera.node.audit.event import AuditCaller, AuditEvent
from haptera.state import operations

if TYPE_CHECKING:
    from haptera.errors import Failure
    from haptera.node.audit.event import Kind
    from haptera.state import Operation

__all__ = ["command_event", "denied_event"]

#: The bounds of a range, the one that says most first.
_BOUNDS: Final = ("prefix", "start", "glob", "end")


class Subject(NamedTuple):
    """The fields of an event that say which keys a command is about: the first of several, with their number."""

    key: str | None = None
    keys: int | None = None
    detail: dict[str, str | int] | None = None


def command_event(
    time_ms: int,
    caller: AuditCaller,
    method: str,
    op: Operation,
    reason: Failure | None,
    seconds: float | None,
    *,
    slow: bool,
) -> AuditEvent:
    """Return the event of a command that has its result: a failure, or none."""
    kind: Kind = "slow" if slow else "data"
    subject = _subject(op)
    return AuditEvent(
        time_ms=time_ms,
        kind=kind,
        method=method,
        caller=caller,
        key=subject.key,
        keys=subject.keys,
        detail=subject.detail,
        outcome="done" if reason is None else reason.outcome,
        code=0 if reason is None else reason.code,
        latency_us=None if seconds is None else round(seconds * 1_000_000),
    )


def denied_event(time_ms: int, caller: AuditCaller, method: str, reason: Failure) -> AuditEvent:
    """Return the event of a request that its user may not make (2004)."""
    details = reason.details
    key, permission = details.get("key"), details.get("permission")
    return AuditEvent(
        time_ms=time_ms,
        kind="denied",
        method=method,
        caller=caller,
        key=key if isinstance(key, str) else None,
        outcome=reason.outcome,
        code=reason.code,
        detail={"permission": permission} if isinstance(permission, str) else None,
    )


def _subject(op: Operation) -> Subject:
    """The subject of a command. Its values stay out of sight."""
    match op:
        case operations.AsOf():
            return _subject(op.read)
        case operations.SetMany():
            return Subject(op.items[0][0] if op.items else None, len(op.items))
        case operations.GetMany() | operations.DeleteMany():
            return Subject(op.keys[0] if op.keys else None, len(op.keys))
        case operations.Transact():
            parts = [*op.then, *op.otherwise]
            return Subject(next((_subject(part).key for part in parts), None), len(parts))
        case operations.RevokeLease():
            return Subject(detail={"lease": op.lease})
        case _:
            return _of_fields(op)


def _of_fields(op: Operation) -> Subject:
    key = getattr(op, "key", None)
    if key is not None:
        return Subject(key)
    for name in _BOUNDS:
        bound = getattr(op, name, None)
        if bound is not None:
            return Subject(bound, detail={"bound": name})
    return Subject()
