"""Services and pairs of peers for the tests of the messaging layer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import Mock

from haptera import Peer, Request, Server, Service, dial, listen, method
from haptera.peer import link_of
from haptera.testing import ConnectedPeers, connected_peers
from haptera.wire.frame import HEADER, FrameType

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.connection import Connection
    from haptera.peer.dispatcher import Dispatcher

KIB = 1024
MIB = 1024 * KIB

#: Where a server listens that is not found by its address: on a virtual clock, in the loop's own network.
ANY_PORT = "haptera://127.0.0.1:0"


class Echo(Service):
    """One answer, many answers, many requests, both."""

    name = "echo"

    @method
    async def one(self, request: Request) -> bytes:
        return request.payload

    @method
    async def later(self, request: Request) -> bytes:
        await asyncio.sleep(0)
        return request.payload

    @method
    async def many(self, request: Request) -> AsyncIterator[bytes]:
        for number in range(int(request.payload)):
            yield str(number).encode()

    @method
    async def total(self, request: Request) -> bytes:
        size = 0
        async for item in request.items:
            size += len(item)
        return str(size).encode()

    @method
    async def both(self, request: Request) -> AsyncIterator[bytes]:
        async for item in request.items:
            yield item


class Gate(Service):
    """Handlers that say when they started and wait to be let through."""

    name = "gate"

    def __init__(self) -> None:
        self.started: list[bytes] = []
        self.ended: list[bytes] = []
        self.cancelled: list[bytes] = []
        self.open = asyncio.Event()

    @method
    async def wait(self, request: Request) -> bytes:
        self.started.append(request.payload)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.payload)
            raise
        self.ended.append(request.payload)
        return request.payload

    @method
    async def items(self, request: Request) -> AsyncIterator[bytes]:
        self.started.append(request.payload)
        try:
            for number in range(1_000_000):
                yield number.to_bytes(4, "big") + bytes(int(request.payload or b"0"))
        finally:
            self.ended.append(request.payload)


class Batches(Service):
    """Takes requests in batches and leaves the answers to the test."""

    name = "batches"

    def __init__(self) -> None:
        self.batches: list[list[Request]] = []

    def methods(self) -> list[str]:
        return ["anything"]

    def handle(self, requests: list[Request]) -> None:
        self.batches.append(requests)

    @property
    def requests(self) -> list[Request]:
        return [request for batch in self.batches for request in batch]


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait until ``condition()`` is true. An hour of virtual time is never; in real time the test run ends before."""
    loop = asyncio.get_running_loop()
    never = loop.time() + 3600.0
    pause = 0.001
    while not condition():
        assert loop.time() < never, "it did not become so"
        await asyncio.sleep(pause)
        pause = min(1.5 * pause, 0.02)


async def turns(count: int = 20) -> None:
    """Let the loop go round, so that what is about to happen has happened."""
    for _ in range(count):
        await asyncio.sleep(0.001)


def other_side(server: Server) -> Peer:
    """The acceptor's peer of the one connection that a server has."""
    (peer,) = server.peers
    return peer


def connection_of(peer: Peer) -> Connection:
    """The state machine of a peer's connection."""
    return link_of(peer).connection


def transport_of(peer: Peer) -> asyncio.Transport:
    """The transport that a peer is connected by."""
    transport = link_of(peer).transport
    assert transport is not None
    return transport


def dispatcher_of(peer: Peer) -> Dispatcher:
    """What hands a peer's requests to its services."""
    return peer._dispatcher


@asynccontextmanager
async def served(url: str, *services: Service, **keywords: Any) -> AsyncIterator[Server]:
    """A server whose end waits for no one."""
    server = await listen(url, services=services, **keywords)
    try:
        yield server
    finally:
        await server.aclose()


@asynccontextmanager
async def pair(
    *services: Service, dialer_services: tuple[Service, ...] = (), **keywords: Any
) -> AsyncIterator[ConnectedPeers]:
    """Two peers connected in memory, the handshake done; the services are the acceptor's."""
    async with connected_peers(dialer_services, services, **keywords) as peers:
        await peers.dialer.ready()
        yield peers


@asynccontextmanager
async def connected(
    place: Path,
    *services: Service,
    dialer_services: tuple[Service, ...] = (),
    listen_with: dict[str, Any] | None = None,
    **dial_with: Any,
) -> AsyncIterator[tuple[Peer, Peer]]:
    """The same over a Unix socket, for what a socket has to do with: the dialer's peer and the acceptor's."""
    async with served(f"haptera+unix://{place}/s", *services, **(listen_with or {})) as server:
        peer = await dial(server.url, services=dialer_services, **dial_with)
        try:
            await peer.ready()
            yield peer, other_side(server)
        finally:
            await peer.aclose()


async def items_of(*items: bytes) -> AsyncIterator[bytes]:
    """The items, as a source for a call."""
    for item in items:
        yield item


class Writes:
    """A transport that keeps what is written to it, and passes it on. The peer takes each early write for worth it."""

    def __init__(self, peer: Peer) -> None:
        link = link_of(peer)
        link._early = Mock(**{"are_worth_it.return_value": True})
        assert link.transport is not None
        self.transport = link.transport
        self.pieces: list[bytes] = []
        self.unsent_before: list[int] = []
        link.transport = cast("asyncio.Transport", self)

    def write(self, data: bytes) -> None:
        self.unsent_before.append(self.transport.get_write_buffer_size())
        self.pieces.append(bytes(data))
        self.transport.write(data)

    def writelines(self, pieces: Sequence[bytes]) -> None:
        self.write(b"".join(pieces))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def requests(self) -> list[int]:
        """How many requests began in each write that had any; from here on it counts afresh."""
        counts = []
        for piece in self.pieces:
            count = place = 0
            while place < len(piece):
                _, _, type_, _, metadata_size, _, payload_size, _, _ = HEADER.unpack_from(piece, place)
                count += type_ == FrameType.REQUEST
                place += HEADER.size + metadata_size + payload_size
            counts.append(count)
        self.pieces.clear()
        return [count for count in counts if count]
