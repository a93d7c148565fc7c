"""Connections in memory: two asyncio transports that behave as a socket's, without one."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from haptera.testing.recording import Piece, Recording
from haptera.testing.traffic import CHUNK_SIZE, Direction, Lane, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BUFFER_SIZE", "MemoryLink", "MemoryTransport"]

#: Bytes under way in one direction before a writer has to wait: a small kernel buffer, so that waiting is tested.
BUFFER_SIZE: Final = 64 * 1024

_WRITE_HIGH: Final = 64 * 1024


class MemoryTransport(asyncio.Transport):
    """One end of a `MemoryLink`.

    Written bytes go under way as far as the link's buffer has room; the rest waits here, and the protocol is asked
    to pause and to resume by the limits that it sets, as with a socket.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.BaseProtocol,
        extra: dict[str, Any],
        on_lost: Callable[[], None],
    ) -> None:
        super().__init__(extra)
        self._loop = loop
        self._on_lost = on_lost
        self._protocol = protocol
        self._out: Lane
        self._in: Lane
        self._capacity = BUFFER_SIZE
        self._buffer: deque[bytes] = deque()  # bounded by the protocol, which is asked to pause
        self._buffered = 0
        self._high, self._low = _WRITE_HIGH, _WRITE_HIGH // 4
        self._protocol_paused = False
        self._reading = True
        self._eof = False
        self._eof_sent = False
        self._closing = False
        self._lost = False

    def _connect(self, out: Lane, into: Lane, capacity: int) -> None:
        self._out, self._in, self._capacity = out, into, capacity

    # -- for the protocol -------------------------------------------------------------------------------------------

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give bytes that arrive from now on to another protocol."""
        self._protocol = protocol

    def is_closing(self) -> bool:
        """Whether the transport is closed or about to be."""
        return self._closing

    def is_reading(self) -> bool:
        """Whether arriving bytes are given to the protocol."""
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        """Leave arriving bytes where they are; the other side's writes wait once the buffer is full."""
        self._reading = False
        self._in.hold()

    def resume_reading(self) -> None:
        """Go on after `pause_reading`."""
        self._reading = True
        self._in.release()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes."""
        if self._closing or not data:
            return
        if self._eof:
            raise RuntimeError("write after write_eof")
        self._buffer.append(bytes(data))
        self._buffered += len(data)
        self._send()
        if self._buffered > self._high and not self._protocol_paused:
            self._protocol_paused = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """Always true."""
        return True

    def write_eof(self) -> None:
        """Say, behind the written bytes, that nothing more is sent."""
        if not self._eof:
            self._eof = True
            self._send()

    def get_write_buffer_size(self) -> int:
        """Bytes that wait because the link's buffer is full."""
        return self._buffered

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return (low, high)."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Ask the protocol to pause above ``high`` waiting bytes and to resume at ``low``."""
        if high is None:
            high = _WRITE_HIGH if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low

    def close(self) -> None:
        """Close when the written bytes are under way; nothing more is read."""
        if not self._closing:
            self._closing = self._eof = True
            self._send()

    def abort(self) -> None:
        """Close at once; bytes that wait here are lost, bytes under way arrive."""
        self._closing = self._eof = True
        self._buffer.clear()
        self._buffered = 0
        self._send()

    def reset(self) -> None:
        """Close at once and have the other side's connection reset, as a socket does that lingers for no time."""
        self._out.feed_reset()
        self._lose(None)

    # -- for the lanes ----------------------------------------------------------------------------------------------

    def deliver(self, data: bytes) -> None:
        """Give the bytes that arrived to the protocol."""
        if self._lost:
            # As TCP answers bytes for a closed socket.
            self._out.feed_reset()
        elif not self._closing:
            try:
                self._give(data)
            except Exception as error:
                self._fail(error, "data_received() has raised")

    def deliver_eof(self) -> None:
        """The other side sends no more."""
        if self._closing:
            return
        try:
            keep_open = cast("asyncio.Protocol", self._protocol).eof_received()
        except Exception as error:
            self._fail(error, "eof_received() has raised")
        else:
            if not keep_open:
                self.close()

    def deliver_reset(self) -> None:
        """The other side is gone."""
        self._lose(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def make_room(self) -> None:
        """All bytes under way have been delivered: send more."""
        self._send()
        if self._protocol_paused and self._buffered <= self._low:
            self._protocol_paused = False
            self._protocol.resume_writing()

    def _give(self, data: bytes) -> None:
        protocol = self._protocol
        if not isinstance(protocol, asyncio.BufferedProtocol):
            cast("asyncio.Protocol", protocol).data_received(data)
            return
        while data:
            buffer = memoryview(protocol.get_buffer(len(data)))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            protocol.buffer_updated(size)
            data = data[size:]

    def _send(self) -> None:
        while self._buffer and (room := self._capacity - self._out.size) > 0:
            data = self._buffer.popleft()
            if len(data) > room:
                self._buffer.appendleft(data[room:])
                data = data[:room]
            self._buffered -= len(data)
            self._out.feed(data)
        if self._eof and not self._buffer and not self._eof_sent:
            self._eof_sent = True
            self._out.feed_eof()
        if self._closing and not self._buffer:
            self._lose(None)

    def _fail(self, error: Exception, message: str) -> None:
        self._loop.call_exception_handler(
            {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
        )
        self._out.feed_reset()
        self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        self._closing = self._eof = True
        self._buffer.clear()
        self._buffered = 0
        if not self._lost:
            self._lost = True
            self._in.release()  # bytes that still come are answered with a reset
            self._loop.call_soon(self._protocol.connection_lost, error)
            self._on_lost()


class MemoryLink(Wire):
    """One connection in memory, between the protocols of its dialer and its acceptor.

    ``dialer`` and ``acceptor`` are their transports. ``latency`` is in seconds and ``chunk`` in bytes (both may be
    functions, see `Direction`), ``buffer`` is how many bytes may be under way in each direction. With ``record``
    all that is delivered is kept in ``recording``, up to 64 MiB. ``directions`` shares a network's instead,
    ``names`` are the addresses that the ends see, their own and the other's, and ``on_closed`` is told when both have
    closed.
    """

    def __init__(
        self,
        dialer: asyncio.BaseProtocol,
        acceptor: asyncio.BaseProtocol,
        *,
        latency: float | Callable[[], float] = 0.0,
        chunk: int | Callable[[], int] = CHUNK_SIZE,
        buffer: int = BUFFER_SIZE,
        record: bool = False,
        directions: tuple[Direction, Direction] | None = None,
        names: tuple[Any, Any] = ("dialer", "acceptor"),
        on_closed: Callable[[MemoryLink], None] | None = None,
    ) -> None:
        super().__init__()
        if buffer < 1:
            raise ValueError(f"buffer is a number of bytes above 0, not {buffer!r}")
        if directions is not None:
            self.to_acceptor: Direction = directions[0]
            self.to_dialer: Direction = directions[1]
        else:
            self.delay(latency)
            self.to_acceptor.chunk = self.to_dialer.chunk = chunk
        loop = asyncio.get_running_loop()
        self._on_closed = on_closed
        self.recording: Recording | None = Recording() if record else None
        ours, theirs = {"sockname": names[0], "peername": names[1]}, {"sockname": names[1], "peername": names[0]}
        self.dialer: MemoryTransport = MemoryTransport(loop, dialer, ours, self._end_lost)
        self.acceptor: MemoryTransport = MemoryTransport(loop, acceptor, theirs, self._end_lost)
        self._lanes = (
            Lane(loop, self.to_acceptor, self.acceptor, self.dialer.make_room, self._recorder(loop, self.to_acceptor)),
            Lane(loop, self.to_dialer, self.dialer, self.acceptor.make_room, self._recorder(loop, self.to_dialer)),
        )
        self.dialer._connect(self._lanes[0], self._lanes[1], buffer)
        self.acceptor._connect(self._lanes[1], self._lanes[0], buffer)

    def start(self) -> None:
        """Tell both protocols that the connection is made."""
        self.acceptor.get_protocol().connection_made(self.acceptor)
        self.dialer.get_protocol().connection_made(self.dialer)

    @property
    def closed(self) -> bool:
        """Whether both ends have closed."""
        return self.dialer._lost and self.acceptor._lost

    def sever(self) -> None:
        """Cut the connection: both ends are reset, and bytes under way are lost."""
        for lane in self._lanes:
            lane.close()
        self.dialer.deliver_reset()
        self.acceptor.deliver_reset()

    def _recorder(self, loop: asyncio.AbstractEventLoop, direction: Direction) -> Callable[[bytes], None] | None:
        recording = self.recording
        if recording is None:
            return None
        started = loop.time()
        return lambda data: recording.add(Piece(1, loop.time() - started, direction.name, data))

    def _end_lost(self) -> None:
        if self.closed:
            for lane in self._lanes:
                lane.close()
            if self._on_closed is not None:
                self._on_closed(self)
