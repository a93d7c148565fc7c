"""All watches of a node, from their beginning over catching up to their end: no writer waits for them.

A watch has no queue. While it is in step it is a member of its group, and `delivery` sends it what it sends to the
others. One that has no room for an ITEM falls behind: a task of its own reads the event history on from there, as far
as its reader takes ITEMs, until it is in step again. One that makes no progress for `PROGRESS_TIMEOUT_S` ends with
3009, one whose events are not kept any more with 4009.

A watch is judged by the grants of its time: where they change, all watches are judged again before an event behind the
change is sent, and one that may not see all of its keys any more ends with 2004.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import Code, Failure, LocalProtocolError, failure
from haptera.node.commands import ANONYMOUS
from haptera.node.scans import PROGRESS_TIMEOUT_S, SWEEP_INTERVAL_S, page_steps
from haptera.node.watches.delivery import Delivery
from haptera.node.watches.follower import LOOK_WORK, Follower
from haptera.node.watches.items import mark, present
from haptera.node.watches.shared_items import SharedItems
from haptera.state import EventCursor, operations, refusal, validate

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from haptera.node.commands import Commands, Submitter
    from haptera.node.metrics import Metrics
    from haptera.node.watches.feed import Feed
    from haptera.state import Permits, StateMachine, Steps

_logger = logging.getLogger(__name__)

#: Watches of one node: more than its clients have, and in memory some 60 MiB.
WATCHES_MAX: Final = 32_768
#: Watches of one connection: half of the requests that it may have under way by default, so that calls have the rest.
WATCHES_PER_OWNER_MAX: Final = 512
#: Watches that are judged in one slice.
_JUDGED_TOGETHER: Final = 256
#: Seconds to the next look at a watch whose submitter should have expired: timers and clocks do not agree exactly.
_EXPIRY_AGAIN_S: Final = 0.1
#: Bytes and rows of one ITEM with entries that were there before.
_PAGE_SIZE_MAX: Final = 64 * 1024
_PAGE_ROWS_MAX: Final = 512


class Watches:
    """The watches of a node. For the event loop's thread alone."""

    def __init__(
        self, machine: StateMachine, commands: Commands, loop: asyncio.AbstractEventLoop, metrics: Metrics
    ) -> None:
        self._machine = machine
        self._commands = commands
        self._loop = loop
        self._metrics = metrics
        #: The ITEMs that watches which are behind share.
        self._shared = SharedItems()
        self._delivery = Delivery(
            machine.kv.events, commands.turns, loop, self._shared, self._fall_behind, self._end, self._judge_steps
        )
        #: The revision of the users and grants by which all watches were judged.
        self._judged = machine.access.revision
        self._open: set[Follower] = set()
        self._behind: set[Follower] = set()
        self._owned: Counter[object] = Counter()
        #: How many count for the quota of each user.
        self._paid: Counter[str] = Counter()
        machine.kv.quotas.watches_of = self._paid.__getitem__
        self._timer: asyncio.TimerHandle | None = None
        self._stopped: Failure | None = None
        self.publish()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def behind(self) -> int:
        """How many of them are not in step."""
        return len(self._behind)

    def publish(self) -> None:
        """An entry of the log was applied, whole: its events may be seen."""
        machine = self._machine
        self._delivery.publish(machine.kv.revision)
        if self._judged != machine.access.revision:
            self._delivery.judge()

    def open(
        self,
        submitter: Submitter,
        op: operations.OpenWatch,
        feed: Feed,
        owner: object | None = None,
        judged: Permits | None = None,
    ) -> Follower | Failure:
        """Begin a watch, which ends with an error of its feed. ``owner`` is the connection that it belongs to, and
        ``judged`` the permits by which it was judged already.

        Refused: 3003, 4006 (invalid), 2004 (the submitter may not see all of its keys), 4009 (the events are not kept,
        or the revision is still to come), 3007 (there are too many watches), 3013 (the quota of the user is used up),
        5001, 5005.
        """
        permits = submitter.permits()
        refused = validate(op) or _contradiction(op)
        if refused is None and permits is not None and permits is not judged:
            refused = refusal(op, permits)
        refused = refused or self._stopped or self._machine.abandoned
        if refused is None and len(self._open) >= WATCHES_MAX:
            refused = _too_many(WATCHES_MAX)
        if refused is None and owner is not None and self._owned[owner] >= WATCHES_PER_OWNER_MAX:
            refused = _too_many(WATCHES_PER_OWNER_MAX)
        payer = self._machine.access.payer(submitter.user)
        refused = refused or self._machine.kv.quotas.watch_refusal(payer, self._paid[payer])
        delivery, events = self._delivery, self._machine.kv.events
        start = op.start_revision or delivery.revision + 1
        # An entry of many commands is seen by reads command by command, and a reader may go on from what it has seen.
        if refused is None and not events.compacted < start <= self._machine.revision + 1:
            refused = self._compacted(start)
        if refused is None and self._machine.kv.gaps.parts(start):  # a change that is lost led to it
            refused = self._compacted(start)
        if refused is not None:
            return refused
        watch = Follower(submitter, op, feed, owner, payer, delivery.groups.join(op), start - 1)
        watch.permits = permits
        self._open.add(watch)
        self._paid[payer] += 1
        self._await_expiry(watch)
        if owner is not None:
            self._owned[owner] += 1
        if op.progress_ms is not None:
            delivery.progress.add(watch, op.progress_ms)
        if op.initial:
            self._start(watch, self._begin_with_entries(watch))
            return watch
        cursor = EventCursor(events, events.place_of(start))
        if cursor.place >= delivery.until and feed.try_send(mark(start - 1)):
            watch.group.admit(watch)
        else:
            watch.cursor = cursor
            self._start(watch, self._begin_behind(watch))
        return watch

    def close(self, watch: Follower, reason: Failure) -> None:
        """End a watch. Nothing happens if it has ended."""
        if watch in self._open and watch.ended is None:
            self._end(watch, reason)

    def stop(self) -> None:
        """End every watch: the node is stopping (5005)."""
        self._stopped = failure(Code.SHUTTING_DOWN, outcome="not_applied")
        self.abandon(self._stopped)
        self._delivery.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def abandon(self, reason: Failure) -> None:
        """End every watch for this reason."""
        for watch in list(self._open):
            self.close(watch, reason)

    def _judge_steps(self) -> Steps[None]:
        """End the watches that may not go on, if users or grants have changed."""
        while self._judged != self._machine.access.revision:
            self._judged = self._machine.access.revision
            for count, watch in enumerate(list(self._open), 1):
                yield from watch.judge_steps()
                self._judge(watch)
                if count % _JUDGED_TOGETHER == 0:
                    yield _JUDGED_TOGETHER * LOOK_WORK

    def _judge(self, watch: Follower) -> None:
        refused = watch.refusal()
        if refused is not None:
            self.close(watch, refused)
        elif watch in self._open:
            self._await_expiry(watch)

    def _await_expiry(self, watch: Follower) -> None:
        """Judge a watch again when its submitter expires."""
        if watch.expiry is not None:
            watch.expiry.cancel()
            watch.expiry = None
        expires_at_ms = watch.submitter.expires_at_ms
        if expires_at_ms is not None:
            left_s = (expires_at_ms - self._machine.kv.clock()) / 1000
            watch.expiry = self._loop.call_later(max(left_s, _EXPIRY_AGAIN_S), self._judge, watch)

    def _end(self, watch: Follower, reason: Failure) -> None:
        watch.ended = reason
        if watch.task is None:
            self._forget(watch)
            watch.feed.fail(reason)
        else:
            watch.task.cancel()

    def _forget(self, watch: Follower) -> None:
        self._open.discard(watch)
        self._behind.discard(watch)
        if watch.expiry is not None:
            watch.expiry.cancel()
        if watch.in_step:
            watch.group.release(watch)
        self._delivery.groups.leave(watch.group)
        if watch.op.progress_ms is not None:
            self._delivery.progress.remove(watch, watch.op.progress_ms)
        if watch.owner is not None:
            _take_one(self._owned, watch.owner)
        _take_one(self._paid, watch.payer)

    def _fall_behind(self, watch: Follower, cursor: EventCursor, skip: int, open_: int) -> None:
        """There was no room for the ITEM behind ``skip`` of the watch's events from the cursor on."""
        watch.group.release(watch)
        watch.cursor, watch.skip, watch.open = cursor, skip, open_
        self._metrics.watches_behind_total += 1
        self._start(watch, self._catch_up(watch))

    def _start(self, watch: Follower, work: Coroutine[Any, Any, None]) -> None:
        watch.moved_at = self._loop.time()
        self._behind.add(watch)
        watch.task = self._loop.create_task(work)
        watch.task.add_done_callback(lambda task: self._followed(watch, task))
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_INTERVAL_S, self._on_timer)

    def _followed(self, watch: Follower, task: asyncio.Task[None]) -> None:
        """A watch that was behind is in step, or ends."""
        if watch.task is not task:
            return  # it came into step, and fell behind again at once
        watch.task = None
        self._behind.discard(watch)
        if not self._behind:
            self._shared.clear()
        if watch.ended is None:
            watch.ended = _reason_of(task)
        if watch.ended is not None:
            self._forget(watch)
            watch.feed.fail(watch.ended)

    async def _begin_with_entries(self, watch: Follower) -> None:
        """Send the entries of one revision, then the mark, then the changes behind it."""
        op, feed = watch.op, watch.feed
        scan = (
            operations.OpenScan(prefix=op.prefix)
            if op.key is None
            else operations.OpenScan(start=op.key, end=f"{op.key}\0")
        )

        def expire() -> None:
            self.close(watch, self._compacted(watch.after))

        # All of its keys may be seen: that was judged when it began, and is judged again before each page.
        cursor = await self._commands.open_scan(ANONYMOUS, scan, expire, watch.owner)
        if isinstance(cursor, Failure):
            watch.ended = cursor
            return
        events = self._machine.kv.events
        watch.after, watch.cursor = cursor.revision, EventCursor(events, events.place_of(cursor.revision + 1))
        try:
            done = False
            while not done:
                await feed.room()  # a row may be large: it is looked for when it can leave
                page = await self._commands.turns.run(watch.owner, page_steps(cursor, _PAGE_SIZE_MAX, _PAGE_ROWS_MAX))
                if isinstance(page, Failure):
                    watch.ended = page
                    return
                if (refused := watch.refusal()) is not None:
                    watch.ended = refused
                    return
                if page.rows:
                    await feed.send(present(cursor.revision, page.rows))
                    watch.moved_at = self._loop.time()
                done = page.done
        finally:
            cursor.close()
        await feed.send(mark(watch.after))
        await self._catch_up(watch)

    async def _begin_behind(self, watch: Follower) -> None:
        await watch.feed.room()
        await watch.feed.send(mark(watch.after))
        await self._catch_up(watch)

    async def _catch_up(self, watch: Follower) -> None:
        """Send the events behind the cursor until the watch is in step, or has to end."""
        delivery, feed = self._delivery, watch.feed
        await feed.left()
        while watch.ended is None:
            assert watch.cursor is not None
            if watch.cursor.lost:
                watch.ended = self._compacted(watch.after + 1)
                return
            if watch.cursor.place >= delivery.until:
                # Its entries may be of a later revision: of the midst of an entry, which is published as a whole.
                watch.after, watch.cursor = max(watch.after, delivery.revision), None
                watch.group.admit(watch)
                return
            steps = watch.item_steps(delivery.until, self._shared)
            item = await self._commands.turns.run(watch.owner, steps)
            if (refused := watch.refusal()) is not None:
                watch.ended = refused
                return
            if item is not None:
                await feed.send(item)
                watch.spoken = True
            watch.moved_at = self._loop.time()

    def _compacted(self, start: int) -> Failure:
        oldest, newest = self._machine.kv.oldest, self._machine.revision
        return failure(Code.REVISION_COMPACTED, {"revision": start, "oldest": oldest, "newest": newest})

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        for watch in list(self._behind):
            if now - watch.moved_at >= PROGRESS_TIMEOUT_S:
                self._metrics.watches_slow_total += 1
                self.close(watch, failure(Code.SLOW_CONSUMER, outcome="not_applied"))
        if self._behind:
            self._timer = self._loop.call_later(SWEEP_INTERVAL_S, self._on_timer)


