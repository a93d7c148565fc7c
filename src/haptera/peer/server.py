"""A listener and the peers that came by it (spec/protocol.md, section 8)."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from haptera.errors import Code
from haptera.peer.event_log import EventLog, guard
from haptera.peer.limits import DRAIN_S
from haptera.peer.peer import Peer, link_of
from haptera.transport import (
    CONNECTIONS_MAX,
    HALF_OPEN_MAX,
    TLS_LOOK_S,
    Listener,
    Pool,
    TlsKeeper,
    warn_unclosed,
)

if TYPE_CHECKING:
    from types import TracebackType

_TOO_MANY_CONNECTIONS: Final = Code.TOO_MANY_CONNECTIONS
_GOING_AWAY: Final = Code.GOING_AWAY


class Server:
    """A listener and the peers that came by it. ``async with`` closes it.

    It always accepts. Of more than ``max_connections`` the newest is refused; of more than ``max_half_open``, or
    than half of ``max_connections``, whose handshake is not done an old one is dropped. Both are told 1013.
    """

    def __init__(
        self,
        listener: Listener,
        on_peer: Callable[[Peer], None] | None,
        tls: TlsKeeper | None = None,
        *,
        max_connections: int = CONNECTIONS_MAX,
        max_half_open: int = HALF_OPEN_MAX,
    ) -> None:
        #: Where the lines about its connections go. They are limited, because strangers cause them.
        self.log: EventLog = EventLog(listener.url)
        self._listener = listener
        self._pool = Pool(
            self._refuse,
            max_connections=max_connections,
            max_half_open=max_half_open,
            has_spoken=lambda peer: link_of(peer).has_spoken,
        )
        self._on_peer = on_peer
        self._tls = tls
        self._tls_failures = 0
        self._look: asyncio.TimerHandle | None = None
        if tls is not None:
            _look_at_files(weakref.ref(self))

    @property
    def url(self) -> str:
        """Where it listens, with the real port."""
        return self._listener.url

    @property
    def peers(self) -> set[Peer]:
        """The peers that are connected."""
        return set(self._pool.connections)

    @property
    def accepted(self) -> int:
        """How many connections were taken."""
        return self._pool.accepted

    @property
    def refused(self) -> int:
        """How many connections were refused or dropped because there were too many."""
        return self._pool.refused

    @property
    def half_open(self) -> int:
        """How many connections have not done their handshake, or not proved the identity that is asked for."""
        return self._pool.half_open

    @property
    def tls_failures(self) -> int:
        """How many connections have ended because TLS failed."""
        return self._tls_failures

    def reload_certificates(self) -> bool:
        """Read the files of TLS again, and return whether they can be used. The log says what is wrong with them.

        The connections that come then have the new certificate. Files that cannot be used change nothing. A listener
        looks every 10 seconds by itself whether they have changed; one without TLS has none.
        """
        return self._tls is None or self._tls.reload(time.time())

    def tls_failed(self) -> None:
        """TLS has ended a connection (its transport calls this)."""
        self._tls_failures += 1

    def __del__(self) -> None:
        listener: Listener | None = getattr(self, "_listener", None)  # none after an error in __init__
        if listener is not None and listener.is_open:
            warn_unclosed(self, f"haptera.Server {self.url}")

    def opened(self, peer: Peer) -> None:
        """A connection was accepted (its router calls this).

        Args:
            peer: The other side.
        """
        if self._pool.admit(peer) and self._on_peer is not None:
            on_peer = self._on_peer
            guard(lambda: on_peer(peer))

    def established(self, peer: Peer) -> None:
        """A connection's handshake is done, and a proof that is asked for (its router calls this).

        Args:
            peer: The other side.
        """
        self._pool.established(peer)

    def lost(self, peer: Peer) -> None:
        """A connection is gone (its router calls this).

        Args:
            peer: The other side.
        """
        self._pool.lost(peer)

    def _refuse(self, peer: Peer, limit: int | None, *, linger: bool) -> None:
        if limit is None:
            link_of(peer).closing.refuse(_GOING_AWAY)
            return
        link = link_of(peer)
        fields = {"url": self.url, "connections": len(self._pool.connections), "half_open": self.half_open}
        self.log.write(logging.WARNING, "connection_refused", lambda: link.log_fields(**fields))
        link.closing.refuse(_TOO_MANY_CONNECTIONS, {"limit": limit}, linger=linger)

    def close(self) -> None:
        """Take no more connections; the open ones go on.

        Raises ``WrongLoop`` if another loop than the listener's runs here. Where that one is closed, so is all of it.
        """
        self._listener.close()
        self._pool.close()
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def __repr__(self) -> str:
        return f"<haptera.Server {self.url}: {len(self.peers)} peers>"

    async def drain(self, timeout: float = DRAIN_S) -> None:
        """Take no more connections, and end the open ones in an orderly way. A forked child has none.

        Args:
            timeout: Seconds that each connection has.
        """
        if self._listener.disowned:
            return
        self.close()
        await self._listener.wait_closed()
        await asyncio.gather(*(peer.drain(timeout) for peer in [*self._pool.connections, *self._pool.leaving]))
        self.log.settle()

    async def aclose(self) -> None:
        """Take no more connections and close the open ones. A forked child has none."""
        if self._listener.disowned:
            return
        self.close()
        await self._listener.wait_closed()
        await asyncio.gather(*(peer.aclose() for peer in [*self._pool.connections, *self._pool.leaving]))
        self.log.settle()

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def tls_of(server: Server) -> TlsKeeper | None:
    """Return the files of TLS of a server, and how they are read again; None for a listener without TLS."""
    return server._tls


def _look_at_files(reference: weakref.ref[Server]) -> None:
    """Look whether the files of TLS have changed, now and again while the server is there and open."""
    server = reference()
    if server is not None and server._tls is not None:
        # The next look is certain before this one, which may fail.
        server._look = asyncio.get_running_loop().call_later(TLS_LOOK_S, _look_at_files, reference)
        server._tls.look(time.time())
