"""Spans through the OpenTelemetry API, as its SDK records them (`trace_context`)."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from haptera import CallError, DeadlineExceeded, Peer, Request, Service, dial, listen, method
from haptera.errors import HandlerFailed, UnknownMethod
from haptera.testing import connected_peers, virtual_clock
from tests.unit.peer.hosts import Batches, dispatcher_of, eventually

trace = pytest.importorskip("opentelemetry.trace", reason="the development environment is not complete")
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF  # noqa: E402

from tests.support.spans import Spans, follows, ids  # noqa: E402

AGREED: dict[str, Any] = {"capabilities": ("pipelining", "request_deadline", "trace_context")}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    return Spans(monkeypatch)


class Traced(Service):
    name = "traced"

    def __init__(self) -> None:
        self.peer: Any = None
        self.current: list[Any] = []

    @method
    async def leaf(self, request: Request) -> bytes:
        self.current.append(trace.get_current_span())
        return b""

    @method
    async def relay(self, request: Request) -> bytes:
        self.current.append(trace.get_current_span())
        await self.peer.call("traced", "leaf")
        return b""

    @method
    async def many(self, request: Request) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b""

    @method
    async def breaks(self, request: Request) -> bytes:
        raise KeyError("what went wrong")

    @method
    async def refuses(self, request: Request) -> bytes:
        raise CallError(10001, "TOO_COLD", "not in winter")

    @method
    async def waits(self, request: Request) -> bytes:
        await asyncio.sleep(3600)
        return b""


@asynccontextmanager
async def linked(*services: Service, **configs: Any) -> AsyncIterator[Peer]:
    """A peer whose services call themselves through it. At the end no span of a request is kept."""
    configs = {"dialer_config": AGREED, "acceptor_config": AGREED, **configs}
    async with connected_peers((), services, **configs) as (peer, acceptor):
        await peer.ready()
        for service in services:
            service.peer = peer  # type: ignore[attr-defined]
        yield peer
    telemetry = dispatcher_of(acceptor).telemetry
    assert telemetry is not None
    assert not telemetry._spans


@virtual_clock
async def test_a_call_has_a_span_at_its_client_and_one_behind_it_at_the_server(spans: Spans) -> None:
    async with linked(Traced()) as peer:
        await peer.call("traced", "leaf")
    client, server = spans.one("traced/leaf", "CLIENT"), spans.one("traced/leaf", "SERVER")
    for span in (client, server):
        assert dict(span.attributes or {}) == {"rpc.system.name": "haptera", "rpc.method": "traced/leaf"}
        assert span.status.is_ok
    assert client.parent is None
    assert follows(server, client)
    assert server.parent is not None
    assert server.parent.is_remote


@virtual_clock
async def test_calls_of_a_handler_are_behind_its_span(spans: Spans) -> None:
    async with linked(Traced()) as peer:
        tracer = trace.get_tracer("test")
        with tracer.start_as_current_span("outside") as outside:
            await peer.call("traced", "relay")
        await peer.call("traced", "leaf")
    first, second = spans.named("traced/leaf", "CLIENT")
    chain = [outside, spans.one("traced/relay", "CLIENT"), spans.one("traced/relay", "SERVER"), first]
    chain.append(spans.named("traced/leaf", "SERVER")[0])
    assert all(follows(span, parent) for parent, span in itertools.pairwise(chain))
    assert second.parent is None


@virtual_clock
async def test_a_handlers_span_is_the_current_one(spans: Spans) -> None:
    service = Traced()
    async with linked(service) as peer:
        await peer.call("traced", "leaf")
    (current,) = service.current
    assert ids(current) == ids(spans.one("traced/leaf", "SERVER"))
    assert not trace.get_current_span().get_span_context().is_valid


@virtual_clock
async def test_streams_have_spans_until_their_answer(spans: Spans) -> None:
    async with linked(Traced()) as peer:
        assert len([item async for item in peer.stream("traced", "many")]) == 3
    assert follows(spans.one("traced/many", "SERVER"), spans.one("traced/many", "CLIENT"))


@virtual_clock
async def test_errors_are_recorded_on_both_sides(spans: Spans) -> None:
    async with linked(Traced()) as peer:
        with pytest.raises(HandlerFailed):
            await peer.call("traced", "breaks")
        with pytest.raises(CallError):
            await peer.call("traced", "refuses")
    server = spans.one("traced/breaks", "SERVER")
    (event,) = server.events
    assert (event.name, (event.attributes or {})["exception.type"]) == ("exception", "KeyError")
    for kind in ("SERVER", "CLIENT"):
        for name, error in (("traced/breaks", "HANDLER_FAILED"), ("traced/refuses", "TOO_COLD")):
            span = spans.one(name, kind)
            assert span.status.status_code is trace.StatusCode.ERROR
            assert (span.attributes or {})["error.type"] == error
    refused = spans.one("traced/refuses", "CLIENT").attributes or {}
    assert refused["rpc.response.status_code"] == "10001"


@virtual_clock
async def test_a_name_that_a_stranger_makes_up_is_no_name_of_a_servers_span(spans: Spans) -> None:
    async with linked(Traced()) as peer:
        with pytest.raises(UnknownMethod):
            await peer.call("traced", "made-up")
    assert (spans.one("_OTHER", "SERVER").attributes or {})["rpc.method"] == "_OTHER"
    assert (spans.one("traced/made-up", "CLIENT").attributes or {})["rpc.method"] == "traced/made-up"


async def test_a_call_names_the_server_that_was_dialled(spans: Spans) -> None:
    async with listen("haptera://127.0.0.1:0", services=[Traced()]) as server, dial(server.url) as peer:
        await peer.call("traced", "leaf")
    attributes = spans.one("traced/leaf", "CLIENT").attributes or {}
    port = int(server.url.rpartition(":")[2])
    assert (attributes["server.address"], attributes["server.port"]) == ("127.0.0.1", port)


@virtual_clock
async def test_deadlines_and_cancellation_are_errors_too(spans: Spans) -> None:
    async with linked(Traced()) as peer:
        with pytest.raises(DeadlineExceeded):
            await peer.call("traced", "waits", timeout=0.01)
        await eventually(lambda: spans.named("traced/waits", "SERVER"))
        assert (spans.one("traced/waits", "CLIENT").attributes or {})["error.type"] == "DEADLINE_EXCEEDED"
        spans.exporter.clear()
        call = peer.request("traced", "waits", b"", timeout=None)
        await asyncio.sleep(0.005)
        call.cancel()
        await eventually(lambda: spans.named("traced/waits", "SERVER"))
        for kind in ("CLIENT", "SERVER"):
            assert (spans.one("traced/waits", kind).attributes or {})["error.type"] == "CANCELLED"
        spans.exporter.clear()
        lost = peer.request("traced", "waits", b"", timeout=None)
        await asyncio.sleep(0.005)
    assert lost.exception() is not None
    assert (spans.one("traced/waits", "CLIENT").attributes or {})["error.type"] == "ConnectionLost"
    assert (spans.one("traced/waits", "SERVER").attributes or {})["error.type"] == "CANCELLED"


@virtual_clock
async def test_requests_of_a_batch_service_have_spans(spans: Spans) -> None:
    batches = Batches()
    async with linked(batches) as peer:
        calls = [peer.request("batches", name, b"", timeout=None) for name in ("a", "b")]
        await eventually(lambda: len(batches.requests) == 2)
        assert spans.named("batches/a", "SERVER") == []
        for request in batches.requests:
            request.respond()
        await asyncio.gather(*calls)
    for name in ("batches/a", "batches/b"):
        assert follows(spans.one(name, "SERVER"), spans.one(name, "CLIENT"))


@virtual_clock
async def test_what_is_not_sampled_is_told_so(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    spans.use(monkeypatch, ALWAYS_OFF)
    service = Traced()
    async with linked(service) as peer:
        await peer.call("traced", "relay")
    assert spans.exporter.get_finished_spans() == ()
    outer, inner = (span.get_span_context() for span in service.current)
    assert outer.is_valid
    assert outer.trace_id == inner.trace_id
    assert not outer.trace_flags.sampled


@virtual_clock
async def test_without_the_capability_spans_are_recorded_and_not_continued(spans: Spans) -> None:
    async with linked(Traced(), acceptor_config={"capabilities": ("pipelining",)}) as peer:
        await peer.call("traced", "leaf")
    assert spans.one("traced/leaf", "CLIENT").parent is None
    assert spans.one("traced/leaf", "SERVER").parent is None


@virtual_clock
async def test_the_trace_state_goes_along(spans: Spans) -> None:
    seen: list[Any] = []

    class States(Service):
        name = "states"

        @method
        async def see(self, request: Request) -> bytes:
            seen.append(request.trace)
            return b""

    async with linked(States()) as peer:
        state = trace.TraceState([("vendor", "opaque")])
        parent = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=state)
        with trace.use_span(trace.NonRecordingSpan(parent)):
            await peer.call("states", "see")
    assert (seen[0].trace_id, seen[0].state, seen[0].flags) == ((1).to_bytes(16, "big"), "vendor=opaque", 1)


def test_a_program_without_opentelemetry_loads_none_of_it() -> None:
    """It is in use only where the program has imported it."""
    program = """
import asyncio, sys, haptera.peer
from haptera.testing import connected_peers
async def main():
    async with connected_peers() as (peer, _):
        await peer.ready()
        assert peer._dispatcher.telemetry is None
asyncio.run(main())
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", program], check=True)
