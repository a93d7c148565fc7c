"""Traces: calls on behalf of a request belong to its trace (`trace_context`, spec/protocol.md, section 2.3)."""

from __future__ import annotations

from typing import Any

import pytest

from haptera import Request, Service, method
from haptera.peer.trace import Trace, decode_trace
from haptera.testing import connected_peers, virtual_clock
from haptera.wire.frame import FrameType, encode_frame
from haptera.wire.metadata import Tag, decode_entries, encode_entry, encode_route
from tests.unit.peer.hosts import ANY_PORT, served
from tests.unit.peer.raw import RawPeer, hello

AGREED: dict[str, Any] = {"capabilities": ("pipelining", "trace_context")}
TRACE = Trace(bytes(range(16)), bytes(range(8, 16)), 1, "vendor=opaque,other=x")


class Traced(Service):
    """Remembers the traces of its requests, and calls itself through ``peer``."""

    name = "traced"

    def __init__(self) -> None:
        self.traces: list[Trace | None] = []
        self.peer: Any = None

    @method
    async def leaf(self, request: Request) -> bytes:
        self.traces.append(request.trace)
        return b""

    @method
    async def twice(self, request: Request) -> bytes:
        self.traces.append(request.trace)
        await self.peer.call("traced", "leaf")
        async for _ in self.peer.stream("traced", "leaf"):
            pass
        return b""


@pytest.mark.parametrize("trace", [TRACE, Trace(b"t" * 16, b"p" * 8), Trace(b"t" * 16, b"p" * 8, 255, "ä=ö")])
def test_a_trace_survives_its_encoding(trace: Trace) -> None:
    assert decode_trace(decode_entries(trace.entries())) == trace


def test_a_traceparent_is_that_of_the_w3c() -> None:
    entries = decode_entries(TRACE.entries())
    assert entries[Tag.TRACEPARENT].hex() == "00000102030405060708090a0b0c0d0e0f08090a0b0c0d0e0f01"
    assert entries[Tag.TRACESTATE] == b"vendor=opaque,other=x"


@pytest.mark.parametrize(
    "value",
    [b"\xff" + b"t" * 16 + b"p" * 8 + b"\x01", bytes(17) + b"p" * 8 + b"\x01", b"\x00" + b"t" * 16 + bytes(9)],
)
def test_what_the_w3c_calls_invalid_is_no_trace(value: bytes) -> None:
    assert decode_trace({Tag.TRACEPARENT: value}) is None


def test_a_later_version_is_read_as_this_one() -> None:
    value = b"\x01" + TRACE.trace_id + TRACE.parent_id + b"\x01"
    assert decode_trace({Tag.TRACEPARENT: value}) == Trace(TRACE.trace_id, TRACE.parent_id, 1)


def test_a_long_state_is_shortened_from_the_right_by_whole_members() -> None:
    members = [f"vendor{number}={'x' * 40}" for number in range(12)]
    decoded = decode_trace(decode_entries(Trace(b"t" * 16, b"p" * 8, 0, ",".join(members)).entries()))
    assert decoded is not None
    assert decoded.state == ",".join(members[:5])
    assert decode_entries(Trace(b"t" * 16, b"p" * 8, 0, "x" * 256).entries()).keys() == {Tag.TRACEPARENT}


def test_a_child_has_a_parent_id_of_its_own() -> None:
    children = [TRACE.child() for _ in range(100)]
    assert len({child.parent_id for child in children} | {TRACE.parent_id}) == 101
    assert {(child.trace_id, child.flags, child.state) for child in children} == {
        (TRACE.trace_id, TRACE.flags, TRACE.state)
    }


@virtual_clock
async def test_calls_made_inside_a_handler_continue_its_trace() -> None:
    """Trap: trace and deadline fields that nothing reads."""
    traced = Traced()
    async with (
        connected_peers((), (traced,), dialer_config=AGREED, acceptor_config=AGREED) as (peer, _),
        served(ANY_PORT, traced, **AGREED) as server,
    ):
        traced.peer = peer
        raw = await RawPeer.open(server.url)
        metadata = encode_route("traced", "twice") + TRACE.entries()
        await raw.send(hello(capabilities=["trace_context"]) + encode_frame(FrameType.REQUEST, 0, 1, metadata))
        await raw.answer(1)
        await raw.request(3, "traced", "twice", b"")
        await raw.answer(3)
        await raw.close()
    first, second, third, *untraced = traced.traces
    assert first == TRACE
    for child in (second, third):
        assert child is not None
        assert (child.trace_id, child.flags, child.state) == (TRACE.trace_id, TRACE.flags, TRACE.state)
    assert len({trace.parent_id for trace in (first, second, third) if trace is not None}) == 3
    assert untraced == [None] * 3


@pytest.mark.parametrize("side", ["dialer", "acceptor"])
@virtual_clock
async def test_nothing_is_continued_where_it_was_not_agreed(side: str) -> None:
    traced = Traced()
    configs: dict[str, Any] = {
        "dialer_config": AGREED,
        "acceptor_config": AGREED,
        f"{side}_config": {"capabilities": ("pipelining",)},
    }
    async with (
        connected_peers((), (traced,), **configs) as (peer, _),
        served(ANY_PORT, traced, **AGREED) as server,
    ):
        await peer.ready()
        traced.peer = peer
        raw = await RawPeer.open(server.url)
        metadata = encode_route("traced", "twice") + TRACE.entries() + encode_entry(Tag.CONTENT_TYPE, b"x/y")
        await raw.send(hello(capabilities=["trace_context"]) + encode_frame(FrameType.REQUEST, 0, 1, metadata))
        await raw.answer(1)
        await raw.close()
    assert traced.traces == [TRACE, None, None]
