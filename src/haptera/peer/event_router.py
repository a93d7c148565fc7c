"""The events of one connection, each handed to the side that it concerns: our calls, or the other side's requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

from haptera.connection import (
    CallFailed,
    CancelReceived,
    Closed,
    ErrorReceived,
    Established,
    Event,
    GoawayReceived,
    ItemReceived,
    RequestAborted,
    RequestFinished,
    RequestReceived,
    ResponseReceived,
    beginning_of,
)
from haptera.peer.call import Answer
from haptera.peer.closing import Drain
from haptera.peer.timers import IdleWatch

if TYPE_CHECKING:
    from haptera.errors import Outcome
    from haptera.peer.authentication import Authenticator
    from haptera.peer.dispatcher import Dispatcher
    from haptera.peer.entrance import Entrance
    from haptera.peer.event_log import EventLog
    from haptera.peer.link import Link
    from haptera.peer.outgoing_calls import Caller
    from haptera.peer.own_credential import OwnCredential
    from haptera.peer.peer import Peer
    from haptera.peer.proof import Proof
    from haptera.peer.server import Server


#: The types of the events of a read that has nothing but requests.
_REQUESTS: Final = {RequestReceived}


class EventRouter:
    """Stands between a link and the two that use it: the caller and the dispatcher."""

    __slots__ = (
        "_caller",
        "_dispatcher",
        "_drain",
        "_entrance",
        "_idle_timeout_s",
        "_idle_watch",
        "_leaving",
        "_link",
        "_owner",
        "_proof",
    )

    def __init__(
        self,
        link: Link,
        caller: Caller,
        dispatcher: Dispatcher,
        owner: Server | None,
        idle_timeout_s: float | None,
    ) -> None:
        self._link = link
        self._caller = caller
        self._dispatcher = dispatcher
        self._owner = owner  # of a connection that was accepted
        self._drain: Drain | None = None
        self._idle_timeout_s = idle_timeout_s
        self._idle_watch: IdleWatch | None = None
        self._leaving: asyncio.Task[None] | None = None
        # Until an identity is proved: the side that asks for the proof, or the one that gives it.
        self._entrance: Entrance | None = None
        self._proof: Proof | None = None
        link.above = self

    def ask_proof(self, authenticator: Authenticator, log: EventLog) -> None:
        """Have the other side of an accepted connection prove its identity before it is served."""
        from haptera.peer.entrance import Entrance  # noqa: PLC0415  # with all of `security`, for few connections

        self._entrance = entrance = Entrance(self._link, self._dispatcher, authenticator, log, self._admitted)
        self._dispatcher.gate = entrance
        beginning_of(self._link.connection).offer(entrance.offer)

    def give_proof(self, login: OwnCredential) -> None:
        """Prove to the other side who the user of this one is, before anything else."""
        from haptera.peer.proof import Proof  # noqa: PLC0415  # as above

        self._proof = proof = Proof(self._link, login, self._accepted)
        self._dispatcher.gate = proof
        beginning_of(self._link.connection).proves = proof.proves

    @property
    def _peer(self) -> Peer:
        return self._dispatcher.peer

    # -- events -----------------------------------------------------------------------------------------------------

    def take(self, events: Sequence[Event]) -> bool:
        """Act on the events of the state machine. Return whether something may wait for ``flushed``."""
        if self._proof is not None:
            self._take_early(events)
            return True
        dispatcher = self._dispatcher
        caller = self._caller
        before = dispatcher.requests_received
        requests: list[RequestReceived] = []  # those in a row are added together
        if events and set(map(type, events)) == _REQUESTS:
            requests, events = cast("list[RequestReceived]", events), ()
        elif caller.calls and (ended := caller.end_first(events)):
            events = events[ended:]
        for event in events:
            # The two usual ones first.
            if type(event) is RequestReceived:
                requests.append(event)
                continue
            if requests:
                dispatcher.add(requests)
                requests = []
            if type(event) is ResponseReceived:
                caller.end(event.stream, Answer(event.payload, None, event.entries))
            else:
                self._take_other(event)
        if requests:
            dispatcher.add(requests)
        if dispatcher.arrived:
            dispatcher.start()
        if dispatcher.requests_received > before:
            dispatcher.watch()  # though none may be left to start: a CANCEL that came with a request ends it
        if caller.waits:
            caller.begin_waiting()
        return bool(dispatcher.arrived) or caller.waits or self._drain is not None

    def _take_early(self, events: Sequence[Event]) -> None:
        """Act on events before this side's identity is proved: answers are the exchange's, or wait for its end."""
        for place, event in enumerate(events):
            proof = self._proof
            if proof is None:
                self.take(events[place:])
                return
            if proof.takes(event):
                proof.take(event)
            elif isinstance(event, RequestReceived):
                self._dispatcher.add((event,))
            else:
                self._take_other(event)
        self._dispatcher.watch()

    def _accepted(self) -> None:
        """The other side has accepted this one's proof, and has proved itself: act on its answers."""
        proof, self._proof = self._proof, None
        assert proof is not None
        beginning_of(self._link.connection).admit()
        self._admitted()
        self.take(proof.held)

    def _admitted(self) -> None:
        """The two sides know each other: let them serve each other."""
        self._entrance = None
        self._dispatcher.gate = None
        if self._owner is not None:
            self._owner.established(self._peer)
        self._link.establish()
        if self._caller.waits:
            self._caller.begin_waiting()
        if self._dispatcher.arrived:
            self._dispatcher.start()
        self._link.schedule_flush()

    def _establish(self) -> None:
        """The handshake is done."""
        link = self._link
        connection = link.connection
        agreement = connection.agreement
        assert agreement is not None
        self._dispatcher.use(agreement.capabilities)
        self._caller.use(agreement.capabilities)
        if connection.guarded:
            link.establish()
            if self._proof is not None:
                self._proof.welcomed(agreement.mechanisms)
            return
        if self._entrance is not None:
            self._entrance.imply()
            if link.ending is not None:
                return
        self._proof = None
        self._admitted()

    def _take_other(self, event: Event) -> None:
        dispatcher, caller, link = self._dispatcher, self._caller, self._link
        match event:
            case ItemReceived(stream, payload):
                if not dispatcher.add_item(stream, payload) and not caller.add_item(stream, payload):
                    # Of a call that was given up, just now perhaps: one for a single answer takes no items.
                    link.take_item(stream)
            case ErrorReceived(stream, reason, entries):
                caller.end(stream, Answer(b"", reason, entries))
            case CallFailed(stream, reason):
                caller.fail(stream, Answer(b"", reason))
            case RequestFinished(stream):
                dispatcher.finish_items(stream)
            case CancelReceived(stream):
                dispatcher.cancel(stream)
            case RequestAborted(stream, reason):
                dispatcher.abort(stream, reason)
            case Established():
                self._establish()
            case GoawayReceived(goaway, answered_below):
                caller.last_taken = goaway.last_stream
                caller.refuse_waiting()
                if answered_below is not None:
                    dispatcher.answers_read(answered_below)
            case Closed():
                link.end(event, "the other side has closed it")
            case _:
                pass

    def make_room(self, streams: Sequence[int]) -> None:
        """Let the producers on these streams go on."""
        for stream in streams:
            if not self._caller.make_room(stream):
                self._dispatcher.make_room(stream)

    def flushed(self) -> None:
        """All ready bytes have been written: start requests that had to wait for that."""
        dispatcher, caller = self._dispatcher, self._caller
        if dispatcher.arrived and self._link.writable:
            dispatcher.resume()
        if caller.waits:
            caller.begin_waiting()
        if self._drain is not None and not caller.waits:
            self._drain.advance()

    def go_on(self) -> None:
        """The link has its turn again: start requests that had to wait for that."""
        self._dispatcher.go_on()

    # -- from the beginning to the end ------------------------------------------------------------------------------

    def opened(self) -> None:
        """The transport is open."""
        if self._idle_timeout_s is not None:
            caller, link = self._caller, self._link
            self._idle_watch = IdleWatch(
                link.loop, link.connection, self._idle_timeout_s, waits=lambda: caller.waits, leave=self._leave
            )
        if self._owner is not None:
            self._owner.opened(self._peer)
        if self._proof is not None:
            self._proof.begin()

    def _leave(self) -> None:
        self._leaving = self._link.loop.create_task(self._peer.drain())

    async def drain(self, timeout: float) -> None:
        """End in an orderly way within ``timeout`` seconds, and wait for the end."""
        if self._drain is None:
            self._drain = Drain(self._link)
        await self._drain.run(timeout)
        await self.wait_gone()

    async def wait_gone(self) -> None:
        """Wait until the transport is closed and each handler that was stopped has ended."""
        await asyncio.shield(self._link.gone)
        await self._dispatcher.handlers.wait()

    def ended(self, sent: Outcome) -> None:
        """The connection is over: fail calls, stop handlers. ``sent`` is the outcome of calls that were sent."""
        if self._idle_watch is not None:
            self._idle_watch.stop()
        if self._entrance is not None:
            self._entrance.close()
        self._caller.close(sent)
        self._dispatcher.close()

    def lost(self) -> None:
        """The transport is closed; it may never have been open."""
        if self._owner is not None:
            self._owner.lost(self._peer)
