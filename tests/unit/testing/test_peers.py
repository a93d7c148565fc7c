"""Peers that are connected in memory are peers as any other."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.testing import connected_peers, virtual_clock
from tests.unit.testing.services import Echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_both_call_each_other() -> None:
    async with connected_peers([Echo()], [Echo()]) as (dialer, acceptor):
        assert await dialer.call("echo", "say", b"1") == b"1"
        assert await acceptor.call("echo", "say", b"2") == b"2"
        assert [len(item) async for item in dialer.stream("echo", "items", b"3")] == [1000, 1000, 1000]

        async def items() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield bytes(10_000)

        assert await acceptor.call("echo", "total", items=items()) == b"1000000"


async def test_writes_are_counted_hello_and_the_first_call_are_one() -> None:
    async with connected_peers([], [Echo()]) as connected:
        dialer, _ = connected
        assert await dialer.call("echo", "say", b"hello") == b"hello"
        assert connected.link.to_acceptor.writes == 1


@virtual_clock
async def test_what_passes_is_recorded_if_that_is_asked_for() -> None:
    async with connected_peers([], [Echo()], latency=0.25, chunk=1000, record=True) as connected:
        dialer, _ = connected
        assert await dialer.call("echo", "say", b"m" * 500) == b"m" * 500
        link = connected.link
        assert link.recording is not None
        assert [(piece.time, piece.direction) for piece in link.recording.pieces] == [
            (0.25, "to_acceptor"),
            *[(0.5, "to_dialer")] * link.to_dialer.reads,
        ]
        for direction in (link.to_acceptor, link.to_dialer):
            sent = link.recording.sent(direction.name)
            assert (len(sent), sent[:2]) == (direction.delivered, b"\xfaW")
            assert b"m" * 500 in sent
    async with connected_peers() as unrecorded:
        assert unrecorded.link.recording is None


@virtual_clock
async def test_a_round_trip_takes_twice_the_latency() -> None:
    async with connected_peers([], [Echo()], latency=0.25) as (dialer, _):
        assert await dialer.call("echo", "say", b"") == b""
        assert now() == 0.5


@virtual_clock(seed=1)
async def test_any_chunks_and_a_tiny_buffer_change_nothing_but_time() -> None:
    def chunk() -> int:
        return random.randint(1, 50)

    async with connected_peers([], [Echo()], chunk=chunk, buffer=10, latency=0.001, seed=1) as (dialer, _):
        assert await dialer.call("echo", "say", bytes(20_000), timeout=None) == bytes(20_000)


@virtual_clock
async def test_half_a_minute_of_deadline_and_cancellation_takes_no_time() -> None:
    echo = Echo()
    async with connected_peers([], [echo], latency=0.1) as (dialer, _):
        with pytest.raises(haptera.DeadlineExceeded):
            await dialer.call("echo", "wait", b"3600", timeout=30.0)
        assert now() == pytest.approx(30.0)
        await asyncio.sleep(1.0)
        assert echo.open == 0


@virtual_clock
async def test_a_silent_link_is_noticed_by_ping_and_a_severed_one_at_once() -> None:
    async with connected_peers([], [Echo()]) as connected:
        dialer, acceptor = connected
        await dialer.ready()
        connected.link.sever()
        with pytest.raises(haptera.ConnectionLost):
            await dialer.call("echo", "say", b"")
        assert dialer.closed
        assert acceptor.closed
        assert now() == 0.0


@virtual_clock
async def test_nobody_says_hello_into_a_black_hole() -> None:
    async with connected_peers() as connected:
        connected.link.pause("to_acceptor")
        with pytest.raises(haptera.ConnectionLost):
            await connected.dialer.ready()
        assert 5.0 <= now() <= 6.0


async def test_configuration_reaches_each_side() -> None:
    async with connected_peers(
        dialer_config={"agent": "a/1"}, acceptor_config={"agent": "b/2", "server_id": b"s" * 16}
    ) as (dialer, acceptor):
        await dialer.ready()
        assert (acceptor.agent, dialer.agent, dialer.server_id) == ("a/1", "b/2", b"s" * 16)


async def test_two_services_of_one_name_are_refused() -> None:
    with pytest.raises(haptera.errors.ConfigurationError, match="same name"):
        async with connected_peers([Echo(), Echo()]):
            pass
