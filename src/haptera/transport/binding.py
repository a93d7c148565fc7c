"""Sockets: bound to be listened on, and tuned for one connection (spec/protocol.md, section 1)."""

import asyncio
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

if sys.platform == "linux":
    import fcntl
    import termios

from haptera.errors import ConfigurationError
from haptera.peer.address import UNIX_SCHEME, Address, url_of
from haptera.peer.limits import (
    ACCEPTED_PER_TURN,
    ADDRESSES_MAX,
    BACKLOG,
    KEEPALIVE_COUNT,
    KEEPALIVE_IDLE_S,
    KEEPALIVE_INTERVAL_S,
    UNACKED_S,
    UNSENT_SIZE,
)

#: How often a port is chosen that all addresses of a name shall have. It is taken on one of them once in thousands.
_PORT_ATTEMPTS_MAX: Final = 8
_NO_SUCH_ADDRESS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

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


def unacknowledged(transport: asyncio.BaseTransport) -> int:
    """Return how many bytes the kernel keeps of a TCP connection until the other side has them; 0 if it doesn't say."""
    sock = transport.get_extra_info("socket")
    if sys.platform != "linux" or sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return 0
    try:
        # SIOCOUTQ, which has the number of a terminal's request. The end of what is sent counts as a byte of it.
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return max(int.from_bytes(answer, sys.byteorder) - 1, 0)


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


def check_free(address: Address) -> None:
    """Raise ``ConfigurationError`` for an address that cannot be listened on just now. No file is made or removed."""
    try:
        if address.scheme == UNIX_SCHEME:
            _is_stale(address.path)
        else:
            for sock in _bind_host(*address.hosts[0]):
                sock.close()
    except OSError as error:
        raise cannot_listen(address, error) from error


async def open_listeners(
    address: Address, mode: int, group: int | None, accept: Callable[[], asyncio.BaseProtocol]
) -> tuple[list[asyncio.AbstractServer], str, str | None]:
    """Return listeners that take no connections yet, one for each address of the host, their URL with the real port,
    and the path of their file, if there is one.

    A loop with ``simulates_network`` (``haptera.testing``) has addresses of its own, and no kernel is asked for them.
    Raises ``ConfigurationError``.
    """
    if len(address.hosts) > 1:
        raise ConfigurationError(f"{address} names several hosts; listen on each by itself")
    try:
        if getattr(asyncio.get_running_loop(), "simulates_network", False):
            return await _simulate(address, accept)
        return await _listen(address, mode, group, accept)
    except OSError as error:
        raise cannot_listen(address, error) from error


async def _simulate(
    address: Address, accept: Callable[[], asyncio.BaseProtocol]
) -> tuple[list[asyncio.AbstractServer], str, str | None]:
    loop = asyncio.get_running_loop()
    if address.scheme == UNIX_SCHEME:
        return [await loop.create_unix_server(accept, address.path, start_serving=False)], _url_of(address), None
    host, port = address.hosts[0]
    server = await loop.create_server(accept, host, port, start_serving=False)
    return [server], _url_of(address, server.sockets[0].getsockname()[1]), None


async def _listen(
    address: Address, mode: int, group: int | None, accept: Callable[[], asyncio.BaseProtocol]
) -> tuple[list[asyncio.AbstractServer], str, str | None]:
    loop = asyncio.get_running_loop()
    # asyncio's own loop accepts as many at once as it calls its backlog; that of the kernel is the socket's.
    backlog = ACCEPTED_PER_TURN if isinstance(loop, asyncio.BaseEventLoop) else BACKLOG
    unix = address.scheme == UNIX_SCHEME
    sockets = [_bind_unix(address.path, mode, group)] if unix else _bind_host(*address.hosts[0])
    port = 0 if unix else sockets[0].getsockname()[1]
    create = loop.create_unix_server if unix else loop.create_server
    servers: list[asyncio.AbstractServer] = []
    try:
        for sock in sockets:
            server: asyncio.AbstractServer = await create(accept, sock=sock, backlog=backlog, start_serving=False)
            servers.append(server)
    except BaseException:
        for begun in servers:
            begun.close()
        for sock in sockets:
            sock.close()
        raise
    return servers, _url_of(address, port), address.path if unix else None


def _url_of(address: Address, port: int = 0) -> str:
    return url_of(address.path or (address.hosts[0][0], port))


class _Listening(socket.socket):
    """A socket with a backlog of its own: asyncio takes its to be how many connections it accepts at once, too."""

    def listen(self, backlog: int = BACKLOG) -> None:
        """Let others connect. ``backlog`` says nothing here."""
        super().listen(BACKLOG)


def _bind_host(host: str, port: int) -> list[socket.socket]:
    """Return a socket for each address of a host, all with one port: a dialler of the name may try any of them.

    An address that this machine does not have is left out, such as the IPv6 one of ``localhost`` where IPv6 is off, as
    long as there is another.
    """
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    infos = list(dict.fromkeys(infos))[:ADDRESSES_MAX]
    for attempt in range(1, _PORT_ATTEMPTS_MAX + 1):
        try:
            return _bind_all(infos, port)
        except OSError as error:
            # The port that the kernel chose for the first address may be taken on another.
            if port or error.errno != errno.EADDRINUSE or attempt == _PORT_ATTEMPTS_MAX:
                raise
    raise AssertionError("the last attempt returns or raises")


def _bind_all(infos: Sequence[tuple[Any, ...]], port: int) -> list[socket.socket]:
    bound: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, kind, protocol, _, (host, _, *more) in infos:
            try:
                sock = _bind_tcp(family, kind, protocol, (host, port, *more))
            except OSError as error:
                if error.errno not in _NO_SUCH_ADDRESS:
                    raise
                missing = error
            else:
                bound.append(sock)
                port = sock.getsockname()[1]
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    if missing is not None and not bound:
        raise missing
    return bound


def _bind_tcp(family: int, kind: int, protocol: int, place: tuple[Any, ...]) -> socket.socket:
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
    return sock


def group_id(group: str | int) -> int:
    """Return the id of a group that is given by its name or its number. Raises ``ConfigurationError``."""
    if isinstance(group, str) and not group.isdecimal():
        import grp  # noqa: PLC0415 - not every platform has it

        try:
            return grp.getgrnam(group).gr_gid
        except KeyError:
            raise ConfigurationError(f"there is no group {group!r}") from None
    return int(group)


def _bind_unix(path: str, mode: int, group: int | None) -> socket.socket:
    _remove_stale(path)
    sock = _Listening(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(path)
        # Nobody can connect before `listen`, so there is no moment at which the socket is open to others.
        if group is not None:
            os.chown(path, -1, group)
        os.chmod(path, mode)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any longer; leave everything else alone."""
    if _is_stale(path):
        with suppress(FileNotFoundError):
            os.unlink(path)


def _is_stale(path: str) -> bool:
    """Whether there is a socket that nobody listens on. Raises ``ConfigurationError`` where something else is there."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise ConfigurationError(f"{path} exists and is not a socket")
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError as error:
            raise ConfigurationError(f"{path} is in the way: {os.strerror(error.errno or errno.EIO)}") from error
        else:
            raise ConfigurationError(f"somebody listens on {path} already")
