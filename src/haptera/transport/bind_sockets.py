"""Sockets that are listened on: bound to a host's addresses or to a path (spec/protocol.md, section 1)."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import ConfigurationError
from haptera.transport.limits import ADDRESSES_MAX, BACKLOG, SOCKET_PATH_MAX

if TYPE_CHECKING:
    from haptera.transport.address import Address

#: How often a port is chosen that all addresses of a name shall have. It is taken on one of them once in thousands.
_PORT_ATTEMPTS_MAX: Final = 8
_NO_SUCH_ADDRESS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


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


def check_single(address: Address) -> None:
    """Raise ``ConfigurationError`` for an address of several hosts, which can be dialled only."""
    if len(address.hosts) > 1:
        raise ConfigurationError(f"{address} names several hosts; listen on each by itself")


def check_free(address: Address, directory: str) -> None:
    """Raise ``ConfigurationError`` for an address that cannot be listened on just now. No file is made or removed.

    ``directory`` may be missing: the caller makes it before it listens.
    """
    check_single(address)
    try:
        if address.path:
            _check_place(address.path, directory)
            _is_stale(address.path)
        else:
            for sock in _bind_host(*address.hosts[0]):
                sock.close()
    except OSError as error:
        raise cannot_listen(address, error) from error


def bind(address: Address, mode: int, group: int | None) -> list[socket.socket]:
    """Return a socket for each address of a host, all with one port, or the one of a path. Raises ``OSError``."""
    if address.path:
        return [_bind_unix(address.path, mode, group)]
    return _bind_host(*address.hosts[0])


def remove_socket(path: str) -> None:
    """Remove the socket at ``path``, if there is one. Anything but a socket stays. Raises ``OSError``.

    The caller knows that no process listens on it: an open socket that a killed node's child has inherited looks the
    same as one in use.
    """
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


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
    if _is_stale(path):
        with suppress(FileNotFoundError):
            os.unlink(path)
    sock = _Listening(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(path)
        # A connection needs `listen` first, so that at no moment is the socket open to others.
        if group is not None:
            os.chown(path, -1, group)
        os.chmod(path, mode)
    except BaseException:
        sock.close()
        raise
    return sock


def _check_place(path: str, directory: str) -> None:
    """Raise ``OSError`` where no socket can be made at ``path``, for which ``directory`` need not be there yet."""
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise OSError(errno.ENAMETOOLONG, "the path is too long")
    parent = os.path.dirname(path)
    if not os.path.exists(parent) and os.path.realpath(parent) == os.path.realpath(directory):
        return
    os.stat(os.path.join(parent, "."))  # its own error says why it is none
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, "no file can be made there")


def _is_stale(path: str) -> bool:
    """Whether there is a socket on which no process listens. Raises ``ConfigurationError`` for anything else there."""
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
