"""A listener and the connections that came by it (spec/protocol.md, section 8)."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Final, cast

from haptera import forks
from haptera.peer.event_log import LimitedLog
from haptera.peer.home import let_go, running_loop, wrong_loop
from haptera.peer.limits import CONNECTIONS_MAX, DRAIN_S, HALF_OPEN_MAX, half_open_max, leaving_max
from haptera.peer.peer import Peer
from haptera.peer.unclosed import warn_unclosed

_TOO_MANY_CONNECTIONS: Final = 1013
_GOING_AWAY: Final = 1014
#: Turns of the loop after which a listener is closed. What the kernel has accepted until then would be reset, and its
#: first flight lost without a word: one turn to see it, one to accept it, one to hand it over.
_CLOSING_TURNS: Final = 3
#: Turns after which a HELLO that had come with its connection was read: one to watch the socket, one to read it. Many
#: that connect at one instant are accepted in one turn, before any of them can be heard.
_READING_TURNS: Final = 2


class Server:
    """A listener and the peers that came by it. ``async with`` closes it.

    It always accepts. Of more than ``max_connections`` the newest is refused; of more than ``max_half_open``, or
    than half of ``max_connections``, whose handshake is not done the oldest is dropped, once what all of them have said
    was read: a sincere one has shaken hands long before its turn comes, so that silent connections keep no others out.
    Both are told 1013.
    """

    _loop: asyncio.AbstractEventLoop  # from `start` on

    def __init__(
        self,
        url: str,
        path: str | None,
        on_peer: Callable[[Peer], None] | None,
        *,
        max_connections: int = CONNECTIONS_MAX,
        max_half_open: int = HALF_OPEN_MAX,
    ) -> None:
        #: Where it listens, with the real port.
        self.url = url
        self.peers: set[Peer] = set()
        self.accepted = 0
        #: Connections that were refused or dropped because there were too many.
        self.refused = 0
        #: Where the lines about its connections go: whoever can connect must not be able to fill a disk.
        self.log = LimitedLog(url)
        self._path = path
        self._inode = 0 if path is None else os.stat(path).st_ino
        self._on_peer = on_peer
        self._max_connections = max_connections
        self._max_half_open = half_open_max(max_half_open, max_connections)
        self._max_leaving = leaving_max(max_connections)
        self._half_open: dict[Peer, None] = {}  # the oldest first
        self._leaving: set[Peer] = set()  # refused, and not gone yet
        self._listeners: Sequence[asyncio.AbstractServer] = ()  # none once it is closed
        self._forked_from = 0  # in a forked child, the process that has the listeners

    @property
    def half_open(self) -> int:
        """How many connections have not done their handshake."""
        return len(self._half_open)

    def start(self, listeners: Sequence[asyncio.AbstractServer]) -> None:
        """The listeners are there, one for each address (``listen`` calls this)."""
        self._listeners = listeners
        self._loop = asyncio.get_running_loop()
        forks.watch(self)

    def __del__(self) -> None:
        if getattr(self, "_listeners", ()):  # no attribute after an error in __init__
            warn_unclosed(self, f"haptera.Server {self.url}")

    def disown(self, owner: int) -> None:
        """Leave the listeners and their socket's file to the process ``owner`` that this one was forked from
        (``haptera.forks`` calls this).

        Here they are closed: the address is free as soon as the parent closes it, and no connection waits in a queue
        that nothing takes from.
        """
        self._forked_from = self._forked_from or owner
        self._path = None
        self._let_go()

    def _let_go(self) -> None:
        listeners, self._listeners = self._listeners, ()
        for listener in listeners:
            for sock in cast("asyncio.Server", listener).sockets:
                let_go(sock, may_be_stale=self._loop.is_closed())

    def opened(self, peer: Peer) -> None:
        """A connection was accepted (the peer calls this)."""
        if not self._listeners:
            self._leaving.add(peer)
            peer._refuse(_GOING_AWAY)  # it had connected before the listener was closed
        elif len(self.peers) >= self._max_connections:
            self._refuse(peer, self._max_connections)
        else:
            self.accepted += 1
            self.peers.add(peer)
            self._half_open[peer] = None
            if len(self._half_open) > self._max_half_open:
                _later(asyncio.get_running_loop(), _READING_TURNS, partial(self._make_room, peer))
            if self._on_peer is not None:
                on_peer = self._on_peer
                peer._guard(lambda: on_peer(peer))

    def _make_room(self, peer: Peer) -> None:
        """Drop the oldest of too many half-open connections for ``peer``, if that one is still half-open itself: what
        both had said when it came has been read by now."""
        if len(self._half_open) > self._max_half_open and peer in self._half_open:
            self._refuse(next(iter(self._half_open)), self._max_half_open)

    def established(self, peer: Peer) -> None:
        """A connection's handshake is done (the peer calls this)."""
        self._half_open.pop(peer, None)

    def lost(self, peer: Peer) -> None:
        """A connection is gone (the peer calls this)."""
        self.peers.discard(peer)
        self._leaving.discard(peer)
        self._half_open.pop(peer, None)

    def _refuse(self, peer: Peer, limit: int) -> None:
        self.peers.discard(peer)
        self._half_open.pop(peer, None)
        self.refused += 1
        fields = {"url": self.url, "connections": len(self.peers), "half_open": len(self._half_open)}
        self.log.write(logging.WARNING, "connection_refused", lambda: peer.log_fields(**fields))
        linger = len(self._leaving) < self._max_leaving
        if linger:
            self._leaving.add(peer)
        peer._refuse(_TOO_MANY_CONNECTIONS, {"limit": limit}, linger=linger)

    def close(self) -> None:
        """Take no more connections; those that there are go on.

        Raises ``WrongLoop`` if another loop than the listener's runs here. Where that one is closed, so is all of it.
        """
        if self._forked_from:
            return
        if self._loop.is_closed():
            self._let_go()
            self._remove_socket()
        elif running_loop() is not self._loop:
            raise wrong_loop(f"the listener at {self.url}", self._loop)
        elif self._listeners:
            for listener in self._listeners:
                _later(listener.get_loop(), _CLOSING_TURNS, listener.close)
            self._listeners = ()
            self._remove_socket()

    def _remove_socket(self) -> None:
        with suppress(FileNotFoundError):
            # Somebody may have put another socket in its place.
            if self._path is not None and os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)

    async def drain(self, timeout: float = DRAIN_S) -> None:
        """Take no more connections, and end those that there are in an orderly way within ``timeout`` seconds.

        A forked child has none.
        """
        if self._forked_from:
            return
        self.close()
        for _ in range(_CLOSING_TURNS + 1):
            await asyncio.sleep(0)
        await asyncio.gather(*(peer.drain(timeout) for peer in [*self.peers, *self._leaving]))
        self.log.settle()

    async def aclose(self) -> None:
        """Take no more connections and close those that there are. A forked child has none."""
        if self._forked_from:
            return
        self.close()
        for _ in range(_CLOSING_TURNS + 1):
            await asyncio.sleep(0)
        await asyncio.gather(*(peer.aclose() for peer in [*self.peers, *self._leaving]))
        self.log.settle()

    async def __aenter__(self) -> "Server":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _later(loop: asyncio.AbstractEventLoop, turns: int, callback: Callable[[], None]) -> None:
    """Call ``callback`` after so many turns of the loop."""
    if turns:
        loop.call_soon(_later, loop, turns - 1, callback)
    else:
        callback()
