"""A peer made of nothing but a socket and the frame format, so that it can do what a real one never would."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import msgspec

from haptera.transport import parse
from haptera.wire.decoder import FrameDecoder
from haptera.wire.frame import STREAMING, Frame, FrameType, encode_frame
from haptera.wire.metadata import encode_route
from haptera.wire.payload import decode_failure

if TYPE_CHECKING:
    from haptera import Failure

FRAME_SIZE_MAX = 16 * 1024 * 1024


def hello(**fields: Any) -> bytes:
    """A HELLO frame that asks for nothing but ``pipelining``; ``fields`` replace or add."""
    payload = {
        "versions": [1],
        "agent": "raw/1",
        "session": os.urandom(16),
        "nonce": os.urandom(32),
        "capabilities": ["pipelining"],
        **fields,
    }
    return encode_frame(FrameType.HELLO, 0, 0, b"", msgspec.msgpack.encode(payload))


def request(stream: int, service: str, method: str, payload: bytes = b"", *, flags: int = 0) -> bytes:
    """A REQUEST frame."""
    return encode_frame(FrameType.REQUEST, flags, stream, encode_route(service, method), payload)


class RawPeer:
    """The dialling side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames: list[Frame] = []
        self._decoder = FrameDecoder(FRAME_SIZE_MAX)

    @classmethod
    async def open(cls, url: str) -> RawPeer:
        address = parse(url)
        if address.path:
            return cls(*await asyncio.open_unix_connection(address.path))
        return cls(*await asyncio.open_connection(*address.hosts[0]))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hello(self, **fields: Any) -> None:
        await self.send(hello(**fields))

    async def request(self, stream: int, service: str, method: str, payload: bytes, *, streaming: bool = False) -> None:
        await self.send(request(stream, service, method, payload, flags=STREAMING if streaming else 0))

    async def item(self, stream: int, payload: bytes) -> None:
        await self.send(encode_frame(FrameType.ITEM, 0, stream, b"", payload))

    async def finish(self, stream: int) -> None:
        await self.send(encode_frame(FrameType.FINISH, 0, stream))

    async def cancel(self, stream: int) -> None:
        await self.send(encode_frame(FrameType.CANCEL, 0, stream))

    async def read(self) -> bool:
        """Read once; false at the end."""
        data = await self.reader.read(65536)
        self.frames += self._decoder.receive(data) + self._decoder.receive(b"")  # the first frame comes alone
        assert self._decoder.error is None
        return bool(data)

    async def read_to_end(self) -> list[Frame]:
        """All frames until the other side has sent its last."""
        while await self.read():
            pass
        return self.frames

    async def answer(self, stream: int) -> bytes:
        """The payload of a stream's RESPONSE, its fragments joined."""
        return await self._terminal(stream, FrameType.RESPONSE)

    async def error(self, stream: int) -> Failure:
        """The ERROR of a stream."""
        return decode_failure(await self._terminal(stream, FrameType.ERROR))

    async def _terminal(self, stream: int, type_: FrameType) -> bytes:
        while True:
            frames = [frame for frame in self.frames if frame.stream == stream and frame.type == type_]
            if frames and not frames[-1].flags & 1:
                return b"".join(frame.payload for frame in frames)
            assert await self.read(), f"the connection ended without a {type_.name} on stream {stream}"

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass
