"""The other end of a transport, as far as the system tells."""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    import asyncio

_CREDENTIALS: Final = struct.Struct("3i")
#: Of macOS, which has other names: `struct xucred` (version, uid, count and 16 groups) and the number of the process.
_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = 1
_LOCAL_PEERPID: Final = 2
_XUCRED: Final = struct.Struct("=IIh2x16I")


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


def host_of(remote: str) -> str:
    """Return the host of a name that `describe_remote` gives; empty for a Unix socket."""
    return remote.rpartition(":")[0].strip("[]")


def address_of(remote: str, credentials: Credentials | None) -> str:
    """Return where the other end is: its address without a port, or of a Unix socket the user of its process."""
    if credentials is not None:
        return f"unix:{credentials.uid}"
    return host_of(remote) or remote


def place_of(remote: str, credentials: Credentials | None) -> str:
    """Return where the other end is, for a share of each place: its network, or the user of its process."""
    from haptera.security import network_of  # noqa: PLC0415  # listeners alone have shares

    return network_of(address_of(remote, credentials))


def unix_credentials(transport: asyncio.Transport) -> Credentials | None:
    """Return the process at the other end of a Unix socket; None for others, or where the system does not tell."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    option = getattr(socket, "SO_PEERCRED", None)
    if option is not None:
        return Credentials(*_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)))
    return of_macos(sock) if sys.platform == "darwin" else None


def of_macos(sock: socket.socket) -> Credentials | None:
    """Return the same as macOS tells it."""
    try:
        told = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size)
        pid = int.from_bytes(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4), sys.byteorder)
    except OSError:  # the other side has gone
        return None
    if len(told) < _XUCRED.size:
        return None
    _, uid, _, gid, *_ = _XUCRED.unpack(told)
    return Credentials(pid, uid, gid)
