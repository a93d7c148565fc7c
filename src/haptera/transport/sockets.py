"""The socket of one connection: how it writes, tuned, asked about its other side, let go in a forked child."""

from __future__ import annotations

import os
import socket
import sys
from asyncio.trsock import TransportSocket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if sys.platform == "linux":
    import fcntl
    import termios

from haptera.transport.limits import (
    KEEPALIVE_COUNT,
    KEEPALIVE_IDLE_S,
    KEEPALIVE_INTERVAL_S,
    NEAR_US,
    UNACKED_S,
    UNSENT_SIZE,
)

if TYPE_CHECKING:
    import asyncio

#: The place of the smoothed round trip in what Linux tells of a TCP connection (``struct tcp_info``), in microseconds.
_ROUND_TRIP: Final = slice(68, 72)

#: A socket's options, in so far as this system has them.
_TCP_OPTIONS: Final = (
    ("TCP_NOTSENT_LOWAT", UNSENT_SIZE),
    ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
    ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
    ("TCP_KEEPCNT", KEEPALIVE_COUNT),
    ("TCP_USER_TIMEOUT", UNACKED_S * 1000),
)


def gathers(transport: asyncio.BaseTransport) -> bool:
    """Whether ``writelines`` hands the kernel several pieces in one call, without a copy.

    uvloop does. asyncio copies them into one piece in Python 3.11, and in some releases of 3.12 and 3.13 it does not
    pause a protocol that has written too much in this way.
    """
    return type(transport).__module__.startswith("uvloop.")


def tune(transport: asyncio.BaseTransport) -> None:
    """Bound the bytes that wait in the kernel, and have it notice a host that is gone."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    # A connection that is already gone refuses options; it says so itself when it is read.
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _TCP_OPTIONS:
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def is_near(transport: asyncio.BaseTransport) -> bool:
    """Whether the other side is on this machine, or about as near: the kernel has measured the round trip to it.

    False where the system does not tell.
    """
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return True
    if sys.platform != "linux":
        return False
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ROUND_TRIP.stop)
    except OSError:
        return False
    return 0 < int.from_bytes(told[_ROUND_TRIP], sys.byteorder) <= NEAR_US


def _unacknowledged(transport: asyncio.BaseTransport) -> int:
    """Return how many bytes the kernel keeps of a TCP connection until the other side has them; 0 if it doesn't say."""
    sock = transport.get_extra_info("socket")
    if sys.platform != "linux" or sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return 0
    try:
        # SIOCOUTQ, which has the number of a terminal's request. The end of the sent bytes counts as one of them.
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return max(int.from_bytes(answer, sys.byteorder) - 1, 0)


def untaken(transport: asyncio.Transport) -> int:
    """Return the bytes that were written and that the other side has not taken, as far as the system tells."""
    return transport.get_write_buffer_size() + _unacknowledged(transport)


def let_go(sock: Any, *, may_be_stale: bool) -> None:
    """Close a socket whose loop cannot: the loop is its parent's, in a forked child, or is closed.

    Nothing is shut down, so that the parent's connection goes on. The descriptor's number stays taken, by
    ``/dev/null``: asyncio's transport still means to close it, and must not close the file that would get the number
    next. ``may_be_stale`` says that the transport has closed: uvloop's then still names a number that may be another
    file's by now.
    """
    if not hasattr(sock, "fileno") or (may_be_stale and not isinstance(sock, TransportSocket)):
        return  # a transport in memory has none
    descriptor = sock.fileno()
    if descriptor >= 0:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.dup2(nothing, descriptor, inheritable=False)
        finally:
            os.close(nothing)
