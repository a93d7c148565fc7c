"""Views: the store at one revision, the present one or an earlier one, for a reader that takes more than one step.

A view of the present revision needs a hold alone: each entry that is replaced from then on is kept for it. A view of an
earlier revision is led back from the present store by the events since then: for each key that it is asked for, the
first of them has the entry of before (`recall_steps`). So it takes memory for the keys that were changed since, and
several readers share it. Where the store was cleared since then, the view begins with the store that the first clear
has left.

Whether a key is dead is judged by one time. For the present revision it is the clock's, for an earlier one that of its
change, and for a time that was asked for it is this time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from haptera.errors import Code, Failure, failure
from haptera.state import limits
from haptera.state.entries import KEY_WORK

if TYPE_CHECKING:
    from haptera.state.held_entries import Hold
    from haptera.state.index import KeyIndex
    from haptera.state.kv import Kv
    from haptera.state.operations import AsOf
    from haptera.state.results import StoredEntry
    from haptera.state.sliced_work import Steps
    from haptera.state.table import Table

#: Events that a slice looks at, at most, and the units of work of each.
_PIECE: Final = limits.SLICE_WORK_MAX // 8
_LOOK_WORK: Final = 2


class View:
    """The store at ``revision``; `close` it. ``now_ms`` is the time by which its keys are dead or alive.

    The entries are those of ``entries``, and where that has a newer one, or none, those of `Kv.held`; ``index`` has the
    keys of both. Events from the place ``begin`` to before ``until`` are to be recalled first.
    """

    __slots__ = ("_kv", "begin", "entries", "hold", "index", "now_ms", "revision", "until")

    def __init__(self, kv: Kv, revision: int, now_ms: int, entries: Table[StoredEntry], index: KeyIndex) -> None:
        self._kv = kv
        self.revision: int = revision
        self.now_ms: int = now_ms
        # A clear of everything gives the store another one, which this view does not see.
        self.entries: Table[StoredEntry] = entries
        self.index: KeyIndex = index
        self.hold: Hold = kv.held.hold(revision)
        self.begin: int = 0
        self.until: int = 0

    def close(self) -> None:
        """Let go of the revision, once."""
        self._kv.held.release(self.hold)


class WantedKeys(Protocol):
    """The keys that a view is asked for."""

    @property
    def complete(self) -> bool:
        """Whether no further key is wanted."""

    def takes(self, key: str) -> bool:
        """Whether the entry of this key is wanted."""


def present_view(kv: Kv) -> View:
    """A view of the present revision. Not while ``changing``."""
    assert not kv.changing
    # The index is made before anything is held: from here on deleted keys keep their place in it.
    return View(kv, kv.revision, kv.clock(), kv.entries, kv.index)


def past_view(kv: Kv, at: AsOf) -> View | Failure:
    """A view of an earlier revision, to be recalled; 4009 if its change is not kept, or is still to come. Not while
    ``changing``.
    """
    assert not kv.changing
    moment = _moment(kv, at)
    if moment is None:
        return not_kept(kv, at)
    revision, now_ms = moment
    index = kv.index  # made before anything is held, also where the view is of the store before a clear
    cleared = kv.events.cleared_after(revision)
    if cleared is None:
        view = View(kv, revision, now_ms, kv.entries, index)
        view.until = kv.events.end
    else:
        place, store = cleared
        view = View(kv, revision, now_ms, store.entries, store.built_index())
        view.until = place
        kv.held.recall_store(view.hold, store)
    view.begin = kv.events.place_of(revision + 1)
    return view


def not_kept(kv: Kv, at: AsOf) -> Failure:
    """4009 for a view of the past."""
    oldest, newest = kv.oldest, kv.revision
    if at.at_revision is None:
        details = {"at_time_ms": at.at_time_ms, "oldest": oldest, "newest": newest}
    else:
        details = {"revision": at.at_revision, "oldest": oldest, "newest": newest}
    return failure(Code.REVISION_COMPACTED, details)


def recall_steps(kv: Kv, view: View, wanted: WantedKeys) -> Steps[bool]:
    """Have the entries of a view kept that were replaced before it was there, in slices. False if the view is lost."""
    events, held, hold, revision = kv.events, kv.held, view.hold, view.revision
    place = view.begin
    while place < view.until and not wanted.complete:
        if place < events.first or hold.lost:
            return False
        found = events.read(place, min(_PIECE, view.until - place))
        place += len(found)
        work = len(found) * _LOOK_WORK
        for replaced_at, _, key, _, previous, _, _ in found:
            # The first change of a key says what it was; of a later one the entry of before is newer than the view.
            if (previous is None or previous[1] <= revision) and wanted.takes(key) and previous is not None:
                if not held.recall(hold, key, previous, replaced_at):
                    return False
                if key not in view.entries:
                    view.index.raise_ghost(key)
                work += KEY_WORK
        yield work
    return not hold.lost


def _moment(kv: Kv, at: AsOf) -> tuple[int, int] | None:
    """The revision that is asked for, and the time by which its keys are judged; None if it cannot be told."""
    events, revision, now_ms = kv.events, at.at_revision, at.at_time_ms
    if revision is None:
        assert now_ms is not None
        if now_ms > kv.clock():
            return None
        # Events above the present revision are of a change that is not whole yet.
        place = min(events.place_after(now_ms), events.place_of(kv.revision + 1))
    else:
        if revision > kv.revision or kv.gaps.hides(revision):
            return None
        place = events.place_of(revision + 1)
    if place == events.first:  # nothing is known of the time up to there, but that a whole history begins with nothing
        return None if events.compacted else (revision or 0, 0)
    last = events.read(place - 1, 1)[0]
    if last[0] <= events.compacted:
        return None
    return (last[0] if revision is None else revision), (last[5] if now_ms is None else now_ms)
