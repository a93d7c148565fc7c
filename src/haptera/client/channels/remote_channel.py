"""Calls to a store over a connection.

The way of a call, `RemoteChannel.call`, is straight while there is a connection: encode, send, wait, decode. All
that can go wrong leads to `_persist`, which decides whether the call may be sent again:

- a call that was certainly not applied (never sent, or refused with `not_applied` by a code that passes): always;
- a read that was lost with its connection, whose answer was damaged, or that a code that passes refused: always;
- a change whose fate is unknown, because its connection was lost or its answer damaged: only under its request_id, to
  the server it was sent to, if that remembers ids.

Any other answer is the call's answer, also one that this side cannot decode: the next one would be the same.

The first call goes out behind HELLO in one write (spec/protocol.md, section 4).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from haptera import forks
from haptera.boot_clock import boot_time_ns
from haptera.client.calls.argument_checks import unsendable
from haptera.client.calls.change_calls import ChangeMethods
from haptera.client.calls.key_calls import KvMethods
from haptera.client.calls.methods import (
    BackedUp,
    Method,
    Row,
    Scanned,
    ServerMethods,
    decode_page,
    malformed,
)
from haptera.client.channels.calls_under_way import UnderWay
from haptera.client.channels.dial_store import dial_store
from haptera.client.channels.item_reader import read_items
from haptera.client.channels.request_ids import RequestIds
from haptera.client.channels.retries import StoreCall
from haptera.client.trouble import LEAVING, passes_soon
from haptera.client.watches.watch_stream import WatchStreams
from haptera.client.watches.watched import of_another_server
from haptera.errors import (
    Code,
    ConnectionLost,
    Failure,
    LocalProtocolError,
    ServerError,
    WrongLoop,
    failure,
)
from haptera.key_rules import size_refusal
from haptera.peer import Answer, Backoff, Call, Connector, Dial, Flight, Peer
from haptera.transport import is_loopback, running_loop, wrong_loop

if TYPE_CHECKING:
    from haptera.client.channels.channel import StreamEnd
    from haptera.client.watches.watched import Happened, WatchPosition
    from haptera.transport import Address

R = TypeVar("R")
E = TypeVar("E", Scanned, BackedUp)  #: the result of a stream of items
T = TypeVar("T")


class RemoteChannel:
    """Carries calls over one connection to one of the hosts of ``address``. ``shown`` names them in errors; with
    ``wait`` a call waits for a server that has never answered, as it does for one that was lost.
    """

    def __init__(
        self,
        address: Address,
        shown: str,
        *,
        wait: bool = True,
        backoff: Backoff | None = None,
        dial: Dial = dial_store,
    ) -> None:
        self.revision: int = 0
        self._backoff = backoff or Backoff()
        self._connector = Connector(address, shown, self._backoff, dial, wait=wait)
        self.converting: UnderWay = UnderWay()
        self._unsettled = UnderWay()  # calls that have left the straight way
        self._watches = WatchStreams(self._backoff)
        self._encode = msgspec.msgpack.Encoder().encode
        self._new_id = RequestIds().new
        self._time = time.monotonic  # the loop's own clock from the first call on
        self._shown = shown
        self.private: bool = address.tls or all(is_loopback(host) for host, _ in address.hosts)
        self._home: asyncio.AbstractEventLoop | None = None  # the loop of the connections, from the first call on
        self._pid = 0
        self._answered_by: Peer | None = None  # the connection of the last answer
        forks.watch(self)

    def disown(self, owner: int) -> None:
        """Begin afresh in a forked child: a connection of its own, and ids that neither its parent nor another child
        has (``haptera.forks`` calls this).

        With its parent's ids a child's changes would be taken for repetitions of the parent's.
        """
        self._connector = self._connector.afresh()
        self._new_id = RequestIds().new
        self._unsettled = UnderWay()  # the parent's calls end in the parent
        self.converting = UnderWay()
        self._watches = WatchStreams(self._backoff)
        self._answered_by = None
        self._home = None

    def _bind(self) -> None:
        """Make sure that the connections belong to the loop that runs here.

        A client whose loop is closed begins afresh under the next one: a program may call ``asyncio.run`` more than
        once. So it does in a process that was forked without Python's knowledge, as some servers do. Raises
        ``WrongLoop`` where its loop could still run.
        """
        loop = asyncio.get_running_loop()
        home = self._home
        if home is loop:
            return
        if home is not None:
            if self._pid != os.getpid():
                self._connector.disown(self._pid)
            elif home.is_closed():
                self._connector.abandon()
            else:
                raise wrong_loop(f"the client of {self._shown}", home)
            self._connector = self._connector.afresh()
            self._new_id = RequestIds().new
            self._unsettled = UnderWay()
            self.converting = UnderWay()
            self._watches = WatchStreams(self._backoff)
            self._answered_by = None
        self._home = loop
        self._pid = os.getpid()
        self._time = loop.time

    @property
    def closed(self) -> bool:
        """Whether no more calls are taken."""
        return self._connector.closed

    @property
    def sends_at_once(self) -> bool:
        """Whether there is a connection that takes calls, and its loop runs here."""
        peer = self._connector.peer
        return peer is not None and not peer.closed and self._home is running_loop()

    @property
    def unclosed(self) -> bool:
        """Whether there is a connection that takes calls. Older ones that take no more end by themselves."""
        return self._connector.connection_open

    @property
    def reached(self) -> str | None:
        """The URL, without its options, of the server that has answered last."""
        url = self._connector.reached
        return None if url is None else url.partition("?")[0]

    @property
    def server_id(self) -> bytes | None:
        """The id of the server that has answered last."""
        return None if self._answered_by is None else self._answered_by.server_id

    @property
    def connected_once(self) -> bool:
        """Whether a call may have been sent."""
        return self._connector.connected_once

    async def call(
        self, method: Method[R], argument: tuple[Any, ...], timeout: float | None, server_id: bytes | None = None
    ) -> R | Failure:
        """Send one call and give its result, or the server's failure. :class:`Channel` lists the errors it raises."""
        try:
            payload = self._encode(argument)
        except UnicodeEncodeError:
            self._connector.check_open()
            return unsendable(argument, failure(Code.INVALID_ARGUMENT, {"reason": "not UTF-8"}))
        peer = self._connector.peer
        try:
            if peer is None or peer.closed or (server_id is not None and server_id != peer.server_id):
                self._bind()
                request_id = self._new_id() if method.write else None
                call = StoreCall(method, payload, request_id, self._time(), timeout, boot_time_ns(), server_id)
                answer = await self._persist(call, None)
            else:
                request_id, begun_ns = (self._new_id(), boot_time_ns()) if method.write else (None, 0)
                started = self._time()
                try:
                    sent = peer.request(
                        method.service, method.name, payload, timeout=timeout, request_id=request_id, repeats=True
                    )
                except WrongLoop:
                    self._bind()  # raises, unless there is no such connection any more
                    return await self.call(method, argument, timeout)
                try:
                    answer = await sent
                except ConnectionLost as lost:
                    call = StoreCall(method, payload, request_id, started, timeout, begun_ns, server_id)
                    self._lost(peer, call, lost)
                    answer = await self._persist(call, lost)
                except asyncio.CancelledError:
                    sent.release()  # its answer may have come, damaged, in this very turn of the loop
                    raise
                else:
                    self._answered_by = peer
                    if answer.failure is not None:
                        if passes_soon(answer.failure, write=method.write):
                            call = StoreCall(method, payload, request_id, started, timeout, begun_ns, server_id)
                            self._refused(peer, call, sent, answer.failure)
                            answer = await self._persist(call, answer)
                        else:
                            sent.release()
        except LocalProtocolError as error:
            if error.code != Code.MESSAGE_TOO_LARGE:
                raise malformed(method, error) from error
            return unsendable(argument, size_refusal(error.details["limit"]))
        if answer.failure is not None:
            return answer.failure
        revision = answer.revision
        if revision is not None:
            self.revision = revision
        try:
            return method.decode(answer.payload)
        except (ValueError, RecursionError) as error:
            raise malformed(method, error) from error

    async def _persist(self, call: StoreCall, trouble: ConnectionLost | Answer | None) -> Answer:
        """Send a call until it is answered, its time is over, or sending it again could apply it twice."""
        if trouble is None:
            self._connector.check_open()
        with self._unsettled:
            try:
                return await self._repeat(call, trouble)
            except LocalProtocolError:
                if not call.unknown:
                    raise
                raise ConnectionLost("lost, and the server that answers now takes no message as large") from None
            finally:
                call.end()

    async def _repeat(self, call: StoreCall, trouble: ConnectionLost | Answer | None) -> Answer:
        while True:
            if trouble is not None:
                if not call.may_repeat(self._time(), boot_time_ns()):
                    break
                if isinstance(trouble, ConnectionLost) and not self._connector.hopeful:
                    break
                await self._pause(call)
                if isinstance(trouble, Answer) and self._time() >= call.deadline:
                    break  # one more attempt would only hide the refusal behind a timeout
            try:
                peer = await self._peer_for(call)
            except ConnectionLost as lost:
                raise call.loss(lost) from lost.__cause__
            sent = self._request(peer, call)
            if call.unknown and not sent.stream:
                await self._leave(sent, call)
            try:
                answer = await sent
            except asyncio.CancelledError:
                sent.release()
                raise
            except ConnectionLost as lost:
                self._lost(peer, call, lost)
                trouble = lost
                continue
            except ServerError as late:  # its time is over; a lost connection may be one of these too
                if late.outcome == "not_applied":  # it never left
                    return call.answer(Answer(b"", failure(Code.DEADLINE_EXCEEDED, outcome="not_applied")))
                raise late from call.refusal
            if answer.failure is None or not passes_soon(answer.failure, write=call.method.write):
                self._connector.answered(peer)
                self._answered_by = peer
                sent.release()
                return call.answer(answer)
            self._refused(peer, call, sent, answer.failure)
            trouble = answer
        if isinstance(trouble, ConnectionLost):
            raise call.loss(trouble)
        return call.answer(trouble)

    async def _peer_for(self, call: StoreCall) -> Peer:
        """A connection on which the call may be sent. A change that may have been applied goes only to a server that
        remembers it, while it certainly does.
        """
        flight = Flight.FIRST
        if call.method.write:
            flight = Flight.WELCOMED if call.unknown or call.only_server is not None else Flight.FIRST_ALONE
        peer = await self._connector.connected(call.by, flight)
        if call.unknown:
            if not call.remembered_by(peer):
                raise ConnectionLost("lost, and the server that answers now does not remember the change")
            if not call.may_repeat(self._time(), boot_time_ns()):  # the connection may have been long in coming
                raise _too_long_ago()
        elif call.only_server not in {None, peer.server_id}:
            raise of_another_server(self.revision)
        return peer

    def _request(self, peer: Peer, call: StoreCall) -> Call:
        timeout = None if call.by is None else max(call.by - self._time(), 0.001)
        method = call.method
        return peer.request(
            method.service,
            method.name,
            call.payload,
            timeout=timeout,
            request_id=call.request_id,
            repeats=True,
            resent=call.resent_on(peer),
        )

    async def _leave(self, sent: Call, call: StoreCall) -> None:
        """Wait until a repetition that found no free stream has one.

        Raises ``ConnectionLost`` where the server may have forgotten the change by then.
        """
        left = call.remembered_for(self._time(), boot_time_ns())
        try:
            await asyncio.wait((sent,), timeout=left)
        except asyncio.CancelledError:
            sent.cancel()
            raise
        if not sent.stream and not sent.done():
            sent.cancel()
            raise call.loss(_too_long_ago())

    async def _pause(self, call: StoreCall) -> None:
        call.attempt += 1
        await self._backoff.wait(call.attempt, max(call.deadline - self._time(), 0.0))

    def _lost(self, peer: Peer, call: StoreCall, lost: ConnectionLost) -> None:
        call.unanswered(peer, lost.outcome)
        self._connector.lost(peer, lost)

    def _refused(self, peer: Peer, call: StoreCall, sent: Call, refusal: Failure) -> None:
        call.refused = refusal
        call.unanswered(peer, refusal.outcome, sent)
        self._heed(peer, refusal)

    def _heed(self, peer: Peer, refusal: Failure) -> None:
        if refusal.code in LEAVING:
            self._connector.leave(peer, refusal)
        else:
            self._connector.answered(peer)

    def scan(
        self, options: dict[str, Any], end: StreamEnd[Scanned], page_timeout: float | None, timeout: float | None
    ) -> AsyncGenerator[list[Row], None]:
        """The pages of a scan. Each may take ``page_timeout`` seconds; with ``timeout`` all of them together that."""
        return self._stream(KvMethods.scan, (options,), decode_page, end, page_timeout, timeout)

    def backup(
        self, end: StreamEnd[BackedUp], piece_timeout: float | None, timeout: float | None
    ) -> AsyncGenerator[bytes, None]:
        """The pieces of a backup, with the times that the pages of a scan have."""
        return self._stream(ServerMethods.backup, (), bytes, end, piece_timeout, timeout)

    async def _stream(
        self,
        method: Method[E],
        argument: tuple[Any, ...],
        decode: Callable[[bytes], T],
        end: StreamEnd[E],
        item_timeout: float | None,
        timeout: float | None,
    ) -> AsyncGenerator[T, None]:
        """The items of a call.

        It is sent again as other reads are, until its first item has come. After that it is not: the items that follow
        would be of another revision.
        """
        payload = self._encode(argument)
        self._bind()
        call = StoreCall(method, payload, None, self._time(), item_timeout if timeout is None else timeout)
        self._connector.check_open()
        while True:
            with self._unsettled:
                peer = await self._connector.connected(call.by, Flight.FIRST)
            begun = False
            items = read_items(peer, method, payload, decode, end, item_timeout if timeout is None else None, timeout)
            try:
                async for item in items:
                    begun = True
                    self._connector.answered(peer)
                    yield item
                assert end.result is not None
                self.revision, self._answered_by = end.result.revision, peer
                return
            except ConnectionLost as lost:
                self._connector.lost(peer, lost)
                if begun or not self._connector.hopeful or not call.may_repeat(self._time(), boot_time_ns()):
                    raise call.loss(lost) from None
            except ServerError as error:
                refusal = Failure(error.code, error.name, error.message, error.outcome, error.details)
                if begun or not passes_soon(refusal, write=False) or not call.may_repeat(self._time(), boot_time_ns()):
                    raise
                self._heed(peer, refusal)
            finally:
                await items.aclose()
            with self._unsettled:
                await self._pause(call)

    async def watch(self, position: WatchPosition, timeout: float | None) -> AsyncGenerator[list[Happened], None]:
        """The events of a watch. Its beginning may take ``timeout`` seconds, and then it goes on until it is closed."""
        self._bind()
        followed = self._watches.follow(self._connector, ChangeMethods.watch, self._encode, position, timeout)
        async with aclosing(followed) as items:
            async for events in items:
                yield events

    async def start(self) -> None:
        """Nothing: the first call dials, so that it can leave in one write with HELLO."""

    async def drain(self, timeout: float) -> None:
        """Take no more calls, wait up to ``timeout`` seconds for the ones under way, and close.

        A call that waits for a connection, or is sent again, is under way too: it is waited for first, because a
        connection that drains sends no more requests.
        """
        self._bind()
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        try:
            async with asyncio.timeout_at(end):
                await self.converting.wait()
                self._connector.retire()
                await self._watches.end()
                await self._unsettled.wait()
                while True:
                    await self._connector.drain(max(end - loop.time(), 0.0))
                    if not self._unsettled:  # a call whose connection was lost meanwhile goes on with another
                        break
                    await self._unsettled.wait()
        except TimeoutError:
            pass
        await self.aclose()

    async def aclose(self) -> None:
        if self._home is not None:
            self._bind()
        await self._connector.aclose()


def _too_long_ago() -> ConnectionLost:
    return ConnectionLost("lost, and so long ago that the server may not remember the change")
