"""Open scans, and the end of the ones without a reader (spec/protocol.md 7: a scan without progress for 60 s is 4009).

A scan holds its revision, and with it every older entry that it may still give. So each one must end: by its reader, or
here.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from haptera.errors import Code, Failure, failure
from haptera.state import CURSORS_MAX, SLICE_WORK_MAX

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from haptera.node.commands.visibility import Visibility
    from haptera.node.metrics import Metrics
    from haptera.node.slice_queue import Turns
    from haptera.state import Glob, Page, ScanCursor, StateMachine, Steps, operations

#: Seconds without a page after which a scan has lost its revision.
PROGRESS_TIMEOUT_S = 60.0

#: Seconds between two looks at all open scans: one timer for all of them, and only while there are some.
SWEEP_INTERVAL_S = 5.0

#: Scans open at once on behalf of one connection: more than any client reads at once, and so few that a client which
#: opens them and reads none leaves room for everyone else.
SCANS_PER_OWNER_MAX = CURSORS_MAX // 16

#: Units of work (`haptera.state.sliced_work`) of the end of one such scan, whose caller is told.
EXPIRY_WORK = 64

_ANY_SIZE = 1 << 62


def page_steps(cursor: Cursor, max_bytes: int, max_rows: int) -> Steps[Page | Failure]:
    """`Cursor.page` as a slice of work, behind those in which its reader's permits are compiled."""
    yield from cursor.view.compile_steps()
    page = cursor.page(max_bytes, max_rows)
    yield cursor.work
    return page


def count_steps(cursor: Cursor) -> Steps[int | Failure]:
    """The number of keys that an open scan gives, which is closed then, a page in a slice. 4009 as of `Cursor.page`."""
    try:
        while True:
            page = cursor.page(_ANY_SIZE, SLICE_WORK_MAX)
            yield cursor.work
            if isinstance(page, Failure):
                return page
            if page.done:
                return cursor.count
    finally:
        cursor.close()


class Cursor:
    """An open scan of one reader; close it in any case. Number of scans at once: `state.limits.CURSORS_MAX`.

    It counts in the share of its ``owner``; None has no share.
    """

    __slots__ = ("_cursor", "_scans", "expired", "moved_at", "on_expired", "owner", "view")

    def __init__(
        self,
        scans: Scans,
        cursor: ScanCursor,
        on_expired: Callable[[], None] | None,
        owner: object | None,
        view: Visibility,
    ) -> None:
        self._scans = scans
        self._cursor = cursor
        self.view: Visibility = view
        self.on_expired: Final = on_expired
        self.owner: object | None = owner
        self.moved_at: float = scans.time()
        self.expired: bool = False

    @property
    def revision(self) -> int:
        """The revision that every row is of."""
        return self._cursor.revision

    @property
    def work(self) -> int:
        """Units of work that the last page was (`haptera.state.sliced_work`)."""
        return self._cursor.work

    @property
    def count(self) -> int:
        """Rows given so far."""
        return self._cursor.count

    @property
    def last_key(self) -> str | None:
        """The key of the last row given, None before the first."""
        return self._cursor.last_key

    @property
    def result(self) -> tuple[int, str | None, int]:
        """The scan's result array: count, last key, revision."""
        return self._cursor.count, self._cursor.last_key, self._cursor.revision

    def page(self, max_bytes: int, max_rows: int) -> Page | Failure:
        """The next rows, at most `max_rows` and `max_bytes` in MessagePack unless one row is larger.

        A page may be empty and yet not the last (`done`): it looks at a bounded number of keys. Fails with 4009 when
        the scan made no progress for PROGRESS_TIMEOUT_S, or the store had to give up its revision, with 5001 when
        the state was abandoned, with 5005 when the node was closed, and with 2004 when its reader may see no key any
        more: each page is judged by the grants of its time.
        """
        if (abandoned := self._scans.abandoned) is not None:
            self.close()
            return abandoned
        if self.expired:
            return self.lost()
        if self._scans.closed:  # an empty last page would look like the end of the keys
            return failure(Code.SHUTTING_DOWN, outcome="not_applied")
        if (refused := self.view.refusal()) is not None:
            self.close()
            return refused
        self._cursor.sieve = self.view.sieve
        self.moved_at = self._scans.time()
        page = self._cursor.page(max_bytes, max_rows)
        if isinstance(page, Failure) or page.done:
            self.close()
        return page

    def lost(self) -> Failure:
        """Return the answer to a scan that has lost its revision."""
        return failure(Code.REVISION_COMPACTED, {"revision": self.revision})

    def close(self) -> None:
        """Let the revision go. Safe to call again."""
        self._cursor.close()
        self._scans.remove(self)


