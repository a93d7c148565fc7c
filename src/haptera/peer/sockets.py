"""Sockets: bound to be listened on, and tuned for one connection (spec/protocol.md, section 1)."""

import asyncio
import errno
import os
import socket
import stat
from contextlib import suppress
from typing import Final
from urllib.parse import quote

from haptera.errors import ConfigurationError
from haptera.peer.address import TCP_SCHEME, UNIX_SCHEME, Address, format_host
from haptera.peer.limits import (
    BACKLOG,
    KEEPALIVE_COUNT,
    KEEPALIVE_IDLE_S,
    KEEPALIVE_INTERVAL_S,
    UNACKED_S,
    UNSENT_SIZE,
)

#: A socket's options, in so far as this system has them.
_TCP_OPTIONS: Final = (
    ("TCP_NOTSENT_LOWAT", UNSENT_SIZE),
    ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
    ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
    ("TCP_KEEPCNT", KEEPALIVE_COUNT),
    ("TCP_USER_TIMEOUT", UNACKED_S * 1000),
)


def tune(transport: asyncio.BaseTransport) -> None:
    """Bound what waits in the kernel, and have it notice a host that is gone."""
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


def reason_of(error: Exception) -> str:
    """Return why something could not be reached or bound, without its address."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return str(error)


def cannot_listen(address: Address, error: OSError) -> ConfigurationError:
    """Return the error for an address that cannot be listened on."""
    return ConfigurationError(f"cannot listen on {address}: {reason_of(error)}")


def bind(address: Address, mode: int) -> tuple[socket.socket, str]:
    """Return a socket that is bound to an address, and the URL of that with its real port.

    Raises ``ConfigurationError``.
    """
    try:
        if address.scheme == UNIX_SCHEME:
            return _bind_unix(address.path, mode), f"{UNIX_SCHEME}://{quote(address.path)}"
        return _bind_tcp(address)
    except OSError as error:
        raise cannot_listen(address, error) from error


class _Listening(socket.socket):
    """A socket with a backlog of its own: asyncio takes its to be how many connections it accepts at once, too."""

    def listen(self, backlog: int = BACKLOG) -> None:
        """Let others connect. ``backlog`` says nothing here."""
        super().listen(BACKLOG)


def _bind_tcp(address: Address) -> tuple[socket.socket, str]:
    if len(address.hosts) != 1:
        raise ConfigurationError(f"{address} names several hosts; listen on each by itself")
    host, port = address.hosts[0]
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, place = infos[0]
    sock = _Listening(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)
    except BaseException:
        sock.close()
        raise
    return sock, f"{TCP_SCHEME}://{format_host(host, sock.getsockname()[1])}"


def _bind_unix(path: str, mode: int) -> socket.socket:
    _remove_stale(path)
    sock = _Listening(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(path)
        # Nobody can connect before `listen`, so there is no moment at which the socket is open to others.
        os.chmod(path, mode)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any longer; leave everything else alone."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise ConfigurationError(f"{path} exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path)
        except OSError as error:
            raise ConfigurationError(f"{path} is in the way: {os.strerror(error.errno or errno.EIO)}") from error
        else:
            raise ConfigurationError(f"somebody listens on {path} already")
