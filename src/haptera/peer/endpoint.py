"""Where connections come from: listening for them and dialling them (spec/protocol.md, section 1)."""

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

from haptera import __version__
from haptera.connection import Config, Connection, Role
from haptera.connection.config import Budget
from haptera.errors import ConfigurationError, ConnectionLost
from haptera.peer.address import TCP_SCHEME, UNIX_SCHEME, Address, format_host, parse
from haptera.peer.limits import DRAIN_S, WRITE_TIMEOUT_S
from haptera.peer.peer import Peer
from haptera.peer.protocol import TransportProtocol
from haptera.peer.service import Service
from haptera.peer.session import SessionService

#: Connections that the kernel may hold before they are accepted.
_BACKLOG: Final = 1024
_SOCKET_MODE: Final = 0o600
AGENT: Final = f"haptera-python/{__version__}"

_process_budget = Budget()


class Server:
    """A listener and the peers that came by it. ``async with`` closes it."""

    def __init__(self, url: str, path: str | None, on_peer: Callable[[Peer], None] | None) -> None:
        #: Where it listens, with the real port.
        self.url = url
        self.peers: set[Peer] = set()
        self.accepted = 0
        self._path = path
        self._inode = 0 if path is None else os.stat(path).st_ino
        self._on_peer = on_peer
        self._server: asyncio.Server | None = None

    def _start(self, server: asyncio.Server) -> None:
        self._server = server

    def _add(self, peer: Peer) -> None:
        if self._server is None:
            peer._abort()  # it was accepted just before the listener closed
            return
        self.accepted += 1
        self.peers.add(peer)
        if self._on_peer is not None:
            on_peer = self._on_peer
            peer._guard(lambda: on_peer(peer))

    def close(self) -> None:
        """Take no more connections; those that there are go on."""
        if self._server is not None:
            # A turn later: asyncio would neither hand over nor close what it has accepted in this one.
            self._server.get_loop().call_soon(self._server.close)
            self._server = None
            self._remove_socket()

    def _remove_socket(self) -> None:
        with suppress(FileNotFoundError):
            # Somebody may have put another socket in its place.
            if self._path is not None and os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)

    async def drain(self, timeout: float = DRAIN_S) -> None:
        """Take no more connections, and end those that there are in an orderly way within ``timeout`` seconds."""
        self.close()
        await asyncio.sleep(0)
        await asyncio.gather(*(peer.drain(timeout) for peer in list(self.peers)))

    async def aclose(self) -> None:
        """Take no more connections and close those that there are."""
        self.close()
        await asyncio.sleep(0)
        await asyncio.gather(*(peer.aclose() for peer in list(self.peers)))

    async def __aenter__(self) -> "Server":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


async def listen(
    url: str,
    *,
    services: Sequence[Service] = (),
    on_peer: Callable[[Peer], None] | None = None,
    server_id: bytes | None = None,
    mode: int = _SOCKET_MODE,
    write_timeout_s: float = WRITE_TIMEOUT_S,
    **config: Any,
) -> Server:
    """Listen on ``url`` and host ``services`` for whoever connects.

    ``on_peer`` is called with each new connection; ``mode`` is the file mode of a Unix socket. Who takes less than
    64 KiB in ``write_timeout_s`` seconds while more waits is disconnected. Other keywords are those of
    ``haptera.connection.Config``, for instance ``handshake_timeout_s`` and ``frame_timeout_s``. Raises
    ``ConfigurationError`` if the URL or the address cannot be used.
    """
    address = parse(url)
    _refuse_extras(address)
    loop = asyncio.get_running_loop()
    settings = _config(services, server_id=server_id if server_id is not None else os.urandom(16), **config)
    hosted = _hosted(services)
    sock, shown = _bind(address, mode)
    server = Server(shown, address.path if address.scheme == UNIX_SCHEME else None, on_peer)

    def accept() -> TransportProtocol:
        connection = Connection(Role.ACCEPTOR, settings, loop.time(), _process_budget)
        peer = Peer(
            connection,
            hosted,
            loop,
            on_open=server._add,
            on_lost=server.peers.discard,
            write_timeout_s=write_timeout_s,
        )
        return TransportProtocol(peer)

    try:
        listener: Any
        if address.scheme == UNIX_SCHEME:
            listener = await loop.create_unix_server(accept, sock=sock, backlog=_BACKLOG, start_serving=False)
        else:
            listener = await loop.create_server(accept, sock=sock, backlog=_BACKLOG, start_serving=False)
        server._start(listener)
        await listener.start_serving()
    except OSError as error:
        sock.close()
        raise _cannot_listen(address, error) from error
    return server


