"""Delivery: the events that were published, to the watches that are in step, in slices.

A *piece* of the history is taken at a time. Each event is matched with the groups that it is for; then each group's
events are packed into ITEMs, once for all its members. The more members there are, the more events have come when the
next piece is taken, so that ten thousand watches of one prefix cost an ITEM for many events each and not one for every
event.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from haptera.errors import Code, Failure, LocalProtocolError, failure
from haptera.node.slice_queue import TURN_WORK_MAX
from haptera.node.watches.follower import ENCODE_WORK, LOOK_WORK, PIECE_EVENTS
from haptera.node.watches.groups import Group, Groups
from haptera.node.watches.items import mark, pack
from haptera.node.watches.progress_marks import ProgressMarks
from haptera.node.watches.shared_items import SharedItem
from haptera.state import EventCursor

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from haptera.node.slice_queue import Turns
    from haptera.node.watches.follower import Follower
    from haptera.node.watches.shared_items import SharedItems
    from haptera.state import Event, EventHistory, Steps

_logger = logging.getLogger(__name__)

#: Watches that one slice sends an ITEM to, and the units of work of each beside those of its bytes.
_SENT_MAX: Final = 128
_SEND_WORK: Final = 10
#: Units of work of a reader that is sent ITEMs, for however many watches at once: its connection writes them.
_READER_WORK: Final = 32
#: Bytes that one slice sends to a reader: so few that the slices of a turn leave it room.
_PART_SIZE_MAX: Final = 256 * 1024

#: Called with a watch that has no room, the cursor at the piece, the events of it that it was sent, and its open
#: revision.
FallBehind = Callable[["Follower", EventCursor, int, int], None]


class Delivery:
    """Sends published events to the members of all groups. ``revision`` and ``until`` are the revision and the place up
    to which events are published. ``judge`` ends the watches that may not go on, if the grants have changed.
    """

    def __init__(
        self,
        events: EventHistory,
        turns: Turns,
        loop: asyncio.AbstractEventLoop,
        shared: SharedItems,
        fall_behind: FallBehind,
        end: Callable[[Follower, Failure], None],
        judge: Callable[[], Steps[None]],
    ) -> None:
        self.revision: int = 0
        self.until: int = events.end
        self.groups: Groups = Groups()
        #: The progress marks that are due.
        self.progress: ProgressMarks = ProgressMarks(loop, self._start)
        self._events = events
        self._turns = turns
        self._shared = shared
        self._fall_behind = fall_behind
        self._end = end
        self._judge = judge
        self._cursor = EventCursor(events, events.end)

    def publish(self, revision: int) -> None:
        """All events that there are may be seen; the newest is of this revision."""
        self.revision = revision
        self.until = until = self._events.end
        cursor = self._cursor
        if not self.groups.watches:
            cursor.place, cursor.after = until, ""
        elif cursor.place != until:
            self._start()

    def judge(self) -> None:
        """Have all watches judged again, before anything more is delivered."""
        self._start()

    def stop(self) -> None:
        """Send no more progress marks."""
        self.progress.stop()

    def _start(self) -> None:
        self._turns.start_once(self, self._steps)

    def _steps(self) -> Steps[None]:
        try:
            yield from self._delivery_steps()
        except Exception:
            _logger.exception("delivery_failed")
            yield from self._give_up()

    def _give_up(self) -> Steps[None]:
        """End the watches in step, because it is not known which events each of them was sent."""
        members = [watch for group in self.groups for watch in group.in_step()]
        self._cursor = EventCursor(self._events, self.until)
        for group in self.groups:
            group.matched = []
            self.groups.note_open(group, 0)
        for count, watch in enumerate(members, 1):
            if watch.in_step:
                self._end(watch, failure(Code.HANDLER_FAILED, outcome="not_applied"))
            if count % _SENT_MAX == 0:
                yield _SENT_MAX * _SEND_WORK

    def _delivery_steps(self) -> Steps[None]:
        while True:
            yield from self._judge()  # no event behind a change of the grants is sent by the grants of before
            if self._cursor.lost:
                yield from self._skip_lost()
            elif self._cursor.place < self.until:
                yield from self._deliver_piece()
            ahead = self._cursor.revision_ahead(self.until)
            told = ahead - 1 if ahead else self.revision
            yield from self._send_to([watch for watch in self.progress.due() if watch.after <= told], mark(told))
            if self._cursor.place >= self.until:
                return
            yield TURN_WORK_MAX  # ITEMs leave before the next ones are made

    def _deliver_piece(self) -> Steps[None]:
        begun = self._cursor.copy()
        found = self._cursor.read(self.until, PIECE_EVENTS)
        ahead = self._cursor.revision_ahead(self.until)
        touched: dict[Group, None] = {group: None for group in self.groups.open if group.open != ahead}
        for event in found:
            for group in self.groups.matching(event[2]):
                group.matched.append(event)
                touched[group] = None
        yield len(found) * LOOK_WORK
        for group in touched:
            matched, group.matched = group.matched, []
            if matched:
                yield from self._deliver(group, matched, begun, ahead)
            elif group.open:
                revision = group.open
                self.groups.note_open(group, 0)
                yield from self._send_to([watch for watch in group.in_step() if watch.after < revision], mark(revision))

    def _deliver(self, group: Group, events: list[Event], begun: EventCursor, ahead: int) -> Steps[None]:
        """Send a group the events that it has in a piece."""
        readers, start = [list(watches) for watches in group.members.values()], 0
        while readers and start < len(events):
            item, end, open_ = pack(events, start, ahead, group.with_previous)
            yield (end - start) * ENCODE_WORK + (len(item) >> 10)
            rest = end < len(events)
            behind, left = (begun, end) if rest else (self._cursor, 0)
            shared = SharedItem(item, events[0][0], behind.copy(), left, open_, full=rest or ahead > 0)
            readers = yield from self._send_all(group, readers, events, start, begun, shared)
            start = end
            self.groups.note_open(group, open_)

    def _send_all(
        self,
        group: Group,
        readers: list[list[Follower]],
        events: list[Event],
        start: int,
        begun: EventCursor,
        shared: SharedItem,
    ) -> Steps[list[list[Follower]]]:
        """Send an ITEM to watches, so many of each reader as may leave in one turn, and so on until all have it.

        Returns the ones that are still in step, by their readers.
        """
        size = len(shared.item)
        part_max = max(1, min(_SENT_MAX, _PART_SIZE_MAX // size))
        kept: list[list[Follower]] = [[] for _ in readers]
        work = 0
        for place in range(0, max(map(len, readers)), part_max):
            for watches, sent in zip(readers, kept, strict=True):
                part = self._part(watches[place : place + part_max], events, start, begun)
                if not part:
                    continue
                for unsent in self._send(part, shared.item):
                    watch = part[unsent]
                    if watch.in_step:
                        self._shared.keep(group, begun, start, shared)
                        self._fall_behind(watch, begun.copy(), start, group.open)
                for watch in part:
                    if watch.in_step:
                        watch.spoken = True
                        sent.append(watch)
                work += _READER_WORK + len(part) * (_SEND_WORK + (size >> 10))
                if work >= _SENT_MAX * _SEND_WORK:
                    yield work
                    work = 0
        yield work
        return [sent for sent in kept if sent]

    def _part(self, watches: list[Follower], events: list[Event], start: int, begun: EventCursor) -> list[Follower]:
        """The ones among some watches that an ITEM with events from the position ``start`` on is for."""
        first, last = events[start][0], events[-1][0]
        part = []
        for watch in watches:
            if watch.in_step:
                if watch.after < first:
                    part.append(watch)
                elif watch.after < last:  # else it came into step behind these events
                    self._fall_behind(watch, begun.copy(), 0, 0)
        return part

    def _send(self, watches: list[Follower], item: bytes) -> list[int]:
        """Send an ITEM to watches of one reader; the places of those that had no room, or have ended by it."""
        feeds = [watch.feed for watch in watches]
        try:
            return feeds[0].try_send_all(feeds, item)
        except LocalProtocolError as error:  # the peer takes none as large
            for watch in watches:
                self._end(watch, error.failure("not_applied"))
            return list(range(len(watches)))

    def _send_to(self, watches: Iterable[Follower], item: bytes) -> Steps[None]:
        """Send a mark to watches in step, as far as they have room."""
        work = 0
        for watch in watches:
            if watch.in_step:
                self._send([watch], item)
                work += _READER_WORK + _SEND_WORK
            if work >= _SENT_MAX * _SEND_WORK:
                yield work
                work = 0
        if work:
            yield work

    def _skip_lost(self) -> Steps[None]:
        """Events that were to be delivered are not kept any more: the watches that miss them end."""
        compacted = self._events.compacted
        self._cursor = EventCursor(self._events, self._events.first)
        for count, watch in enumerate([watch for group in self.groups for watch in group.in_step()], 1):
            if watch.in_step and watch.after < compacted:
                details = {"revision": watch.after + 1, "oldest": compacted + 1, "newest": self.revision}
                self._end(watch, failure(Code.REVISION_COMPACTED, details))
            if count % _SENT_MAX == 0:
                yield _SENT_MAX * _SEND_WORK
