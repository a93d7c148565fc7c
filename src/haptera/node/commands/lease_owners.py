"""The leases that a user may renew, end, list and attach keys to: its own (spec/protocol.md, section 5.3).

A lease of another user looks like one that is not there, wherever a command looks: the command goes to the log with the
id of no lease in its place, and its failure names the id that the user has given. Its user never changes, and so the
applied state can tell: an id that is not applied yet is of no lease, and one that has ended stands for none ever again.
Both are replaced as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from haptera.errors import Code, Failure
from haptera.key_rules import VERSION_MAX
from haptera.state import ListLeasesOf, Replayed, operations

if TYPE_CHECKING:
    from haptera.state import Operation, Result, StateMachine

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

#: The id of no lease: no store has so many versions.
_NONE: Final = VERSION_MAX


class LeaseOwners:
    """The owners of the leases of a store."""

    __slots__ = ("_machine",)

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine

    def of_own(self, op: Operation, user: str) -> Operation:
        """An operation as it is for a user that may see its own leases alone."""
        match op:
            case operations.ListLeases():
                return ListLeasesOf(user, op.after, op.limit)
            case operations.RenewLease():
                return operations.RenewLease([_NONE if self._is_foreign(each, user) else each for each in op.leases])
            case operations.Transact():
                then, otherwise = self._parts(op.then, user), self._parts(op.otherwise, user)
                changed = then is not op.then or otherwise is not op.otherwise
                return replace(op, then=then, otherwise=otherwise) if changed else op
            case operations.Set() | operations.SetMany() | operations.RevokeLease():
                return replace(op, lease=_NONE) if self._is_foreign(op.lease, user) else op
            case _:
                return op

    def _parts(self, parts: list[operations.OfOneKey], user: str) -> list[operations.OfOneKey]:
        """Some operations of a transact; the list itself, if they name no lease of others."""
        if not any(isinstance(part, operations.Set) and self._is_foreign(part.lease, user) for part in parts):
            return parts
        return [
            replace(part, lease=_NONE)
            if isinstance(part, operations.Set) and self._is_foreign(part.lease, user)
            else part
            for part in parts
        ]

    def _is_foreign(self, lease_id: int | None, user: str) -> bool:
        if lease_id is None:
            return False
        lease = self._machine.leases.by_id.get(lease_id)
        return lease is None or lease.user != user


def names_leases(op: Operation) -> bool:
    """Whether the failure of a change may name a lease."""
    match op:
        case operations.Set() | operations.SetMany():
            return op.lease is not None
        case operations.RevokeLease() | operations.Transact():
            return True
        case _:
            return False


def with_given_id(result: Result, op: Operation) -> Result:
    """A result that names the lease as its user did in ``op``, the operation before `LeaseOwners.of_own`."""
    if isinstance(result, Replayed):
        named = with_given_id(result.result, op)
        return result if named is result.result or isinstance(named, Replayed) else Replayed(named)
    if not isinstance(result, Failure) or result.code != Code.LEASE_NOT_FOUND or result.details["lease"] != _NONE:
        return result
    match op:
        case operations.Transact():
            parts = op.then if result.details["branch"] == "then" else op.otherwise
            part = parts[result.details["operation"]]
            given = part.lease if isinstance(part, operations.Set) else None
        case operations.Set() | operations.SetMany() | operations.RevokeLease():
            given = op.lease
        case _:
            given = None
    assert given is not None
    return replace(result, details={**result.details, "lease": given})
