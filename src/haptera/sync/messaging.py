# Generated from peer/call.py, peer/lasting_peer.py, peer/lasting_stream.py, peer/peer.py, peer/request.py,
# peer/server.py, peer/typed_answers.py by tools/generate_sync.py (make generate). Do not edit.
"""Peers, servers and requests of the messaging library, for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from haptera.errors import ConnectionLost, ProtocolError
from haptera.peer import DEFAULT, Answer, Credentials, Identity, Timeout, Trace
from haptera.sync.desk import Desk
from haptera.sync.facade import Connected, Facade, Items, Lasting, Listening
from haptera.sync.loop_thread import LoopThread, shared
from haptera.value_codecs import CodecName

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.peer import CallStream as AsyncCallStream
    from haptera.peer import LastingStream as AsyncLastingStream
    from haptera.peer import Request as AsyncRequest
    from haptera.peer import TypedCallStream as AsyncTypedCallStream


T = TypeVar("T")


class CallStream(Facade["AsyncCallStream"]):
    """The items of a call's answer, as they come; ``answer`` is there after the last.

    Iterate over it with ``for``, in one thread. Leaving early cancels the call: at once with ``with`` or ``aclose``,
    otherwise when the object is forgotten.
    """

    __slots__ = ("_desk",)

    def __init__(
        self, inner: AsyncCallStream, owner: object = None, thread: LoopThread = shared, *, desk: Desk | None = None
    ) -> None:
        super().__init__(inner, owner, thread)
        self._desk = desk

    @property
    def answer(self) -> Answer | None:
        """The terminal answer, once the items have ended."""
        return self._inner.answer

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            return self._thread.run(self._inner.__anext__, desk=self._desk)
        except StopAsyncIteration:
            raise StopIteration from None

    def aclose(self) -> None:
        """Cancel the call if it has not ended."""
        self._run(self._inner.aclose)

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))

    def close(self) -> None:
        """As `aclose`, by the name that ``contextlib.closing`` knows."""
        self.aclose()


class TypedCallStream(Facade["AsyncTypedCallStream[T]"], Generic[T]):
    """A `CallStream` whose items are values of the program's type. An item that does not fit raises ``UnexpectedValue``
    in its turn.
    """

    __slots__ = ("_desk",)

    def __init__(
        self,
        inner: AsyncTypedCallStream[T],
        owner: object = None,
        thread: LoopThread = shared,
        *,
        desk: Desk | None = None,
    ) -> None:
        super().__init__(inner, owner, thread)
        self._desk = desk

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            return self._thread.run(self._inner.__anext__, desk=self._desk)
        except StopAsyncIteration:
            raise StopIteration from None

    @property
    def answer(self) -> Answer | None:
        """The terminal answer, once the items have ended."""
        return self._inner.answer

    def aclose(self) -> None:
        """Cancel the call if it has not ended."""
        self._run(self._inner.aclose)

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))

    def close(self) -> None:
        """As `aclose`, by the name that ``contextlib.closing`` knows."""
        self.aclose()


class Peer(Connected):
    """The other side of one connection: calls its services, and serves ours to it.

    ``haptera.sync.dial`` and ``haptera.sync.listen`` make peers. Any number of threads share the connection, and all
    calls run at once; their answers come in any order. ``with`` closes it.
    """

    __slots__ = ()

    @property
    def dialled(self) -> tuple[str, int] | str | None:
        """The host and port, or the path, by which this side has dialled it; None if it was accepted."""
        return self._inner.dialled

    @property
    def identity(self) -> Identity | None:
        """The user that the other side of an accepted connection has proved to be; None before its proof.

        Where no proof is asked for, and on the dialling side, it is anyone.
        """
        return self._inner.identity

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.aclose()

    @overload
    def call(
        self,
        service: str,
        method: str,
        payload: bytes = b"",
        *,
        items: Iterable[bytes] | None = None,
        timeout: Timeout = DEFAULT,
    ) -> bytes: ...

    @overload
    def call(
        self,
        service: str,
        method: str,
        payload: object = b"",
        *,
        codec: CodecName,
        returning: type[T],
        items: Iterable[bytes] | None = None,
        timeout: Timeout = DEFAULT,
    ) -> T: ...

    @overload
    def call(
        self,
        service: str,
        method: str,
        payload: object = b"",
        *,
        codec: CodecName,
        returning: None = None,
        items: Iterable[bytes] | None = None,
        timeout: Timeout = DEFAULT,
    ) -> None: ...

    def call(
        self,
        service: str,
        method: str,
        payload: object = b"",
        *,
        codec: CodecName | None = None,
        returning: type[T] | None = None,
        items: Iterable[bytes] | None = None,
        timeout: Timeout = DEFAULT,
    ) -> bytes | T | None:
        """Call a method and return its one answer.

        Args:
            service: The name of the service.
            method: The name of its method.
            payload: The argument.
            items: Items to send behind the request, for a method that takes many. They are taken from it in this
                thread.
            timeout: Seconds, 5 unless the dialled URL says otherwise, None for no limit. The other side keeps it too.

        Returns:
            The payload of the answer.

        Raises:
            ServerError: The answer is an error; it is of the subclass of its code.
            DeadlineExceeded: The time is over.
            ConnectionLost: The connection has ended; its ``outcome`` is the call's, as far as it is known.
            LocalProtocolError: The other side would not take the request, or the method answers with items.
            TypeError, ValueError: ``timeout`` is not a number of seconds above 0.
            Exception: The exception of ``items``.
        """
        call: Any = self._inner.call
        typed = {"codec": codec, "returning": returning} if codec or returning else {}
        desk = None if items is None else Desk()
        pulled = None if items is None or desk is None else desk.pulled(items)
        found: bytes | T | None = self._thread.run(
            lambda: call(service, method, payload, items=pulled, timeout=timeout, **typed), desk=desk
        )
        return found

    @overload
    def stream(
        self,
        service: str,
        method: str,
        payload: bytes = b"",
        *,
        items: Iterable[bytes] | None = None,
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
        items: Iterable[bytes] | None = None,
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
        items: Iterable[bytes] | None = None,
        timeout: float | None = None,
    ) -> CallStream | TypedCallStream[T]:
        """Call a method that answers with items.

        Args:
            service: The name of the service.
            method: The name of its method.
            payload: The argument.
            items: Items to send behind the request. They are taken from it in the thread that iterates over the answer,
                while it waits.
            timeout: Seconds that the whole answer may take; None for no limit.

        Returns:
            The items, to iterate over. Iterating raises as ``call`` does.
        """
        stream: Any = self._inner.stream
        typed = {"codec": codec, "returning": returning} if codec or returning else {}
        desk = None if items is None else Desk()
        pulled = None if items is None or desk is None else desk.pulled(items)
        found = self._on_loop(lambda: stream(service, method, payload, items=pulled, timeout=timeout, **typed))
        return TypedCallStream(found, self, desk=desk) if typed else CallStream(found, self, desk=desk)

    def probe(self) -> None:
        """Doubt that the other side is there: end the connection (1015) if it gives no sign of life within 2 seconds.

        A call that has had no answer in time does this by itself. Nothing is asked of a side that was heard within the
        last second. A side that still takes what it was sent before, over a slow link, has longer.
        """
        self._on_loop(self._inner.probe)

    def ready(self) -> None:
        """Wait for the other side's half of the handshake, and for the end of the exchange where this side has a
        credential. Raises ``ConnectionLost`` if it refuses or is gone.
        """
        self._run(self._inner.ready)

    def drain(self, timeout: float = 30.0) -> None:
        """End in an orderly way: take no more requests, answer the ones under way, wait for calls, then close.

        Calls made from now on end with 1014, outcome ``not_applied``. A forked child has nothing to drain or to close.

        Args:
            timeout: Seconds after which the rest is given up.
        """
        self._ending()
        self._run(lambda: self._inner.drain(timeout))
        self._over()

    def aclose(self) -> None:
        """Close the connection. Calls under way fail with ``ConnectionLost``.

        The other side is told which answers to changes have been read, so that it need not remember them.
        """
        self._ending()
        self._run(self._inner.aclose)
        self._over()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Have a function called once when the connection has ended; at once if it has.

        Args:
            callback: The function. It is called in the thread of the loop, and must not wait.
        """
        self._on_loop(lambda: self._inner.on_close(callback))

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._inner.closed

    @property
    def error(self) -> ProtocolError | None:
        """The fault that ended the connection, if one did: a ``RemoteProtocolError`` that this side found in the other,
        a ``LocalProtocolError`` that the other side says it found in this one.
        """
        return self._inner.error

    @property
    def going_away(self) -> bool:
        """Whether the other side takes no more requests on this connection."""
        return self._inner.going_away

    @property
    def established(self) -> bool:
        """Whether the handshake is done; the other side's name and the like are empty before."""
        return self._inner.established

    @property
    def agent(self) -> str:
        """The other side's name and version."""
        return self._inner.agent

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities that both sides agreed to use."""
        return self._inner.capabilities

    @property
    def peer_services(self) -> tuple[str, ...]:
        """The names of the services that the other side hosts, as a hint."""
        return self._inner.peer_services

    @property
    def session(self) -> bytes:
        """The connection's random name, 16 bytes, for logs and traces only."""
        return self._inner.session

    @property
    def server_id(self) -> bytes | None:
        """The acceptor's id, 16 bytes; None before the handshake is done."""
        return self._inner.server_id

    @property
    def max_message(self) -> int:
        """The largest message, in bytes, that the other side takes; 0 before the handshake is done."""
        return self._inner.max_message

    @property
    def remote(self) -> str:
        """The address of the other end of the transport."""
        return self._inner.remote

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """The URIs and DNS names of the other side's certificate, in its order, if that was verified."""
        return self._inner.certificate_names

    @property
    def credentials(self) -> Credentials | None:
        """The process at the other end of a Unix socket."""
        return self._inner.credentials

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the services that this side hosts."""
        return tuple(self._inner.services)

    @property
    def serving(self) -> int:
        """The number of requests of the other side that have no answer yet."""
        return self._inner.serving

    @property
    def requests_received(self) -> int:
        """The number of requests of the other side that came whole."""
        return self._inner.requests_received

    @property
    def bytes_received(self) -> int:
        """Bytes that were read."""
        return self._inner.bytes_received

    @property
    def bytes_sent(self) -> int:
        """Bytes that were handed to the transport."""
        return self._inner.bytes_sent

    @property
    def frames_received(self) -> int:
        """Frames that have come whole."""
        return self._inner.frames_received

    @property
    def frames_sent(self) -> int:
        """Frames that were handed to the transport."""
        return self._inner.frames_sent

    def close(self) -> None:
        """As `aclose`, by the name that ``contextlib.closing`` knows."""
        self.aclose()


class LastingStream(Facade["AsyncLastingStream"]):
    """The items of a call's answer, as they come. ``LastingPeer.stream`` makes it.

    Iterate over it with ``for``, in one thread. It is begun again on another connection until its first item has come,
    where the other side has certainly not begun it. Leaving early cancels the call, with ``with`` or ``aclose``.
    """

    __slots__ = ("_desk",)

    def __init__(
        self, inner: AsyncLastingStream, owner: object = None, thread: LoopThread = shared, *, desk: Desk | None = None
    ) -> None:
        super().__init__(inner, owner, thread)
        self._desk = desk

    @property
    def answer(self) -> Answer | None:
        """The terminal answer, once the items have ended."""
        return self._inner.answer

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            return self._thread.run(self._inner.__anext__, desk=self._desk)
        except StopAsyncIteration:
            raise StopIteration from None

    def aclose(self) -> None:
        """Cancel the call if it has not ended."""
        self._run(self._inner.aclose)

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))

    def close(self) -> None:
        """As `aclose`, by the name that ``contextlib.closing`` knows."""
        self.aclose()


class LastingPeer(Lasting):
    """A peer that is dialled again whenever its connection has ended. ``haptera.sync.dial(url, reconnect=True)`` makes
    one.

    Its services are hosted on each connection. A call waits for a connection while there is none, for as long as it has
    time. One that was lost with its connection is sent again only where it was certainly not applied; else it fails
    with ``ConnectionLost``, whose ``outcome`` is ``unknown``. ``with`` closes it.
    """

    __slots__ = ()

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.aclose()

    def call(
        self,
        service: str,
        method: str,
        payload: bytes = b"",
        *,
        items: Iterable[bytes] | None = None,
        timeout: Timeout = DEFAULT,
    ) -> bytes:
        """Call a method of the other side.

        Args:
            service: The name of the service.
            method: The name of its method.
            payload: The argument.
            items: Items to send behind the request. A call with items is sent once, because they cannot be made again.
                They are taken from it in this thread.
            timeout: Seconds, the wait for a connection included; 5 unless the URL says otherwise, None for no limit.

        Returns:
            The result.

        Raises:
            ServerError: The error that the other side has answered with.
            ConnectionLost: There is no connection in time, or one is refused for a reason that stays: the outcome is
                ``not_applied``. Or the connection has ended before the answer: ``unknown``.
            WrongLoop: The process was forked from the one that has dialled.
        """
        desk = None if items is None else Desk()
        pulled = None if items is None or desk is None else desk.pulled(items)
        return self._thread.run(
            lambda: self._inner.call(service, method, payload, items=pulled, timeout=timeout), desk=desk
        )

    def stream(
        self,
        service: str,
        method: str,
        payload: bytes = b"",
        *,
        items: Iterable[bytes] | None = None,
        timeout: float | None = None,
    ) -> LastingStream:
        """Call a method that answers with items. While there is no connection it begins with the first of them.

        Args:
            service: The name of the service.
            method: The name of its method.
            payload: The argument.
            items: Items to send behind the request.
            timeout: Seconds that the whole answer may take, the wait for a connection included; None for no limit.

        Returns:
            The items, to iterate over. Iterating raises as ``call`` does. A connection that ends when some items have
            come ends the stream with ``ConnectionLost``: the program knows where to go on.
        """
        desk = None if items is None else Desk()
        pulled = None if items is None or desk is None else desk.pulled(items)
        found = self._on_loop(lambda: self._inner.stream(service, method, payload, items=pulled, timeout=timeout))
        return LastingStream(found, self, desk=desk)

    @property
    def peer(self) -> Peer | None:
        """The present connection; None while there is none. It has the names and numbers of the other side."""
        found = self._inner.peer
        return None if found is None else Peer(found, self)

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._inner.connected

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is not dialled any more because the other side refuses it for good."""
        return self._inner.closed

    @property
    def error(self) -> ConnectionLost | None:
        """Why it is not dialled any more, where that is a refusal, such as ``AuthenticationFailed``."""
        return self._inner.error

    def on_connect(self, callback: Callable[[Peer], object]) -> None:
        """Have a function called with each connection, once the other side has welcomed it; soon if there is one now.

        ``Peer.on_close`` of the connection tells its end. At most 1,000 functions may be registered.

        Args:
            callback: The function. It is called in a thread of the handlers, and may make calls. An error that it
                raises is logged.
        """
        self._have_told(callback)

    def ready(self, timeout: float | None = None) -> None:
        """Wait until there is a connection.

        Args:
            timeout: Seconds to wait at most; None for no limit.

        Raises:
            ConnectionLost: There is none in time, or none is dialled any more.
        """
        self._run(lambda: self._inner.ready(timeout))

    def drain(self, timeout: float = 30.0) -> None:
        """End in an orderly way, as ``Peer.drain`` does. Calls that wait for a connection are refused.

        Args:
            timeout: Seconds after which the rest is given up.
        """
        self._ending()
        self._run(lambda: self._inner.drain(timeout))
        self._over()

    def aclose(self) -> None:
        """Close the connection and dial no other. Calls under way fail with ``ConnectionLost``."""
        self._ending()
        self._run(self._inner.aclose)
        self._over()

    def close(self) -> None:
        """As `aclose`, by the name that ``contextlib.closing`` knows."""
        self.aclose()


