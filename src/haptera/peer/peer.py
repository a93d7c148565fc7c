"""The other side of a connection, as a program sees it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, overload

from haptera.peer.call import Call, CallStream
from haptera.peer.identity import ANYONE, Identity
from haptera.peer.item_queue import Items
from haptera.peer.limits import DRAIN_S
from haptera.peer.typed_answers import TypedAnswers, TypedCallStream
from haptera.timeouts import DEFAULT, Timeout
from haptera.transport import Place, url_of, warn_unclosed
from haptera.wire import Tag

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.connection import Agreement, Budget
    from haptera.errors import ProtocolError
    from haptera.peer.dispatcher import Dispatcher
    from haptera.peer.event_router import EventRouter
    from haptera.peer.link import Link
    from haptera.peer.outgoing_calls import Caller
    from haptera.peer.remote_address import Credentials
    from haptera.peer.service import Service
    from haptera.value_codecs import CodecName

T = TypeVar("T")

_REQUEST_ID_SIZE: Final = 16
_RESENT: Final = bytes((Tag.RESENT, 0))


class Peer:
    """The other side of one connection: calls its services, and serves ours to it.

    ``haptera.dial`` and ``haptera.listen`` make peers. All calls share the connection and run at once; their answers
    come in any order. ``async with`` closes it.
    """

    __slots__ = (
        "__weakref__",
        "_call_timeout_s",
        "_caller",
        "_dispatcher",
        "_link",
        "_router",
        "attributes",
        "dialled",
        "identity",
    )

    def __init__(
        self,
        link: Link,
        caller: Caller,
        dispatcher: Dispatcher,
        router: EventRouter,
        *,
        dialled: Place | None,
        call_timeout_s: float | None,
    ) -> None:
        #: The host of the URL by which this side has dialled it, or the path; None if it was accepted.
        self.dialled: Place | None = dialled
        #: The user that the other side of an accepted connection has proved to be; None before its proof. Anyone, where
        #: no proof is asked for, and on the dialling side.
        self.identity: Identity | None = ANYONE
        #: State that services keep for this connection.
        self.attributes: dict[str, Any] = {}
        self._link = link
        self._caller = caller
        self._dispatcher = dispatcher
        self._router = router
        self._call_timeout_s = call_timeout_s
        dispatcher.peer = self

    def __del__(self) -> None:
        link: Link | None = getattr(self, "_link", None)  # none after an error in __init__
        # A server closes the connections that it has accepted.
        if link is None or self.dialled is None or link.kept:
            return
        transport = link.transport
        if transport is None or transport.is_closing() or link.ending is not None or link.home.forked_from:
            return
        warn_unclosed(self, f"haptera.Peer {url_of(self.dialled)}")

    def __repr__(self) -> str:
        state = "closed" if self.closed else self._link.connection.state.name.lower()
        return f"<Peer {self.remote or 'not connected'} {state}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- calls ------------------------------------------------------------------------------------------------------

    def request(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout: float | None,
        request_id: bytes | None = None,
        repeats: bool = False,
        resent: bool = False,
    ) -> Call:
        """Send a request without waiting for its answer.

        Args:
            service: The name of the service.
            method: The name of its method.
            payload: The argument.
            timeout: Seconds until the future fails with ``DeadlineExceeded``; None for no limit.
            request_id: A 16-byte UUID. The other side remembers the answer, so that the same request under the same id
                is not applied again, and is told by later requests which answers have been read.
            repeats: Whether the caller may repeat it. An answer that is damaged then counts as read only at
                ``Call.release``.
            resent: Whether it may have been sent on another connection before. Its answer is then forgotten by time
                alone.

        Returns:
            The future of its ``Answer``. An ERROR is an answer with a ``failure``, not an exception. The future fails
            with ``ConnectionLost`` when the connection ends first.

        Raises:
            LocalProtocolError: The request cannot be sent at all; if that turns out later, the future fails with it.
            TypeError: ``payload`` is not bytes, or ``timeout`` is no number.
            ValueError: ``timeout`` is not above 0, or ``request_id`` has not 16 bytes.
        """
        if request_id is not None and len(request_id) != _REQUEST_ID_SIZE:
            raise ValueError(f"a request id has {_REQUEST_ID_SIZE} bytes, not {len(request_id)}")
        route = service, method, _RESENT if resent else b""
        return self._caller.begin(route, payload, timeout, request_id=request_id, repeats=repeats)

    @overload
    async def call(
        self,
        service: str,
        method: str,
        payload: bytes = b"",
        *,
        items: AsyncIterable[bytes] | None = None,
        timeout: Timeout = DEFAULT,
    ) -> bytes: ...

    @overload
    async def call(
        self,
        service: str,
        method: str,
        payload: object = b"",
        *,
        codec: CodecName,
        returning: type[T],
        items: AsyncIterable[bytes] | None = None,
        timeout: Timeout = DEFAULT,
    ) -> T: ...

    @overload
    async def call(
        self,
        service: str,
        method: str,
        payload: object = b"",
        *,
        codec: CodecName,
        returning: None = None,
        items: AsyncIterable[bytes] | None = None,
        timeout: Timeout = DEFAULT,
    ) -> None: ...

    async def call(
        self,
        service: str,
        method: str,
        payload: object = b"",
        *,
        codec: CodecName | None = None,
        returning: type[T] | None = None,
        items: AsyncIterable[bytes] | None = None,
        timeout: Timeout = DEFAULT,
    ) -> bytes | T | None:
        """Call a method and return its one answer.

            >>> class Echo(haptera.Service):
            ...     name = "echo"
            ...
            ...     @haptera.method
            ...     async def one(self, request):
            ...         return request.payload
            >>> server = await haptera.listen("haptera://127.0.0.1:0", services=[Echo()])
            >>> peer = await haptera.dial(server.url)
            >>> await peer.call("echo", "one", b"hello", timeout=2.0)
            b'hello'
            >>> await peer.aclose()
            >>> await server.aclose()

        Args:
            service: The name of the service.
            method: The name of its method.
            payload: The argument: bytes, or with a codec a value of the program, ``b""`` for none.
            codec: The form of the argument and the answer, ``"json"`` or ``"msgpack"``, for a typed method.
            returning: The type of the answer, with a codec; None where the method answers with no value.
            items: Items to send behind the request, for a method that takes many.
            timeout: Seconds, 5 unless the dialled URL says otherwise, None for no limit. The other side keeps it too.

        Returns:
            The payload of the answer, as bytes or as a value of the type.

        Raises:
            UnexpectedValue: The argument does not fit its own class, and nothing was sent, or the answer does not fit
                ``returning`` (its outcome is ``applied``).
            ServerError: The answer is an error; it is of the subclass of its code.
            DeadlineExceeded: The time is over.
            ConnectionLost: The connection has ended; its ``outcome`` is the call's, as far as it is known.
            LocalProtocolError: The other side would not take the request, or the method answers with items.
            TypeError, ValueError: ``timeout`` is not a number of seconds above 0.
            Exception: The exception of ``items``.
        """
        if codec is not None:
            answers = TypedAnswers(service, method, codec, returning)
            answer = await self.call(service, method, answers.sent(payload), items=items, timeout=timeout)
            return answers.received(answer, "applied")
        if returning is not None:
            raise TypeError("returning goes with a codec")
        if timeout is DEFAULT:
            timeout = self._call_timeout_s
        argument: Any = payload  # the caller checks that it is bytes
        caller = self._caller
        if items is None:
            ended = await caller.begin((service, method, b""), argument, timeout)
            return ended.payload if ended.failure is None else ended.result()
        sent = Items(sends=True)
        call = caller.begin((service, method, b""), argument, timeout, items=sent)
        sender = self._link.loop.create_task(caller.send_items(call, sent, items))
        try:
            return (await call).result()
        finally:
            sender.cancel()

    @overload
    def stream(
        self,
        service: str,
        method: str,
        payload: bytes = b"",
        *,
        items: AsyncIterable[bytes] | None = None,
        timeout: float | None = None,
    ) -> CallStream: ...

    @overload
    def stream(
        self,
        service: str,
        method: str,
        payload: object = b"",
        *,
        codec: CodecName,
        returning: type[T],
        items: AsyncIterable[bytes] | None = None,
        timeout: float | None = None,
    ) -> TypedCallStream[T]: ...

    def stream(
        self,
        service: str,
        method: str,
        payload: object = b"",
        *,
        codec: CodecName | None = None,
        returning: type[T] | None = None,
        items: AsyncIterable[bytes] | None = None,
        timeout: float | None = None,
    ) -> CallStream | TypedCallStream[T]:
        """Call a method that answers with items.

        Args:
            service: The name of the service.
            method: The name of its method.
            payload: As for ``call``.
            codec: The form of the argument and the items, ``"json"`` or ``"msgpack"``, for a typed method.
            returning: The type of the items, with a codec.
            items: Items to send behind the request.
            timeout: Seconds that the whole answer may take; None for no limit.

        Returns:
            The items, to iterate over. Iterating raises as ``call`` does.
        """
        if (codec is None) != (returning is None):
            raise TypeError("a typed stream has a codec and the type of its items")
        if codec is not None:
            answers = TypedAnswers(service, method, codec, returning)
            argument = answers.sent(payload)
            return TypedCallStream(self.stream(service, method, argument, items=items, timeout=timeout), answers)
        caller = self._caller
        both = Items(sends=items is not None)
        sent: Any = payload  # the caller checks that it is bytes
        call = caller.begin((service, method, b""), sent, timeout, items=both, reads=True)
        sender = None if items is None else self._link.loop.create_task(caller.send_items(call, both, items))
        return CallStream(self._link, call, both, sender)

    def probe(self) -> None:
        """Doubt that the other side is there: end the connection (1015) if it gives no sign of life within 2 seconds.

        A call that has had no answer in time does this by itself. Nothing is asked of a side that was heard within the
        last second. A side that still takes what it was sent before, over a slow link, has longer.
        """
        self._link.probe()

    # -- from the beginning to the end ------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Wait for the other side's half of the handshake, and for the end of the exchange where this side has a
        credential. Raises ``ConnectionLost`` if it refuses or is gone.
        """
        await self._link.wait_ready()

    async def drain(self, timeout: float = DRAIN_S) -> None:
        """End in an orderly way: take no more requests, answer the ones under way, wait for calls, then close.

        Calls made from now on end with 1014, outcome ``not_applied``. A forked child has nothing to drain or to close.

        Args:
            timeout: Seconds after which the rest is given up.
        """
        if not self._link.closing.left_behind():
            await self._router.drain(timeout)

    async def aclose(self) -> None:
        """Close the connection. Calls under way fail with ``ConnectionLost``, handlers are cancelled.

        The other side is told which answers to changes have been read, so that it need not remember them.
        """
        if not self._link.closing.left_behind():
            self._link.closing.close()
            await self._router.wait_gone()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Have a function called once when the connection has ended; at once if it has.

        Args:
            callback: The function.
        """
        self._link.on_close(callback)

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._link.closed

    @property
    def error(self) -> ProtocolError | None:
        """The fault that ended the connection, if one did: a ``RemoteProtocolError`` that this side found in the other,
        a ``LocalProtocolError`` that the other side says it found in this one.
        """
        return self._link.error

    @property
    def going_away(self) -> bool:
        """Whether the other side takes no more requests on this connection."""
        return self._link.connection.going_away

    # -- the other side ---------------------------------------------------------------------------------------------

    @property
    def _agreement(self) -> Agreement | None:
        return self._link.connection.agreement

    @property
    def established(self) -> bool:
        """Whether the handshake is done; the other side's name and the like are empty before."""
        return self._agreement is not None

    @property
    def agent(self) -> str:
        """The other side's name and version."""
        agreement = self._agreement
        return "" if agreement is None else agreement.peer_agent

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities that both sides agreed to use."""
        agreement = self._agreement
        return frozenset() if agreement is None else agreement.capabilities

    @property
    def peer_services(self) -> tuple[str, ...]:
        """The names of the services that the other side hosts, as a hint."""
        agreement = self._agreement
        return () if agreement is None else agreement.peer_services

    @property
    def session(self) -> bytes:
        """The connection's random name, 16 bytes, for logs and traces only."""
        agreement = self._agreement
        return b"" if agreement is None else agreement.session

    @property
    def server_id(self) -> bytes | None:
        """The acceptor's id, 16 bytes; None before the handshake is done."""
        agreement = self._agreement
        return None if agreement is None else agreement.server_id

    @property
    def max_message(self) -> int:
        """The largest message, in bytes, that the other side takes; 0 before the handshake is done."""
        agreement = self._agreement
        return 0 if agreement is None else agreement.peer_limits.max_message

    @property
    def remote(self) -> str:
        """The address of the other end of the transport."""
        return self._link.remote

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """The URIs and DNS names of the other side's certificate, in its order, if that was verified."""
        session = self._link.tls
        return () if session is None else session.names

    @property
    def credentials(self) -> Credentials | None:
        """The process at the other end of a Unix socket."""
        return self._link.credentials

    # -- requests and counts ----------------------------------------------------------------------------------------

    @property
    def services(self) -> Mapping[str, Service]:
        """The services that this side hosts, by their names."""
        return self._dispatcher.services

    @property
    def serving(self) -> int:
        """The number of requests of the other side that have no answer yet."""
        return len(self._dispatcher.requests)

    @property
    def requests_received(self) -> int:
        """The number of requests of the other side that came whole."""
        return self._dispatcher.requests_received

    @property
    def bytes_received(self) -> int:
        """Bytes that were read."""
        return self._link.bytes_received

    @property
    def bytes_sent(self) -> int:
        """Bytes that were handed to the transport."""
        return self._link.bytes_sent

    @property
    def frames_received(self) -> int:
        """Frames that have come whole."""
        return self._link.connection.frames_received

    @property
    def frames_sent(self) -> int:
        """Frames that were handed to the transport."""
        return self._link.connection.outbox.frames_sent

    @property
    def writable(self) -> bool:
        """Whether little enough waits to be written that more answers may be produced."""
        return self._link.writable

    def when_writable(self, callback: Callable[[], None]) -> None:
        """Have a function called once as soon as ``writable`` is true; never if the connection ends first.

        Args:
            callback: The function.
        """
        self._link.when_writable(callback)


async def send_away(peer: Peer, code: int, timeout: float) -> None:
    """End a connection as ``Peer.drain`` does, for a reason of its own: GOAWAY has ``code``."""
    link_of(peer).closing.code = code
    await peer.drain(timeout)


def link_of(peer: Peer) -> Link:
    """Return the link of a peer, for code that ends it in other ways than a program does."""
    return peer._link


def share_budget(peer: Peer, budget: Budget) -> None:
    """Charge the bytes of a peer's connection to a budget of its user from now on, as well as to its process's."""
    peer._link.connection.ledger.share(budget)
