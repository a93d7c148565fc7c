"""Keeps a node's past in bounds: has snapshots made when they are due or asked for, and lets retention remove the rest.

    a segment is full ┐
    time has passed   ├─> look ─> due? ─> roll (writer's thread) ─> memory? ─> make (second process) ─> retention
    someone asks      ┘

One snapshot is made at a time. A snapshot stands at the end of a sealed segment, so each begins with a roll of the log.
Nothing here stops the node: what fails is told, counted, and tried again later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.errors import Code, Failure, StorageError, failure
from haptera.node.shortage import no_room
from haptera.node.snapshots import room
from haptera.node.snapshots.decision import Snapshot
from haptera.node.snapshots.errors import SnapshotNotMade, SnapshotRefused
from haptera.state import SNAPSHOT_BOUNDS

if TYPE_CHECKING:
    from haptera.node.metrics import Metrics
    from haptera.node.snapshots.makers import Maker
    from haptera.node.snapshots.messages import Made
    from haptera.node.snapshots.retention import Retention
    from haptera.node.snapshots.schedule import Schedule
    from haptera.state import StateMachine
    from haptera.storage import Log, LogPoint

_logger = logging.getLogger(__name__)

#: Requests that wait for a snapshot: more than there are people and programs that ask for one.
WAITING_MAX: Final = 1024

#: Runs a job on the writer's thread, and tells of its result in the order of the entries: `CommitPipeline.on_writer`.
OnWriter = Callable[["Callable[[], LogPoint]", "Callable[[LogPoint], None]"], "asyncio.Future[LogPoint]"]

#: Seconds between two looks for what has become too old: pinned files may be, for hours.
LOOK_INTERVAL_MIN_S: Final = 60.0

Answer = asyncio.Future["Current | Failure"]


class Current(msgspec.Struct, frozen=True):
    """A snapshot that is the current one, as `server.snapshot` answers with it.

    ``index`` is that of the last entry in it, ``revision`` the store's then. ``bytes`` is the file's size, ``seconds``
    how long it took to make; 0 where it was there already.
    """

    index: int
    revision: int
    bytes: int
    seconds: float


class SnapshotKeeper:
    """The snapshots of one node, from `start` to `close`.

    ``drop_keys`` drops the data keys that no file is under any more, and gives their ids; it blocks.
    """

    def __init__(
        self,
        *,
        log: Log,
        machine: StateMachine,
        retention: Retention,
        schedule: Schedule,
        maker: Maker,
        on_writer: OnWriter,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        drop_keys: Callable[[], Sequence[bytes]],
    ) -> None:
        self.retention = retention
        #: The last snapshot that was made by this run of the node; None before the first.
        self.last: Made | None = None
        self._log = log
        self._machine = machine
        self._schedule = schedule
        self._maker = maker
        self._on_writer = on_writer
        self._drop_keys = drop_keys
        self._loop = loop
        self._metrics = metrics
        self._refusal: Failure | None = None
        self._task: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._point: LogPoint | None = None  # of the snapshot that is being made, once it is known
        self._joined: list[Answer] = []  # wait for that one; with the others at most WAITING_MAX
        self._waiting: list[Answer] = []  # wait for the next
        self._timer: asyncio.TimerHandle | None = None
        self._timed = False  # whether the timer looks when a change has become due

    def start(self) -> None:
        """Begin to look. A segment that is full from now on is a reason to look, too."""
        self._log.on_roll = self._rolled
        self.look()

    @property
    def making(self) -> bool:
        """Whether a snapshot is being made."""
        return self._task is not None

    @property
    def index(self) -> int:
        """The index of the last entry in the newest snapshot; 0 while there is none."""
        newest = self.retention.newest
        return newest.index if newest else 0

    @property
    def needed_bytes(self) -> int:
        """An estimate of the memory that the second process needs for the present state."""
        kv = self._machine.kv
        return room.needed_bytes(
            self._machine.size + min(kv.events.size, SNAPSHOT_BOUNDS.size) + self._machine.requests.size
        )

    def request(self) -> Answer:
        """Ask for a snapshot that covers every write that was answered until now. Its answer comes when it is current.

        It joins the snapshot that is being made, where that one covers them, and waits for the next one else. Cancel
        the answer to wait no more; the snapshot goes on.
        """
        answer: Answer = self._loop.create_future()
        if self._refusal is not None:
            answer.set_result(self._refusal)
        elif self._waiters() >= WAITING_MAX:
            answer.set_result(failure(Code.TOO_MANY_REQUESTS, {"waiting_max": WAITING_MAX}, outcome="not_applied"))
        elif self._task is not None and (self._point is None or self._point.index >= self._machine.index):
            self._joined.append(answer)
        else:
            self._waiting.append(answer)
            self._begin()
        return answer

    def look(self) -> None:
        """See whether a snapshot is due, and whether anything old is beyond the bounds."""
        if self._refusal is not None:
            return
        now = self._loop.time()
        if self._waiting or self._schedule.due(now, self._behind_bytes, self._changed):
            self._begin()
        # While a snapshot is made the log goes on growing, and the snapshot needs room too.
        if self._tidying is None and self.retention.decide(self._incoming_bytes):
            self._tidying = self._loop.create_task(self._tidy())
        self._set_timer(now, self._changed)

    def entry_written(self) -> None:
        """Note that the state changes: from now on, time alone may make a snapshot due."""
        if not self._timed and self._task is None and self._refusal is None:
            self._set_timer(self._loop.time(), changed=True)

    def stop(self) -> None:
        """Make and remove nothing more: end what is under way, and answer all that wait (5005)."""
        self._refuse(failure(Code.SHUTTING_DOWN, outcome="not_applied"))
        self._maker.stop()

    async def close(self) -> None:
        """Stop, and wait for the end of what is under way. Safe to call again."""
        self.stop()
        for task in (self._task, self._tidying):
            if task is not None:
                await asyncio.wait([task])
        self._log.on_roll = None

    def abandon(self) -> None:
        """End the second process after the loop was closed."""
        self._maker.stop()

    def disown(self) -> None:
        """Make and remove nothing in a forked child: the files and the second process are the parent's."""
        self._refusal = failure(Code.STORAGE_FAILED, outcome="not_applied")
        self.retention.disown()

    def _refuse(self, reason: Failure) -> None:
        self._refusal = reason
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        _settle(self._joined, reason)
        _settle(self._waiting, reason)

    def _rolled(self) -> None:
        """On the writer's thread: a new segment was made."""
        try:
            self._loop.call_soon_threadsafe(self.look)
        except RuntimeError:
            pass  # the loop was closed

    @property
    def _changed(self) -> bool:
        """Whether the state is not that of the newest snapshot."""
        return self._machine.index > self.index

    @property
    def _behind_bytes(self) -> int:
        """The size of the log behind the newest snapshot."""
        newest = self.retention.newest
        return self._log.size_after(newest.next_segment if newest else 1)

    @property
    def _incoming_bytes(self) -> int:
        """The size of the snapshot that is being made: about that of the newest."""
        newest = self.retention.newest
        return newest.size_bytes if newest and self._task is not None else 0

    def _set_timer(self, now: float, changed: bool) -> None:
        """Look again when time alone may be a reason. Without any, no timer runs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        age = self.retention.next_in_s
        waits = [] if age is None else [max(age, LOOK_INTERVAL_MIN_S)]
        self._timed = changed and self._task is None
        if self._timed:
            waits.append(self._schedule.next_look(now, self._behind_bytes))
        if waits:
            self._timer = self._loop.call_later(min(waits), self.look)

    def _waiters(self) -> int:
        """How many wait for an answer, without those that have given up."""
        if len(self._joined) + len(self._waiting) >= WAITING_MAX:
            self._joined = [answer for answer in self._joined if not answer.done()]
            self._waiting = [answer for answer in self._waiting if not answer.done()]
        return len(self._joined) + len(self._waiting)

    def _begin(self) -> None:
        if self._task is None:
            self._joined, self._waiting = self._waiting, []
            self._task = self._loop.create_task(self._make())

    async def _make(self) -> None:
        try:
            answer: Current | Failure = await self._made()
        except SnapshotNotMade as error:
            answer = self._tell(error)
        except Exception as error:  # a fault of this program, which must not be the end of all snapshots
            answer = self._tell(SnapshotNotMade(f"{type(error).__name__}: {error}"), error)
        self._task = self._point = None
        _settle(self._joined, answer)
        self.look()

    async def _made(self) -> Current:
        """Make a snapshot of all that is written now. Raises SnapshotNotMade."""
        point = await self._roll()
        newest = self.retention.newest
        if newest is not None and newest.index == point.index:
            return Current(newest.index, newest.revision, newest.size_bytes, 0.0)
        if not point.index:
            return Current(0, 0, 0, 0.0)
        need, available = self.needed_bytes, room.available_bytes()
        if available is not None and need + room.SPARE_BYTES > available:
            raise SnapshotRefused(need, available)
        await self.retention.run(self._incoming_bytes)
        if self._refusal is not None:
            raise SnapshotNotMade("the node stops")
        made = self.last = await self._maker.make(point)
        self._schedule.made(self._loop.time())
        self._metrics.snapshots_total += 1
        fields = {
            "index": made.index,
            "revision": made.revision,
            "keys": made.keys,
            "bytes": made.size_bytes,
            "seconds": round(made.seconds, 3),
            "memory_bytes": made.memory_bytes,
        }
        _logger.info("snapshot_made", extra=fields)
        self.retention.mark_damaged(made.damaged)
        self.retention.add(Snapshot(made.index, made.next_segment, made.time_ms, made.size_bytes, made.revision))
        await self.retention.run()
        await self._forget_keys()
        return Current(made.index, made.revision, made.size_bytes, made.seconds)

    async def _forget_keys(self) -> None:
        """Drop the data keys that no file needs any more. Here no snapshot is in the making under one of them."""
        if self.retention.failed:  # a removed file may come back, and no second sync would tell
            return
        try:
            dropped = await self._loop.run_in_executor(None, self._drop_keys)
        except StorageError as error:
            _logger.warning("data_keys_kept", extra={"reason": str(error), "meaning": "the next snapshot tries again"})
            return
        if dropped:
            _logger.info("data_keys_dropped", extra={"keys": [key_id.hex() for key_id in dropped]})

    async def _roll(self) -> LogPoint:
        """Seal the segment that is appended to, on the writer's thread; where the log then ends."""
        try:
            return await self._on_writer(self._log.roll, self._note_point)
        except StorageError as error:
            raise SnapshotNotMade(f"the log cannot be sealed: {error}") from error

    def _note_point(self, point: LogPoint) -> None:
        """The log was rolled. This is told before any entry behind the point is, so that no request joins too late."""
        self._point = point

    async def _tidy(self) -> None:
        await self.retention.run(self._incoming_bytes)
        self._tidying = None

    def _tell(self, error: SnapshotNotMade, cause: Exception | None = None) -> Failure:
        """Log and count a snapshot that was not made, and give the answer for who asked."""
        if self._refusal is not None:
            return self._refusal
        retry_s = self._schedule.failed(self._loop.time())
        self._metrics.snapshots_failed_total += 1
        fields: dict[str, Any] = {"reason": error.reason, "retry_in_seconds": retry_s}
        if isinstance(error, SnapshotRefused):
            _logger.warning("snapshot_refused", extra={**fields, "meaning": "the log grows until there is memory"})
            return failure(
                Code.SNAPSHOT_FAILED,
                {
                    "reason": error.reason,
                    "needed_bytes": error.needed_bytes,
                    "available_bytes": error.available_bytes,
                },
                outcome="not_applied",
            )
        found = error.found
        if found is not None:
            self.retention.mark_damaged(found.damaged)
        damaged = found is not None and found.file is not None
        if found is not None and damaged:
            fields |= {"file": found.file, "offset": found.offset, "expected": found.expected, "actual": found.actual}
        level = logging.ERROR if damaged or cause is not None else logging.WARNING
        _logger.log(level, "snapshot_failed", exc_info=cause, extra=fields)
        if found is not None and found.shortage is not None:
            return no_room(found.shortage)
        return failure(Code.SNAPSHOT_FAILED, {"reason": error.reason}, outcome="not_applied")


def _settle(answers: list[Answer], result: Current | Failure) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_result(result)
    answers.clear()