def _contradiction(op: operations.OpenWatch) -> Failure | None:
    """Why a watch with these fields is refused, although each of them is valid."""
    if op.key is not None and op.prefix is not None:
        reason = "a watch is of a key or of a prefix"
    elif op.initial and op.start_revision is not None:
        reason = "a watch that begins with the present entries begins at their revision"
    else:
        return None
    return failure(Code.INVALID_ARGUMENT, {"reason": reason}, outcome="not_applied")


def _take_one(counts: Counter[Any], name: object) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]


def _too_many(limit: int) -> Failure:
    return failure(Code.TOO_MANY_REQUESTS, {"watches_max": limit}, outcome="not_applied")


def _reason_of(task: asyncio.Task[None]) -> Failure | None:
    """Why the watch of a task ends; None if it goes on."""
    error = None if task.cancelled() else task.exception()
    if task.cancelled() or isinstance(error, ConnectionError):  # no one is left to be answered
        return failure(Code.CANCELLED, outcome="not_applied")
    if isinstance(error, LocalProtocolError):  # there is no memory for an ITEM, or the peer takes none as large
        return error.failure("not_applied")
    if error is not None:
        _logger.error("watch_failed", exc_info=error)
        return failure(Code.HANDLER_FAILED, outcome="not_applied")
    return None
