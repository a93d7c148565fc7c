"""A proxy that can be cut: it stands between a client and a server and fails as networks do."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from haptera import forks
from haptera.errors import ConfigurationError
from haptera.testing.directories import socket_directory
from haptera.testing.recording import Piece, Recording
from haptera.testing.traffic import Lane, Wire
from haptera.testing.transport import MemoryTransport
from haptera.transport import TCP_SCHEME, UNIX_SCHEME, let_go, parse, wrong_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haptera.testing.traffic import Direction, DirectionName

__all__ = ["Proxy", "proxy"]

#: Bytes that the proxy takes from a sender before it stops reading. With the kernels' buffers on both sides they are
#: what a paused connection swallows.
QUEUE_SIZE: Final = 256 * 1024

_LINGER_NO_TIME: Final = struct.pack("ii", 1, 0)


class Proxy(Wire):
    """A proxy in front of one address; ``url`` is where it listens. Made by `proxy`.

    Faults hold for all connections, present and future. ``connections`` counts the accepted ones,
    ``severed`` the ones that the proxy cut, ``open_connections`` the open ones; ``recording`` has the bytes, if
    that was asked for.
    """

    def __init__(self, upstream: str, *, record: bool = False) -> None:
        super().__init__()
        address = parse(upstream)
        if len(address.hosts) > 1:
            raise ConfigurationError(f"{address} names several hosts; a proxy stands in front of one")
        self.url: str = ""
        self.connections = 0
        self.severed = 0
        self.recording: Recording | None = Recording() if record else None
        self._pieces_max: dict[DirectionName, int] = {}
        self._upstream = upstream
        self._address = address
        self._tunnels: dict[_Tunnel, None] = {}
        self._server: asyncio.AbstractServer | None = None
        self._directory: str | None = None
        self._place: tuple[str, int] | str = ("127.0.0.1", 0)
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._forked_from = 0  # in a forked child, the process that has the proxy
        forks.watch(self)

    def disown(self, owner: int) -> None:
        """Leave the proxy to the process ``owner`` that this one was forked from (``haptera.forks`` calls this)."""
        self._forked_from = self._forked_from or owner
        self._directory = None
        server, self._server = self._server, None
        sockets = [] if server is None else list(cast("asyncio.Server", server).sockets)
        for tunnel in self._tunnels:
            sockets += [end.transport.get_extra_info("socket") for end in tunnel.ends if end.transport is not None]
        self._tunnels = {}
        for sock in sockets:
            let_go(sock, may_be_stale=self._loop.is_closed())

    def _check_process(self) -> None:
        if self._forked_from:
            raise wrong_loop(f"the proxy at {self.url}", self._loop, self._forked_from)

    def _directions(self, name: DirectionName | None) -> tuple[Direction, ...]:
        self._check_process()
        return super()._directions(name)

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._tunnels)

    async def start(self) -> None:
        """Listen, on TCP in front of TCP and on a Unix socket in front of one."""
        if self._address.path:
            self._directory = socket_directory()
            self._place = os.path.join(self._directory, "proxy.sock")
        await self.accept()

    async def accept(self) -> None:
        """Listen again after `refuse`, at the same address."""
        self._check_process()
        if self._server is not None:
            return
        if isinstance(self._place, str):
            self._server = await self._loop.create_unix_server(lambda: _Tunnel(self).dialer, self._place)
        else:
            self._server = await self._loop.create_server(lambda: _Tunnel(self).dialer, *self._place)
            self._place = _place_of(self._server)
        self.url = _with_place(self._upstream, self._place)

    def refuse(self) -> None:
        """Stop listening: connections that are open go on, new ones are refused, as if the server had ended."""
        self._check_process()
        server, self._server = self._server, None
        if server is not None:
            server.close()
            if isinstance(self._place, str) and os.path.exists(self._place):
                os.unlink(self._place)

    def sever(self) -> None:
        """Cut every open connection, on both sides, without a word; new ones are accepted.

        On TCP both ends get a reset. A Unix socket has none: its ends see the connection closed.
        """
        self._check_process()
        for tunnel in list(self._tunnels):
            tunnel.sever()

    def sever_after(self, pieces: int | None, direction: DirectionName = "to_dialer") -> None:
        """Cut each connection by itself when it has had so many pieces in ``direction`` and the next one comes.

        That one is lost, as an answer on its way is. A piece is one read of the proxy, counted from the
        connection's beginning. None ends it.
        """
        self._directions(direction)
        self._pieces_max.pop(direction, None)
        if pieces is not None:
            self._pieces_max[direction] = pieces

    async def aclose(self) -> None:
        """Stop listening and cut the open connections. A forked child has nothing to close."""
        if self._forked_from:
            return
        self.refuse()
        tunnels = list(self._tunnels)
        for tunnel in tunnels:
            tunnel.reset()
        for tunnel in tunnels:
            await tunnel.ended()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _record(self, tunnel: _Tunnel, direction: Direction, data: bytes) -> None:
        assert self.recording is not None
        self.recording.add(Piece(tunnel.number, self._loop.time() - self._started, direction.name, data))


@asynccontextmanager
async def proxy(url: str, *, record: bool = False) -> AsyncIterator[Proxy]:
    """A `Proxy` in front of ``url``, closed at the end. ``record`` keeps the bytes (64 MiB at most).

    Its ``url`` differs from that of the server in the address alone. Raises ``ConfigurationError`` for a URL that names
    several hosts.
    """
    made = Proxy(url, record=record)
    try:
        await made.start()
        yield made
    finally:
        await made.aclose()


class _Tunnel:
    """One connection through a proxy: its two ends, and a lane each way."""

    def __init__(self, proxy: Proxy) -> None:
        proxy.connections += 1
        self.number = proxy.connections
        self._proxy = proxy
        self._loop = proxy._loop
        self.dialer = _End(self, "to_acceptor", self._loop.create_future())
        self.acceptor = _End(self, "to_dialer", self._loop.create_future())
        self._dialling: asyncio.Task[None] | None = None
        self._lanes = [
            self._lane(proxy.to_acceptor, self.dialer, self.acceptor),
            self._lane(proxy.to_dialer, self.acceptor, self.dialer),
        ]
        for lane in self._lanes:
            lane.hold()
        proxy._tunnels[self] = None

    def _lane(self, direction: Direction, source: _End, sink: _End) -> Lane:
        def record(data: bytes) -> None:
            self._proxy._record(self, direction, data)

        recorder = None if self._proxy.recording is None else record
        lane = Lane(self._loop, direction, sink, source.make_room, recorder)
        source.out, sink.into = lane, lane
        return lane

    @property
    def ends(self) -> tuple[_End, _End]:
        """Its two ends."""
        return self.dialer, self.acceptor

    def opened(self, end: _End) -> None:
        """One end is connected: the dialer's comes first, and the other is dialled then."""
        if end is self.dialer:
            self._dialling = self._loop.create_task(self._dial())

    async def _dial(self) -> None:
        address = self._proxy._address
        try:
            if address.path:
                await self._loop.create_unix_connection(lambda: self.acceptor, address.path)
            else:
                await self._loop.create_connection(lambda: self.acceptor, *address.hosts[0])
        except OSError:
            self.reset()
        else:
            for lane in self._lanes:
                lane.release()

    def sever(self) -> None:
        """Cut both ends because a test wants that."""
        self._proxy.severed += 1
        self.reset()

    def may_pass(self, direction: DirectionName, pieces: int) -> bool:
        """Whether another piece may pass behind so many. If not, the connection is cut."""
        if pieces < self._proxy._pieces_max.get(direction, pieces + 1):
            return True
        self.sever()
        return False

    def reset(self) -> None:
        """Cut both ends."""
        for lane in self._lanes:
            lane.close()
        if self._dialling is not None and not self._dialling.done():
            self._dialling.cancel()
        self.dialer.reset()
        self.acceptor.reset()
        self._proxy._tunnels.pop(self, None)

    def end_closed(self) -> None:
        """An end has closed; with both gone the tunnel is over."""
        if self.dialer.closed and self.acceptor.closed:
            for lane in self._lanes:
                lane.close()
            self._proxy._tunnels.pop(self, None)

    async def ended(self) -> None:
        """Wait until nothing of a tunnel that was reset is left."""
        if self._dialling is not None:
            await asyncio.wait([self._dialling])
        for end in self.ends:
            if end.transport is not None:
                await end.lost


