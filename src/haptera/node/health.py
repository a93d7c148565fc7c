"""The health of a node: whether it takes changes, and for its operator why not, since when, and the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from haptera.node.answer_aging import crowded
from haptera.node.shortage import shortage_of
from haptera.state import limits

if TYPE_CHECKING:
    from haptera.node.node import Node

__all__ = ["LEASES_MANY", "Health", "health"]

#: From this number of leases on an operator is told, who can still find the program that leaves them behind.
LEASES_MANY: Final = limits.LEASES_MAX * 4 // 5

#: The next step where the audit log cannot be written.
_OF_AUDIT: Final = "make room on the disk; if it has room, see what it says in the log of the kernel, and start again"
#: And where it was changed.
_OF_DAMAGED_AUDIT: Final = "run haptera audit verify, and keep a copy of its files; the next start tells it no more"


class Health(NamedTuple):
    """``reason`` is empty where all is well, and so is ``help``, the next step, where there is none to take.

    ``since_ms`` is when it began, in Unix milliseconds, if that is known. ``ok`` has a reason too while the node works
    and something is about to run out or is left undone.
    """

    state: Literal["ok", "full", "maintenance", "stopping", "failed"]
    reason: str = ""
    help: str = ""
    since_ms: int | None = None


def health(node: Node) -> Health:
    """The health of a node now: `ok`, `full` while changes are refused for want of room, `maintenance` while an
    administrator has them refused, `stopping`, or `failed`.
    """
    return _end(node) or _full(node) or _maintenance(node) or _trouble(node) or Health("ok")


def _end(node: Node) -> Health | None:
    if node.failed.done():
        since_ms = node.wall_ms(node.failed_at)
        if node.abandoned:
            reason = "a stored change could not be applied: nothing is read or written any more"
            return Health("failed", reason, "start the version of Haptera that wrote it", since_ms)
        reason = "the disk failed: nothing can be written any more"
        return Health("failed", reason, "read the log of the kernel, and replace the disk before a start", since_ms)
    if node.stopping:
        return Health("stopping", "the node is shutting down")
    return None


def _full(node: Node) -> Health | None:
    if node.full:
        found = shortage_of(node.shortage)
        reason = f"{found.reason}: writes are refused, reads go on"
        return Health("full", reason, f"{found.help}; writes come back by themselves", node.wall_ms(node.full_since))
    memory = node.memory
    if memory.full:
        reason = f"{_memory(node)}: changes that add to it are refused, deletes go on"
        return Health("full", reason, "delete keys, or start the node with a larger --memory-max")
    answers, answers_max = node.remembered_answers
    if answers >= answers_max:
        reason = f"{answers} answers are remembered: changes are refused until some are forgotten"
        return Health("full", reason, "find the clients that end without closing their connections")
    return None


def _maintenance(node: Node) -> Health | None:
    maintenance = node.maintenance
    if maintenance is None:
        return None
    reason = f"maintenance, changes are refused: {maintenance.reason}"
    return Health("maintenance", reason, "end it with haptera maintenance off", maintenance.since_ms)


def _trouble(node: Node) -> Health | None:
    audit = node.audit
    if audit.trouble:
        reason = f"administration is refused, because the audit log cannot be written: {audit.trouble}"
        return Health("ok", reason, _OF_AUDIT, node.wall_ms(audit.trouble_since))
    if audit.damage:
        return Health("ok", f"the audit log was changed while the node was stopped: {audit.damage}", _OF_DAMAGED_AUDIT)
    archiver = node.archiver
    if archiver is not None and archiver.trouble:
        left = f"{archiver.lag} segments are not archived" if archiver.lag else "the archive cannot be used"
        return Health("ok", f"{left}: {archiver.trouble}", archiver.help, node.wall_ms(archiver.trouble_since))
    answers, answers_max = node.remembered_answers
    if crowded(answers):
        reason = f"{answers} of {answers_max} answers are remembered: each connection may have few"
        return Health("ok", reason, "find the clients that end without closing their connections")
    leases = node.leases.count
    if leases >= LEASES_MANY:
        reason = f"there are {leases} of {limits.LEASES_MAX} leases: when there are all, no more are granted"
        return Health("ok", reason, "find the program that grants leases and neither renews nor revokes them")
    if node.memory.high:
        reason = f"{_memory(node)}: changes that add to it are refused when there is no more"
        return Health("ok", reason, "delete keys, or start the node with a larger --memory-max")
    return None


def _memory(node: Node) -> str:
    return f"keys and values take {node.memory.size} of {node.memory.limit} bytes of memory"
