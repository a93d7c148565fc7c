"""The asyncio side of a transport: hands what arrives to a ``Peer``."""

import asyncio
from typing import cast

from haptera.peer.limits import TRANSPORT_HIGH, TRANSPORT_LOW
from haptera.peer.line import Line


class TransportProtocol(asyncio.Protocol):
    """Forwards a transport's callbacks to its peer."""

    def __init__(self, peer: Line) -> None:
        self.peer = peer
        # The transport looks this up for each read: one call less than a method that forwards.
        self.data_received = peer._receive  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is open."""
        stream = cast("asyncio.Transport", transport)
        stream.set_write_buffer_limits(high=TRANSPORT_HIGH, low=TRANSPORT_LOW)
        self.peer._open(stream)

    def pause_writing(self) -> None:
        """The socket takes less than is written."""
        self.peer._pause()

    def resume_writing(self) -> None:
        """The socket has caught up."""
        self.peer._resume()

    def eof_received(self) -> bool:
        """The other side sends no more; true keeps our half open, for what is still queued."""
        return self.peer._receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self.peer._lost(exc)
