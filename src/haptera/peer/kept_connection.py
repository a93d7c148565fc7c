"""The connection of a peer that comes back: one after another, and the rules for a call that was on one that ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from haptera import forks
from haptera.errors import Code, ConnectionLost, Failure, GoingAway, ServerError, ShuttingDown, failure
from haptera.peer.backoff import Backoff, Pauses
from haptera.peer.connector import Connector, Flight
from haptera.peer.peer import Peer, link_of
from haptera.peer.request_scope import current
from haptera.timeouts import check_timeout
from haptera.transport import Home

_logger = logging.getLogger("haptera.peer")
#: A connection that lasted for less is dialled again with a longer pause each time: a listener that takes connections
#: and ends them at once would otherwise have one after another from each of its peers.
STEADY_S: Final = 2.0


class KeptConnection:
    """Keeps a connection: as long as its task runs, one that has ended is followed by another.

    It does not know the `LastingPeer` that it works for, so that a program which drops that is warned.
    """

    def __init__(self, connector: Connector, backoff: Backoff, shown: str) -> None:
        self.connector = connector
        self.home: Home = Home(asyncio.get_running_loop())
        self.home.name = f"the peer at {shown}"
        self.callbacks: list[Callable[[Peer], object]] = []
        #: Why no connection is dialled any more: the last one was refused for a reason that stays.
        self.refused: ConnectionLost | None = None
        #: The connection that the callbacks were told last.
        self.told: Peer | None = None
        self._backoff = backoff
        self._pauses = Pauses(backoff)
        self._left: asyncio.Future[None] | None = None  # done when the present connection has ended or was left

        forks.watch(self)

    def disown(self, owner: int) -> None:
        """Leave it to the process ``owner`` that this one was forked from (``haptera.forks`` calls this)."""
        self.home.disown(owner)

    @property
    def peer(self) -> Peer | None:
        """The present connection, if it takes calls."""
        peer = self.connector.peer
        return None if peer is None or peer.closed or peer.going_away else peer

    async def run(self) -> None:
        """Dial whenever there is no connection, until one is refused for a reason that stays."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer = await self.connector.connected(None, Flight.WELCOMED)
            except ConnectionLost as loss:
                if not self.connector.closed:
                    self.refused = loss
                    _logger.warning("peer_given_up", extra={"reason": str(loss)})
                return
            except Exception as error:
                # A file with a key or a certificate that is being replaced, for instance: the next attempt reads it.
                _logger.warning("dialling_failed", extra={"reason": str(error)})
                await self._pauses.wait()
                continue
            since = loop.time()
            self.told = peer
            for callback in self.callbacks:
                loop.call_soon(callback, peer)
            await self._end_of(peer)
            if loop.time() - since >= STEADY_S:
                self._pauses.begin_anew()
            await self._pauses.wait()

    async def _end_of(self, peer: Peer) -> None:
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = left

        def closed() -> None:
            if not left.done():
                left.set_result(None)

        peer.on_close(closed)
        await left
        if peer.closed:
            self.connector.lost(peer, link_of(peer).lost_error("unknown"))

    def leave(self, peer: Peer, why: Failure) -> None:
        """The other side takes no more calls on this connection: the next one is dialled while it ends."""
        self.connector.leave(peer, why)
        if self._left is not None and not self._left.done():
            self._left.set_result(None)

    # -- for calls and streams ---------------------------------------------------------------------------------------

    def deadline(self, timeout: float | None) -> float | None:
        """Return when the time of a call is over, as time of the loop. A handler's call has what its request has."""
        self.home.check()
        if timeout is not None:
            check_timeout(timeout)
        deadline = None if timeout is None else self.home.loop.time() + timeout
        scope = current.get()
        if scope is not None and scope.under_way and scope.deadline is not None:
            deadline = scope.deadline if deadline is None else min(deadline, scope.deadline)
        return deadline

    def left(self, deadline: float | None) -> float | None:
        """Return the seconds that a call has left."""
        return None if deadline is None else max(deadline - self.home.loop.time(), 0.001)

    async def connection(self, deadline: float | None) -> Peer:
        """Return a connection that takes calls, waiting for one. Raises ``ConnectionLost``."""
        self.home.check()
        self.connector.check_open()
        refused = self.refused
        if refused is not None:
            raise ConnectionLost(str(refused), outcome="not_applied", failure=refused.failure)
        peer = self.connector.peer
        if peer is not None and not peer.closed:
            if not peer.going_away:
                return peer
            self.leave(peer, failure(Code.GOING_AWAY, outcome="not_applied"))
        return await self.connector.connected(deadline, Flight.WELCOMED)

    def passes(self, peer: Peer, error: ConnectionLost | ServerError, *, again: bool) -> bool:
        """Note how a call has ended; say whether it may be sent ``again``, because it was certainly not applied."""
        if isinstance(error, ConnectionLost):
            self.connector.lost(peer, error)
            return again and error.outcome == "not_applied" and self.connector.hopeful
        if isinstance(error, GoingAway | ShuttingDown):
            why = Failure(error.code, error.name, error.message, error.outcome, error.details)
            self.leave(peer, why)
            return again and error.outcome == "not_applied"
        return False

    async def pause(self, attempt: int, deadline: float | None) -> None:
        """Wait before a call is sent again."""
        left = self.left(deadline)
        await (self._backoff.wait(attempt) if left is None else self._backoff.wait(attempt, left))