async def dial(
    url: str | Address,
    *,
    services: Sequence[Service] = (),
    timeout: float | None = 5.0,
    write_timeout_s: float = WRITE_TIMEOUT_S,
    **config: Any,
) -> Peer:
    """Connect to ``url`` and return the peer there, hosting ``services`` for it.

    It returns as soon as the transport is open: the handshake leaves together with the first calls in one write, and
    costs no round trip of its own. A handshake that fails fails those calls; ``await peer.ready()`` waits for it.

    Several hosts are tried in turn, within ``timeout`` seconds in all: each may take its share of what is left. Other
    keywords are those of ``listen``. Raises ``ConnectionLost`` (outcome ``not_applied``) if none can be reached,
    ``ConfigurationError`` for a URL that cannot be used.
    """
    address = parse(url) if isinstance(url, str) else url
    _refuse_extras(address)
    loop = asyncio.get_running_loop()
    settings = _config(services, **config)
    hosted = _hosted(services)

    def connect() -> TransportProtocol:
        connection = Connection(Role.DIALER, settings, loop.time(), _process_budget)
        return TransportProtocol(Peer(connection, hosted, loop, write_timeout_s=write_timeout_s))

    end = None if timeout is None else loop.time() + timeout
    places: tuple[str | tuple[str, int], ...] = address.hosts or (address.path,)
    failed: list[str] = []
    cause: Exception | None = None
    for left, place in zip(range(len(places), 0, -1), places, strict=True):
        share = None if end is None else (end - loop.time()) / left
        try:
            async with asyncio.timeout(share):
                if isinstance(place, str):
                    _, protocol = await loop.create_unix_connection(connect, place)
                else:
                    _, protocol = await loop.create_connection(connect, *place)
        except (OSError, TimeoutError) as error:
            cause = error
            name = place if isinstance(place, str) else format_host(*place)
            failed.append(f"cannot connect to {name}: {_reason(error)}")
        else:
            protocol.peer._schedule_flush()
            return protocol.peer
    raise ConnectionLost("; ".join(failed), outcome="not_applied") from cause


def _config(services: Sequence[Service], **config: Any) -> Config:
    names = tuple(sorted({service.name for service in services} | {SessionService.name}))
    return Config(entropy=os.urandom, agent=config.pop("agent", AGENT), services=names, **_given(config))


def _given(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if value is not None}


def _hosted(services: Sequence[Service]) -> list[Service]:
    hosted: dict[str, Service] = {SessionService.name: SessionService()}
    seen: set[str] = set()
    for service in services:
        if not service.name:
            raise ConfigurationError(f"{type(service).__name__} has no name")
        if service.name in seen:
            raise ConfigurationError(f"two services have the name {service.name!r}")
        seen.add(service.name)
        hosted[service.name] = service
    return list(hosted.values())


def _refuse_extras(address: Address) -> None:
    """Refuse what a URL may say one day and nothing here honours: a credential or an option is never dropped."""
    if address.user is not None:
        raise ConfigurationError(f"{address} has a user, and this version cannot authenticate")
    if address.options:
        name = next(iter(address.options))
        raise ConfigurationError(f"{address} has an option that this version does not know: {name!r}")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return str(error)


def _bind(address: Address, mode: int) -> tuple[socket.socket, str]:
    try:
        if address.scheme == UNIX_SCHEME:
            return _bind_unix(address.path, mode), f"{UNIX_SCHEME}://{quote(address.path)}"
        return _bind_tcp(address)
    except OSError as error:
        raise _cannot_listen(address, error) from error


def _cannot_listen(address: Address, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"cannot listen on {address}: {_reason(error)}")


def _bind_tcp(address: Address) -> tuple[socket.socket, str]:
    if len(address.hosts) != 1:
        raise ConfigurationError(f"{address} names several hosts; listen on each by itself")
    host, port = address.hosts[0]
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, place = infos[0]
    sock = socket.socket(family, kind, protocol)
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
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
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
