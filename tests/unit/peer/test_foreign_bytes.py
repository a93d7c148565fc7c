"""A side that speaks another protocol is told so, in words that its users can read, and so is the log."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from haptera import dial
from haptera.errors import ConnectionLost
from haptera.testing import virtual_clock
from haptera.wire import FrameDecoder, decode_failure
from tests.support.certificates import Authority
from tests.unit.peer.hosts import Echo, eventually, served
from tests.unit.peer.test_tls import lines, url_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def answer_to(url: str, first: bytes) -> bytes:
    """All that an acceptor sends to a dialler with these bytes, until it ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(first)
    answer = await reader.read()
    writer.close()
    return answer


@virtual_clock
async def test_an_http_client_reads_a_response(caplog: pytest.LogCaptureFixture) -> None:
    async with served("haptera://127.0.0.1:0", Echo()) as server:
        head, _, body = (await answer_to(server.url, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")).partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    assert first == "HTTP/1.1 400 Bad Request"
    assert f"Content-Length: {len(body)}" in fields
    assert "Connection: close" in fields
    assert body == b"This address speaks Haptera, not HTTP.\n"
    (line,) = lines(caplog, "connection_failed")
    assert line["reason"] == "the bytes are HTTP, and this side of the connection does not speak it"


@virtual_clock
async def test_a_redis_client_reads_an_error_of_its_protocol() -> None:
    async with served("haptera://127.0.0.1:0", Echo()) as server:
        answer = await answer_to(server.url, b"*1\r\n$4\r\nPING\r\n")
    assert answer.startswith(b"-ERR this address speaks Haptera, not RESP")
    assert answer.index(b"\r\n") == len(answer) - 2


@virtual_clock
async def test_an_ssh_client_reads_a_line() -> None:
    async with served("haptera://127.0.0.1:0", Echo()) as server:
        assert await answer_to(server.url, b"SSH-2.0-x\r\n") == b"This address speaks Haptera, not SSH.\r\n"


@pytest.mark.parametrize("first", [b"\x16\x03\x01\x02\x00", b"\xca\xfe\x01\x01", b"hello, world\r\n"])
@virtual_clock
async def test_any_other_dialler_reads_an_error_frame(first: bytes) -> None:
    async with served("haptera://127.0.0.1:0", Echo()) as server:
        (frame,) = FrameDecoder(65536).receive(await answer_to(server.url, first))
    assert decode_failure(frame.payload).code == 1002


@asynccontextmanager
async def server_of(answer: bytes) -> AsyncIterator[str]:
    """A server of another protocol, with its answer to bytes that it does not know."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize(
    ("answer", "protocol"),
    [
        (b"-ERR unknown command\r\n", "RESP"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "TLS"),
        (b"\xca\xfe\x01\x03" + bytes(44), "CAFE"),
    ],
)
@virtual_clock
async def test_a_dialler_is_told_the_protocol_of_the_server_at_once(answer: bytes, protocol: str) -> None:
    begun = asyncio.get_running_loop().time()
    async with server_of(answer) as place:
        with pytest.raises(ConnectionLost) as caught:
            async with dial(f"haptera://{place}") as peer:
                await peer.call("echo", "one", b"")
    assert str(caught.value) == f"the server at {place} speaks {protocol}, not Haptera"
    assert asyncio.get_running_loop().time() - begun < 1.0  # of virtual time


@virtual_clock
async def test_a_plain_dialler_of_another_protocol_is_named_in_the_log_of_a_tls_address(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    ours = Authority(tmp_path)
    ours.issue("server", "localhost")
    async with served(url_of(ours), Echo()) as server:
        assert await answer_to(server.url.partition("?")[0], b"GET / HTTP/1.1\r\n\r\n") == b""
        await eventually(lambda: server.tls_failures)
    (line,) = lines(caplog, "tls_failed")
    assert line["reason"] == "it speaks HTTP without TLS"