class Scans:
    """The open scans of a node. ``time`` is the loop's clock, in seconds."""

    def __init__(self, machine: StateMachine, loop: asyncio.AbstractEventLoop, metrics: Metrics, turns: Turns) -> None:
        self._turns = turns
        self.time: Callable[[], float] = loop.time
        self._machine = machine
        self._loop = loop
        self._metrics = metrics
        self._open: set[Cursor] = set()
        self._owned: Counter[object] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self.closed: bool = False

    def open(
        self,
        op: operations.OpenScan,
        on_expired: Callable[[], None] | None,
        owner: object | None,
        glob: Glob | None,
        at: operations.AsOf | None,
        view: Visibility,
    ) -> Cursor | Failure:
        """Open a valid scan, of the past if there is an `at`. `on_expired` is called if it is ended for want of
        progress; `glob` is its compiled glob, and `view` its reader's.

        An `owner`, a connection for instance, has SCANS_PER_OWNER_MAX at once; 3007 beyond.
        """
        if self._owned[owner] >= SCANS_PER_OWNER_MAX:
            return failure(Code.TOO_MANY_REQUESTS, {"open_scans_max": SCANS_PER_OWNER_MAX}, outcome="not_applied")
        cursor = self._machine.open_scan(op, glob, at)
        if isinstance(cursor, Failure):
            return cursor
        opened = Cursor(self, cursor, on_expired, owner, view)
        self._open.add(opened)
        if owner is not None:
            self._owned[owner] += 1
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_INTERVAL_S, self._on_timer)
        return opened

    @property
    def abandoned(self) -> Failure | None:
        """Why the state that the scans are of is not to be used any more."""
        return self._machine.abandoned

    def __len__(self) -> int:
        return len(self._open)

    def remove(self, cursor: Cursor) -> None:
        """Forget a cursor that was closed."""
        if cursor not in self._open:
            return
        self._open.remove(cursor)
        if cursor.owner is not None:
            self._owned[cursor.owner] -= 1
            if not self._owned[cursor.owner]:
                del self._owned[cursor.owner]
        if self._machine.burdened:
            self._turns.start_once(self._machine, self._machine.sweep_steps)

    def sweep(self) -> None:
        """End the scans that made no progress for PROGRESS_TIMEOUT_S, in slices: any number may end together."""
        overdue = list(filter(self._is_overdue, self._open))
        if overdue:
            self._turns.start(self, self._expire_steps(overdue))

    def _is_overdue(self, cursor: Cursor) -> bool:
        return self.time() - cursor.moved_at >= PROGRESS_TIMEOUT_S

    def _expire_steps(self, overdue: list[Cursor]) -> Steps[None]:
        for cursor in overdue:
            if cursor in self._open and self._is_overdue(cursor):
                cursor.expired = True
                cursor.close()
                self._metrics.scans_expired_total += 1
                if cursor.on_expired is not None:
                    cursor.on_expired()
                yield EXPIRY_WORK

    def close(self) -> None:
        """End every scan, and the timer."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for cursor in list(self._open):
            cursor.close()

    def _on_timer(self) -> None:
        self._timer = None
        self.sweep()
        if self._open:
            self._timer = self._loop.call_later(SWEEP_INTERVAL_S, self._on_timer)
