"""The one connection of a client: dialled when a call needs it, dialled again when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from haptera.error_base import describe
from haptera.error_table import Code
from haptera.errors import ConnectionLost, Failure, ProtocolError

if TYPE_CHECKING:
    from haptera.client.backoff import Backoff
    from haptera.peer import Peer

DIAL_SECONDS_MAX = 5.0
"""One host may take so long to accept a connection before the next one is tried."""

DRAIN_SECONDS = 30.0
"""What is under way on a connection that takes no more calls may take so long; the server waits no longer either."""

OLDER_MAX = 4
"""Connections that were left and have calls under way. A server that is restarted leaves one; only one that goes away
again and again leaves more, and then the oldest is given up."""

FOR_GOOD = frozenset(
    {
        Code.UNSUPPORTED_VERSION,
        Code.UNSUPPORTED_FLAG,
        Code.UNSUPPORTED_METADATA,
        Code.PROTOCOL_VIOLATION,
        Code.SIGNATURE_MISMATCH,
        Code.AUTHENTICATION_REQUIRED,
        Code.AUTHENTICATION_FAILED,
        Code.AUTHENTICATION_LOCKED,
        Code.PERMISSION_DENIED,
        Code.UNSUPPORTED_MECHANISM,
    }
)
"""Why a connection ends before it is of any use, where the next one would end alike: what the two sides speak and have
agreed on, the key, and who is asking."""


class Dial(Protocol):
    """Opens a transport: :func:`haptera.peer.dial`, or a test's double."""

    def __call__(self, url: str, /, *, timeout: float) -> Awaitable[Peer]: ...


