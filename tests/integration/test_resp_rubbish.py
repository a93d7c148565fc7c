"""A node that speaks the protocol of Redis takes rubbish, and pipelines that no one reads, with bounded memory.

The one that sends them meets the words of Redis, and the others notice nothing.
"""

from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from haptera.testing import node
from tests.unit.dialects.resp.talks import command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MIB = 1024 * 1024


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, data: bytes, size: int) -> bytes:
        self.writer.write(data)
        return await asyncio.wait_for(self.reader.readexactly(size), 20)

    async def said(self, data: bytes) -> bytes:
        """All that the node says until it ends the connection."""
        self.writer.write(data)
        return await asyncio.wait_for(self.reader.read(), 20)


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """The port of a node that listens for clients of Redis."""
    listen = ("haptera://127.0.0.1:0", "resp://127.0.0.1:0")
    async with node(storage="memory", listen=listen) as url:
        yield int(url.server.urls[1].rpartition(":")[2])


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"-ERR wrong number of arguments for 'get' command\r\n"),
        (b"\x16\x03\x01\x02\0\1\0\1\xfc\x03\x03\n", b"-ERR unknown command"),
        (b"x" * 70_000, b"-ERR Protocol error: too big inline request\r\n"),
        (b"'\n", b"-ERR Protocol error: unbalanced quotes in request\r\n"),
        (b"*2147483647\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1073741824\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n:1\r\n", b"-ERR Protocol error: expected '$', got ':'\r\n"),
    ],
)
async def test_rubbish_meets_the_words_of_redis_and_others_notice_nothing(data: bytes, words: bytes) -> None:
    async with served() as port, client(port) as bad, client(port) as good:
        assert await good.ask(command("SET", "a", 1), 5) == b"+OK\r\n"
        bad.writer.write(data)
        assert (await asyncio.wait_for(bad.reader.readexactly(len(words)), 20)) == words
        assert await good.ask(command("GET", "a"), 7) == b"$1\r\n1\r\n"


async def test_a_pipeline_whose_replies_no_one_reads_takes_bounded_memory_and_harms_no_one() -> None:
    async with served() as port, client(port) as good:
        assert await good.ask(command("SET", "a", "x" * MIB), 5) == b"+OK\r\n"
        reader, greedy = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        tracemalloc.start()
        try:
            pipeline = command("GET", "a") * 5000
            for _ in range(20):  # 100 GiB of replies
                greedy.write(pipeline)
                for _ in range(5):
                    assert await good.ask(command("EXISTS", "a"), 4) == b":1\r\n"
            held = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert held < 40 * MIB
        greedy.transport.abort()
        del reader
        assert await good.ask(command("SET", "a", 2) + command("GET", "a"), 12) == b"+OK\r\n$1\r\n2\r\n"


async def test_a_pipeline_of_writes_that_no_one_reads_is_done_step_by_step() -> None:
    async with served() as port, client(port) as good:
        _, greedy = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        for _ in range(20):
            greedy.write(command("INCR", "n") * 500)
            assert await good.ask(command("EXISTS", "none"), 4) == b":0\r\n"
        for _ in range(2000):
            found = await good.ask(command("STRLEN", "n"), 4)
            if found == b":5\r\n":
                break
        assert await good.ask(command("GET", "n"), 11) == b"$5\r\n10000\r\n"
        greedy.close()


async def test_values_of_all_sizes_pass_a_real_connection_in_pipelines() -> None:
    async with served() as port, client(port) as one:
        for size in (0, 1, 100, 65_535, 65_536, 65_537, MIB, 8 * MIB):
            value = bytes(range(256)) * (size // 256) + bytes(size % 256)
            reply = b"+OK\r\n$%d\r\n%b\r\n" % (size, value)
            assert await one.ask(command("SET", "a", value) + command("GET", "a"), len(reply)) == reply
