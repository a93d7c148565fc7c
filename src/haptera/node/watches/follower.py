"""One watch: where it stands in the event history, and its next piece from there. `watches` sends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.node.watches.items import mark, pack
from haptera.node.watches.shared_items import SharedItem
from haptera.state import refusal, refusal_steps

if TYPE_CHECKING:
    import asyncio

    from haptera.errors import Failure
    from haptera.node.commands import Submitter
    from haptera.node.watches.feed import Feed
    from haptera.node.watches.groups import Group
    from haptera.node.watches.shared_items import SharedItems
    from haptera.state import EventCursor, Permits, Steps, operations

#: Events that are looked at in one slice: a third of a millisecond.
PIECE_EVENTS: Final = 512
#: Units of work (`haptera.state.steps`) of an event that is looked at, and of one that is encoded.
LOOK_WORK: Final = 2
ENCODE_WORK: Final = 6
#: Units of work of an ITEM that was packed before, for another watch, beside those of its bytes.
SHARED_WORK: Final = 16


class Follower:
    """A watch of one reader.

    While it is ``in_step`` with its group it has no cursor: the events after the revision ``after`` reach it with the
    others'. Otherwise it reads on from its cursor, and ``skip`` of the events that it finds there were sent to it.
    ``open`` is the revision that it was told goes on, or 0. ``ended`` is why it ends, once it does.
    """

    __slots__ = (
        "after",
        "cursor",
        "ended",
        "expiry",
        "feed",
        "group",
        "in_step",
        "moved_at",
        "op",
        "open",
        "owner",
        "payer",
        "permits",
        "skip",
        "spoken",
        "submitter",
        "task",
    )

    def __init__(
        self,
        submitter: Submitter,
        op: operations.OpenWatch,
        feed: Feed,
        owner: object,
        payer: str,
        group: Group,
        after: int,
    ) -> None:
        self.submitter: Final = submitter
        self.op: Final = op
        self.feed: Final = feed
        self.owner: Final = owner
        #: The user for whose quota it counts.
        self.payer: Final = payer
        self.group: Final = group
        self.after: int = after
        self.in_step: bool = False
        self.cursor: EventCursor | None = None
        self.skip: int = 0
        self.open: int = 0
        self.ended: Failure | None = None
        #: The permits by which it was last judged.
        self.permits: Permits | None = None
        #: Set for the time at which its submitter expires.
        self.expiry: asyncio.TimerHandle | None = None
        #: The task that reads on, while it is behind.
        self.task: asyncio.Task[None] | None = None
        #: When it was last sent something, in seconds, while it is behind.
        self.moved_at: float = 0.0
        #: Whether it was sent an event since the last progress mark.
        self.spoken: bool = False

    def refusal(self) -> Failure | None:
        """Why its submitter may not see these changes any more, or None."""
        permits = self.submitter.permits()
        if permits is None or permits is self.permits:
            return None
        refused = refusal(self.op, permits)
        self.permits = permits if refused is None else None
        return refused

    def judge_steps(self) -> Steps[None]:
        """Make ready for `refusal`, in slices: the look at its key is not made again."""
        permits = self.submitter.permits()
        if permits is not None and permits is not self.permits:
            refused = yield from refusal_steps(self.op, permits)
            self.permits = permits if refused is None else None

    def item_steps(self, until: int, kept: SharedItems) -> Steps[bytes | None]:
        """The next ITEM of a watch that is behind, with events before the place ``until``; None if there are none.

        ``kept`` are the ITEMs that were packed for others. Nothing else of the history is kept from one ITEM to the
        next. A watch whose cursor is lost has none.
        """
        cursor, group = self.cursor, self.group
        assert cursor is not None
        while cursor.place < until and not cursor.lost:
            shared = kept.find(group, cursor, self.skip, self.after, until)
            if shared is not None:
                yield SHARED_WORK + (len(shared.item) >> 10)
                return self._take(shared)
            begun = cursor.copy()
            read = cursor.read(until, PIECE_EVENTS)
            ahead = cursor.revision_ahead(until)
            found = [event for event in read if event[0] > self.after and group.takes(event[2])]
            skip, self.skip = self.skip, 0
            if skip >= len(found):
                yield len(read) * LOOK_WORK
                if self.open and self.open != ahead:
                    return self._close_revision()
                continue
            item, end, open_ = pack(found, skip, ahead, group.with_previous)
            rest = end < len(found)
            behind, left = (begun, end) if rest else (cursor, 0)
            shared = SharedItem(item, read[0][0], behind, left, open_, full=rest or ahead > 0)
            if self.after < shared.first:
                kept.keep(group, begun, skip, shared)
            yield len(read) * LOOK_WORK + (end - skip) * ENCODE_WORK + (len(item) >> 10)
            return self._take(shared)
        return None

    def _take(self, shared: SharedItem) -> bytes:
        self.cursor, self.skip, self.open = shared.cursor.copy(), shared.skip, shared.open
        return shared.item

    def _close_revision(self) -> bytes:
        revision, self.open = self.open, 0
        return mark(revision)
