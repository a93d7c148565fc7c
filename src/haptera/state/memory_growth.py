"""The bytes of memory that a change would add to the store, known before it is logged."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from haptera.state import limits
from haptera.state.entry_sizes import entry_size, size_added
from haptera.state.kv import Kv
from haptera.state.operations import WRITES, SetMany, method_of
from haptera.state.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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
            return _sum(dict(op.items).items(), op.ttl_ms, kv)
        change = self._methods.get(type(op))
        if change is None:
            return 0
        self.entries, self.expiry, self.now_ms, self.size = kv.entries, kv.expiry, kv.clock(), 0
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
            size += _sum(piece, op.ttl_ms, kv)
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
    ) -> None:
        self.size += size_added(key, value, expires_at_ms, previous)

    def _remove(self, key: str, revision: int, previous: StoredEntry, kind: int) -> None:
        self.size -= entry_size(key, previous[0], previous[2])


def _pieces(items: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    rest = iter(items)
    while piece := list(islice(rest, limits.SLICE_WORK_MAX // (2 * _ITEM_WORK))):
        yield piece


def _sum(items: Iterable[tuple[str, bytes]], expires_at_ms: int | None, kv: Kv) -> int:
    """Bytes that items of different keys add, all of which expire or none."""
    get = kv.entries.get
    return sum(size_added(key, value, expires_at_ms, get(key)) for key, value in items)
