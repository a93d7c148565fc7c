"""Reading into one place: for asyncio's own event loops, which else make a buffer for each read.

Such a buffer has 256 KiB. Where the allocator keeps none as large it is mapped and unmapped each time, which takes as
long as all the rest of a call. uvloop has a buffer of its own, and calls a plain protocol faster than a buffered one.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from haptera.peer.limits import READ_SIZE_MAX

if TYPE_CHECKING:
    from haptera.peer.link import Link

_of_this_thread = threading.local()


def read_into_place(transport: asyncio.Transport, link: Link) -> None:
    """Have the bytes for ``link`` read into the buffer of this thread, if that is faster."""
    if isinstance(link.loop, asyncio.SelectorEventLoop):
        transport.set_protocol(PlacedReading(link))


class PlacedReading(asyncio.BufferedProtocol):
    """Stands between a transport and a link: all links of a thread are read into one buffer, one at a time."""

    __slots__ = ("_buffer", "_link")

    def __init__(self, link: Link) -> None:
        buffer: memoryview | None = getattr(_of_this_thread, "buffer", None)
        if buffer is None:
            buffer = _of_this_thread.buffer = memoryview(bytearray(READ_SIZE_MAX))
        self._buffer = buffer
        self._link = link

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the place to read into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have been read. They are copied out, because the next link to be read uses the same place."""
        self._link.data_received(self._buffer[:nbytes].tobytes())

    def eof_received(self) -> bool:
        """The other side sends no more."""
        return self._link.eof_received()

    def pause_writing(self) -> None:
        """The socket takes less than is written."""
        self._link.pause_writing()

    def resume_writing(self) -> None:
        """The socket has caught up."""
        self._link.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._link.connection_lost(exc)
