"""No round trip is spent on the handshake (spec/protocol.md, section 4, "First flight")."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

import haptera
from haptera.peer import link_of
from haptera.testing import connected_peers, proxy, virtual_clock
from haptera.wire.decoder import FrameDecoder
from haptera.wire.frame import Frame, FrameType
from tests.unit.peer.hosts import ANY_PORT, MIB, Echo, served

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.testing.recording import Recording
    from haptera.testing.traffic import DirectionName

PLAIN: dict[str, Any] = {"grease": False}


def now() -> float:
    return asyncio.get_running_loop().time()


def pair() -> Any:
    """Two peers a second apart, with nothing in their frames that means nothing."""
    return connected_peers([], [Echo()], latency=1.0, record=True, dialer_config=PLAIN, acceptor_config=PLAIN)


def frames_of(data: bytes) -> list[Frame]:
    decoder = FrameDecoder(16 * MIB)
    return decoder.receive(data) + decoder.receive(b"")  # the first frame of a connection comes alone


def delivered(recording: Recording | None, direction: DirectionName) -> list[tuple[float, list[Frame]]]:
    """When something arrived, and which frames."""
    assert recording is not None
    return [(piece.time, frames_of(piece.data)) for piece in recording.pieces if piece.direction == direction]


def types(recording: Recording | None, direction: DirectionName) -> list[tuple[float, list[int]]]:
    return [(time, [frame.type for frame in frames]) for time, frames in delivered(recording, direction)]


@virtual_clock
async def test_hello_and_the_first_request_leave_in_one_write_and_one_round_trip_ends_the_call() -> None:
    async with pair() as connected:
        dialer, _ = connected
        assert await dialer.call("echo", "one", b"hello", timeout=None) == b"hello"
        assert now() == 2.0
        link = connected.link
        assert link.to_acceptor.writes == 1
        assert types(link.recording, "to_acceptor") == [(1.0, [FrameType.HELLO, FrameType.REQUEST])]
        # WELCOME leaves in the read of HELLO; a handler in a task of its own answers a turn of the loop later.
        assert link.to_dialer.writes <= 2
        assert types(link.recording, "to_dialer") == [(2.0, [FrameType.WELCOME, FrameType.RESPONSE])]


@virtual_clock
async def test_a_service_that_answers_at_once_answers_in_the_write_of_welcome() -> None:
    async with pair() as connected:
        dialer, _ = connected
        answer = await dialer.request("session", "describe", b"\x90", timeout=None)
        assert answer.failure is None
        assert connected.link.to_dialer.writes == 1
        assert types(connected.link.recording, "to_dialer") == [(2.0, [FrameType.WELCOME, FrameType.RESPONSE])]


@virtual_clock
async def test_as_many_calls_as_the_first_flight_takes_leave_in_one_write() -> None:
    async with pair() as connected:
        dialer, _ = connected
        link_of(dialer)._early = Mock(**{"are_worth_it.return_value": True})
        calls = [dialer.request("echo", "one", b"%d" % number, timeout=None) for number in range(100)]
        assert [(await call).payload for call in calls] == [b"%d" % number for number in range(100)]
        assert now() == 4.0
        assert connected.link.to_acceptor.writes == 2
        assert types(connected.link.recording, "to_acceptor") == [
            (1.0, [FrameType.HELLO] + [FrameType.REQUEST] * 64),
            (3.0, [FrameType.REQUEST] * 36),
        ]


@pytest.mark.parametrize("size", [1000, 5000, 12_000, 100_000])
@virtual_clock
async def test_a_first_flight_has_at_most_16_kib(size: int) -> None:
    async with pair() as connected:
        dialer, _ = connected
        calls = [dialer.request("echo", "one", bytes(size), timeout=None) for _ in range(100)]
        await asyncio.sleep(1.5)  # and WELCOME is on its way
        ((_, frames),) = delivered(connected.link.recording, "to_acceptor")
        requests = [frame for frame in frames if frame.type == FrameType.REQUEST]
        assert sum(28 + len(frame.metadata) + len(frame.payload) for frame in requests) <= 16 * 1024
        assert not any(frame.flags for frame in requests)
        assert len(requests) == sum(1 for call in calls if call.stream)


@virtual_clock
async def test_the_calls_of_one_turn_that_are_one_write_have_their_answers_in_one_write() -> None:
    async with pair() as connected:
        dialer, _ = connected
        await dialer.ready()
        link = connected.link
        before = link.to_acceptor.writes, link.to_dialer.writes
        calls = [dialer.request("echo", "one", b"%d" % number, timeout=None) for number in range(15)]
        assert [(await call).payload for call in calls] == [b"%d" % number for number in range(15)]
        assert (link.to_acceptor.writes, link.to_dialer.writes) == (before[0] + 1, before[1] + 1)


async def test_over_a_socket_hello_and_the_first_request_are_one_read(short_path: Path) -> None:
    """What `haptera get` does, counted at a socket between both sides."""
    async with (
        served(f"haptera+unix://{short_path}/s", Echo()) as server,
        proxy(server.url, record=True) as between,
    ):
        peer = await haptera.dial(between.url, **PLAIN)
        assert await peer.call("echo", "one", b"x") == b"x"
        assert between.to_acceptor.writes == 1
        ((_, said),) = types(between.recording, "to_acceptor")
        assert said == [FrameType.HELLO, FrameType.REQUEST]
        await peer.aclose()


@virtual_clock
async def test_a_dialer_that_calls_nothing_still_shakes_hands() -> None:
    async with served(ANY_PORT, Echo()) as server:
        peer = await haptera.dial(server.url)
        assert (peer.established, peer.session, peer.server_id, peer.agent, peer.max_message) == (
            False,
            b"",
            None,
            "",
            0,
        )
        await peer.ready()
        assert peer.established
        assert (len(peer.session), len(peer.server_id or b"")) == (16, 16)
        assert peer.agent.startswith("haptera-python/")
        await peer.ready()
        await peer.aclose()
