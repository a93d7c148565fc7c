"""Deadlines: they travel with a call, are kept at both ends, and nest (spec/protocol.md, sections 2.3 and 4.1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

import haptera
from haptera import ConnectionLost, DeadlineExceeded, Peer, Request, Service, method
from haptera.errors import HandlerFailed, failure
from haptera.peer.outgoing_calls import encode_timeout
from haptera.testing import ConnectedPeers, connected_peers, virtual_clock
from haptera.wire.frame import FrameType, encode_frame
from haptera.wire.metadata import Tag, decode_entries, encode_entry, encode_route
from haptera.wire.payload import Limits
from tests.unit.peer.hosts import (
    ANY_PORT,
    MIB,
    Batches,
    Echo,
    Gate,
    connection_of,
    dispatcher_of,
    eventually,
    items_of,
    served,
    transport_of,
)
from tests.unit.peer.raw import RawPeer, hello

AGREED: dict[str, Any] = {"capabilities": ("pipelining", "request_deadline")}


def now() -> float:
    return asyncio.get_running_loop().time()


class Deadlined(Service):
    """Tells what its handlers see of their time."""

    name = "deadlined"

    def __init__(self) -> None:
        self.running = 0
        self.seen: list[float | None] = []

    @method
    async def left(self, request: Request) -> bytes:
        self.seen.append(request.deadline)
        return b"none" if request.deadline is None else b"%.3f" % (request.deadline - now())

    @method
    async def wait(self, request: Request) -> bytes:
        self.seen.append(request.deadline)
        self.running += 1
        try:
            await asyncio.sleep(float(request.payload))
        finally:
            self.running -= 1
        return b"done"

    @method
    async def cleans_up(self, request: Request) -> bytes:
        self.running += 1
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(float(request.payload))
            raise
        finally:
            self.running -= 1
        return b""

    @method
    async def anyway(self, request: Request) -> bytes:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return b"anyway"
        return b""

    @method
    async def ticks(self, request: Request) -> AsyncIterator[bytes]:
        self.running += 1
        try:
            while True:
                yield b"tick"
                await asyncio.sleep(1.0)
        finally:
            self.running -= 1


class Relay(Service):
    """Calls another peer from its handlers."""

    name = "relay"

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.later: list[asyncio.Task[bytes]] = []

    @method
    async def call(self, request: Request) -> bytes:
        name, _, payload = request.payload.decode().partition(" ")
        return await self.peer.call("deadlined", name, payload.encode(), timeout=None)

    @method
    async def brief(self, request: Request) -> bytes:
        return await self.peer.call("deadlined", "left", timeout=2.0)

    @method
    async def pause_then_call(self, request: Request) -> bytes:
        await asyncio.sleep(3.0)
        return await self.peer.call("deadlined", "left", timeout=None)

    @method
    async def stream(self, request: Request) -> bytes:
        async for _ in self.peer.stream("deadlined", "ticks"):
            pass
        return b""

    @method
    async def in_a_task(self, request: Request) -> bytes:
        return await asyncio.create_task(self.peer.call("deadlined", "left", timeout=None))

    @method
    async def leaves_a_task(self, request: Request) -> bytes:
        async def later() -> bytes:
            await asyncio.sleep(60.0)
            return await self.peer.call("deadlined", "left", timeout=None)

        self.later.append(asyncio.create_task(later()))
        return b""

    @method
    async def too_late(self, request: Request) -> bytes:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            with pytest.raises(DeadlineExceeded) as caught:
                await self.peer.call("deadlined", "left", timeout=None)
            return caught.value.outcome.encode()
        return b""


def pair(*services: Service, dialer: dict[str, Any] | None = None, **keywords: Any) -> Any:
    return connected_peers((), services, dialer_config={**AGREED, **(dialer or {})}, acceptor_config=AGREED, **keywords)


@asynccontextmanager
async def chain() -> AsyncIterator[tuple[Peer, Deadlined, Relay]]:
    """A peer, a relay that it calls, and what the relay calls."""
    deadlined = Deadlined()
    async with pair(deadlined) as inner:
        relay = Relay(inner.dialer)
        async with pair(relay) as outer:
            yield outer.dialer, deadlined, relay


# -- on the wire ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [(5.0, 5000), (0.0001, 1), (0.0015, 2), (0.001, 1), (0.0, 1), (4294967.295, 2**32 - 1)],
)
def test_a_timeout_is_milliseconds_rounded_up(seconds: float, milliseconds: int) -> None:
    assert decode_entries(encode_timeout(seconds)) == {Tag.TIMEOUT_MS: milliseconds.to_bytes(4, "big")}


@pytest.mark.parametrize("seconds", [4294967.296, 1e12, float("inf"), float("nan")])
def test_a_timeout_of_more_than_49_days_stays_at_home(seconds: float) -> None:
    assert encode_timeout(seconds) == b""


@virtual_clock
async def test_a_deadline_travels_with_every_kind_of_call() -> None:
    """Trap: trace and deadline fields that nothing reads."""
    async with pair(Deadlined(), Echo()) as (peer, _):
        await peer.ready()
        assert await peer.call("deadlined", "left", timeout=7.5) == b"7.500"
        assert await peer.call("deadlined", "left") == b"5.000"
        assert await peer.call("deadlined", "left", timeout=None) == b"none"
        assert (await peer.request("deadlined", "left", b"", timeout=3.0)).payload == b"3.000"
        stream = peer.stream("deadlined", "left", items=items_of(b"x"), timeout=2.0)
        assert [item async for item in stream] == []
        assert stream.answer is not None
        assert stream.answer.payload == b"2.000"


@virtual_clock
async def test_a_deadline_travels_in_the_first_flight() -> None:
    async with pair(Deadlined(), latency=1.0) as (peer, _):
        assert await peer.call("deadlined", "left", timeout=7.5) == b"7.500"
        assert now() == 2.0


@virtual_clock
async def test_the_time_spent_waiting_for_a_stream_does_not_travel() -> None:
    gate, deadlined = Gate(), Deadlined()
    services = (gate, deadlined)
    config = {**AGREED, "limits": Limits(max_streams=64)}
    async with connected_peers((), services, dialer_config=AGREED, acceptor_config=config) as (peer, _):
        await peer.ready()
        running = [peer.request("gate", "wait", b"", timeout=None) for _ in range(64)]
        late = peer.request("deadlined", "left", b"", timeout=5.0)
        await asyncio.sleep(2.0)
        gate.open.set()
        assert (await late).payload == b"3.000"
        await asyncio.gather(*running)


@virtual_clock
async def test_a_call_that_is_over_before_it_can_be_sent_never_is() -> None:
    gate = Gate()
    config = {**AGREED, "limits": Limits(max_streams=64)}
    async with connected_peers((), (gate,), dialer_config=AGREED, acceptor_config=config) as (peer, _):
        await peer.ready()
        running = [peer.request("gate", "wait", b"", timeout=None) for _ in range(64)]
        late = peer.request("gate", "wait", b"late", timeout=5.0)
        with pytest.raises(DeadlineExceeded) as caught:
            await late
        assert (now(), caught.value.outcome) == (5.0, "not_applied")
        gate.open.set()
        await asyncio.gather(*running)
        assert b"late" not in gate.started


@pytest.mark.parametrize("side", ["dialer", "acceptor"])
def test_without_the_capability_nothing_travels_and_only_the_caller_keeps_time(side: str) -> None:
    @virtual_clock
    async def check() -> None:
        deadlined = Deadlined()
        without = {"capabilities": ("pipelining",)}
        configs: dict[str, Any] = {"dialer_config": AGREED, "acceptor_config": AGREED, f"{side}_config": without}
        async with connected_peers((), (deadlined,), **configs) as (peer, _):
            await peer.ready()
            assert await peer.call("deadlined", "left", timeout=5.0) == b"none"
            with pytest.raises(DeadlineExceeded):
                await peer.call("deadlined", "wait", b"60", timeout=5.0)
            assert now() == 5.0

    check()


@virtual_clock
async def test_a_timeout_of_nothing_is_3003() -> None:
    deadlined = Deadlined()
    async with served(ANY_PORT, deadlined, **AGREED) as server:
        raw = await RawPeer.open(server.url)
        metadata = encode_route("deadlined", "left") + encode_entry(Tag.TIMEOUT_MS, bytes(4))
        await raw.send(hello(capabilities=["request_deadline"]) + encode_frame(FrameType.REQUEST, 0, 1, metadata))
        error = await raw.error(1)
        assert (error.code, error.outcome, deadlined.seen) == (3003, "not_applied", [])
        await raw.close()


@virtual_clock
async def test_the_time_of_a_large_request_counts_from_its_first_frame() -> None:
    """Its last comes seconds later, over a link that takes a second for 64 KiB."""
    batches = Batches()
    async with pair(batches, latency=0.5, chunk=64 * 1024, buffer=64 * 1024) as (peer, _):
        await peer.ready()
        sent = now()
        call = peer.request("batches", "x", bytes(MIB // 2), timeout=60.0)
        while not batches.requests:
            await asyncio.sleep(0.1)
        (request,) = batches.requests
        assert now() - sent > 3.0
        assert request.deadline is not None
        assert request.deadline - sent - 60.0 <= 1.0
        request.respond()
        await call


# -- at the responder -------------------------------------------------------------------------------------------------


def deaf(peers: ConnectedPeers) -> None:
    """Let nothing that the dialer sends from now on arrive: what happens then the acceptor does by itself."""
    peers.link.pause("to_acceptor")


@virtual_clock
async def test_a_handler_is_cancelled_when_its_callers_time_is_over_though_no_cancel_arrives() -> None:
    deadlined = Deadlined()
    async with pair(deadlined) as peers:
        await peers.dialer.ready()
        call = peers.dialer.request("deadlined", "wait", b"60", timeout=5.0)
        await asyncio.sleep(1.0)
        assert deadlined.running == 1
        deaf(peers)
        with pytest.raises(DeadlineExceeded):
            await call
        await asyncio.sleep(0.1)
        assert (deadlined.running, connection_of(peers.acceptor).open_streams) == (0, 0)


@virtual_clock
async def test_the_answer_is_3005() -> None:
    deadlined, batches = Deadlined(), Batches()
    async with served(ANY_PORT, deadlined, batches, **AGREED) as server:
        raw = await RawPeer.open(server.url)
        await raw.send(hello(capabilities=["request_deadline", "pipelining"]))
        for stream, name in ((1, "wait"), (3, "ticks"), (5, "anyway")):
            metadata = encode_route("deadlined", name) + encode_entry(Tag.TIMEOUT_MS, (20).to_bytes(4, "big"))
            await raw.send(encode_frame(FrameType.REQUEST, 0, stream, metadata, b"3600"))
        for stream in (1, 3):
            error = await raw.error(stream)
            assert (error.code, error.name, error.outcome) == (3005, "DEADLINE_EXCEEDED", "unknown")
        assert await raw.answer(5) == b"anyway"  # a result that there is stands
        await raw.close()


@virtual_clock
async def test_a_slot_is_free_only_when_the_handler_has_ended() -> None:
    deadlined = Deadlined()
    async with pair(deadlined) as (peer, acceptor):
        with pytest.raises(DeadlineExceeded):
            await peer.call("deadlined", "cleans_up", b"10", timeout=5.0)
        await asyncio.sleep(9.9)
        assert (
            deadlined.running,
            len(connection_of(acceptor)._streams.serves),
            len(connection_of(peer).open_calls),
        ) == (1, 1, 1)
        await asyncio.sleep(0.2)
        assert (
            deadlined.running,
            len(connection_of(acceptor)._streams.serves),
            len(connection_of(peer).open_calls),
        ) == (0, 0, 0)


@virtual_clock
async def test_deadline_and_cancel_together_stop_a_handler_once() -> None:
    """The second of the two must not disturb the clean-up that the first began."""
    deadlined = Deadlined()
    async with pair(deadlined, latency=0.001) as (peer, _):
        with pytest.raises(DeadlineExceeded):
            await peer.call("deadlined", "cleans_up", b"1", timeout=5.0)
        await asyncio.sleep(0.5)
        assert deadlined.running == 1
        await asyncio.sleep(0.6)
        assert deadlined.running == 0


@virtual_clock
async def test_a_batch_service_is_told_and_says_itself_what_became_of_it() -> None:
    batches = Batches()
    told: list[float] = []
    async with pair(batches) as peers:
        await peers.dialer.ready()
        calls = [peers.dialer.request("batches", "anything", b"%d" % number, timeout=5.0) for number in range(3)]
        await asyncio.sleep(1.0)
        deaf(peers)
        stopped, in_the_log, answered = batches.requests
        assert [request.deadline for request in batches.requests] == [5.0] * 3
        stopped.on_cancel = lambda: told.append(now())
        answered.respond(b"in time")
        await asyncio.sleep(5.0)
        assert told == [5.0]
        assert (stopped.cancelled, in_the_log.cancelled, answered.cancelled) == (True, True, False)
        assert set(peers.acceptor._dispatcher.requests) == {stopped.stream, in_the_log.stream}
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["DeadlineExceeded"] * 2 + ["Answer"]


@pytest.mark.parametrize(
    ("said", "code", "outcome"),
    [
        (failure(3006, outcome="not_applied"), 3005, "not_applied"),
        (failure(3010), 3005, "unknown"),
        (None, None, None),
    ],
)
@virtual_clock
async def test_what_a_batch_service_says_after_the_deadline(
    said: haptera.Failure | None, code: int | None, outcome: str | None
) -> None:
    """A result stands; an error is the deadline's, not applied only where the service knows it."""
    batches = Batches()
    async with served(ANY_PORT, batches, **AGREED) as server:
        raw = await RawPeer.open(server.url)
        metadata = encode_route("batches", "x") + encode_entry(Tag.TIMEOUT_MS, (1).to_bytes(4, "big"))
        await raw.send(hello(capabilities=["request_deadline"]) + encode_frame(FrameType.REQUEST, 0, 1, metadata))
        await eventually(lambda: batches.requests and batches.requests[0].cancelled)
        if said is None:
            batches.requests[0].respond(b"written")
            assert await raw.answer(1) == b"written"
        else:
            batches.requests[0].fail(said)
            error = await raw.error(1)
            assert (error.code, error.outcome) == (code, outcome)
        await raw.close()


