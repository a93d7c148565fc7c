"""A client of CAFE that sends any bytes, and a node for it. It shares no code with either side."""

from __future__ import annotations

import asyncio
import hmac
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from haptera.testing import node
from tools.cafe_vectors import BIND, CLIENT_NONCE, SHARED_KEY, bound_key, message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera.testing import NodeUrl

HEADER_SIZE = 48


class Answer(NamedTuple):
    """An answer whose tag was right."""

    opcode: int
    request_id: int
    value: bytes
    flags: int = 0

    @property
    def code(self) -> int:
        """The code of an ERR."""
        assert self.opcode == 129, self
        return int.from_bytes(self.value[:2], "big")

    @property
    def version(self) -> int:
        """The version in an OK."""
        assert (self.opcode, len(self.value)) == (128, 8), self
        return int.from_bytes(self.value, "big")


class RawClient(asyncio.Protocol):
    """One connection. ``key`` is that of the next message."""

    def __init__(self, key: bytes = SHARED_KEY) -> None:
        self.key = key
        #: Whether the tags of answers are checked.
        self.checks = True
        self.transport: asyncio.Transport
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent = b""
        self._received = b""
        self._read: list[Answer] = []
        self._more = asyncio.Event()

    @classmethod
    async def to(cls, url: str, key: bytes = SHARED_KEY) -> RawClient:
        """Connect to the URL of a listener."""
        host, _, port = url.rpartition("/")[2].rpartition(":")
        client = cls(key)
        await asyncio.get_running_loop().create_connection(lambda: client, host, int(port))
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= HEADER_SIZE:
            magic, version, opcode, request_id, flags, reserved, key_len, value_len, tag = struct.unpack_from(
                ">HBBIBBHI32s", self._received
            )
            whole = HEADER_SIZE + value_len
            if len(self._received) < whole:
                break
            told, self._received = self._received[:whole], self._received[whole:]
            assert (magic, version, reserved, key_len) == (0xCAFE, 1, 0, 0)
            assert not self.checks or hmac.digest(self.key, told[:16] + told[48:], "sha256") == tag
            self._read.append(Answer(opcode, request_id, told[48:], flags))
        self._more.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)
        self._more.set()

    def send(self, data: bytes) -> None:
        """Send any bytes."""
        self.sent += data
        self.transport.write(data)

    def request(self, opcode: int, request_id: int, name: bytes = b"", value: bytes = b"", **fields: Any) -> None:
        """Send a message."""
        self.send(message(opcode, request_id, name, value, key=self.key, **fields))

    async def answers(self, count: int) -> list[Answer]:
        """The next answers, in the order in which they come; fewer where the connection ends."""
        while len(self._read) < count and not self.closed.done():
            self._more.clear()
            await self._more.wait()
        found, self._read = self._read[:count], self._read[count:]
        return found

    async def ask(self, opcode: int, request_id: int, name: bytes = b"", value: bytes = b"", **fields: Any) -> Answer:
        """Send a message and return its answer."""
        self.request(opcode, request_id, name, value, **fields)
        (answer,) = await self.answers(1)
        return answer

    async def bind(self) -> None:
        """Begin the connection with BIND."""
        answer = await self.ask(BIND, 1, b"", CLIENT_NONCE)
        assert (answer.opcode, answer.request_id) == (128, 1)
        self.key = bound_key(self.key, CLIENT_NONCE, answer.value)

    async def ended(self) -> list[Answer]:
        """All answers until the end of the connection, which the other side has made."""
        await self.closed
        found, self._read = self._read, []
        return found

    def close(self) -> None:
        """Close the connection."""
        self.transport.close()


@asynccontextmanager
async def cafe_node(tmp_path: Path, options: str = "", **more: Any) -> AsyncIterator[NodeUrl]:
    """A node that speaks CAFE with the key of the vectors; its storage is in memory."""
    path = tmp_path / "cafe.key"
    path.write_bytes(SHARED_KEY)
    path.chmod(0o600)
    listen = f"cafe://127.0.0.1:0?key_file={path}{options}"
    async with node(storage="memory", listen=[listen, "haptera://127.0.0.1:0"], **more) as url:
        yield url
