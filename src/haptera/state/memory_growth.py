"""The bytes of memory that a change would add to the store, known before it is logged."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from haptera.state import limits
from haptera.state.entry_sizes import entry_size, size_added
from haptera.state.kv import Kv
from haptera.state.leases import ATTACHMENT_SIZE, LEASE_SIZE
from haptera.state.operation_sets import WRITES, method_of
from haptera.state.operations import GrantLease, SetMany
from haptera.state.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from haptera.state.expiry import ExpiryIndex
    from haptera.state.leases import Leases
    from haptera.state.operations import Write
    from haptera.state.results import StoredEntry
    from haptera.state.sliced_work import Steps

#: Units of work of an item that is judged.
_ITEM_WORK: Final = 3


class Growth(Kv):
    """A store that applies changes of one key to the entries of another one without changing them: ``size`` alone
    follows, from 0. So each method of `Kv` says by itself what it adds.
    """

    __slots__ = ("_methods",)

    def __init__(self) -> None:
        super().__init__()
        self._methods: dict[type, Callable[[Any], object]] = {
            command: getattr(self, method_of(command)[1]) for command in WRITES if command.of_one_key
        }

    def of(self, op: Write, kv: Kv) -> int:
        """Bytes that a change adds to ``kv``; 0 or less where it does not make it larger."""
        if isinstance(op, SetMany):
            return _sum(dict(op.items).items(), op, kv)
        if isinstance(op, GrantLease):
            return LEASE_SIZE
        change = self._methods.get(type(op))
        if change is None:
            return 0
        self.entries: Table[StoredEntry] = kv.entries
        self.expiry: ExpiryIndex = kv.expiry
        self.leases: Leases = kv.leases
        self.now_ms: int = kv.clock()
        self.size: int = 0
        change(op)
        return self.size

    def steps(self, op: SetMany, kv: Kv) -> Steps[int]:
        """As `of`, in slices."""
        size = 0
        last: Table[bytes] = Table()  # of a doubled key the last value counts
        for piece in _pieces(op.items):
            last.put_all((key for key, _ in piece), (value for _, value in piece))
            yield len(piece) * _ITEM_WORK
        for piece in _pieces(last.items()):
            size += _sum(piece, op, kv)
            yield len(piece) * _ITEM_WORK
        while freed := last.free(limits.SWEEP_MAX):
            yield freed
        return size

    def _put(
        self,
        key: str,
        value: bytes,
        revision: int,
        previous: StoredEntry | None,
        expires_at_ms: int | None = None,
        lease_id: int | None = None,
    ) -> None:
        self.size += size_added(key, value, expires_at_ms, previous) + _attachment_added(self, key, lease_id)

    def _remove(self, key: str, revision: int, previous: StoredEntry, kind: int) -> None:
        self.size -= entry_size(key, previous[0], previous[2]) - _attachment_added(self, key, None)


def _pieces(items: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    rest = iter(items)
    while piece := list(islice(rest, limits.SLICE_WORK_MAX // (2 * _ITEM_WORK))):
        yield piece


def _sum(items: Iterable[tuple[str, bytes]], op: SetMany, kv: Kv) -> int:
    """Bytes that items of different keys add, by a set_many."""
    get, ttl_ms, lease_id = kv.entries.get, op.ttl_ms, op.lease
    if lease_id is None and not kv.leases.attached:
        return sum(size_added(key, value, ttl_ms, get(key)) for key, value in items)
    return sum(size_added(key, value, ttl_ms, get(key)) + _attachment_added(kv, key, lease_id) for key, value in items)


def _attachment_added(kv: Kv, key: str, lease_id: int | None) -> int:
    """Bytes that the belonging of a key to a lease, or to none, adds."""
    return ATTACHMENT_SIZE * ((lease_id is not None) - (kv.lease_of(key) is not None))
