"""A request of the other side, as its handler sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from threading import get_ident
from typing import TYPE_CHECKING

import msgspec

from haptera.errors import Failure
from haptera.peer.call import as_bytes
from haptera.peer.trace import Trace, decode_trace
from haptera.wire import Tag

if TYPE_CHECKING:
    from haptera.peer.dispatcher import Dispatcher
    from haptera.peer.item_queue import Items
    from haptera.peer.link import Link
    from haptera.peer.peer import Peer
else:
    Dispatcher = object  # ``help`` and ``inspect.signature`` look the types of the struct's fields up


# A struct, because the hottest of all objects is made without a line of Python.
class Request(msgspec.Struct, eq=False, weakref=True):
    """A request that the other side sent. Its first answer counts, and every later one is ignored.

    It belongs to the loop of its connection: another thread answers with ``loop.call_soon_threadsafe``, and is refused
    with ``WrongLoop`` otherwise.

    ``payload`` is the argument, any bytes. ``service`` and ``method`` say where it goes, ``stream`` is the number of
    its stream. ``request_id`` is the caller's UUID of this request, 16 bytes, or None. ``deadline`` is when the time of
    the caller is over, as time of the loop, or None. ``cancelled`` turns true when the caller no longer wants the
    answer, or its time is over; an answer is still owed. ``on_cancel`` is called once when the caller cancels, its time
    is over, or the connection ends, before the answer. ``resent`` says that the caller may have sent it on another
    connection before.

    Calls that a handler makes while its request is not answered, on any peer, have no more time than the request has
    left, and belong to the same trace.
    """

    _responder: "Dispatcher"
    stream: int
    service: str
    method: str
    payload: bytes
    _entries: dict[int, bytes]
    request_id: bytes | None = None
    deadline: float | None = None
    cancelled: bool = False
    on_cancel: Callable[[], None] | None = None
    resent: bool = False
    #: When it was received, when its handler took its first step in a task of its own, and how long a service that has
    #: no task for it has worked on it (`haptera.peer.stopwatch`).
    _received: float = 0.0
    _begun: float | None = None
    _used: float = 0.0

    def __repr__(self) -> str:
        return f"<Request {self.service}.{self.method} on stream {self.stream}>"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show no more than ``repr`` does."""
        return [("request", repr(self))]

    @property
    def peer(self) -> Peer:
        """The other side."""
        return self._responder.peer

    @property
    def answered_below(self) -> int | None:
        """The stream below which the caller has read every answer, if it said so."""
        value = self._entries.get(Tag.ANSWERED_BELOW)
        return None if value is None else int.from_bytes(value, "big")

    @property
    def content_type(self) -> str | None:
        """The kind of the payload, if the caller says it."""
        value = self._entries.get(Tag.CONTENT_TYPE)
        return None if value is None else value.decode()

    @property
    def trace(self) -> Trace | None:
        """The trace that this request belongs to, if its caller says so (`trace_context`)."""
        return decode_trace(self._entries) if self._entries else None

    @property
    def under_way(self) -> bool:
        """Whether the answer is still owed, and there is a connection to give it on."""
        return self._responder.requests.get(self.stream) is self

    @property
    def items(self) -> AsyncIterator[bytes]:
        """The items that the caller sends behind a streaming request, as they come, for one task to iterate over.

        Raises ``ConnectionLost`` if the connection ends before the last, ``CancelledError`` if the request is
        cancelled.
        """
        return self._iterate(self._responder.items.get(self.stream))

    def respond(self, payload: bytes = b"", entries: bytes = b"") -> None:
        """Answer with success; nothing happens if the connection is gone.

        Args:
            payload: The answer.
            entries: Encoded metadata entries.

        Raises:
            WrongLoop: Another thread than the connection's calls it.
        """
        self._responder.respond(self, payload if type(payload) is bytes else as_bytes(payload), entries)

    def fail(self, reason: Failure, entries: bytes = b"") -> None:
        """Answer with an error; nothing happens if the connection is gone.

        Args:
            reason: The error.
            entries: Encoded metadata entries.

        Raises:
            WrongLoop: Another thread than the connection's calls it.
        """
        self._responder.fail(self, reason, entries)

    async def send(self, item: bytes) -> None:
        """Send one item and wait until there is room for the next.

        Args:
            item: Its bytes.

        Raises:
            ConnectionLost: The connection is gone.
            CancelledError: The request was cancelled.
            LocalProtocolError: Nothing was sent: the other side takes no item as large (3004), or this process has as
                much in memory for its connections as it may (3007).
        """
        payload = item if type(item) is bytes else as_bytes(item)
        link = self._responder.link
        _check_alive(link)
        room = not self.cancelled and link.connection.send_item(self.stream, payload)
        link.schedule_flush()
        if not room:
            await self._wait_room(link.connection.ask_room)

    async def room(self) -> None:
        """Wait until an item would leave before long.

        ``send`` has waited for the next one already: this is for a first item that is large, or whose source need not
        be kept in memory meanwhile. Raises as ``send`` does.
        """
        link = self._responder.link
        _check_alive(link)
        if self.cancelled or not link.connection.ask_room(self.stream):
            await self._wait_room(link.connection.ask_room)

    async def left(self) -> None:
        """Wait until all items that were sent have left, and another would leave before long.

        This is for an item that has the more in it the later it is made. Raises as ``send`` does.
        """
        link = self._responder.link
        _check_alive(link)
        if self.cancelled or not link.connection.ask_left(self.stream):
            await self._wait_room(link.connection.ask_left)

    def try_send(self, item: bytes) -> bool:
        """Send one item if all that was sent before has left.

        This is for items of which only the newest matters: nothing is kept of one that is not sent, and nothing is sent
        once the request is cancelled or its connection gone.

        Args:
            item: Its bytes.

        Returns:
            Whether it was sent.

        Raises:
            LocalProtocolError: The other side takes no item as large (3004).
        """
        payload = item if type(item) is bytes else as_bytes(item)
        link = self._responder.link
        if get_ident() != link.home.thread:
            link.home.check()
        sent = not self.cancelled and link.ending is None and link.connection.try_item(self.stream, payload)
        if sent:
            link.schedule_flush()
        return sent

    @staticmethod
    def try_send_all(requests: Sequence[Request], item: bytes) -> list[int]:
        """Send the same item on requests of one connection, as ``try_send`` does on one.

        Many cost little more than one.

        Args:
            requests: The requests, at least one and each once.
            item: Its bytes.

        Returns:
            The places of the requests on which it was not sent.

        Raises:
            LocalProtocolError: The other side takes no item as large (3004).
        """
        payload = item if type(item) is bytes else as_bytes(item)
        link = requests[0]._responder.link
        if get_ident() != link.home.thread:
            link.home.check()
        if link.ending is not None:
            return list(range(len(requests)))
        streams = [0 if request.cancelled else request.stream for request in requests]
        unsent = link.connection.try_items(streams, payload)
        link.schedule_flush()
        return unsent

    async def _wait_room(self, ask: Callable[[int], bool]) -> None:
        items = self._responder.items_of(self)
        link = self._responder.link
        while True:
            await items.wait_room()
            _check_alive(link)
            # Others that went on in the same turn of the loop may have filled it again.
            if not self.cancelled and ask(self.stream):
                return

    async def _iterate(self, items: Items | None) -> AsyncIterator[bytes]:
        link = self._responder.link
        lost = False
        while items is not None:
            while items.arrived:
                if get_ident() != link.home.thread:
                    link.home.check()
                payload = link.take_item(self.stream, items.arrived.popleft())
                if isinstance(payload, Failure):
                    items.arrived.clear()  # items behind a lost one are not handed over in its place
                    lost = self.cancelled
                    if lost:
                        break
                    raise payload.exception()
                yield payload
            if items.ended and not lost:
                return
            _check_alive(link)
            await items.wait_arrival()


def by_service(requests: list[Request]) -> Iterable[tuple[str, list[Request]]]:
    """The requests for each service, which in most cases is one."""
    service = requests[0].service
    if [request.service for request in requests].count(service) == len(requests):
        return ((service, requests),)
    found: dict[str, list[Request]] = {}
    for request in requests:
        found.setdefault(request.service, []).append(request)
    return found.items()


def respond_all(answers: Sequence[tuple[Request, bytes, bytes]]) -> None:
    """Answer requests of one connection, each with its answer and its encoded entries, as ``Request.respond`` does one.

    A service that takes batches answers many at the price of few.
    """
    if answers:
        answers[0][0]._responder.respond_all(answers)


def _check_alive(link: Link) -> None:
    """Raise ``ConnectionLost`` if the connection is over, ``WrongLoop`` in another thread than its own."""
    if get_ident() != link.home.thread:
        link.home.check()
    if link.ending is not None:
        raise link.lost_error("unknown")
