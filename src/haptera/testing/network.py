"""A network in memory: addresses that are listened on and dialled within one event loop."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
from typing import TYPE_CHECKING, Any, Final

from haptera.testing.traffic import Wire
from haptera.testing.transport import BUFFER_SIZE, MemoryLink
from haptera.transport import BoundSockets, url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.transport import Address

__all__ = ["MemoryServer", "Network"]

#: (host, port), or the path of a Unix socket.
Place = tuple[str, int] | str

_FIRST_PORT: Final = 49152
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ANY: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  # nothing is bound


class Network(Wire):
    """All connections of one loop. Faults are a `Wire`'s, for every connection, present and future.

    ``links`` are the open connections; ``buffer`` is how many bytes may be under way on each, in each direction.
    """

    def __init__(self) -> None:
        super().__init__()
        self.buffer = BUFFER_SIZE
        self.links: list[MemoryLink] = []
        self._names: dict[str, tuple[str, ...]] = {}
        self._silent: set[str] = set()
        self._servers: dict[Place, MemoryServer] = {}
        self._ports = itertools.count(_FIRST_PORT)

    def sever(self) -> None:
        """Cut every open connection: both ends are reset. New ones can be made."""
        for link in list(self.links):
            link.sever()

    def name(self, name: str, *addresses: str) -> None:
        """Have a host's name stand for these addresses; none: it can't be resolved. Others stand for themselves."""
        self._names[name] = addresses

    def resolve(self, host: str) -> tuple[str, ...]:
        """Return the addresses of a host. Raises ``socket.gaierror`` for a name that has none."""
        addresses = self._names.get(host, (host,))
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return addresses

    def silence(self, address: str) -> None:
        """Leave attempts to connect to an address without an answer, as a host does that is powered off."""
        self._silent.add(_host(address))

    def bind(
        self,
        place: Place,
        accept: Callable[[], asyncio.BaseProtocol],
        *,
        serving: bool = True,
    ) -> MemoryServer:
        """Listen on a place; port 0 stands for one that is free.

        Connections are refused until the server serves.
        """
        if isinstance(place, tuple):
            host, port = _host(place[0]), place[1]
            place = host, port or next(port for port in self._ports if (host, port) not in self._servers)
        if place in self._servers:
            raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: {place!r}")
        server = MemoryServer(self, place, accept, serving=serving)
        self._servers[place] = server
        return server

    async def connect(
        self, place: Place, protocol_factory: Callable[[], asyncio.BaseProtocol]
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect to a place. It takes a round trip, and for ever while the network is paused or the host silent."""
        if isinstance(place, tuple) and _host(place[0]) in self._silent:
            await asyncio.get_running_loop().create_future()
        await self.to_acceptor.cross()
        await self.to_dialer.cross()
        server = self._server(place)
        if server is None or not server.is_serving():
            raise ConnectionRefusedError(f"nothing listens on {place!r} in this loop, which has no network but its own")
        dialer, acceptor = protocol_factory(), server._accept()
        name: Any = ("127.0.0.1", next(self._ports)) if isinstance(place, tuple) else ""
        link = MemoryLink(
            dialer,
            acceptor,
            buffer=self.buffer,
            directions=(self.to_acceptor, self.to_dialer),
            names=(name, place),
            on_closed=self.links.remove,
        )
        self.links.append(link)
        link.start()
        return link.dialer, dialer

    def _server(self, place: Place) -> MemoryServer | None:
        if isinstance(place, str):
            return self._servers.get(place)
        host, port = _host(place[0]), place[1]
        return self._servers.get((host, port)) or self._servers.get(("", port))


class SimulatedNetwork:
    """The network that the running loop has by itself, as ``haptera.listen`` and ``haptera.dial`` reach it."""

    async def listen(
        self, address: Address, mode: int, group: int | None, accept: Callable[[], asyncio.BaseProtocol]
    ) -> BoundSockets:
        """Listen on an address. A path has neither a mode nor a group here, because it is no file."""
        loop = asyncio.get_running_loop()
        if address.path:
            unix = await loop.create_unix_server(accept, address.path, start_serving=False)
            return BoundSockets([unix], url_of(address.path, address.scheme), None)
        host, port = address.hosts[0]
        server = await loop.create_server(accept, host, port, start_serving=False)
        return BoundSockets([server], url_of((host, server.sockets[0].getsockname()[1]), address.scheme), None)

    async def look_up(self, host: str, port: int) -> Sequence[tuple[Any, ...]]:
        """Return the addresses of a name."""
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


class BoundName:
    """The rest of a listening socket in memory: ``getsockname()``."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def getsockname(self) -> Place:
        """Return (host, port), or the path."""
        return self._place


class MemoryServer(asyncio.AbstractServer):
    """A listener on a `Network`."""

    def __init__(
        self,
        network: Network,
        place: Place,
        accept: Callable[[], asyncio.BaseProtocol],
        *,
        serving: bool,
    ) -> None:
        self.place: Final = place
        self._network = network
        self._accept = accept
        self._serving = serving
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def sockets(self) -> tuple[BoundName, ...]:
        """The stand-in for the listening socket: it knows its name, and nothing else."""
        return () if self._closed.done() else (BoundName(self.place),)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that it serves on."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether it takes connections."""
        return self._serving and not self._closed.done()

    async def start_serving(self) -> None:
        """Take connections."""
        self._serving = True

    async def serve_forever(self) -> None:
        """Serve until cancelled, then close."""
        await self.start_serving()
        try:
            await asyncio.shield(self._closed)
        finally:
            self.close()

    def close(self) -> None:
        """Take no more connections; the open ones go on."""
        if not self._closed.done():
            self._closed.set_result(None)
            del self._network._servers[self.place]

    async def wait_closed(self) -> None:
        """Wait for `close`."""
        await asyncio.shield(self._closed)


def _host(host: str | None) -> str:
    """One name for each host that goes by several."""
    if host is None or host in _ANY:
        return ""
    return "127.0.0.1" if host in _LOOPBACK else host
