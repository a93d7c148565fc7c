"""A server's side of a connection, as the client's remote channel sees it: answers are given by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import msgspec

from haptera.client.channels.remote_channel import RemoteChannel
from haptera.errors import ConnectionLost, Failure
from haptera.peer import Answer, Peer
from haptera.peer.backoff import Backoff
from haptera.transport import Address, Place, format_place, parse

SERVER = b"s" * 16


class FakeCall(asyncio.Future[Answer]):
    released = False
    stream = 1  # 0: it waits for a free one

    def release(self) -> None:
        self.released = True


class Sent:
    """A request that the client made."""

    def __init__(self, peer: FakePeer, method: str, payload: bytes, options: dict[str, Any]) -> None:
        self.peer = peer
        self.method = method
        self.argument = msgspec.msgpack.decode(payload) if payload else []
        self.time = asyncio.get_running_loop().time()
        self.timeout: float | None = options["timeout"]
        self.request_id: bytes | None = options.get("request_id")
        self.repeats: bool = options["repeats"]
        self.resent: bool = options.get("resent", False)
        self.future = FakeCall(loop=asyncio.get_running_loop())

    def answer(self, *result: Any, revision: int = 1) -> None:
        entries = {0x0B: revision.to_bytes(8, "big")}
        self.future.set_result(Answer(msgspec.msgpack.encode(result), None, entries))

    def answer_bytes(self, payload: bytes) -> None:
        self.future.set_result(Answer(payload))

    def fail(self, failure: Failure) -> None:
        self.future.set_result(Answer(b"", failure))


class FakeStream:
    """Gives ``pages``; an exception among them is raised, and behind ``...`` nothing comes any more."""

    def __init__(self, pages: list[Any], end: Any) -> None:
        self._pages = pages
        self._end = end
        self.answer: Answer | None = None
        self.closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        if self._pages:
            page = self._pages.pop(0)
            if page is ...:
                await asyncio.Event().wait()
            if isinstance(page, Exception):
                raise page
            return page if isinstance(page, bytes) else msgspec.msgpack.encode(page)
        self.answer = Answer(msgspec.msgpack.encode(self._end))
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


class FakePeer:
    """``answer`` is called with each request; without it requests wait until the test answers them.

    ``streams`` are given to the requests of streams in turn, whose arguments are in ``streamed``.

    With ``full`` no stream is free. With a ``refusal`` the handshake fails with it. Without a ``server_id`` WELCOME
    never comes.
    """

    def __init__(
        self,
        answer: Callable[[Sent], None] | None = None,
        *,
        server_id: bytes | None = SERVER,
        capabilities: frozenset[str] = frozenset({"idempotency", "pipelining"}),
        full: bool = False,
        refusal: Failure | None = None,
    ) -> None:
        self.server_id = server_id
        self.capabilities = capabilities
        self.full = full
        self.closed = False
        self.dialled: Place | None = None
        self.sent: list[Sent] = []
        self.streams: list[FakeStream] = []
        self.streamed: list[Any] = []
        self.waited_ready = False
        self.refusal = refusal
        self._answer = answer
        self._on_close: list[Callable[[], None]] = []
        self._ended = asyncio.Event()

    def request(self, service: str, method: str, payload: bytes, **options: Any) -> asyncio.Future[Answer]:
        assert service == ("server" if method == "status" else "kv")
        sent = Sent(self, method, payload, options)
        self.sent.append(sent)
        if self.full:
            sent.future.stream = 0
        if self.refusal is not None:
            asyncio.get_running_loop().call_soon(self.lose, "not_applied")
        if self._answer is not None:
            self._answer(sent)
        return sent.future

    def stream(self, service: str, method: str, payload: bytes, *, timeout: float | None = None) -> FakeStream:
        assert (service, method) in {("kv", "scan"), ("kv", "watch")}
        self.streamed.append(msgspec.msgpack.decode(payload))
        return self.streams.pop(0)

    async def ready(self) -> None:
        self.waited_ready = True
        if self.refusal is not None:
            self.lose("not_applied")
            raise self._loss("not_applied")
        if self.server_id is None:
            await self._ended.wait()
            raise self._loss("not_applied")

    def on_close(self, callback: Callable[[], None]) -> None:
        self._on_close.append(callback)

    def lose(self, outcome: Any = "unknown") -> None:
        """The connection ends with everything on it unanswered."""
        self.closed = True
        self._ended.set()
        for sent in self.sent:
            if not sent.future.done():
                sent.future.set_exception(self._loss(outcome))
        for callback in self._on_close:
            callback()

    def _loss(self, outcome: Any) -> ConnectionLost:
        name = "cut" if self.refusal is None else self.refusal.name
        return ConnectionLost(name, outcome=outcome, failure=self.refusal)

    @property
    def _link(self) -> FakePeer:
        return self

    @property
    def admitted(self) -> bool:
        return self.server_id is not None

    @property
    def closing(self) -> FakePeer:
        return self

    def abandon(self) -> None:
        self.closed = True

    async def drain(self, timeout: float = 30.0) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if not self.closed:
            self.lose()


class Dialler:
    """Gives the peers of ``script`` in turn; an exception in it is a host that cannot be reached. The last is given for
    ever. The hosts of an address are dialled one after the other, as those are that refuse at once.

    ``urls`` were dialled, one host each, at ``times``.
    """

    def __init__(self, *script: FakePeer | Exception) -> None:
        self.script = list(script)
        self.urls: list[str] = []
        self.times: list[float] = []

    async def __call__(self, address: Address, /, *, timeout: float) -> Peer:
        failed = []
        for place in address.places:
            self.urls.append(str(address.at([place])))
            self.times.append(asyncio.get_running_loop().time())
            step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            if not isinstance(step, Exception):
                step.dialled = place
                return cast("Peer", step)
            failed.append(f"cannot connect to {format_place(place)}: {step}")
        raise ConnectionLost("; ".join(failed), outcome="not_applied")


def channel(dial: Dialler, url: str = "haptera://a:1", *, wait: bool = True) -> RemoteChannel:
    """A channel whose waits are as long as they may be."""
    return RemoteChannel(parse(url), url, wait=wait, backoff=Backoff(uniform=lambda: 1.0), dial=dial)