@virtual_clock
async def test_a_request_that_was_never_started_is_not_applied() -> None:
    gate = Gate()
    async with served(ANY_PORT, gate, **AGREED) as server:
        raw = await RawPeer.open(server.url)
        await raw.send(hello(capabilities=["request_deadline"]))  # and no pipelining: one at a time
        await raw.request(1, "gate", "wait", b"first")
        metadata = encode_route("gate", "wait") + encode_entry(Tag.TIMEOUT_MS, (10).to_bytes(4, "big"))
        await raw.send(encode_frame(FrameType.REQUEST, 0, 3, metadata, b"second"))
        error = await raw.error(3)
        assert (error.code, error.outcome, gate.started) == (3005, "not_applied", [b"first"])
        gate.open.set()
        assert await raw.answer(1) == b"first"
        await raw.close()


@virtual_clock
async def test_deadlines_keep_no_payload_in_memory() -> None:
    """Of neither side: 5 seconds of large calls would be a lot of them."""
    import gc
    import tracemalloc

    async with pair(Echo()) as (peer, _):
        await peer.ready()
        tracemalloc.start()
        for _ in range(40):
            assert await peer.call("echo", "one", bytes(MIB), timeout=3600.0)
        gc.collect()
        held, _peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 4 * MIB


# -- nesting ----------------------------------------------------------------------------------------------------------


