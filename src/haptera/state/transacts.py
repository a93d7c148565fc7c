"""Transactions: the operations of a transact as one change (spec/protocol.md, section 7).

They are made on a store of their own that stands over the real one: it has their changes, and reads through to the
entries under it. So a later operation sees the effect of an earlier one, no reader sees a part of them, and where one
fails there is nothing to take back. If all hold, the net effect reaches the real store, each key once.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import Code, Failure
from haptera.key_rules import placed, size_refusal
from haptera.state import limits
from haptera.state.entry_sizes import entry_size, size_added
from haptera.state.kv import Kv
from haptera.state.leases import ATTACHMENT_SIZE
from haptera.state.operation_sets import method_of
from haptera.state.operations import OF_ONE_KEY, Compare, Read, Transact
from haptera.state.results import values_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from haptera.state.leases import Leases
    from haptera.state.results import Result, StoredEntry

_KEY_NOT_FOUND: Final = int(Code.KEY_NOT_FOUND)

_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


def parts_of(op: Transact) -> int:
    """The number of compares and operations in a transact."""
    return len(op.compares) + len(op.then) + len(op.otherwise)


class Transacts(Kv):
    """Makes transacts, one after the other, over one store. Between two of them it is empty."""

    __slots__ = ("_attached", "_changes", "_methods", "_under")

    def __init__(self, under: Kv) -> None:
        super().__init__()
        self._under = under
        #: The entry of each key that the operations have changed, None for a key that they have removed.
        self._changes: dict[str, StoredEntry | None] = {}
        #: The lease of each key among them that belongs to one.
        self._attached: dict[str, int] = {}
        self.leases: Leases = under.leases
        self._methods: dict[type, Callable[[Any], Result]] = {
            command: getattr(self, method_of(command)[1]) for command in OF_ONE_KEY
        }
        self.entries.get = self._entry

    def transact(self, op: Transact, *, rehearsed: bool = False) -> Result | None:
        """[succeeded, version or nil, [result, …]]: the version that its changes have made; nil if there are none.

        A transact that is only ``rehearsed`` changes nothing: None for one that would make changes.
        """
        under = self._under
        try:
            result = self._attempt(op, under.revision + 1)
            if self._changes and under.has_dead(self._changes):  # they have the next revision
                self._forget_changes()
                result = self._attempt(op, under.revision + 2)
            if isinstance(result, Failure) or result[1] is None:
                return result
            if rehearsed:
                return None
            under.adopt(result[1], self._changes, self._attached)
            return result
        finally:
            self._forget_changes()

    def growth(self, op: Transact) -> int:
        """Bytes of memory that a transact would add to the store; 0 or less where it adds nothing."""
        try:
            if isinstance(self._attempt(op, self._under.revision + 1), Failure):
                return 0
            get, size = self._under.entries.get, 0
            for key, entry in self._changes.items():
                previous = get(key)
                if entry is not None:
                    size += size_added(key, entry[0], entry[2], previous)
                elif previous is not None:
                    size -= entry_size(key, previous[0], previous[2])
                size += ATTACHMENT_SIZE * ((key in self._attached) - (self._under.lease_of(key) is not None))
            return size
        finally:
            self._forget_changes()

    def net_changes(self, op: Transact) -> Mapping[str, StoredEntry | None]:
        """The entry that a transact would give each key, None for one that it would remove; none where it fails."""
        try:
            return {} if isinstance(self._attempt(op, self._under.revision + 1), Failure) else self._changes
        finally:
            self._forget_changes()

    def _forget_changes(self) -> None:
        self._changes = {}
        self._attached = {}

    def _attempt(self, op: Transact, revision: int) -> tuple[bool, int | None, tuple[Any, ...]] | Failure:
        """Make the operations in this store alone, as a change of that revision."""
        self.now_ms: int = self._under.now_ms
        succeeded = all(map(self._holds, op.compares))
        results: list[tuple[Any, ...] | None] = []
        methods = self._methods
        for number, each in enumerate(op.then if succeeded else op.otherwise):
            self.revision: int = revision - 1  # all of them make one revision, the next
            result = methods[type(each)](each)
            if type(result) is tuple:
                results.append(result)
            elif isinstance(each, Read) and isinstance(result, Failure) and result.code == _KEY_NOT_FOUND:
                results.append(None)
            else:
                assert isinstance(result, Failure)
                return placed(result, branch="then" if succeeded else "otherwise", operation=number)
        given = tuple(results)
        if values_size(given) > limits.TRANSACT_VALUES_SIZE_MAX:
            return size_refusal(limits.COMMAND_SIZE_MAX)
        return (succeeded, revision if self._changes else None, given)

    def _holds(self, compare: Compare) -> bool:
        entry = self._entry(compare.key)
        actual: Any
        match compare.field:
            case "version":
                actual = 0 if entry is None else entry[1]
            case "value":
                if entry is None:
                    return False
                actual = entry[0]
            case "lease":
                actual = self.lease_of(compare.key) or 0
            case _:
                actual = entry is not None
        return _OPERATORS[compare.operator](actual, compare.operand)

    def _entry(self, key: str) -> StoredEntry | None:
        changes = self._changes
        return changes[key] if key in changes else self._under.living(key, self.now_ms)

    def lease_of(self, key: str) -> int | None:
        return self._attached.get(key) if key in self._changes else self._under.lease_of(key)

    def _unattachable(self, key: str, lease_id: int) -> Failure | None:
        coming = {each for each, its in self._attached.items() if its == lease_id} | {key}
        return self.leases.refusal(lease_id, sum(self._under.lease_of(each) != lease_id for each in coming))

    def _put(
        self,
        key: str,
        value: bytes,
        revision: int,
        previous: StoredEntry | None,
        expires_at_ms: int | None = None,
        lease_id: int | None = None,
    ) -> None:
        self._changes[key] = (value, revision, expires_at_ms)
        if lease_id is not None:
            self._attached[key] = lease_id
        elif self._attached:
            self._attached.pop(key, None)

    def _remove(self, key: str, revision: int, previous: StoredEntry, kind: int) -> None:
        self._changes[key] = None
        self._attached.pop(key, None)
