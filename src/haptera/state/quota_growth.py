"""The refusal of a change that would take more than the quota of its user leaves.

A change is judged by its net effect on the account, where it stands in the log, before it is made. So a rename gives
and takes, and a transact or a set_many is refused as a whole or made as a whole.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import Failure
from haptera.state import limits
from haptera.state.kv import Kv
from haptera.state.operation_sets import WRITES, method_of
from haptera.state.operations import SetMany, Transact
from haptera.state.quotas import bytes_of
from haptera.state.sliced_work import finish
from haptera.state.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from haptera.state.expiry import ExpiryIndex
    from haptera.state.leases import Leases
    from haptera.state.operations import Write
    from haptera.state.results import StoredEntry
    from haptera.state.sliced_work import Steps
    from haptera.state.transacts import Transacts

#: Units of work of an item that is judged.
_ITEM_WORK: Final = 4


class QuotaGrowth(Kv):
    """A store that makes changes of one key to the entries of another one without changing them, and counts what they
    add to the account of their user. So each method of `Kv` says by itself what it adds.
    """

    __slots__ = ("_keys", "_kv", "_methods", "_size", "_transacts")

    def __init__(self, kv: Kv, transacts: Transacts) -> None:
        super().__init__()
        self._kv = kv
        self._transacts = transacts
        self._keys = 0
        self._size = 0
        # A change that frees can add nothing.
        self._methods: dict[type, Callable[[Any], object]] = {
            command: getattr(self, method_of(command)[1])
            for command in WRITES
            if command.of_one_key and not command.frees and command is not Transact
        }

    def refusal_steps(self, op: Write) -> Steps[Failure | None]:
        """Why the account of the command that is applied has no room for it, or None; in slices for a set_many."""
        account = self._kv.quotas.current
        if account is None or (account.quota.keys is None and account.quota.size is None):
            return None
        self._keys = self._size = 0
        change = self._methods.get(type(op))
        if change is not None:
            kv = self._kv
            self.entries: Table[StoredEntry] = kv.entries
            self.expiry: ExpiryIndex = kv.expiry
            self.leases: Leases = kv.leases
            self.now_ms: int = kv.now_ms
            if isinstance(change(op), Failure):
                return None  # it fails for a reason of its own
        elif isinstance(op, Transact):
            self._add_all(self._transacts.net_changes(op))
        elif isinstance(op, SetMany):
            self.leases = self._kv.leases
            if op.lease is not None and (yield from self._all_unattachable(op.items, op.lease)) is not None:
                return None
            yield from self._add_items(op.items)
        else:
            return None
        return account.refusal(self._keys, self._size)

    def refusal(self, op: Write) -> Failure | None:
        """As `refusal_steps`, for a command that is not logged yet; None for one that takes several slices."""
        if isinstance(op, SetMany) and len(op.items) > limits.KEYS_LOOKED_AT_MAX:
            return None
        return finish(self.refusal_steps(op))

    def _add_items(self, items: list[tuple[str, bytes]]) -> Steps[None]:
        """Count the items of a set_many, of a doubled key the last one."""
        piece_max = limits.SLICE_WORK_MAX // _ITEM_WORK
        last: Table[bytes] = Table()
        rest = iter(items)
        while piece := list(islice(rest, piece_max)):
            last.put_all((key for key, _ in piece), (value for _, value in piece))
            yield len(piece) * _ITEM_WORK
        latest = last.items()
        while piece := list(islice(latest, piece_max)):
            for key, value in piece:
                self._replace(key, value)
            yield len(piece) * _ITEM_WORK
        while freed := last.free(limits.SWEEP_MAX):
            yield freed

    def _add_all(self, changes: Mapping[str, StoredEntry | None]) -> None:
        for key, entry in changes.items():
            self._replace(key, None if entry is None else entry[0])

    def _replace(self, key: str, value: bytes | None) -> None:
        """Count the change of a key from its present entry, dead or alive, to a value, or to none."""
        previous = self._kv.entries.get(key)
        if previous is not None:
            self._give_back(key, previous)
        if value is not None:
            self._keys += 1
            self._size += bytes_of(key, value)

    def _give_back(self, key: str, previous: StoredEntry) -> None:
        """Count the end of a present entry, if that counts for the account."""
        quotas = self._kv.quotas
        if quotas.owned.get(key) is quotas.current:
            self._keys -= 1
            self._size -= bytes_of(key, previous[0])

    def _put(
        self,
        key: str,
        value: bytes,
        revision: int,
        previous: StoredEntry | None,
        expires_at_ms: int | None = None,
        lease_id: int | None = None,
    ) -> None:
        if previous is not None:
            self._give_back(key, previous)
        self._keys += 1
        self._size += bytes_of(key, value)

    def _remove(self, key: str, revision: int, previous: StoredEntry, kind: int) -> None:
        self._give_back(key, previous)
