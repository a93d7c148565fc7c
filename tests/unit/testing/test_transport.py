"""Connections in memory behave as those of a socket: order, pauses, ends, resets, and faults."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from haptera.testing import MemoryLink, virtual_clock
from tests.unit.testing.services import Lines


def linked(**options: Any) -> tuple[Lines, Lines, MemoryLink]:
    dialer, acceptor = Lines(), Lines()
    link = MemoryLink(dialer, acceptor, **options)
    link.start()
    return dialer, acceptor, link


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_bytes_arrive_in_a_later_turn_in_order_and_both_ways() -> None:
    dialer, acceptor, _ = linked()
    dialer.transport.write(b"one")
    dialer.transport.writelines([b"two", bytearray(b"three"), memoryview(b"four")])
    acceptor.transport.write(b"back")
    assert acceptor.told == ["made"]
    await turns()
    assert (acceptor.received, dialer.received) == (b"onetwothreefour", b"back")


@virtual_clock
async def test_latency_is_kept_and_order_too_when_it_shrinks() -> None:
    dialer, acceptor, link = linked(latency=1.0)
    dialer.transport.write(b"a")
    await asyncio.sleep(0.5)
    link.delay(0.0)
    dialer.transport.write(b"b")
    await asyncio.sleep(0.4)
    assert acceptor.received == b""
    await asyncio.sleep(0.1)
    await turns()
    assert acceptor.received == b"ab"


@virtual_clock
async def test_a_random_latency_reorders_nothing() -> None:
    latencies = iter([0.5, 0.1, 0.9, 0.2, 0.0] * 20)
    dialer, acceptor, _ = linked(latency=lambda: next(latencies))
    for number in range(100):
        dialer.transport.write(bytes([number]))
        await asyncio.sleep(0.01)
    await asyncio.sleep(10.0)
    assert acceptor.received == bytes(range(100))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_a_chunk_is_the_most_that_is_delivered_at_once(size: int) -> None:
    dialer, acceptor, link = linked(chunk=size)
    dialer.transport.write(b"abcdefg")
    dialer.transport.write(b"hij")
    dialer.transport.write_eof()
    await turns(15)
    pieces = [item for item in acceptor.told if isinstance(item, bytes)]
    assert b"".join(pieces) == b"abcdefghij"
    assert {len(piece) for piece in pieces[:-1]} == {size}
    assert acceptor.told[len(pieces) + 1 :] == ["eof", "lost"]
    direction = link.to_acceptor
    assert (direction.writes, direction.sent) == (2, 10)
    assert (direction.reads, direction.delivered) == (len(pieces), 10)


async def test_a_chunk_may_be_another_each_time() -> None:
    sizes = iter([1, 2, 3, 4])
    dialer, acceptor, _ = linked(chunk=lambda: next(sizes))
    dialer.transport.write(b"abcdefghij")
    await turns(10)
    assert acceptor.told == ["made", b"a", b"bc", b"def", b"ghij"]


async def test_a_writer_is_paused_while_its_reader_does_not_read_and_resumed_after() -> None:
    dialer, acceptor, _ = linked(buffer=100)
    dialer.transport.set_write_buffer_limits(high=50, low=10)
    acceptor.transport.pause_reading()
    assert not acceptor.transport.is_reading()
    dialer.transport.write(bytes(150))
    assert dialer.told == ["made"]
    assert dialer.transport.get_write_buffer_size() == 50
    dialer.transport.write(b"x")
    assert dialer.told == ["made", "pause"]
    await turns()
    assert acceptor.received == b""
    acceptor.transport.resume_reading()
    await turns()
    assert acceptor.received == bytes(150) + b"x"
    assert dialer.told == ["made", "pause", "resume"]
    assert dialer.transport.get_write_buffer_size() == 0


async def test_close_sends_what_was_written_and_then_ends_both() -> None:
    dialer, acceptor, link = linked(buffer=10)
    dialer.transport.write(b"x" * 25)
    dialer.transport.close()
    dialer.transport.write(b"ignored")
    assert dialer.transport.is_closing()
    await turns(15)
    assert acceptor.received == b"x" * 25
    assert acceptor.told[-2:] == ["eof", "lost"]
    assert dialer.told == ["made", "lost"]
    assert link.closed


async def test_half_of_a_connection_can_be_closed() -> None:
    dialer, acceptor, link = linked()
    acceptor.eof_received = lambda: True  # type: ignore[method-assign]
    assert dialer.transport.can_write_eof()
    dialer.transport.write_eof()
    with pytest.raises(RuntimeError, match="write after write_eof"):
        dialer.transport.write(b"x")
    await turns()
    acceptor.transport.write(b"answer")
    await turns()
    assert dialer.received == b"answer"
    assert not link.closed
    acceptor.transport.close()
    await turns()
    assert dialer.told[-2:] == ["eof", "lost"]
    assert link.closed


async def test_abort_loses_what_waits_but_not_what_is_under_way() -> None:
    dialer, acceptor, _ = linked(buffer=10)
    dialer.transport.write(b"x" * 25)
    dialer.transport.abort()
    await turns(15)
    assert acceptor.received == b"x" * 10
    assert acceptor.told[-2:] == ["eof", "lost"]


async def test_what_is_sent_to_a_closed_end_is_answered_with_a_reset() -> None:
    dialer, acceptor, link = linked()
    acceptor.eof_received = lambda: True  # type: ignore[method-assign]
    dialer.transport.close()
    await turns()
    acceptor.transport.write(b"x")
    await turns()
    assert isinstance(acceptor.told[-1], ConnectionResetError)
    assert link.closed


async def test_sever_resets_both_ends_once_and_loses_what_was_under_way() -> None:
    dialer, acceptor, link = linked(latency=0.001)
    dialer.transport.write(b"lost")
    link.sever()
    link.sever()
    dialer.transport.write(b"lost too")
    await asyncio.sleep(0.01)
    assert [type(item) for item in dialer.told] == [str, ConnectionResetError]
    assert [type(item) for item in acceptor.told] == [str, ConnectionResetError]


async def test_a_protocol_that_raises_loses_its_connection_and_the_loop_hears_of_it() -> None:
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    dialer, acceptor, link = linked()

    def fail(data: bytes) -> None:
        raise ValueError("bad data")

    acceptor.data_received = fail  # type: ignore[method-assign]
    dialer.transport.write(b"x")
    await turns()
    assert isinstance(heard[0]["exception"], ValueError)
    assert isinstance(acceptor.told[-1], ValueError)
    assert isinstance(dialer.told[-1], ConnectionResetError)
    assert link.closed


@virtual_clock
async def test_a_black_hole_swallows_one_direction_and_gives_it_back_in_order() -> None:
    dialer, acceptor, link = linked()
    link.pause("to_acceptor")
    dialer.transport.write(b"a")
    acceptor.transport.write(b"b")
    await asyncio.sleep(1000.0)
    dialer.transport.write(b"c")
    assert (acceptor.received, dialer.received) == (b"", b"b")
    link.resume()
    await turns()
    assert acceptor.received == b"ac"


@virtual_clock
async def test_a_limit_is_a_rate_in_bytes_per_second() -> None:
    dialer, acceptor, link = linked(buffer=1_000_000)
    link.limit(1000.0, "to_acceptor")
    dialer.transport.write(bytes(5000))
    await asyncio.sleep(2.5)
    assert 2400 <= len(acceptor.received) <= 2520
    await asyncio.sleep(2.6)
    assert len(acceptor.received) == 5000
    link.limit(None)
    dialer.transport.write(bytes(5000))
    await asyncio.sleep(0.011)
    assert len(acceptor.received) == 10_000


async def test_one_bit_at_one_offset_is_flipped_once() -> None:
    dialer, acceptor, link = linked(chunk=2)
    link.corrupt("to_acceptor", at=3, bit=5)
    link.corrupt("to_acceptor", at=3, bit=0)
    link.corrupt("to_acceptor", at=100, bit=0)
    dialer.transport.write(b"abcdef")
    acceptor.transport.write(b"abcdef")
    await turns()
    assert acceptor.received == b"abc" + bytes([ord("d") ^ 0x21]) + b"ef"
    assert dialer.received == b"abcdef"
    assert link.to_acceptor.corrupted == 2


async def test_misused_faults_are_refused() -> None:
    _, _, link = linked()
    wrong: Any = "sideways"
    for call in (
        lambda: link.corrupt("to_dialer", at=0, bit=8),
        lambda: link.corrupt("to_dialer", at=-1),
        lambda: link.limit(0.0),
        lambda: link.pause(wrong),
        lambda: linked(buffer=0),
    ):
        with pytest.raises(ValueError, match=r"is|not"):
            call()


async def test_streams_of_asyncio_work_over_a_link() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    other = Lines()
    link = MemoryLink(protocol, other, buffer=1000)
    link.start()
    writer = asyncio.StreamWriter(link.dialer, protocol, reader, loop)
    other.transport.write(b"a line\n")
    assert await reader.readline() == b"a line\n"
    writer.write(bytes(100_000))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await turns(200)
    assert len(other.received) == 100_000
    assert writer.get_extra_info("peername") == "acceptor"


async def test_a_buffered_protocol_is_given_its_bytes_in_its_buffer() -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(4)
            self.received = b""

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.received += self.buffer[:nbytes]

    acceptor = Buffered()
    link = MemoryLink(Lines(), acceptor)
    link.start()
    link.dialer.write(b"0123456789")
    await turns()
    assert acceptor.received == b"0123456789"