@virtual_clock
async def test_a_handlers_own_calls_have_what_is_left() -> None:
    async with chain() as (peer, _, _):
        assert await peer.call("relay", "call", b"left ", timeout=5.0) == b"5.000"
        assert await peer.call("relay", "pause_then_call", timeout=5.0) == b"2.000"
        assert await peer.call("relay", "in_a_task", timeout=4.0) == b"4.000"
        assert await peer.call("relay", "brief", timeout=5.0) == b"2.000"
        assert await peer.call("relay", "brief", timeout=1.0) == b"1.000"
        assert await peer.call("relay", "call", b"left ", timeout=None) == b"none"


@virtual_clock
async def test_one_deadline_ends_the_whole_chain_and_everyone_says_3005(caplog: pytest.LogCaptureFixture) -> None:
    async with chain() as (peer, deadlined, relay):
        for call in (b"wait 60", b"ticks "):
            start = now()
            with pytest.raises(DeadlineExceeded):
                await peer.call("relay", "stream" if call == b"ticks " else "call", call, timeout=5.0)
            assert now() == start + 5.0
            await asyncio.sleep(0.1)
            assert deadlined.running == 0
            assert not connection_of(relay.peer).open_streams
            assert not connection_of(peer).open_streams
        assert [record.getMessage() for record in caplog.records] == []


