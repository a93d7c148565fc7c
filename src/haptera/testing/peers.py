"""Two peers of the messaging library, connected in memory."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haptera.connection import Config, Connection, Role
from haptera.errors import ConfigurationError
from haptera.peer import Peer, Service, SessionService, assemble, link_of
from haptera.testing.traffic import CHUNK_SIZE
from haptera.testing.transport import BUFFER_SIZE, MemoryLink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

__all__ = ["ConnectedPeers", "connected_peers"]

_ACCEPTOR_ID = bytes(range(16))


@dataclass(frozen=True)
class ConnectedPeers:
    """Two peers and the link between them. Unpacks to the two: ``dialer, acceptor = connected``."""

    dialer: Peer
    acceptor: Peer
    link: MemoryLink

    def __iter__(self) -> Iterator[Peer]:
        yield self.dialer
        yield self.acceptor


@asynccontextmanager
async def connected_peers(
    dialer_services: Sequence[Service] = (),
    acceptor_services: Sequence[Service] = (),
    *,
    latency: float | Callable[[], float] = 0.0,
    chunk: int | Callable[[], int] = CHUNK_SIZE,
    buffer: int = BUFFER_SIZE,
    record: bool = False,
    seed: int | None = None,
    dialer_config: Mapping[str, Any] | None = None,
    acceptor_config: Mapping[str, Any] | None = None,
) -> AsyncIterator[ConnectedPeers]:
    """Two peers on one connection in memory, each hosting its services; both are closed at the end.

    Each peer is used as one from ``haptera.dial`` or in ``haptera.Server.peers``; the handshake is under way, not done.
    ``latency`` (seconds one way), ``chunk`` (bytes delivered at once at most), ``buffer`` (bytes under way before a
    writer waits) and ``record`` (keep the delivered bytes in ``.link.recording``) are the keywords of `MemoryLink`,
    which has the faults as well. The peers' random numbers come from ``seed`` if there is one. ``dialer_config`` and
    ``acceptor_config`` hold keywords of ``haptera.connection.Config``.
    """
    loop = asyncio.get_running_loop()
    entropy = os.urandom if seed is None else random.Random(seed).randbytes
    peers = []
    for role, services, config in (
        (Role.DIALER, dialer_services, dialer_config),
        (Role.ACCEPTOR, acceptor_services, acceptor_config),
    ):
        hosted = _hosted(services)
        names = tuple(sorted(service.name for service in hosted))
        options = {"entropy": entropy, "services": names, "server_id": _ACCEPTOR_ID, **(config or {})}
        peers.append(assemble(Connection(role, Config(**options), loop.time()), hosted, loop))
    dialer, acceptor = peers
    link = MemoryLink(link_of(dialer), link_of(acceptor), latency=latency, chunk=chunk, buffer=buffer, record=record)
    link.start()
    link_of(dialer).schedule_flush()  # HELLO leaves with this turn's calls, or alone at its end
    try:
        yield ConnectedPeers(dialer, acceptor, link)
    finally:
        link.resume()
        await asyncio.gather(dialer.aclose(), acceptor.aclose())


def _hosted(services: Sequence[Service]) -> list[Service]:
    hosted = [SessionService(), *services]
    names = [service.name for service in hosted]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"two services have the same name: {sorted(names)}")
    return hosted
