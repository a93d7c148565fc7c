"""The one connection to a server: dialled when a call needs it, dialled again when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from haptera.errors import Code, ConnectionLost, Failure, ProtocolError, describe, failure
from haptera.peer.peer import Peer, link_of
from haptera.transport import format_place

if TYPE_CHECKING:
    from haptera.peer import Peer
    from haptera.peer.backoff import Backoff
    from haptera.transport import Address, Place

DIAL_SECONDS = 5.0
#: The longest round over all hosts, and the part of it for each of them, so that the last of many has its turn. The
#: next round has new SYNs.
DIAL_SECONDS_PER_HOST = 0.5

#: A host that has not sent WELCOME in this time is passed over where there are others: it is frozen, or behind a link
#: that swallows all but the first packets. A single host has the whole time of a handshake.
WELCOME_SECONDS_MAX = 2.0

#: Calls under way on a connection that takes no more have this time; the server waits no longer either.
DRAIN_SECONDS = 30.0

#: Connections that were left and have calls under way. A server that is restarted leaves one; only one that goes away
#: again and again leaves more, and then the oldest is given up.
OLDER_MAX = 4

#: Calls that may wait for a connection: as many as may wait on one. Beyond them a call fails at once.
WAITING_MAX = 100_000

#: Reasons for which a connection ends before it is of any use, and the next one would end in the same way: the protocol
#: and its capabilities, the key, and the user.
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


class Dial(Protocol):
    """Opens a transport."""

    def __call__(self, address: Address, /, *, timeout: float) -> Awaitable[Peer]: ...


class Flight(Enum):
    """When a call may leave: behind HELLO, behind HELLO if it is the only one that waits, or after WELCOME.

    A connection that is lost before WELCOME has not named its server, which may have applied the changes sent on it. A
    read can be sent again all the same, and a change that is alone saves its round trip. Of many changes none would be
    sure of its fate, and with several hosts a change could not be sent to another.
    """

    FIRST = "first"
    FIRST_ALONE = "first, alone"
    WELCOMED = "welcomed"


class Trouble(Enum):
    """Why a host is of no use now."""

    SILENT = "it cannot be reached, or said nothing before the connection ended"
    LATER = "it refused the connection for a reason that passes"
    FOR_GOOD = "it refused the connection for a reason that stays"


class Connector:
    """Keeps a connection to one of the hosts of ``address``; ``shown`` names them in errors.

    A task of the connector dials, for all callers that wait, and goes on while there is one: the result of an attempt
    outlives the caller that began it. All hosts are dialled together, the one that was reached last preferred. A host
    that refuses a connection moves to the end, and with a reason that stays it is dialled only where no other host can
    be reached. Rounds that fail are followed by others, with backoff.

    With ``wait`` that holds from the first connection on. Without it the first round is the only one until a server has
    once answered or said that there is no room now. WELCOME is not signed: a server that ends a connection over a
    signature, before it has answered anything, has another key.

    ``peer`` is the connection that takes calls, once it has been welcomed. ``connected_once`` says whether there has
    ever been a connection.
    """

    def __init__(self, address: Address, shown: str, backoff: Backoff, dial: Dial, *, wait: bool = True) -> None:
        self.peer: Peer | None = None
        self.established: bool = False
        self.connected_once: bool = False
        self._address = address
        self._given = tuple(dict.fromkeys(address.places))
        self._places = list(self._given)  # the most promising first
        self._reached: Place | None = None  # the host of the server that has answered last
        self._shown = shown
        self._backoff = backoff
        self._dial = dial
        self._wait = wait
        self._failed_rounds = 0
        self._loss: ConnectionLost | None = None  # why the last round failed, or the last connection ended
        self._current: Peer | None = None  # the newest that was dialled, and is neither lost nor left
        self._dialling: asyncio.Task[None] | None = None
        self._waiting: dict[asyncio.Future[Peer], Flight] = {}
        self._failed: dict[Place, Trouble] = {}  # hosts of no use, since one was
        self._answering = False  # whether the present connection has taken a call
        self._older: dict[Peer, None] = {}  # the oldest first
        self._endings: set[asyncio.Task[None]] = set()
        self._retired = False
        self._closed = False

    def afresh(self) -> Connector:
        """A connector to the same hosts that has no connection and knows nothing of them, for another loop."""
        connector = Connector(self._address, self._shown, self._backoff, self._dial, wait=self._wait)
        connector.connected_once = self.connected_once
        connector._retired = self._retired
        connector._closed = self._closed
        return connector

    @property
    def hopeful(self) -> bool:
        """Whether a connection may be had by dialling again."""
        if len(self._failed) < len(self._places):
            return True
        patient = self._wait or self.established
        return any(
            trouble is Trouble.LATER or (patient and trouble is Trouble.SILENT) for trouble in self._failed.values()
        )

    @property
    def connection_open(self) -> bool:
        """Whether a connection is open, welcomed or not, that was not left for another."""
        return self._current is not None and not self._current.closed

    @property
    def reached(self) -> str | None:
        """The URL of the server that has answered last."""
        return None if self._reached is None else str(self._address.at([self._reached]))

    async def connected(self, deadline: float | None, flight: Flight) -> Peer:
        """A connection on which a call may leave now, by ``deadline`` (time of the loop).

        A request that is made at once on one that was just dialled leaves in one write with HELLO. Raises
        ``ConnectionLost`` with outcome ``not_applied``.
        """
        if self._closed:
            raise self._closed_error()
        peer = self._current
        if peer is not None and not peer.closed and (flight is Flight.FIRST or self._dialling is None):
            return peer
        if peer is not None and self._dialling is None:
            self.lost(peer)
        if len(self._waiting) >= WAITING_MAX:
            reason = {"reason": "too many calls wait for a connection"}
            raise failure(Code.TOO_MANY_REQUESTS, reason, outcome="not_applied").exception()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Peer] = loop.create_future()
        self._waiting[waiter] = flight
        if self._dialling is None:
            self._dialling = loop.create_task(self._serve_waiting())
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter
        except TimeoutError:
            raise self._too_late() from None
        finally:
            self._waiting.pop(waiter, None)

    @property
    def closed(self) -> bool:
        """Whether no more calls are taken."""
        return self._retired or self._closed

    def check_open(self) -> None:
        """Raise ``ConnectionLost`` where no more calls are taken."""
        if self.closed:
            raise self._closed_error()

    def answered(self, peer: Peer) -> None:
        """Note that a server has answered a call, and not by going away."""
        self.established = True
        if self._current is peer:
            self._reached = peer.dialled
            self._answering = True
            self._failed.clear()

    def lost(self, peer: Peer, loss: ConnectionLost | None = None) -> None:
        """Note that a connection has ended; one that had been welcomed makes the next attempt an immediate one."""
        if self._current is not peer:
            return
        self.peer = self._current = None
        if loss is not None:
            self._loss = loss
        if not peer.closed:
            self._end(peer.aclose())  # its transport lingers, and is not left behind where the client is closed
        code = _code_of(loss)
        if link_of(peer).admitted and (self._answering or code != Code.SIGNATURE_MISMATCH):
            self.established = True
            self._failed_rounds = 0
            self._failed.clear()
            if code == Code.IDLE_TIMEOUT:
                self._put_last(peer.dialled)  # it may still take connections, and say nothing
        elif code in FOR_GOOD:
            self._pass_over(peer, Trouble.FOR_GOOD)
        else:
            said = None if loss is None else loss.failure
            self._pass_over(peer, Trouble.SILENT if said is None else Trouble.LATER)

    def leave(self, peer: Peer, why: Failure) -> None:
        """The server takes no more calls on ``peer``: the next one goes to a new connection, and this one ends with its
        last call. The next attempt is an immediate one if this connection was of any use.
        """
        if self._current is peer:
            self.established = True
            self.peer = self._current = None
            told = describe(why.name, why.code, why.message, why.details)
            self._loss = ConnectionLost(told, outcome="not_applied", failure=why)
            if self._answering:
                self._failed_rounds = 0
            else:
                self._pass_over(peer, Trouble.LATER)
        if peer.closed or peer in self._older:
            return
        self._older[peer] = None
        peer.on_close(lambda: self._older.pop(peer, None))
        self._end(peer.drain(DRAIN_SECONDS))
        if len(self._older) > OLDER_MAX:
            oldest = next(iter(self._older))
            del self._older[oldest]
            self._end(oldest.aclose())

    def retire(self) -> None:
        """Take no more calls; the calls under way go on, on further connections if need be."""
        self._retired = True
        self.peer = None

    def disown(self, owner: int) -> None:
        """Leave the connections to the process that this one was forked from."""
        for peer in self._all():
            link_of(peer).disown(owner)

    def abandon(self) -> None:
        """End the connections after their loop was closed."""
        for peer in self._all():
            link_of(peer).closing.abandon()

    async def drain(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for the calls under way on the connections, and end them."""
        if peers := self._all():
            await asyncio.gather(*(peer.drain(timeout) for peer in peers))

    async def aclose(self) -> None:
        """Close at once. Calls under way end with ``ConnectionLost``."""
        self._closed = True
        self._refuse_waiting(self._closed_error)
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.wait((self._dialling,))
        peers = self._all()
        self.peer = self._current = None
        if peers:  # without one there need not even be a loop: a forked child closes its copy
            await asyncio.gather(*(peer.aclose() for peer in peers))
        if self._endings:
            await asyncio.wait(self._endings)

    # -- dialling ---------------------------------------------------------------------------------------------------

    async def _serve_waiting(self) -> None:
        """Dial until there is a connection, no caller waits for one any longer, or there is no hope for any."""
        try:
            while self._waiting and not await self._connect():
                if not self.hopeful:
                    self._refuse_waiting(self._last_loss)
        except Exception as error:
            # A key file that cannot be read any longer, for instance: it concerns every caller.
            for waiter in self._take_waiting():
                waiter.set_exception(error)
        finally:
            self._dialling = None

    async def _connect(self) -> bool:
        """Make one attempt; say whether there is a connection that was welcomed."""
        if self._failed_rounds:
            await self._backoff.wait(self._failed_rounds)
        peer = await self._round()
        if peer is None:
            return False
        self._current = peer
        self.connected_once = True
        link_of(peer).kept = True
        self._answering = False
        alone = len(self._waiting) == len(self._given) == 1 and not self.established
        for waiter in self._take_waiting(Flight.FIRST, *([Flight.FIRST_ALONE] if alone else [])):
            waiter.set_result(peer)
        try:
            async with asyncio.timeout(WELCOME_SECONDS_MAX if len(self._given) > 1 else None):
                await peer.ready()
        except ConnectionLost as loss:
            self.lost(peer, loss)
            return False
        except TimeoutError:
            self.lost(peer, ConnectionLost(f"{format_place(peer.dialled or '')} did not answer HELLO in time"))
            return False
        if self._current is not peer:
            return False  # it went away with its first answer
        if not self._retired:
            self.peer = peer
        for waiter in self._take_waiting():
            waiter.set_result(peer)
        return True

    async def _round(self) -> Peer | None:
        """Dial all hosts, first without the ones that have refused for good. None: ``_loss`` says why, by host."""
        losses: list[str] = []
        good = [place for place in self._places if self._failed.get(place) is not Trouble.FOR_GOOD]
        bad = [place for place in self._places if place not in good]
        for places in (good, bad):
            if not places:
                continue
            timeout = DIAL_SECONDS + DIAL_SECONDS_PER_HOST * len(places)
            try:
                peer = await self._dial(self._address.at(places), timeout=timeout)
            except ConnectionLost as loss:
                losses.append(str(loss))
                self._failed.update(dict.fromkeys(places, Trouble.SILENT))
            else:
                self._prefer(peer.dialled)
                return peer
        self._failed_rounds += 1
        self._loss = ConnectionLost("; ".join(losses), outcome="not_applied")
        return None

    def _prefer(self, place: Place | None) -> None:
        if place in self._places:
            others = [each for each in self._given if each != place]
            self._places = [place, *others]

    def _pass_over(self, peer: Peer, trouble: Trouble) -> None:
        """The host of a connection is of no use now: the others are preferred."""
        self._failed_rounds += 1
        place = peer.dialled
        if place in self._places:
            self._failed[place] = trouble
        self._put_last(place)

    def _put_last(self, place: Place | None) -> None:
        if place in self._places:
            self._places.remove(place)
            self._places.append(place)

    def _take_waiting(self, *flights: Flight) -> list[asyncio.Future[Peer]]:
        """Take callers off the list of waiting ones: all of them, or the ones of some kinds."""
        taken = [waiter for waiter, flight in self._waiting.items() if not flights or flight in flights]
        for waiter in taken:
            del self._waiting[waiter]
        return [waiter for waiter in taken if not waiter.done()]

    def _refuse_waiting(self, error: Any) -> None:
        for waiter in self._take_waiting():
            waiter.set_exception(error())

    # -- errors -----------------------------------------------------------------------------------------------------

    def _closed_error(self) -> ConnectionLost:
        return ConnectionLost(f"the client of {self._shown} is closed", outcome="not_applied")

    def _last_loss(self) -> ConnectionLost:
        assert self._loss is not None  # an attempt has failed
        last = ConnectionLost(str(self._loss), outcome="not_applied", failure=self._loss.failure)
        last.__cause__ = self._loss.__cause__
        return last

    def _too_late(self) -> ConnectionLost:
        loss = self._loss
        reason = "" if loss is None else f" ({loss})"
        said = None if loss is None else loss.failure
        return ConnectionLost(f"no connection to {self._shown} in time{reason}", outcome="not_applied", failure=said)

    def _end(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    def _all(self) -> list[Peer]:
        return [*self._older, *([] if self._current is None else [self._current])]


def _code_of(loss: ConnectionLost | None) -> int | None:
    """The error that ended a connection, whichever side found it."""
    found = None if loss is None else loss.failure or loss.__cause__
    return found.code if isinstance(found, Failure | ProtocolError) else None