@virtual_clock
async def test_a_call_made_after_the_deadline_is_not_sent() -> None:
    async with chain() as (peer, deadlined, _):
        call = peer.request("relay", "too_late", b"", timeout=5.0)
        with pytest.raises(DeadlineExceeded):
            await call
        await asyncio.sleep(0.1)
        assert deadlined.seen == []
        assert not connection_of(peer).open_streams


@virtual_clock
async def test_what_a_handler_leaves_running_inherits_nothing_once_it_is_answered() -> None:
    async with chain() as (peer, _, relay):
        await peer.call("relay", "leaves_a_task", timeout=5.0)
        assert await relay.later[0] == b"none"


@virtual_clock
async def test_a_connection_that_a_handler_opens_serves_its_own_requests_in_their_own_time() -> None:
    """Its callbacks run in the context in which it was opened."""
    deadlined = Deadlined()

    async with pair(deadlined) as inner:

        class Back(Service):
            name = "back"

            def handle(self, requests: list[Request]) -> None:
                for request in requests:
                    call = inner.dialer.request("deadlined", "left", b"", timeout=None)
                    call.add_done_callback(lambda done, request=request: request.respond(done.result().payload))

        class Opens(Service):
            name = "opens"

            @method
            async def connection(self, request: Request) -> bytes:
                server = await haptera.listen("haptera://127.0.0.1:0", **AGREED)
                peer = await haptera.dial(server.url, services=[Back()], **AGREED)
                await peer.ready()
                (other,) = server.peers
                try:
                    return await other.call("back", "x", timeout=3600.0)
                finally:
                    await peer.aclose()
                    await server.aclose()

        async with pair(Opens()) as (peer, _):
            assert await peer.call("opens", "connection", timeout=5.0) == b"none"


