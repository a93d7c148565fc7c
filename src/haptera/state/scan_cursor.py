"""Scans: a range of the store as it was at one revision, page by page (spec/protocol.md, section 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from haptera.errors import Code, Failure, failure
from haptera.state import limits
from haptera.state.glob import Glob, compile_glob
from haptera.state.key_ranges import KeyRange, key_range
from haptera.state.results import Row
from haptera.state.table import PLACE_SHIFT
from haptera.state.views import recall_steps

if TYPE_CHECKING:
    from haptera.state.kv import Kv
    from haptera.state.operations import OpenScan
    from haptera.state.permits import Sieve
    from haptera.state.sliced_work import Steps
    from haptera.state.views import View

#: Bytes of a row in MessagePack beside the key and the value, at most: the headers, the version, the expiry.
_ROW_OVERHEAD: Final = 24
#: The header of the list of rows.
_LIST_OVERHEAD: Final = 5
#: Units of work of a key that is looked at, and of a row that is given: it is encoded too.
_KEY_WORK: Final = 2
_ROW_WORK: Final = 5


class Page(Struct, frozen=True):
    """Some rows of a scan, in its order. ``done`` says whether it was the last; no rows alone does not."""

    rows: list[Row]
    done: bool


class ScanCursor:
    """An open scan of a view, which it closes. It sees the store at ``revision``, without any later change, and must be
    closed. The first pages of a scan of the past recall it, and have no rows.

    ``count`` is the number of rows given so far and ``last_key`` the key of the last one (None before the first): the
    scan's result array, with the revision. ``work`` is the units of work that the last page was (`state.sliced_work`).
    ``sieve`` says which keys the next page may have: None for all of the range.
    """

    __slots__ = (
        "_glob",
        "_kv",
        "_limit",
        "_lost",
        "_open",
        "_recalling",
        "_span",
        "_view",
        "count",
        "keys_only",
        "last_key",
        "reverse",
        "revision",
        "sieve",
        "work",
    )

    def __init__(self, kv: Kv, op: OpenScan, view: View, glob: Glob | None = None) -> None:
        self._kv = kv
        self._glob = compile_glob(op.glob) if glob is None and op.glob is not None else glob
        prefixes = (op.prefix, self._glob.prefix if self._glob else None)
        self._span = key_range(prefixes, op.start, op.end, op.after, reverse=op.reverse)
        self._limit = op.limit
        self.keys_only: bool = op.keys_only
        self.reverse: bool = op.reverse
        self.count: int = 0
        self.last_key: str | None = None
        self.work: int = 0
        self.sieve: Sieve | None = None
        self.revision: int = view.revision
        self._view = view
        self._open = True
        self._lost = False
        self._recalling: Steps[bool] | None = None
        if view.begin != view.until:
            self._recalling = recall_steps(kv, view, _InRange(self._span))
        kv.cursors += 1

    def page(self, max_bytes: int, max_rows: int) -> Page | Failure:
        """The next rows: at most ``max_rows``, together at most ``max_bytes`` in MessagePack, or a single one.

        It looks at a bounded number of keys, so it may give no row and yet not be the end. After the end, or after
        `close`, every page is empty and done. Fails with 4009 when the store had to give up the revision, because too
        much was written while the scan was open.
        """
        self.work = 0
        recalled = not self._open or self._recalling is None or self._recall()
        if self._open and (self._view.hold.lost or recalled is None):
            self._lost = True
            self.close()
        if self._lost:
            return failure(Code.REVISION_COMPACTED, {"revision": self.revision})
        if not self._open:
            return Page([], done=True)
        if not recalled:
            return Page([], done=False)
        max_rows = max(1, max_rows)
        if self._limit is not None:
            max_rows = min(max_rows, self._limit - self.count)
        rows, done = self._rows(max_bytes, max_rows) if max_rows > 0 else ([], False)
        if rows:
            self.count += len(rows)
            self.last_key = rows[-1][0]
        if done or self.count == self._limit:
            done = True
            self.close()
        return Page(rows, done)

    def close(self) -> None:
        """Let go of the revision. May be called more than once.

        Entries that only this scan needed are freed later (`HeldEntries.sweep`): all scans of a lost connection end in
        one turn of the loop.
        """
        if self._open:
            self._open = False
            self._kv.cursors -= 1
            self._recalling = None
            self._view.close()

    def _recall(self) -> bool | None:
        """Recall a piece of the past: whether it was the last; None if the view is lost."""
        assert self._recalling is not None
        try:
            self.work = next(self._recalling)
        except StopIteration as end:
            self._recalling = None
            return end.value or None
        return False

    def _rows(self, room: int, max_rows: int) -> tuple[list[Row], bool]:
        view, revision, glob, keys_only = self._view, self.revision, self._glob, self.keys_only
        now_ms = view.now_ms
        cost, matches = (glob.cost, glob.matches) if glob is not None else (0, bool)
        sieve = self.sieve
        older = self._kv.held.entry_at
        whole, parts, place = view.entries.whole, view.entries.parts, PLACE_SHIFT
        get = whole.get if whole is not None else None
        rows: list[Row] = []
        room -= _LIST_OVERHEAD
        work = limits.SLICE_WORK_MAX
        passed: str | None = None
        for key in view.index.iterate(self._span, reverse=self.reverse):
            if work <= 0:
                break
            # As in `Table.get`, without a call of Python for each key.
            entry = parts[hash(key) >> place].get(key) if get is None else get(key)
            if entry is None or entry[1] > revision:
                entry = older(key, revision)
            if entry is not None and entry[2] is not None and entry[2] <= now_ms:
                entry = None
            if cost and entry is not None:
                work -= len(key) * cost >> 6
                if not matches(key):
                    entry = None
            if sieve is not None and entry is not None:
                work -= len(key) * sieve.cost >> 6
                if not sieve.passes(key):
                    entry = None
            if entry is None:
                work -= _KEY_WORK
            else:
                value, version, expires_at_ms = entry
                room -= _ROW_OVERHEAD + (len(key) if key.isascii() else len(key.encode()))
                if keys_only:
                    work -= _ROW_WORK
                else:
                    size = len(value)
                    room -= size
                    work -= _ROW_WORK + (size >> 10)
                if room < 0 and rows:
                    break
                rows.append((key, None if keys_only else value, version, expires_at_ms))
                if len(rows) == max_rows:
                    passed = key
                    break
            passed = key
        else:
            self.work = limits.SLICE_WORK_MAX - work
            return rows, True
        self.work = limits.SLICE_WORK_MAX - work
        if passed is not None:
            self._span = _beyond(self._span, passed, reverse=self.reverse)
        return rows, False


class _InRange:
    """Each key of a range."""

    complete = False

    def __init__(self, span: KeyRange) -> None:
        self.takes = span.holds


def _beyond(span: KeyRange, key: str, *, reverse: bool) -> KeyRange:
    return KeyRange(span.low, span.low_open, key) if reverse else KeyRange(key, True, span.high)