class _End(asyncio.Protocol):
    """The proxy's side of one of the two sockets of a tunnel. It reads for ``out``, and writes bytes from
    ``into``.
    """

    out: Lane
    into: Lane

    def __init__(self, tunnel: _Tunnel, direction: DirectionName, lost: asyncio.Future[None]) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost = lost
        self.cut = False
        self._tunnel = tunnel
        self._direction = direction
        self._pieces = 0
        self._read_eof = False
        self._written_eof = False
        self._stopped = False

    @property
    def closed(self) -> bool:
        """Whether nothing of it is left, or will be."""
        return self.lost.done() or (self.cut and self.transport is None)

    # -- the socket -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.cut:
            self.reset()
        else:
            self._tunnel.opened(self)

    def data_received(self, data: bytes) -> None:
        if self.cut or not self._tunnel.may_pass(self._direction, self._pieces):
            return
        self._pieces += 1
        self.out.feed(data)
        if self.out.size >= QUEUE_SIZE and not self._stopped and self.transport is not None:
            self._stopped = True
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._read_eof = True
        self.out.feed_eof()
        self._close_if_done()
        return True

    def pause_writing(self) -> None:
        self.into.hold()

    def resume_writing(self) -> None:
        self.into.release()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.cut and not (self._read_eof and self._written_eof):
            self.out.feed_reset()
        self.lost.set_result(None)
        self._tunnel.end_closed()

    # -- the lanes --------------------------------------------------------------------------------------------------

    def make_room(self) -> None:
        """All bytes so far have been passed on: read more."""
        if self._stopped and self.out.size < QUEUE_SIZE and self.transport is not None:
            self._stopped = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def deliver(self, data: bytes) -> None:
        """Pass on some bytes."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def deliver_eof(self) -> None:
        """Pass on that the other side sends no more."""
        self._written_eof = True
        if self.transport is not None and not self.transport.is_closing():
            try:
                self.transport.write_eof()
            except OSError:
                return  # it was reset, of which the loop learns in this very turn
            self._close_if_done()

    def deliver_reset(self) -> None:
        """Pass on that the other side is gone."""
        self.reset()
        self._tunnel.end_closed()

    def reset(self) -> None:
        """Close with a reset where the transport has one."""
        self.cut = True
        transport = self.transport
        if transport is None or self.lost.done():
            return
        if isinstance(transport, MemoryTransport):
            transport.reset()
            return
        sock = transport.get_extra_info("socket")
        if sock is not None:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NO_TIME)
            except OSError:
                pass  # it is gone already
        transport.abort()

    def _close_if_done(self) -> None:
        if self._read_eof and self._written_eof and self.transport is not None:
            self.transport.close()


def _place_of(server: asyncio.AbstractServer) -> tuple[str, int]:
    name: Any = cast("asyncio.Server", server).sockets[0].getsockname()
    return name[0], name[1]


def _with_place(url: str, place: tuple[str, int] | str) -> str:
    """Return ``url`` with another address: its credential and its options are kept."""
    rest = url.partition("://")[2]
    rest, mark, query = rest.partition("?")
    credential, at, _ = rest.rpartition("@")
    if isinstance(place, str):
        return f"{UNIX_SCHEME}://{credential}{at}{quote(place)}{mark}{query}"
    return f"{TCP_SCHEME}://{credential}{at}{place[0]}:{place[1]}{mark}{query}"
