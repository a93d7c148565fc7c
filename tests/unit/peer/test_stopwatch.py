"""What answers say about how long they took (`server_metrics`, spec/protocol.md, section 4.1)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from haptera import Answer, Peer, Request, Service, method
from haptera.peer import respond_all
from haptera.peer.stopwatch import Stopwatch, clock_of
from haptera.testing import connected_peers, virtual_clock
from haptera.wire.metadata import Tag, decode_entries
from tests.unit.peer.hosts import KIB, Batches, Echo

AGREED: dict[str, Any] = {"capabilities": ("pipelining", "server_metrics")}


def pair(*services: Service, **keywords: Any) -> Any:
    return connected_peers((), services, dialer_config=AGREED, acceptor_config=AGREED, **keywords)


async def ask(peer: Peer, service: str, name: str, payload: bytes = b"") -> Answer:
    return await peer.request(service, name, payload, timeout=None)


class Slow(Service):
    name = "slow"

    @method
    async def sleep(self, request: Request) -> bytes:
        await asyncio.sleep(float(request.payload))
        return b""

    @method
    async def fails(self, request: Request) -> bytes:
        await asyncio.sleep(0.5)
        raise ValueError


@virtual_clock
async def test_the_time_in_a_handler_is_told_the_way_is_not() -> None:
    async with pair(Slow(), latency=1.0) as (peer, _):
        answer = await ask(peer, "slow", "sleep", b"1.25")
        assert (answer.server_time_us, answer.queue_time_us) == (1_250_000, 0)


@virtual_clock
async def test_errors_tell_it_too() -> None:
    async with pair(Slow()) as (peer, _):
        answer = await ask(peer, "slow", "fails")
        assert answer.failure is not None
        assert (answer.server_time_us, answer.queue_time_us) == (500_000, 0)
        answer = await ask(peer, "none", "x")
        assert (answer.server_time_us, answer.queue_time_us) == (0, 0)


@virtual_clock
async def test_waiting_for_ones_turn_is_queue_time() -> None:
    config = {"capabilities": ("server_metrics",)}
    async with connected_peers((), (Slow(),), dialer_config=config, acceptor_config=config) as (peer, _):
        calls = [peer.request("slow", "sleep", b"%d" % seconds, timeout=None) for seconds in (1, 2, 3)]
        answers = await asyncio.gather(*calls)
        assert [answer.server_time_us for answer in answers] == [1_000_000, 2_000_000, 3_000_000]
        assert [answer.queue_time_us for answer in answers] == [0, 1_000_000, 3_000_000]


@virtual_clock
async def test_what_a_batch_service_answers_later_has_waited() -> None:
    """For the disk, usually: a write is handed to the log at once."""
    batches = Batches()
    async with pair(batches) as (peer, _):
        await peer.ready()
        calls = [peer.request("batches", "anything", b"", timeout=None) for _ in range(2)]
        await asyncio.sleep(3.0)
        batches.requests[0].respond()
        await asyncio.sleep(4.0)
        batches.requests[1].respond()
        answers = await asyncio.gather(*calls)
        assert [(answer.server_time_us, answer.queue_time_us) for answer in answers] == [(0, 3_000_000), (0, 7_000_000)]


@virtual_clock
async def test_answers_that_are_given_together_tell_the_time_of_each() -> None:
    batches = Batches()
    async with pair(batches) as (peer, _):
        await peer.ready()
        calls = []
        for _ in range(3):
            calls += [peer.request("batches", "anything", b"", timeout=None) for _ in range(2)]
            await asyncio.sleep(1.0)
        respond_all([(request, b"", b"") for request in batches.requests])
        answers = await asyncio.gather(*calls)
        assert [answer.queue_time_us for answer in answers] == [3_000_000] * 2 + [2_000_000] * 2 + [1_000_000] * 2


@virtual_clock
async def test_waiting_for_room_to_answer_is_queue_time() -> None:
    class Large(Service):
        name = "large"

        def handle(self, requests: list[Request]) -> None:
            for request in requests:
                request.respond(bytes(60 * KIB))

    async with pair(Large(), buffer=64 * KIB) as connected:
        peer, acceptor = connected
        await peer.ready()
        connected.link.pause("to_dialer")
        calls = [peer.request("large", "x", b"", timeout=None) for _ in range(30)]
        await asyncio.sleep(0.5)  # one batch, whatever it answers with
        calls += [peer.request("large", "x", b"", timeout=None) for _ in range(2)]
        await asyncio.sleep(1.0)
        assert not acceptor.writable
        connected.link.resume()
        answers = await asyncio.gather(*calls)
        assert [answer.queue_time_us for answer in answers] == [0] * 30 + [1_000_000] * 2


@pytest.mark.parametrize("side", ["dialer", "acceptor"])
async def test_nothing_is_told_where_it_was_not_agreed(side: str) -> None:
    configs: dict[str, Any] = {
        "dialer_config": AGREED,
        "acceptor_config": AGREED,
        f"{side}_config": {"capabilities": ("pipelining",)},
    }
    async with connected_peers((), (Echo(),), **configs) as (peer, _):
        answer = await ask(peer, "echo", "one", b"x")
        assert (answer.server_time_us, answer.queue_time_us, answer.entries) == (None, None, {})


class Clock:
    """Counts how often it was read; each reading takes a millisecond."""

    def __init__(self) -> None:
        self.now = 0.0
        self.readings = 0

    def __call__(self) -> float:
        self.readings += 1
        self.now += 0.001
        return self.now


def received(stream: int, at: float) -> Request:
    return Request(cast("Any", None), stream, "s", "m", b"", {}, _received=at)


def times(entries: bytes) -> tuple[int, int]:
    decoded = decode_entries(entries)
    return tuple(int.from_bytes(decoded[tag], "big") for tag in (Tag.SERVER_TIME_US, Tag.QUEUE_TIME_US))  # type: ignore[return-value]


def test_a_batch_that_is_answered_at_once_costs_two_readings_of_the_clock() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    before = clock.readings
    stopwatch.read()
    requests = [received(stream, stopwatch.now) for stream in range(32)]
    stopwatch.begin_batch()
    assert {times(stopwatch.entries(request, stopwatch.reading(1))) for request in requests} == {(1000, 0)}
    stopwatch.end_batch([])
    assert clock.readings - before == 2


def test_times_that_do_not_fit_are_the_largest_that_do() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    stopwatch.read()
    first, second = received(1, stopwatch.now), received(3, stopwatch.now)
    clock.now += 5000.0
    stopwatch.begin(first)
    begun = clock.now
    stopwatch.begin(second)
    clock.now += 5000.0
    assert times(stopwatch.entries(first, stopwatch.reading(1))) == (2**32 - 1, 2**32 - 1)
    clock.now = begun - 1.0  # a clock that was turned back
    assert times(stopwatch.entries(second, stopwatch.reading(1)))[0] == 0


def test_the_clock_tells_microseconds_on_every_loop() -> None:
    import time

    loop = asyncio.new_event_loop()
    assert clock_of(loop) == loop.time
    loop.close()
    assert clock_of(None) is time.monotonic  # type: ignore[arg-type]  # uvloop's are no asyncio.BaseEventLoop