class Connector:
    """Keeps a connection to one of ``urls``, tried in turn; ``shown`` names them in errors.

    Until a server has once said WELCOME, one attempt at each host is all: who mistyped an address learns it at once.
    From then on a lost connection is dialled again, with backoff, for as long as a call has time and not every host has
    refused for good. WELCOME is not signed: a server that ends a connection over a signature, before it has answered
    anything, has another key.

    The caller that finds no connection dials in its own coroutine, so that its request can follow HELLO in one write;
    others wait for it, and one of them goes on where it is cancelled.
    """

    def __init__(self, urls: Sequence[str], shown: str, backoff: Backoff, dial: Dial) -> None:
        self.peer: Peer | None = None
        self.established = False
        self.reached: str | None = None  # the URL of the server that has answered last
        self._urls = tuple(urls)
        self._first = 0
        self._shown = shown
        self._backoff = backoff
        self._dial = dial
        self._failed_rounds = 0
        self._trouble = ""  # why the last attempt at each host failed, or the last connection ended
        self._dialling = False
        self._waiting: list[asyncio.Future[None]] = []
        self._failed: dict[int, bool] = {}  # hosts of no use, since one was: whether they refused for good
        self._answering = False  # whether the present connection has taken a call
        self._older: dict[Peer, None] = {}  # the oldest first
        self._endings: set[asyncio.Task[None]] = set()
        self._closed = False

    def afresh(self) -> Connector:
        """A connector to the same hosts that has no connection and knows nothing of them, for another process."""
        connector = Connector(self._urls, self._shown, self._backoff, self._dial)
        connector._closed = self._closed
        return connector

    @property
    def hopeful(self) -> bool:
        """Whether a connection may be had by dialling again."""
        if len(self._failed) < len(self._urls):
            return True
        return self.established and not all(self._failed.values())

    async def connected(self, deadline: float | None) -> Peer:
        """The open connection, dialled if there is none, by ``deadline`` (time of the loop).

        Raises ``ConnectionLost`` with outcome ``not_applied``. Where this caller dialled, the connection is returned
        before anything else could run, so that a request made at once leaves in one write with HELLO.
        """
        while True:
            peer = self.peer
            if peer is not None and not peer.closed:
                return peer
            self._check_open()
            if self._dialling:
                await self._wait_for_other(deadline)
                continue
            if peer is not None:
                self.lost(peer)
            self._dialling = True
            try:
                return await self._dial_by(deadline)
            finally:
                self._dialling = False
                self._wake_others()

    def answered(self, peer: Peer) -> None:
        """Notes that a server has answered a call, and not by going away."""
        self.established = True
        if self.peer is peer:
            self.reached = self._urls[self._first]
            self._answering = True
            self._failed.clear()

    def lost(self, peer: Peer, loss: ConnectionLost | None = None) -> None:
        """Notes that a connection has ended; one that had been welcomed makes the next attempt an immediate one."""
        if self.peer is not peer:
            return
        self.peer = None
        if loss is not None:
            self._trouble = str(loss)
        code = _code_of(loss)
        if peer.server_id is not None and (self._answering or code != Code.SIGNATURE_MISMATCH):
            self.established = True
            self._failed_rounds = 0
            self._failed.clear()
        else:
            self._pass_over(for_good=code in FOR_GOOD)

    def leave(self, peer: Peer, why: Failure) -> None:
        """The server takes no more calls on ``peer``: the next one goes to a new connection, and this one ends with
        what is under way on it. The next attempt is an immediate one if this connection was of any use."""
        if self.peer is peer:
            self.established = True
            self.peer = None
            self._trouble = describe(why.name, why.code, why.message, why.details)
            if self._answering:
                self._failed_rounds = 0
            else:
                self._pass_over(for_good=False)
        if peer.closed or peer in self._older:
            return
        self._older[peer] = None
        peer.on_close(lambda: self._older.pop(peer, None))
        self._end(peer.drain(DRAIN_SECONDS))
        if len(self._older) > OLDER_MAX:
            oldest = next(iter(self._older))
            del self._older[oldest]
            self._end(oldest.aclose())

    def _pass_over(self, *, for_good: bool) -> None:
        """The host that was reached last is of no use now: the next attempt is at the one behind it."""
        self._failed_rounds += 1
        self._failed[self._first] = for_good
        self._first = (self._first + 1) % len(self._urls)

    async def drain(self, timeout: float) -> None:
        """Takes no more calls, waits up to ``timeout`` seconds for those under way, and closes."""
        self._closed = True
        if peers := self._all():
            await asyncio.gather(*(peer.drain(timeout) for peer in peers))
        await self.aclose()

    async def aclose(self) -> None:
        """Closes at once. Calls under way end with ``ConnectionLost``."""
        self._closed = True
        self._wake_others()
        peers = self._all()
        self.peer = None
        if peers:  # without one there need not even be a loop: a forked child closes its copy
            await asyncio.gather(*(peer.aclose() for peer in peers))
        if self._endings:
            await asyncio.wait(self._endings)

    def _end(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    def _all(self) -> list[Peer]:
        return [*self._older, *([] if self.peer is None else [self.peer])]

    async def _wait_for_other(self, deadline: float | None) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout_at(deadline):
                await future
        except TimeoutError:
            raise self._too_late() from None
        finally:
            if not future.done() or future.cancelled():
                self._waiting = [other for other in self._waiting if other is not future]

    def _wake_others(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def _dial_by(self, deadline: float | None) -> Peer:
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    if self._failed_rounds:
                        await self._backoff.wait(self._failed_rounds)
                    self._check_open()
                    peer = await self._round()
                    if peer is not None:
                        break
                    self._failed_rounds += 1
                    if not self.established:
                        raise ConnectionLost(self._trouble, outcome="not_applied")
        except TimeoutError:
            raise self._too_late() from None
        if self._closed:
            await peer.aclose()
            self._check_open()
        self.peer = peer
        self._answering = False
        return peer

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionLost(f"the client of {self._shown} is closed", outcome="not_applied")

    def _too_late(self) -> ConnectionLost:
        reason = f" ({self._trouble})" if self._trouble else ""
        return ConnectionLost(f"no connection to {self._shown} in time{reason}", outcome="not_applied")

    async def _round(self) -> Peer | None:
        """Tries each host once, the one that was reached last first. None: ``_trouble`` says why, host by host."""
        trouble: list[str] = []
        for turn in range(len(self._urls)):
            index = (self._first + turn) % len(self._urls)
            try:
                peer = await self._dial(self._urls[index], timeout=DIAL_SECONDS_MAX)
            except OSError as error:  # ConnectionLost and TimeoutError are OSErrors
                trouble.append(_reason(self._urls[index], error))
                self._failed[index] = False
            else:
                self._first = index
                self._trouble = ""
                return peer
        self._first = (self._first + 1) % len(self._urls)
        self._trouble = "; ".join(dict.fromkeys(trouble))
        return None


def _code_of(loss: ConnectionLost | None) -> int | None:
    """The error that ended a connection, whichever side found it."""
    found = None if loss is None else loss.failure or loss.__cause__
    return found.code if isinstance(found, Failure | ProtocolError) else None


def _reason(url: str, error: OSError) -> str:
    if isinstance(error, ConnectionLost):
        return str(error)
    return f"cannot connect to {url}: {error.strerror or error}"
