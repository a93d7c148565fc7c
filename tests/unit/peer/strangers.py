"""A dialler made of frames that leads exchanges of its own, and can get each step of them wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from haptera.security import ScramDialer, derive_keys, link_binding
from haptera.wire.frame import Frame, FrameType, encode_frame
from haptera.wire.payload import decode_failure
from tests.unit.peer.raw import RawPeer, hello, request
from tests.unit.peer.users import NAME, PASSWORD

if TYPE_CHECKING:
    from haptera.errors import Failure
    from haptera.security import Binding

NONCE = "n" * 24
SCRAM = "SCRAM-SHA-256"


def authenticate(stream: int, mechanism: str, message: bytes) -> bytes:
    """A REQUEST with a step of an exchange."""
    return request(stream, "session", "authenticate", msgspec.msgpack.encode([mechanism, message]))


class Stranger:
    """One connection, from HELLO on."""

    def __init__(self, raw: RawPeer, hello_frame: bytes) -> None:
        self.raw = raw
        self.hello_frame = hello_frame
        self.stream = -1

    @classmethod
    async def open(cls, url: str, behind: bytes = b"", *, signs: bool = False, **fields: Any) -> Stranger:
        raw = await RawPeer.open(url)
        if signs:
            fields["capabilities"] = ["pipelining", "hmac_sha256"]
        hello_frame = hello(**fields)
        await raw.send(hello_frame + behind)
        stranger = cls(raw, hello_frame)
        while not raw.frames:
            assert await raw.read()
        return stranger

    @property
    def welcome(self) -> dict[str, Any]:
        answer: dict[str, Any] = msgspec.msgpack.decode(self.raw.frames[0].payload)
        return answer

    @property
    def binding(self) -> Binding:
        first = self.raw.frames[0]
        welcome_frame = encode_frame(first.type, first.flags, first.stream, first.metadata, first.payload)
        return link_binding(self.hello_frame, welcome_frame, bytes(32))

    async def send(self, mechanism: str, message: bytes, behind: bytes = b"") -> int:
        self.stream += 2
        await self.raw.send(authenticate(self.stream, mechanism, message) + behind)
        return self.stream

    async def step(self, mechanism: str, message: bytes) -> list[Any] | Failure:
        """The answer to a message: [done, bytes], or the failure."""
        return await self.answer(await self.send(mechanism, message))

    async def answer(self, stream: int) -> list[Any] | Failure:
        frame = await self.frame(stream)
        if frame.type == FrameType.ERROR:
            return decode_failure(frame.payload)
        answer: list[Any] = msgspec.msgpack.decode(frame.payload)
        return answer

    async def frame(self, stream: int) -> Frame:
        while True:
            for frame in self.raw.frames[1:]:
                if frame.stream == stream and frame.type in (FrameType.RESPONSE, FrameType.ERROR):
                    return frame
            assert await self.raw.read(), f"the connection ended without an answer on stream {stream}"

    async def end(self) -> int | None:
        """The code of the ERROR with which the other side ends the connection; None if it says none."""
        frames = await self.raw.read_to_end()
        await self.raw.close()
        last = next((each for each in frames if each.type == FrameType.ERROR and not each.stream), None)
        return None if last is None else decode_failure(last.payload).code

    async def scram(self, *, name: str = NAME, binding: Binding | None = None, nonce: str = NONCE) -> ScramDialer:
        """A dialler's exchange that has taken the challenge of its acceptor."""
        exchange = ScramDialer(name, self.binding if binding is None else binding, nonce)
        answer = await self.step(SCRAM, exchange.first())
        assert isinstance(answer, list), answer
        assert answer[0] is False
        self.salt, self.iterations = exchange.challenge(answer[1])
        return exchange

    async def final(self, exchange: ScramDialer, password: str = PASSWORD) -> bytes:
        return exchange.prove(derive_keys(password, self.salt, self.iterations))
