"""Items that came compressed, as the application takes them (protocol, section 4.1)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import MethodType

import pytest

from haptera import dial
from haptera.errors import RemoteProtocolError, ServerError
from haptera.testing import virtual_clock
from haptera.wire.compression import Codec
from haptera.wire.frame import COMPRESSED, FrameType, encode_frame
from haptera.wire.metadata import Tag, encode_entry
from haptera.wire.payload import decode_failure
from tests.unit.peer.hosts import ANY_PORT, KIB, Echo, connection_of, served
from tests.unit.peer.raw import RawPeer

TEXT = b"one row is much like the next; " * 1000


async def _rows(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield TEXT + str(number).encode()


@virtual_clock
async def test_compressed_items_arrive_as_they_were_in_both_directions() -> None:
    async with served(ANY_PORT, Echo(), compression=True) as server:
        peer = await dial(server.url, compression=True)
        assert (
            await peer.call("echo", "total", items=_rows(200))
            == str(sum(len(TEXT) + len(str(number)) for number in range(200))).encode()
        )
        received = [item async for item in peer.stream("echo", "both", items=_rows(200))]
        assert received == [TEXT + str(number).encode() for number in range(200)]
        assert peer.bytes_received < 200 * KIB < 200 * len(TEXT)
        await peer.aclose()


def _broken(payload: bytes) -> bytes:
    raw_length = encode_entry(Tag.RAW_LENGTH, (5000).to_bytes(4, "big"))
    return encode_frame(FrameType.ITEM, COMPRESSED, 1, raw_length, payload)


@pytest.mark.parametrize("method", ["total", "both"])
@virtual_clock
async def test_an_item_that_cannot_be_decompressed_ends_its_request_alone(method: str) -> None:
    async with served(ANY_PORT, Echo(), compression=True) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello(capabilities=["pipelining", "zstd"])
        await raw.request(1, "echo", method, b"", streaming=True)
        await raw.send(_broken(b"no zstd frame") + encode_frame(FrameType.ITEM, 0, 1, b"", b"behind it"))
        while not any(each.type == FrameType.ERROR for each in raw.frames):
            assert await raw.read()
        (answer,) = [each for each in raw.frames if each.stream == 1 and each.type != FrameType.ITEM]
        assert decode_failure(answer.payload).code == 1010
        assert not any(each.type == FrameType.ITEM for each in raw.frames), "nothing behind it is handed over"
        await raw.request(3, "echo", "one", b"still here")
        while raw.frames[-1].stream != 3:
            assert await raw.read()
        assert raw.frames[-1].payload == b"still here"
        await raw.close()


@virtual_clock
async def test_an_item_of_an_answer_that_cannot_be_decompressed_ends_its_call_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served(ANY_PORT, Echo(), compression=True) as server:
        peer = await dial(server.url, compression=True)
        await peer.ready()
        codec = connection_of(peer).config.compression
        assert codec is not None
        taken = 0

        def decompress(self: Codec, data: bytes, raw_length: int) -> bytes:
            if taken == 2:
                raise RemoteProtocolError(1010)
            return Codec.decompress(self, data, raw_length)

        monkeypatch.setattr(codec, "decompress", MethodType(decompress, codec), raising=True)
        stream = peer.stream("echo", "both", items=_rows(5))
        for number in range(2):
            assert await anext(stream) == TEXT + str(number).encode()
            taken += 1
        with pytest.raises(ServerError) as caught:
            await anext(stream)
        assert (caught.value.code, caught.value.outcome) == (1010, "unknown")
        assert await peer.call("echo", "one", b"still here") == b"still here"
        await peer.aclose()
