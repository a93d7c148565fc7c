"""The asyncio side of a transport: hands what arrives to a ``Peer``."""

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Final, cast

import msgspec

from haptera.peer.limits import TRANSPORT_HIGH, TRANSPORT_LOW

if TYPE_CHECKING:
    from haptera.peer.line import Line as Peer

_CREDENTIALS: Final = struct.Struct("3i")


class Credentials(msgspec.Struct, frozen=True):
    """Who is at the other end of a Unix socket, as the kernel says."""

    pid: int
    uid: int
    gid: int


class TransportProtocol(asyncio.Protocol):
    """Forwards a transport's callbacks to its peer."""

    def __init__(self, peer: "Peer") -> None:
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


def describe_remote(transport: asyncio.Transport) -> str:
    """Return a printable name of the other end."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        host, port = name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unix"


def unix_credentials(transport: asyncio.Transport) -> Credentials | None:
    """Return who is at the other end of a Unix socket; None for others, or where the system does not tell."""
    sock = transport.get_extra_info("socket")
    option = getattr(socket, "SO_PEERCRED", None)
    if sock is None or option is None or sock.family != socket.AF_UNIX:
        return None
    return Credentials(*_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)))
