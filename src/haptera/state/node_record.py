"""The part ``node``: whether the store is closed to changes, and the head of the audit log. Replicated like the keys.

During *maintenance* each change of keys and leases by a caller is 5004, whether its conditions are met or not. It is
judged where the change stands in the log, so that each replay and each replica refuses the same changes. The node's own
changes go on (`Write.goes_on`): keys expire and leases end as they were promised to, because a reader judges a key's
time by itself and a holder its lease's. So do the changes of users: they may be the reason for the maintenance.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from haptera.access_rules import is_name
from haptera.errors import Code, Failure, failure
from haptera.key_rules import VERSION_MAX
from haptera.state.invariants import require
from haptera.state.node_operations import AUDIT_DIGEST_SIZE
from haptera.state.operation_sets import CLOSED, reads_only

if TYPE_CHECKING:
    from haptera.state.operations import Operation

_encoder: Final = msgspec.msgpack.Encoder()


class MaintenancePeriod(msgspec.Struct, frozen=True, gc=False):
    """The reason, in an administrator's words, and the entry time at which it began, in Unix milliseconds."""

    reason: str
    since_ms: int


class AuditHead(msgspec.Struct, frozen=True, gc=False):
    """The number of the newest known line of the audit log, and its digest."""

    sequence: int
    digest: bytes


class NodeRecord:
    """``maintenance`` is None while changes are taken, and ``audit_head`` before the first was noted."""

    __slots__ = ("audit_head", "maintenance")

    def __init__(self) -> None:
        self.maintenance: MaintenancePeriod | None = None
        self.audit_head: AuditHead | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to keep."""
        return self.maintenance is None and self.audit_head is None

    def refusal(self, op: Operation) -> Failure | None:
        """Return 5004 for a change that maintenance refuses."""
        if self.maintenance is None or type(op) not in CLOSED or reads_only(op):
            return None
        return failure(Code.MAINTENANCE_MODE, {"reason": self.maintenance.reason}, outcome="not_applied")

    def fields(self) -> tuple[str | None, int | None, int | None, bytes | None]:
        """The reason and the beginning of the maintenance, the number and the digest of the head; None where there is
        none.
        """
        maintenance, head = self.maintenance, self.audit_head
        return (
            *((None, None) if maintenance is None else (maintenance.reason, maintenance.since_ms)),
            *((None, None) if head is None else (head.sequence, head.digest)),
        )

    def digest(self) -> bytes:
        """32 bytes that are equal for equal records."""
        return hashlib.sha256(_encoder.encode(self.fields())).digest()

    def check(self, time_ms: int) -> None:
        """Raise ``AssertionError`` with the invariant that does not hold, for a state at this time."""
        maintenance, head = self.maintenance, self.audit_head
        if maintenance is not None:
            require(is_name(maintenance.reason), "maintenance has a reason")
            require(0 <= maintenance.since_ms <= time_ms, "maintenance has begun")
        if head is not None:
            require(1 <= head.sequence <= VERSION_MAX, "a line of the audit log has a number")
            require(len(head.digest) == AUDIT_DIGEST_SIZE, "a digest of the audit log is a SHA-256")