class Server(Listening):
    """A listener and the peers that came by it. ``with`` closes it.

    It always accepts. Of more than ``max_connections`` the newest is refused; of more than ``max_half_open``, or than
    half of ``max_connections``, whose handshake is not done an old one is dropped. Both are told 1013.
    """

    __slots__ = ()

    @property
    def url(self) -> str:
        """Where it listens, with the real port."""
        return self._inner.url

    @property
    def peers(self) -> set[Peer]:
        """The peers that are connected."""
        return {Peer(each, self) for each in self._inner.peers}

    @property
    def accepted(self) -> int:
        """How many connections were taken."""
        return self._inner.accepted

    @property
    def refused(self) -> int:
        """How many connections were refused or dropped because there were too many."""
        return self._inner.refused

    @property
    def half_open(self) -> int:
        """How many connections have not done their handshake, or not proved the identity that is asked for."""
        return self._inner.half_open

    @property
    def tls_failures(self) -> int:
        """How many connections have ended because TLS failed."""
        return self._inner.tls_failures

    def reload_certificates(self) -> bool:
        """Read the files of TLS again, and return whether they can be used. The log says what is wrong with them.

        The connections that come then have the new certificate. Files that cannot be used change nothing. A listener
        looks every 10 seconds by itself whether they have changed; one without TLS has none.
        """
        return self._on_loop(self._inner.reload_certificates)

    def close(self) -> None:
        """Take no more connections; the open ones go on. `aclose` closes them too."""
        self._on_loop(self._inner.close)

    def drain(self, timeout: float = 30.0) -> None:
        """Take no more connections, and end the open ones in an orderly way. A forked child has none.

        Args:
            timeout: Seconds that each connection has.
        """
        self._ending()
        self._run(lambda: self._inner.drain(timeout))
        self._over()

    def aclose(self) -> None:
        """Take no more connections and close the open ones. A forked child has none."""
        self._ending()
        self._run(self._inner.aclose)
        self._over()

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.aclose()