@virtual_clock
async def test_a_call_that_fails_for_its_own_shorter_timeout_is_the_handlers_failure() -> None:
    async with chain() as (peer, _, relay):
        call = relay.peer.call

        async def shorter(*arguments: Any, **keywords: Any) -> bytes:
            answer: bytes = await call(*arguments, **{**keywords, "timeout": 1.0})
            return answer

        relay.peer = cast("Any", SimpleNamespace(call=shorter))
        with pytest.raises(HandlerFailed):
            await peer.call("relay", "call", b"wait 60", timeout=5.0)
        assert now() == 1.0


# -- cancelling -------------------------------------------------------------------------------------------------------


@virtual_clock
async def test_cancelling_a_call_cancels_the_whole_chain() -> None:
    async with chain() as (peer, deadlined, relay):
        for name, payload in (("call", b"wait 60"), ("stream", b"")):
            task = asyncio.create_task(peer.call("relay", name, payload, timeout=None))
            await asyncio.sleep(1.0)
            assert deadlined.running == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0.1)
            assert deadlined.running == 0
            assert not connection_of(peer).open_streams
            assert not connection_of(relay.peer).open_streams


@virtual_clock
async def test_cancelling_a_task_that_reads_a_stream_cancels_its_handler() -> None:
    deadlined = Deadlined()

    async def read(peer: Peer) -> None:
        async with peer.stream("deadlined", "ticks") as stream:
            async for _ in stream:
                pass

    async with pair(deadlined) as (peer, _):
        task = asyncio.create_task(read(peer))
        await asyncio.sleep(5.5)
        assert deadlined.running == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.1)
        assert (deadlined.running, connection_of(peer).open_streams) == (0, 0)


