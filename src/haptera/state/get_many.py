"""A get_many of very many keys, answered in slices from one revision of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.errors import Failure
from haptera.key_rules import size_refusal
from haptera.state.results import ANSWER_OVERHEAD, ENTRY_OVERHEAD

if TYPE_CHECKING:
    from haptera.state.held_entries import Hold
    from haptera.state.kv import Kv
    from haptera.state.operations import GetMany
    from haptera.state.results import StoredEntry
    from haptera.state.sliced_work import Steps

#: Keys that a slice looks at.
_PIECE: Final = 1024


def get_many_steps(kv: Kv, op: GetMany, limit: int) -> Steps[tuple[list[StoredEntry | None], int] | Failure]:
    """As `Kv.get_many`, in slices; with the entries comes the revision that all of them are of.

    3004 where the answer would have more than ``limit`` bytes.
    """
    while True:
        while kv.changing:
            yield 0
        kv.build_index()  # before anything is held, as for a scan
        hold, now_ms = kv.held.hold(kv.revision), kv.clock()
        try:
            found = yield from _get_held(kv, op.keys, hold, now_ms, limit)
        finally:
            kv.held.release(hold)
        if found is not None:
            return found if isinstance(found, Failure) else (found, hold.revision)


def _get_held(
    kv: Kv, keys: list[str], hold: Hold, now_ms: int, limit: int
) -> Steps[list[StoredEntry | None] | Failure | None]:
    """The entries as of a held revision and a time; None if the revision was lost before the last."""
    entries, older, revision = kv.entries, kv.held.entry_at, hold.revision
    room = limit - ANSWER_OVERHEAD
    found: list[StoredEntry | None] = []
    for first in range(0, len(keys), _PIECE):
        if hold.lost:
            return None
        current = entries.get
        for key in keys[first : first + _PIECE]:
            entry = current(key)
            if entry is None or entry[1] > revision:
                entry = older(key, revision)
            if entry is not None and entry[2] is not None and entry[2] <= now_ms:
                entry = None
            room -= 1 if entry is None else len(entry[0]) + ENTRY_OVERHEAD
            found.append(entry)
        if room < 0:
            return size_refusal(limit)
        yield _PIECE * 2
    return found
