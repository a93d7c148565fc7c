"""The clocks of one connection: its state machine's, the unread bytes', and the idle one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from haptera.connection import HELD_MIN, Connection, Outbox
from haptera.errors import Code, RemoteProtocolError
from haptera.peer.limits import HOLDING_LOOK_S, TICK_S, WRITTEN_MIN
from haptera.transport import untaken

if TYPE_CHECKING:
    import asyncio

    from haptera.peer.link import Link

_NEVER: Final = float("inf")
_IDLE_LOOKS: Final = 4


class Timers:
    """The timers of one link: its state machine's, and the one for bytes that the other side does not read."""

    __slots__ = ("_link", "_reader", "_taken", "_ticker", "_write_timeout_s")

    def __init__(self, link: Link, write_timeout_s: float) -> None:
        self._link = link
        self._write_timeout_s = write_timeout_s
        self._ticker = Ticker(link.loop, link.connection, self._tick)
        self._reader: ReaderWatch | None = None
        self._taken = 0  # bytes that the other side had taken at the last look

    def watch(self) -> None:
        """Look again when the state machine next has something to do."""
        self._ticker.watch()

    def _tick(self) -> None:
        link = self._link
        if link.ending is not None:
            return
        now = link.loop.time()
        connection = link.connection
        if now >= connection.next_tick():
            if self._is_taking():
                connection.postpone_probe(now)
            link.above.take(connection.tick(now))
            link.flush()
        if link.ending is None:
            self._ticker.watch()

    def probe(self) -> None:
        """Ask the other side for a sign of life, and look whether there is one."""
        link = self._link
        if link.connection.probe(link.loop.time()):
            self._is_taking()
        self._ticker.watch()

    def _is_taking(self) -> bool:
        """Whether the other side has taken some of the unread bytes since the last look, and not all of them yet."""
        link = self._link
        transport = link.transport
        if transport is None:
            return False
        left = untaken(transport)
        before, self._taken = self._taken, link.bytes_sent - left
        return left > 0 and self._taken > before

    def watch_reader(self, transport: asyncio.Transport) -> None:
        """Something waits to be read by the other side: see that it is."""
        if self._reader is None:
            link = self._link
            self._reader = ReaderWatch(
                link.loop,
                link.connection.outbox,
                self._write_timeout_s,
                progress=lambda: (link.bytes_sent, transport.get_write_buffer_size()),
                end=self._end_slow,
            )
        self._reader.watch()

    def _end_slow(self, waiting: int) -> None:
        link = self._link
        link.above.take(
            link.connection.fail_connection(RemoteProtocolError(Code.SLOW_CONSUMER, None, {"waiting": waiting}))
        )

    def stop(self) -> None:
        """Watch nothing any longer."""
        self._ticker.stop()
        if self._reader is not None:
            self._reader.stop()
            self._reader = None


class Ticker:
    """Calls ``tick`` when a state machine next has something to do."""

    __slots__ = ("_connection", "_loop", "_tick", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection, tick: Callable[[], None]) -> None:
        self._loop = loop
        self._connection = connection
        self._tick = tick
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Look when that is now, and set the timer if it is earlier than it was."""
        now = self._loop.time()
        due = self._connection.next_tick()
        if due == _NEVER:
            return
        due = max(due, now + TICK_S / 10)
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._pass)

    def _pass(self) -> None:
        self._timer = None
        self._tick()

    def stop(self) -> None:
        """Watch nothing any longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ReaderWatch:
    """Calls ``end``, with the bytes that wait, for another side that reads too slowly (spec/protocol.md, section 3).

    Such a side takes too little of the written bytes within ``timeout_s`` seconds; or, while the process has no
    more memory for its connections, one that keeps much there and takes too little of it in a moment. ``progress``
    gives the bytes that the transport got, ever, and the bytes that it still has.
    """

    __slots__ = ("_end", "_holding", "_loop", "_outbox", "_progress", "_timeout_s", "_writing")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outbox: Outbox,
        timeout_s: float,
        *,
        progress: Callable[[], tuple[int, int]],
        end: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._outbox = outbox
        self._timeout_s = timeout_s
        self._progress = progress
        self._end = end
        self._writing: asyncio.TimerHandle | None = None
        self._holding: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Look in some time, if that is not about to happen: something waits, here or in the transport."""
        if self._writing is None or self._holding is None:
            sent, unsent = self._progress()
            if unsent and self._writing is None:
                self._watch_writing(sent, unsent)
            if self._holding is None:
                self._watch_holding(sent - unsent)

    def _watch_writing(self, sent: int, unsent: int) -> None:
        self._writing = self._loop.call_later(self._timeout_s, self._look_at_writing, sent - unsent, sent)

    def _look_at_writing(self, before: int, until: int) -> None:
        self._writing = None
        sent, unsent = self._progress()
        written = sent - unsent
        # The bytes that waited at the beginning may have left since, and others wait now: that is not slow.
        if written < until and written - before < WRITTEN_MIN:
            self._end(unsent + self._outbox.size)
        elif unsent:
            self._watch_writing(sent, unsent)

    def _watch_holding(self, written: int) -> None:
        self._holding = self._loop.call_later(HOLDING_LOOK_S, self._look_at_holding, written)

    def _look_at_holding(self, before: int) -> None:
        self._holding = None
        sent, unsent = self._progress()
        waiting = self._outbox.settle(unsent)
        if waiting <= HELD_MIN:
            return
        if self._outbox.over_budget and sent - unsent - before < WRITTEN_MIN:
            self._end(waiting)
        else:
            self._watch_holding(sent - unsent)

    def stop(self) -> None:
        """Look no longer."""
        for timer in (self._writing, self._holding):
            if timer is not None:
                timer.cancel()


class IdleWatch:
    """Calls ``leave`` once no stream has been open for ``timeout_s`` seconds, looked at in quarters.

    ``waits`` tells whether a stream is about to be opened.
    """

    __slots__ = ("_connection", "_interval", "_leave", "_looks", "_loop", "_opened", "_timer", "_waits")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: Connection,
        timeout_s: float,
        *,
        waits: Callable[[], bool],
        leave: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._interval = timeout_s / _IDLE_LOOKS
        self._waits = waits
        self._leave = leave
        self._looks = 0
        self._opened = 0
        self._timer = loop.call_later(self._interval, self._look)

    def _look(self) -> None:
        opened = self._connection.streams_opened
        if self._connection.open_streams or self._waits() or opened != self._opened:
            self._looks = 0
            self._opened = opened
        else:
            self._looks += 1
        if self._looks < _IDLE_LOOKS:
            self._timer = self._loop.call_later(self._interval, self._look)
        else:
            self._leave()

    def stop(self) -> None:
        """Watch no longer."""
        self._timer.cancel()