@virtual_clock
async def test_cancelling_a_call_with_items_cancels_its_handler_and_its_source() -> None:
    closed = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(1.0)
        finally:
            closed.set()

    async with pair(Echo()) as (peer, acceptor):
        task = asyncio.create_task(peer.call("echo", "total", items=source(), timeout=None))
        await asyncio.sleep(3.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await closed.wait()
        await asyncio.sleep(0.1)
        assert (connection_of(peer).open_streams, connection_of(acceptor).open_streams) == (0, 0)


@virtual_clock
async def test_a_call_cancelled_in_the_first_flight_is_cancelled_behind_it() -> None:
    deadlined = Deadlined()
    async with pair(deadlined, latency=1.0) as (peer, acceptor):
        task = asyncio.create_task(peer.call("deadlined", "wait", b"60", timeout=None))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.sleep(0.8)
        assert deadlined.running == 1  # the request has arrived; CANCEL follows WELCOME
        await asyncio.sleep(4.0)
        assert (
            deadlined.running,
            connection_of(peer).open_streams,
            connection_of(acceptor).open_streams,
        ) == (0, 0, 0)


@virtual_clock
async def test_a_flood_of_cancels_frees_no_slot_while_handlers_still_run() -> None:
    """Trap: cancel floods that free slots while handlers still run."""
    deadlined = Deadlined()
    config = {**AGREED, "limits": Limits(max_streams=64)}
    async with connected_peers((), (deadlined,), dialer_config=AGREED, acceptor_config=config) as (peer, acceptor):
        await peer.ready()
        most = 0
        tasks = []
        for _ in range(20):
            for _ in range(50):
                call = peer.request("deadlined", "cleans_up", b"10", timeout=None)
                tasks.append(call)
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            for call in tasks:
                call.cancel()
            await asyncio.sleep(0.01)
            most = max(most, deadlined.running)
            assert (
                deadlined.running
                == len(dispatcher_of(acceptor).handlers.tasks)
                == len(connection_of(acceptor)._streams.serves)
            )
        assert most == 64
        await asyncio.sleep(60.0)
        assert deadlined.running == 0


@virtual_clock
async def test_a_handler_whose_connection_is_lost_is_cancelled_in_its_own_time() -> None:
    gate = Gate()
    async with pair(gate) as (peer, acceptor):
        call = peer.request("gate", "wait", b"x", timeout=3600.0)
        await eventually(lambda: gate.started)
        transport_of(acceptor).abort()
        with pytest.raises(ConnectionLost):
            await call
        await eventually(lambda: gate.cancelled)
        assert len(acceptor._dispatcher._deadlines) == 0
