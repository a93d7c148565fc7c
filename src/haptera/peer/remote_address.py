"""The other end of a transport, as far as the system tells."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    import asyncio

_CREDENTIALS: Final = struct.Struct("3i")


class Credentials(msgspec.Struct, frozen=True):
    """The process at the other end of a Unix socket, as the kernel tells."""

    pid: int
    uid: int
    gid: int


def describe_remote(transport: asyncio.Transport) -> str:
    """Return a printable name of the other end."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        host, port = name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unix"


def unix_credentials(transport: asyncio.Transport) -> Credentials | None:
    """Return the process at the other end of a Unix socket; None for others, or where the system does not tell."""
    sock = transport.get_extra_info("socket")
    option = getattr(socket, "SO_PEERCRED", None)
    if sock is None or option is None or sock.family != socket.AF_UNIX:
        return None
    return Credentials(*_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)))