class Request(Facade["AsyncRequest"]):
    """A request that the other side sent, as its handler sees it.

    Calls that a handler makes while its request is not answered, on any peer, have no more time than the request has
    left, and belong to the same trace.
    """

    __slots__ = ()

    @property
    def stream(self) -> int:
        """The number of its stream."""
        return self._inner.stream

    @property
    def service(self) -> str:
        """The name of the service that it is for."""
        return self._inner.service

    @property
    def method(self) -> str:
        """The name of the method that it is for."""
        return self._inner.method

    @property
    def payload(self) -> bytes:
        """The argument, any bytes."""
        return self._inner.payload

    @property
    def request_id(self) -> bytes | None:
        """The caller's UUID of this request, 16 bytes, or None."""
        return self._inner.request_id

    @property
    def deadline(self) -> float | None:
        """When the time of the caller is over, as `time.monotonic` counts, or None."""
        return self._inner.deadline

    @property
    def cancelled(self) -> bool:
        """Whether the caller no longer wants the answer, or its time is over: a long handler looks at it."""
        return self._inner.cancelled

    @property
    def resent(self) -> bool:
        """Whether the caller may have sent it on another connection before."""
        return self._inner.resent

    @property
    def peer(self) -> Peer:
        """The other side."""
        return Peer(self._inner.peer, self)

    @property
    def content_type(self) -> str | None:
        """The kind of the payload, if the caller says it."""
        return self._inner.content_type

    @property
    def trace(self) -> Trace | None:
        """The trace that this request belongs to, if its caller says so (`trace_context`)."""
        return self._inner.trace

    @property
    def under_way(self) -> bool:
        """Whether the answer is still owed, and there is a connection to give it on."""
        return self._inner.under_way

    @property
    def items(self) -> Items[bytes]:
        """The items that the caller sends behind a streaming request, as they come, for one thread.

        Raises ``ConnectionLost`` if the connection ends before the last, ``concurrent.futures.CancelledError`` if the
        request is cancelled.
        """
        return Items(self._inner.items, self)
