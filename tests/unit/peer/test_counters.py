"""What a connection counts, for whoever asks: frames, requests, and the error that ended it."""

from __future__ import annotations

import pytest

from haptera.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from haptera.testing import connected_peers, virtual_clock
from haptera.wire.frame import FrameType, encode_frame
from haptera.wire.payload import encode_payload
from tests.unit.peer.hosts import ANY_PORT, KIB, MIB, Echo, Gate, eventually, items_of, other_side, served, turns
from tests.unit.peer.raw import RawPeer, hello, request

PLAIN = {"grease": False}


@virtual_clock
async def test_frames_and_requests_are_counted() -> None:
    gate = Gate()
    async with connected_peers((), (gate, Echo()), dialer_config=PLAIN, acceptor_config=PLAIN) as (dialer, acceptor):
        await dialer.ready()
        assert (dialer.frames_received, acceptor.frames_received) == (1, 1)
        assert (dialer.frames_sent, acceptor.frames_sent) == (1, 1)
        assert await dialer.call("echo", "one", b"x") == b"x"
        assert [item async for item in dialer.stream("echo", "many", b"3")] == [b"0", b"1", b"2"]
        # A response; three items and a response.
        assert dialer.frames_received == acceptor.frames_sent == 1 + 1 + 4
        assert acceptor.frames_received == dialer.frames_sent == 1 + 2
        waiting = [dialer.request("gate", "wait", b"", timeout=None) for _ in range(3)]
        await eventually(lambda: len(gate.started) == 3)
        assert (acceptor.requests_received, acceptor.serving) == (2 + 3, 3)
        assert (dialer.requests_received, dialer.serving) == (0, 0)
        gate.open.set()
        for call in waiting:
            assert (await call).failure is None
        assert (acceptor.requests_received, acceptor.serving) == (5, 0)


@virtual_clock
@pytest.mark.parametrize("key", [None, bytes(32)])
async def test_as_many_frames_are_sent_as_arrive_whatever_they_are(key: bytes | None) -> None:
    config = {"signing_key": key}
    async with connected_peers((), (Echo(),), dialer_config=config, acceptor_config=config) as (dialer, acceptor):
        large = bytes(MIB)
        assert await dialer.call("echo", "one", large) == large
        assert await dialer.call("echo", "total", items=items_of(large, b"x", b"")) == b"%d" % (MIB + 1)
        abandoned = dialer.stream("echo", "many", b"1000")
        await anext(aiter(abandoned))
        await abandoned.aclose()
        await turns()
        assert dialer.frames_sent == acceptor.frames_received > 2 * MIB // (64 * KIB)
        assert acceptor.frames_sent == dialer.frames_received > MIB // (64 * KIB)


@virtual_clock
async def test_requests_that_came_behind_hello_are_counted_with_their_frames() -> None:
    async with served(ANY_PORT, Echo()) as server:
        raw = await RawPeer.open(server.url)
        await raw.send(hello() + b"".join(request(stream, "echo", "one") for stream in (1, 3, 5)))
        await raw.answer(5)
        acceptor = other_side(server)
        assert (acceptor.frames_received, acceptor.requests_received) == (4, 3)
        await raw.close()


@virtual_clock
async def test_a_request_that_is_cancelled_as_it_comes_was_received() -> None:
    async with served(ANY_PORT, Gate()) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        await raw.send(request(1, "gate", "wait") + encode_frame(FrameType.CANCEL, 0, 1))
        assert (await raw.error(1)).code == 3006
        assert (other_side(server).requests_received, other_side(server).serving) == (1, 0)
        await raw.close()


@virtual_clock
@pytest.mark.parametrize(
    ("sent", "kind", "code"),
    [
        (b"anything else", RemoteProtocolError, 1002),
        (hello() + encode_frame(FrameType.HELLO, 0, 0), RemoteProtocolError, 1008),
        (
            hello()
            + encode_frame(FrameType.ERROR, 0, 0, b"", encode_payload(RemoteProtocolError(1003).failure("unknown"))),
            LocalProtocolError,
            1003,
        ),
    ],
    ids=["no frame", "a second HELLO", "an error is told"],
)
async def test_who_found_what_ended_a_connection_is_known(sent: bytes, kind: type[ProtocolError], code: int) -> None:
    async with served(ANY_PORT, Echo()) as server:
        raw = await RawPeer.open(server.url)
        await eventually(lambda: server.peers)
        acceptor = other_side(server)
        await raw.send(sent)
        await eventually(lambda: acceptor.closed)
        assert type(acceptor.error) is kind
        assert acceptor.error.code == code
        await raw.close()


@virtual_clock
async def test_an_orderly_end_is_no_error() -> None:
    async with connected_peers() as (dialer, acceptor):
        await dialer.ready()
        await dialer.drain()
        await eventually(lambda: acceptor.closed)
        assert (dialer.error, acceptor.error) == (None, None)
