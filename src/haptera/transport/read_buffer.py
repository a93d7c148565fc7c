"""Reading into one place: for asyncio's own event loops, which else make a buffer for each read.

Such a buffer has 256 KiB. Where the allocator keeps none as large it is mapped and unmapped each time, which takes as
long as all the rest of a call. uvloop has a buffer of its own, and calls a plain protocol faster than a buffered one.
"""

from __future__ import annotations

import asyncio
import threading

from haptera.transport.limits import READ_SIZE_MAX

_of_this_thread = threading.local()


def read_into_place(transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
    """Have the bytes for ``protocol`` read into the buffer of this thread, if that is faster."""
    if isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
        transport.set_protocol(PlacedReading(protocol))


class PlacedReading(asyncio.BufferedProtocol):
    """Stands between a transport and a protocol: all of a thread are read into one buffer, one at a time."""

    __slots__ = ("_buffer", "_protocol")

    def __init__(self, protocol: asyncio.Protocol) -> None:
        buffer: memoryview | None = getattr(_of_this_thread, "buffer", None)
        if buffer is None:
            buffer = _of_this_thread.buffer = memoryview(bytearray(READ_SIZE_MAX))
        self._buffer = buffer
        self._protocol = protocol

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the place to read into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have been read. They are copied out, because the next one to be read uses the same place."""
        self._protocol.data_received(self._buffer[:nbytes].tobytes())

    def eof_received(self) -> bool | None:
        """The other side sends no more."""
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        """The socket takes less than is written."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The socket has caught up."""
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._protocol.connection_lost(exc)
