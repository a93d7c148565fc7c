"""The network of an event loop: the kernel's, unless another one is attached to the loop.

Listening and looking names up go through here. Connecting does not, because a loop that has a network of its own has
``create_connection`` of its own as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from haptera.transport.address import Address, url_of
from haptera.transport.bind_sockets import bind
from haptera.transport.limits import ACCEPTED_PER_TURN, BACKLOG
from haptera.transport.lookups import Addresses, look_up

#: Makes the protocol of one accepted connection.
Accept = Callable[[], asyncio.BaseProtocol]


class BoundSockets(NamedTuple):
    """Listeners that take no connections yet, one for each address of a host, and their URL with the real port.

    ``path`` is the file of a Unix socket.
    """

    servers: Sequence[asyncio.AbstractServer]
    url: str
    path: str | None


class LoopNetwork(Protocol):
    """A network that an event loop can reach."""

    async def listen(self, address: Address, mode: int, group: int | None, accept: Accept) -> BoundSockets:
        """Bind all of an address. Raises ``OSError``."""

    async def look_up(self, host: str, port: int) -> Addresses:
        """Return the addresses of a name. Raises ``OSError`` or ``UnicodeError``."""


class Kernel:
    """The network of the machine."""

    async def listen(self, address: Address, mode: int, group: int | None, accept: Accept) -> BoundSockets:
        """Bind all of an address. Raises ``OSError``, and ``ConfigurationError`` for a path that is taken."""
        loop = asyncio.get_running_loop()
        # asyncio's own loop accepts as many at once as it calls its backlog; that of the kernel is the socket's.
        backlog = ACCEPTED_PER_TURN if isinstance(loop, asyncio.BaseEventLoop) else BACKLOG
        create = loop.create_unix_server if address.path else loop.create_server
        sockets = bind(address, mode, group)
        url = url_of(address.path or (address.hosts[0][0], sockets[0].getsockname()[1]), address.scheme)
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
        return BoundSockets(servers, url, address.path or None)

    async def look_up(self, host: str, port: int) -> Addresses:
        """Return the addresses of a name, from a lookup that may have begun for others, and goes on for others."""
        return await look_up(host, port)


KERNEL: Final = Kernel()
_attached: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopNetwork] = WeakKeyDictionary()


def attach(loop: asyncio.AbstractEventLoop, network: LoopNetwork) -> None:
    """Have everything that listens or looks names up on ``loop`` use ``network``."""
    _attached[loop] = network


def network_here() -> LoopNetwork:
    """Return the network of the running loop."""
    return _attached.get(asyncio.get_running_loop(), KERNEL)
