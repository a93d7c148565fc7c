"""The bytes of memory that a change would add to the store, known before it is logged."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from haptera.state import limits
from haptera.state.entry_sizes import entry_size
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
            return _sum(dict(op.items).items(), kv)
        change = self._methods.get(type(op))
        if change is None:
            return 0
        self.entries, self.size = kv.entries, 0
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
            size += _sum(piece, kv)
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
        self.size += added(key, value, previous)

    def _remove(self, key: str, revision: int, previous: StoredEntry, kind: int) -> None:
        self.size -= entry_size(key, previous[0])


def added(key: str, value: bytes, previous: StoredEntry | None) -> int:
    """Bytes that an entry in the place of a previous one adds."""
    return entry_size(key, value) if previous is None else len(value) - len(previous[0])


def _pieces(items: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    rest = iter(items)
    while piece := list(islice(rest, limits.SLICE_WORK_MAX // (2 * _ITEM_WORK))):
        yield piece


def _sum(items: Iterable[tuple[str, bytes]], kv: Kv) -> int:
    """Bytes that items of different keys add."""
    get = kv.entries.get
    return sum(added(key, value, get(key)) for key, value in items)
