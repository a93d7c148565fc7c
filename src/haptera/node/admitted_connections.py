"""The connections that came in by a proof, and their end where that counts no more (spec/protocol.md, section 5.3).

A stolen session ends with the user: where that is disabled or removed, or has another password, and where a token is
revoked or over. One that came in by a certificate or as a process ends where that stands for another user, or for none:
the file that says so is read again while the node runs. Connections with the same proof are looked at together, so that
a change costs as much as there are users connected.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from haptera.errors import Code
from haptera.node.visitor import send_away
from haptera.peer import EXTERNAL

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from haptera.node.visitor import Visitor
    from haptera.state import Access, access_operations

_logger = logging.getLogger(__name__)

#: Seconds that such a connection has for the answers to the requests that were taken up before. It takes no other.
END_TIMEOUT_S: Final = 1.0
#: Seconds after which the ends of tokens are looked at again, where the wall clock was set.
LOOK_MAX_S: Final = 60.0


class AdmittedConnections:
    """The users of one node. ``now_ms`` is the time by which tokens expire, in Unix milliseconds."""

    def __init__(self, access: Access, now_ms: Callable[[], int], loop: asyncio.AbstractEventLoop) -> None:
        self._access = access
        self._now_ms = now_ms
        self._loop = loop
        #: By the user and the verifier that the proof was of; None where it was of none.
        self._open: dict[tuple[str, access_operations.StoredVerifier | None], set[Visitor]] = {}
        # The next look, and the end of a token for which it comes.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms: int | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def add(self, peer: Visitor, user: str, mechanism: str) -> None:
        """Take a connection that comes in now."""
        verifier = None if mechanism == EXTERNAL else self._access.login(user, self._now_ms()).verifier
        key = user, verifier
        self._open.setdefault(key, set()).add(peer)
        peer.on_close(lambda: self._forget(key, peer))
        self._wait_for(self._access.expires_at_ms(user))

    def look(self) -> None:
        """End the connections whose proof counts no more: users have changed, or the time of a token is over."""
        now_ms = self._now_ms()
        for key, peers in list(self._open.items()):
            user, verifier = key
            stored, admitted = self._access.login(user, now_ms)
            if admitted and (verifier is None or verifier == stored):
                continue
            del self._open[key]
            self._end(user, peers, "it has another password" if admitted else "it may not come in any more")
        self.stop()
        ends = [self._access.expires_at_ms(user) for user, _ in self._open]
        self._wait_for(min((end for end in ends if end is not None), default=None))

    def look_outside(self, external: Callable[[Visitor], str | None]) -> None:
        """End the connections whose certificate or process stands for another user now, or for none."""
        for key, peers in list(self._open.items()):
            user, verifier = key
            if verifier is not None:
                continue
            ended = {peer for peer in peers if external(peer) != user}
            if ended:
                peers.difference_update(ended)
                if not peers:
                    del self._open[key]
                self._end(user, ended, "its certificate or process does not stand for it any more")

    def _end(self, user: str, peers: set[Visitor], reason: str) -> None:
        _logger.info("sessions_ended", extra={"user": user, "connections": len(peers), "reason": reason})
        for peer in peers:
            task = self._loop.create_task(send_away(peer, Code.AUTHENTICATION_REQUIRED, END_TIMEOUT_S))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_ms = None

    def _wait_for(self, end_ms: int | None) -> None:
        """Look again when a token ends, if no other look comes before."""
        if end_ms is None or (self._timer_ms is not None and self._timer_ms <= end_ms):
            return
        self.stop()
        wait_s = max(0, end_ms - self._now_ms()) / 1000
        self._timer_ms = end_ms
        self._timer = self._loop.call_later(min(wait_s, LOOK_MAX_S), self.look)

    def _forget(self, key: tuple[str, access_operations.StoredVerifier | None], peer: Visitor) -> None:
        peers = self._open.get(key)
        if peers is not None:
            peers.discard(peer)
            if not peers:
                del self._open[key]
