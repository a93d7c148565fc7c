"""A connection and its requests, as services see them, that keep what was answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from haptera.errors import Code, ConnectionLost, Failure
from haptera.node.services.recorded_requests import RecordedRequests
from haptera.peer import ANYONE, Identity

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Sequence

    from haptera.node.commands import Submitter
    from haptera.node.visitor import Visitor
    from haptera.peer import Peer, Request

TAG_REPLAYED = 0x09
TAG_REVISION = 0x0B


class Recorded(RecordedRequests):
    """Keeps the attempts to authenticate that it was told of: the name, the mechanism, and the code."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, str, int]] = []

    def ended(
        self, peer: Visitor, name: str, mechanism: str, reason: str | None, code: Code = Code.AUTHENTICATION_FAILED
    ) -> None:
        self.attempts.append((name, mechanism, 0 if reason is None else int(code)))


class FakePeer:
    """A peer whose room for answers the test decides: `room` answers, then it is not writable."""

    def __init__(self, *, capabilities: frozenset[str] = frozenset({"pipelining", "idempotency"})) -> None:
        self.attributes: dict[str, Any] = {}
        self.identity: Identity | None = ANYONE
        self.capabilities = capabilities
        self.max_message = 16 << 20
        self.room = 1_000_000
        self.waiting: list[Callable[[], None]] = []
        self.closing: list[Callable[[], None]] = []
        self.streams = 1
        self.closed = False
        self.tls: object | None = None
        self.remote = "127.0.0.1:1"
        self.session = bytes(16)

    def submits_as(self, submitter: Submitter) -> None:
        """Have the requests submitted by one that is given, whatever the identity is."""
        self.attributes["haptera.submitter"] = submitter

    @property
    def writable(self) -> bool:
        return self.room > 0

    def on_close(self, callback: Callable[[], None]) -> None:
        if self.closed:
            callback()
        else:
            self.closing.append(callback)

    def close(self) -> None:
        self.closed = True
        for callback in self.closing:
            callback()

    @property
    def _link(self) -> FakePeer:
        return self

    def log_fields(self, **fields: Any) -> dict[str, Any]:
        return {"connection": "test", **fields}

    def respond_all(self, answers: Sequence[tuple[FakeRequest, bytes, bytes]]) -> None:
        for request, payload, entries in answers:
            request.respond(payload, entries)

    def when_writable(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)

    def make_room(self, answers: int) -> None:
        self.room = answers
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback()

    def request(
        self,
        method: str,
        *argument: Any,
        payload: bytes | None = None,
        request_id: bytes | None = None,
        resent: bool = False,
        service: str = "kv",
    ) -> FakeRequest:
        request = FakeRequest(self, service, method, msgspec.msgpack.encode(argument) if payload is None else payload)
        request.stream, self.streams = self.streams, self.streams + 2
        request.request_id = request_id
        request.resent = resent
        return request


class FakeRequest:
    """One request; `result`, `failure` and `entries` are its answer."""

    def __init__(self, peer: FakePeer, service: str, method: str, payload: bytes) -> None:
        self.peer = cast("Peer", peer)
        self.service = service
        self.method = method
        self.payload = payload
        self.stream = 0
        self.request_id: bytes | None = None
        self.resent = False
        self.cancelled = False
        self.on_cancel: Callable[[], None] | None = None
        self.answers = 0
        self.payload_answered: bytes | None = None
        self.failure: Failure | None = None
        self.entries: dict[int, bytes] = {}
        self.items: list[Any] = []
        self.blocked: asyncio.Event | None = None
        self.lost = False
        self._peer = self._responder = peer

    @property
    def request(self) -> Request:
        return cast("Request", self)

    @property
    def result(self) -> Any:
        assert self.failure is None, self.failure
        assert self.payload_answered is not None, "not answered"
        return msgspec.msgpack.decode(self.payload_answered)

    @property
    def code(self) -> int:
        assert self.failure is not None
        return self.failure.code

    @property
    def revision(self) -> int | None:
        value = self.entries.get(TAG_REVISION)
        return None if value is None else int.from_bytes(value, "big")

    @property
    def answered(self) -> bool:
        return self.answers > 0

    def respond(self, payload: bytes = b"", entries: bytes = b"") -> None:
        self.payload_answered = payload
        self._answered(entries)

    def fail(self, reason: Failure, entries: bytes = b"") -> None:
        self.failure = reason
        self._answered(entries)

    def cancel(self) -> None:
        """What the peer does when the caller cancels, or its time is over."""
        self.cancelled = True
        callback, self.on_cancel = self.on_cancel, None
        if callback is not None:
            callback()

    async def room(self) -> None:
        if self.lost:
            raise ConnectionLost("gone")

    async def left(self) -> None:
        await self.room()

    @staticmethod
    def try_send_all(requests: Sequence[Any], item: bytes) -> list[int]:
        return [place for place, request in enumerate(requests) if not request.try_send(item)]

    async def send(self, item: bytes) -> None:
        if self.lost:
            raise ConnectionLost("gone")
        self.items.append(item if self.method == "backup" else msgspec.msgpack.decode(item))
        if self.blocked is not None:
            await self.blocked.wait()

    def try_send(self, item: bytes) -> bool:
        if self.lost or self.cancelled or (self.blocked is not None and not self.blocked.is_set()):
            return False
        self.items.append(msgspec.msgpack.decode(item))
        return True

    def _answered(self, entries: bytes) -> None:
        self.answers += 1
        assert self.answers == 1, "a request is answered once"
        self._peer.room -= 1
        self.entries = dict(_entries(entries))


def _entries(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        tag, length = data[0], data[1]
        yield tag, data[2 : 2 + length]
        data = data[2 + length :]
