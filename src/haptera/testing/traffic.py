"""The fate of bytes on their way: waiting, slowness, black holes, damage, and counts of all that passes.

A `Direction` says how traffic one way fares and counts it; a `Lane` is the queue of one connection in it. The
in-memory transport and the proxy are made of the same two, so a fault means the same in both.
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CHUNK_SIZE", "Direction", "DirectionName", "Lane", "Sink", "Wire"]

#: Which way: to the side that was dialled (the server), or to the side that dialled.
DirectionName = Literal["to_acceptor", "to_dialer"]

#: Bytes that are delivered at once unless a test says otherwise: as many as asyncio reads from a socket at once.
CHUNK_SIZE: Final = 256 * 1024

#: Traffic with a rate is delivered in pieces of so many seconds' worth: smooth, and few timers.
RATE_SLICE_S: Final = 0.01

#: A loop's timers may come earlier than asked for by its clock's resolution.
TIMER_SLACK_S: Final = 1e-6


class Sink(Protocol):
    """The receiving end of a lane."""

    def deliver(self, data: bytes) -> None:
        """Take some bytes."""

    def deliver_eof(self) -> None:
        """The sender sends no more."""

    def deliver_reset(self) -> None:
        """The connection is gone."""


class Direction:
    """Traffic one way, over every connection of a link, network or proxy.

    ``sent`` counts the bytes that the sender sent and ``writes`` the pieces it sent them in; ``delivered`` counts the
    bytes that the receiver was given and ``reads`` the pieces it was given them in. (A proxy sees a sender's writes as
    its socket gives them, which may join or split them; in memory each write is one.) ``corrupted`` counts flipped
    bits. ``chunk`` is how many bytes are delivered at once at most: a number, or a function that is asked each time.
    """

    def __init__(self, name: DirectionName) -> None:
        self.name: Final = name
        self.chunk: int | Callable[[], int] = CHUNK_SIZE
        self.sent = 0
        self.writes = 0
        self.delivered = 0
        self.reads = 0
        self.corrupted: int = 0
        self.paused: bool = False
        self._latency: float | Callable[[], float] = 0.0
        self._rate: float | None = None
        self._flips: list[tuple[int, int]] = []
        self._lanes: dict[Lane, None] = {}  # not a set: their order is the same in every run
        self._waiting: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"<Direction {self.name}: {self.sent} bytes sent, {self.delivered} delivered>"

    def pause(self) -> None:
        """Deliver nothing: a black hole. Bytes wait, as far as the buffers go; connections stay open."""
        self.paused = True

    def resume(self) -> None:
        """Deliver again, beginning with what has waited."""
        self.paused = False
        for lane in list(self._lanes):
            lane.schedule()
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def delay(self, seconds: float | Callable[[], float]) -> None:
        """Deliver bytes sent from now on so much later; a function is asked for each piece. Order is kept."""
        self._latency = seconds

    def limit(self, bytes_per_second: float | None) -> None:
        """Deliver no more than so much on each connection; None for no limit."""
        if bytes_per_second is not None and not bytes_per_second > 0:
            raise ValueError(f"bytes_per_second is a number above 0 or None, not {bytes_per_second!r}")
        self._rate = bytes_per_second

    def corrupt(self, *, at: int, bit: int = 0) -> None:
        """Flip one bit, once: ``bit`` (0 to 7, 0 the least significant) of the byte at offset ``at`` of a connection.

        It is done on the first connection whose byte at that offset is yet to be delivered.
        """
        if at < 0 or not 0 <= bit <= 7:
            raise ValueError(f"at is an offset and bit is from 0 to 7, not {at!r} and {bit!r}")
        self._flips.append((at, bit))

    async def cross(self) -> None:
        """Wait for as long as something that is sent now takes to arrive."""
        await asyncio.sleep(self._next_latency())
        while self.paused:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def _next_latency(self) -> float:
        return self._latency() if callable(self._latency) else self._latency

    def _next_size(self) -> int:
        size = self.chunk() if callable(self.chunk) else self.chunk
        return max(1, size if self._rate is None else min(size, int(self._rate * RATE_SLICE_S)))

    def _flip(self, data: bytes, offset: int) -> bytes:
        """Return the bytes at ``offset`` of a connection with the bits flipped that were asked for."""
        hit = [flip for flip in self._flips if offset <= flip[0] < offset + len(data)]
        if not hit:
            return data
        damaged = bytearray(data)
        for at, bit in hit:
            damaged[at - offset] ^= 1 << bit
            self._flips.remove((at, bit))
            self.corrupted += 1
        return bytes(damaged)


class _Mark(Enum):
    """A mark that a lane carries beside bytes."""

    EOF = "eof"
    RESET = "reset"


class Lane:
    """The bytes of one connection on their way in one direction, in order.

    ``size`` is how many are under way; ``on_room`` is called when it has become less. ``on_delivery`` sees each piece
    as it is delivered.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        direction: Direction,
        sink: Sink,
        on_room: Callable[[], None],
        on_delivery: Callable[[bytes], None] | None = None,
    ) -> None:
        self.size: int = 0
        self.offset: int = 0
        self._loop = loop
        self._direction = direction
        self._sink = sink
        self._on_room = on_room
        self._on_delivery = on_delivery
        self._queue: deque[tuple[float, bytes | _Mark]] = deque()  # bounded by the feeder, through `size`
        self._taken = 0  # of the first in the queue
        self._last_due = 0.0
        self._free_at = 0.0
        self._held = False
        self._closed = False
        self._timer: asyncio.Handle | None = None
        direction._lanes[self] = None

    def feed(self, data: bytes) -> None:
        """Take bytes from the sender."""
        self._direction.sent += len(data)
        self._direction.writes += 1
        self.size += len(data)
        self._enqueue(data)

    def feed_eof(self) -> None:
        """Take the end of the sender's bytes."""
        self._enqueue(_Mark.EOF)

    def feed_reset(self) -> None:
        """Take the news that the connection is gone."""
        self._enqueue(_Mark.RESET)

    def hold(self) -> None:
        """The receiver can take no more for now."""
        self._held = True

    def release(self) -> None:
        """The receiver takes more again."""
        self._held = False
        self.schedule()

    def close(self) -> None:
        """Drop the bytes under way and all that are still fed."""
        self._closed = True
        self._direction._lanes.pop(self, None)
        self._queue.clear()
        self.size = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def schedule(self) -> None:
        """See to it that due bytes are delivered, unless they may not be."""
        if self._timer is not None or self._held or self._direction.paused or not self._queue:
            return
        due = max(self._queue[0][0], self._free_at)
        if due <= self._loop.time():
            self._timer = self._loop.call_soon(self._deliver)
        else:
            self._timer = self._loop.call_at(due, self._deliver)

    def _enqueue(self, item: bytes | _Mark) -> None:
        if self._closed:
            self.size = 0
            return
        # Never before bytes that were sent earlier. One timer a lane, for its head, also keeps the order.
        self._last_due = max(self._last_due, self._loop.time() + self._direction._next_latency())
        self._queue.append((self._last_due, item))
        self.schedule()

    def _deliver(self) -> None:
        self._timer = None
        if self._held or self._direction.paused:
            return
        item = self._queue[0][1]
        if isinstance(item, _Mark):
            self._queue.popleft()
            if item is _Mark.EOF:
                self._sink.deliver_eof()
            else:
                self._sink.deliver_reset()
        else:
            data = self._take(self._direction._next_size())
            self._count(data)
            self._sink.deliver(self._direction._flip(data, self.offset - len(data)))
            self._on_room()
        self.schedule()

    def _take(self, size: int) -> bytes:
        """Take due bytes from the queue, at most ``size``."""
        now = self._loop.time() + TIMER_SLACK_S
        pieces: list[bytes] = []
        while self._queue and size:
            due, item = self._queue[0]
            if due > now or isinstance(item, _Mark):
                break
            piece = item[self._taken : self._taken + size] if self._taken or len(item) > size else item
            pieces.append(piece)
            size -= len(piece)
            self._taken += len(piece)
            if self._taken == len(item):
                self._queue.popleft()
                self._taken = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _count(self, data: bytes) -> None:
        direction = self._direction
        self.size -= len(data)
        self.offset += len(data)
        direction.delivered += len(data)
        direction.reads += 1
        if direction._rate is not None:
            self._free_at = max(self._free_at, self._loop.time()) + len(data) / direction._rate
        if self._on_delivery is not None:
            self._on_delivery(data)


