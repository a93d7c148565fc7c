"""Many keys, or one key of the past, read in slices from one revision of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.errors import Code, Failure, failure
from haptera.key_rules import size_refusal
from haptera.state.results import ANSWER_OVERHEAD, ENTRY_OVERHEAD
from haptera.state.views import not_kept, past_view, present_view, recall_steps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haptera.state.kv import Kv
    from haptera.state.operations import AsOf, Get, GetMany
    from haptera.state.results import StoredEntry
    from haptera.state.sliced_work import Steps
    from haptera.state.views import View

#: Keys that a slice looks at.
_PIECE: Final = 1024


def get_many_steps(
    kv: Kv, op: GetMany, limit: int, at: AsOf | None = None
) -> Steps[tuple[list[StoredEntry | None], int] | Failure]:
    """As `Kv.get_many`, in slices; with the entries comes the revision that all of them are of. ``at`` says which, if
    it is not the present one.

    3004 where the answer would have more than ``limit`` bytes, 4009 where the revision is not kept.
    """
    while True:
        while kv.changing:
            yield 0
        view = present_view(kv) if at is None else past_view(kv, at)
        if isinstance(view, Failure):
            return view
        try:
            found = (yield from _recall(kv, op.keys, view)) and (yield from _get(kv, op.keys, view, limit))
        finally:
            view.close()
        if isinstance(found, Failure):
            return found
        if found:
            return found[0], view.revision
        if at is not None:
            return not_kept(kv, at)


def get_steps(kv: Kv, op: Get, at: AsOf) -> Steps[tuple[StoredEntry, int] | Failure]:
    """As `Kv.get`, of an earlier revision, which comes with it; 4009 where that is not kept."""
    while kv.changing:
        yield 0
    view = past_view(kv, at)
    if isinstance(view, Failure):
        return view
    try:
        if not (yield from _recall(kv, (op.key,), view)):
            return not_kept(kv, at)
        entry = _entry(kv, op.key, view)
    finally:
        view.close()
    return failure(Code.KEY_NOT_FOUND, {"key": op.key}) if entry is None else (entry, view.revision)


class _Keys:
    """Some keys: each is wanted once."""

    def __init__(self) -> None:
        self._waiting: set[str] = set()

    def add(self, keys: Iterable[str]) -> None:
        self._waiting.update(keys)

    @property
    def complete(self) -> bool:
        return not self._waiting

    def takes(self, key: str) -> bool:
        if key in self._waiting:
            self._waiting.remove(key)
            return True
        return False


def _recall(kv: Kv, keys: list[str] | tuple[str, ...], view: View) -> Steps[bool]:
    """Whether the view has the entries of the keys."""
    if view.begin == view.until:
        return True
    wanted = _Keys()
    for first in range(0, len(keys), _PIECE):
        wanted.add(keys[first : first + _PIECE])
        yield _PIECE
    return (yield from recall_steps(kv, view, wanted))


def _get(kv: Kv, keys: list[str], view: View, limit: int) -> Steps[tuple[list[StoredEntry | None]] | Failure | None]:
    """The entries of a view; None if it was lost before the last."""
    room = limit - ANSWER_OVERHEAD
    found: list[StoredEntry | None] = []
    for first in range(0, len(keys), _PIECE):
        if view.hold.lost:
            return None
        for key in keys[first : first + _PIECE]:
            entry = _entry(kv, key, view)
            room -= 1 if entry is None else len(entry[0]) + ENTRY_OVERHEAD
            found.append(entry)
        if room < 0:
            return size_refusal(limit)
        yield _PIECE * 2
    return (found,)


def _entry(kv: Kv, key: str, view: View) -> StoredEntry | None:
    entry = view.entries.get(key)
    if entry is None or entry[1] > view.revision:
        entry = kv.held.entry_at(key, view.revision)
    return None if entry is None or (entry[2] is not None and entry[2] <= view.now_ms) else entry
