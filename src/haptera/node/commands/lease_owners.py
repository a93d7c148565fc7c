"""The leases that a user may renew, end, list and attach keys to: its own (spec/protocol.md, section 5.3).

A lease of another user looks like one that is not there. Its user never changes, and so the applied state can judge: an
id that is not applied yet is of no lease, and one that has ended stands for none ever again, so that the log answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.errors import Code, Failure, failure
from haptera.key_rules import placed
from haptera.state import ListLeasesOf, operations

if TYPE_CHECKING:
    from haptera.state import Operation, StateMachine

#: Operations that name leases.
LEASING: Final = frozenset(
    {
        operations.ListLeases,
        operations.RenewLease,
        operations.RevokeLease,
        operations.Set,
        operations.SetMany,
        operations.Transact,
    }
)

#: The id of no lease.
_NONE: Final = 0


class LeaseOwners:
    """The owners of the leases of a store."""

    __slots__ = ("_machine",)

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine

    def of_own(self, op: Operation, user: str) -> Operation | Failure:
        """An operation as it is for a user that may see its own leases alone, or why it is refused."""
        match op:
            case operations.ListLeases():
                return ListLeasesOf(user, op.after, op.limit)
            case operations.RenewLease():
                return operations.RenewLease([_NONE if self._is_foreign(each, user) else each for each in op.leases])
            case operations.RevokeLease():
                return self._refusal(op.lease, user) or op
            case operations.Set() | operations.SetMany():
                return self._refusal(op.lease, user) or op
            case operations.Transact():
                return self._refusal_of_parts(op, user) or op
            case _:
                return op

    def _refusal_of_parts(self, op: operations.Transact, user: str) -> Failure | None:
        for branch, parts in (("then", op.then), ("otherwise", op.otherwise)):
            for number, part in enumerate(parts):
                refused = self._refusal(part.lease, user) if isinstance(part, operations.Set) else None
                if refused is not None:
                    return placed(refused, branch=branch, operation=number)
        return None

    def _refusal(self, lease_id: int | None, user: str) -> Failure | None:
        if lease_id is None or not self._is_foreign(lease_id, user):
            return None
        return failure(Code.LEASE_NOT_FOUND, {"lease": lease_id}, outcome="not_applied")

    def _is_foreign(self, lease_id: int, user: str) -> bool:
        lease = self._machine.leases.by_id.get(lease_id)
        return lease_id > self._machine.revision if lease is None else lease.user != user