class Wire:
    """Something that carries connections both ways: a link, a network, a proxy.

    ``to_acceptor`` and ``to_dialer`` are its two directions. The methods here do the same to both, or to the one that
    is named.
    """

    def __init__(self) -> None:
        self.to_acceptor: Direction = Direction("to_acceptor")
        self.to_dialer: Direction = Direction("to_dialer")

    def pause(self, direction: DirectionName | None = None) -> None:
        """Deliver nothing until `resume`: connections stay open, and silent."""
        for each in self._directions(direction):
            each.pause()

    def resume(self, direction: DirectionName | None = None) -> None:
        """Deliver again, beginning with what has waited."""
        for each in self._directions(direction):
            each.resume()

    def delay(self, seconds: float | Callable[[], float], direction: DirectionName | None = None) -> None:
        """Deliver bytes sent from now on so many seconds later; a function is asked for each piece."""
        for each in self._directions(direction):
            each.delay(seconds)

    def limit(self, bytes_per_second: float | None, direction: DirectionName | None = None) -> None:
        """Deliver no more than so much on each connection; None for no limit."""
        for each in self._directions(direction):
            each.limit(bytes_per_second)

    def corrupt(self, direction: DirectionName, *, at: int, bit: int = 0) -> None:
        """Flip ``bit`` (0 to 7) of the byte at offset ``at`` of a connection, once. See `Direction.corrupt`."""
        for each in self._directions(direction):
            each.corrupt(at=at, bit=bit)

    def _directions(self, name: DirectionName | None) -> tuple[Direction, ...]:
        match name:
            case None:
                return self.to_acceptor, self.to_dialer
            case "to_acceptor":
                return (self.to_acceptor,)
            case "to_dialer":
                return (self.to_dialer,)
            case _:
                raise ValueError(f"a direction is 'to_acceptor' or 'to_dialer', not {name!r}")
