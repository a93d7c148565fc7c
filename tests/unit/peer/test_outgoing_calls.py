"""Calls: how they end, how they are given up, and what happens to more of them than the other side takes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

import haptera
from haptera import CallError, ConnectionLost, DeadlineExceeded, Peer
from haptera.errors import LocalProtocolError
from haptera.peer import limits, link_of, outgoing_calls
from haptera.testing import virtual_clock
from haptera.wire.payload import Limits
from tests.unit.connection.machines import RESPONSE, damaged, frame, lowest_unanswered
from tests.unit.peer.hosts import (
    ANY_PORT,
    KIB,
    MIB,
    Batches,
    Echo,
    Gate,
    connection_of,
    eventually,
    items_of,
    pair,
    served,
    turns,
)


async def idle(*peers: Peer) -> None:
    """Wait until no stream is open on any side."""
    await eventually(lambda: not any(connection_of(peer).open_streams for peer in peers))


# -- deadlines -------------------------------------------------------------------------------------------


@virtual_clock
async def test_a_call_that_takes_too_long_is_deadline_exceeded_and_cancels_its_handler() -> None:
    gate = Gate()
    async with pair(gate, Echo()) as (peer, acceptor):
        with pytest.raises(DeadlineExceeded) as caught:
            await peer.call("gate", "wait", b"a", timeout=0.02)
        assert isinstance(caught.value, TimeoutError)
        assert (caught.value.code, caught.value.outcome) == (3005, "unknown")
        await eventually(lambda: gate.cancelled == [b"a"])
        await idle(peer, acceptor)
        assert await peer.call("echo", "one", b"goes on") == b"goes on"


@virtual_clock
async def test_a_stream_that_takes_too_long_is_deadline_exceeded() -> None:
    gate = Gate()
    async with pair(gate, latency=0.1) as (peer, acceptor):
        with pytest.raises(DeadlineExceeded):
            async for _ in peer.stream("gate", "items", b"1000", timeout=5.0):
                pass
        await eventually(lambda: gate.ended)
        await idle(peer, acceptor)


@virtual_clock
async def test_a_call_that_was_never_sent_in_time_is_not_applied() -> None:
    gate = Gate()
    acceptor_config = {"limits": Limits(max_streams=64)}
    async with pair(gate, acceptor_config=acceptor_config) as (peer, _):
        running = [peer.request("gate", "wait", b"r", timeout=None) for _ in range(64)]
        with pytest.raises(DeadlineExceeded) as caught:
            await peer.call("gate", "wait", b"w", timeout=0.02)
        assert caught.value.outcome == "not_applied"
        gate.open.set()
        await asyncio.gather(*running)
        assert b"w" not in gate.started


@virtual_clock
async def test_an_answer_in_time_is_no_failure_later() -> None:
    async with pair(Echo()) as (peer, _):
        assert await peer.call("echo", "one", b"x", timeout=0.05) == b"x"
        await asyncio.sleep(0.06)
        assert await peer.call("echo", "one", b"y", timeout=None) == b"y"


# -- giving up -------------------------------------------------------------------------------------------


@virtual_clock
async def test_cancelling_a_task_cancels_the_handler_at_the_other_side() -> None:
    gate = Gate()
    async with pair(gate) as (peer, acceptor):
        task = asyncio.create_task(peer.call("gate", "wait", b"a", timeout=None))
        await eventually(lambda: gate.started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: gate.cancelled == [b"a"])
        await idle(peer, acceptor)


@virtual_clock
async def test_a_call_cancelled_before_its_handler_began_is_answered_too() -> None:
    """REQUEST and CANCEL arrive together, or one right after the other: its slot must come free in any case."""
    gate = Gate()
    async with pair(gate, Echo()) as (peer, acceptor):
        for pause in (0, 1, 2):
            call = peer.request("gate", "wait", b"a", timeout=None)
            for _ in range(pause):
                await asyncio.sleep(0)
            call.cancel()
            await idle(peer, acceptor)
        assert gate.ended == []


@virtual_clock
async def test_a_handler_cancelled_before_its_first_step_is_answered() -> None:
    """A task that is cancelled before it runs never reaches the handler's own clean-up."""
    gate = Gate()
    async with pair(gate) as (peer, acceptor):
        call = peer.request("gate", "wait", b"a", timeout=None)
        handlers = acceptor._dispatcher.handlers
        run = handlers.run_one

        def run_and_cancel(request: haptera.Request, function: Any) -> None:
            run(request, function)
            acceptor._dispatcher.cancel(request.stream)

        handlers.run_one = run_and_cancel  # type: ignore[method-assign]
        answer = await call
        assert answer.failure is not None
        assert answer.failure.code == 3006
        assert gate.started == []


@virtual_clock
async def test_handlers_whose_tasks_are_cancelled_from_outside_before_their_first_step_are_answered() -> None:
    """Some of a batch, so that others begin between them."""
    gate = Gate()
    async with pair(gate) as (peer, acceptor):
        handlers = acceptor._dispatcher.handlers
        run = handlers.run_one

        def run_and_cancel(request: haptera.Request, function: Any) -> None:
            run(request, function)
            if request.payload in (b"1", b"2", b"5"):
                handlers.tasks[request.stream].cancel()

        handlers.run_one = run_and_cancel  # type: ignore[method-assign]
        gate.open.set()
        calls = [peer.request("gate", "wait", b"%d" % number, timeout=5.0) for number in range(6)]
        answers = [await call for call in calls]
        codes = [answer.failure and answer.failure.code for answer in answers]
        assert codes == [None, 3006, 3006, None, None, 3006]
        assert gate.started == [b"0", b"3", b"4"]
        assert handlers.tasks == {}


@virtual_clock
async def test_calls_one_after_the_other_are_written_at_once_and_a_burst_together() -> None:
    """Each is handed to the transport before anything else of the loop runs."""
    async with pair(Echo()) as (peer, acceptor):
        link = link_of(peer)
        at_once = []
        for _ in range(2 * outgoing_calls._ONE_BY_ONE_MIN):
            before = link.bytes_sent
            call = peer.request("echo", "one", b"x", timeout=5.0)
            at_once.append(link.bytes_sent > before)
            await call
        assert at_once == [False] * outgoing_calls._ONE_BY_ONE_MIN + [True] * outgoing_calls._ONE_BY_ONE_MIN
        await asyncio.gather(*(peer.request("echo", "one", b"x", timeout=5.0) for _ in range(10)))
        before, frames = link.bytes_sent, link_of(acceptor).connection.frames_received
        calls = [peer.request("echo", "one", b"x", timeout=5.0) for _ in range(10)]
        assert link.bytes_sent == before
        await asyncio.gather(*calls)
        assert link_of(acceptor).connection.frames_received == frames + 10


@pytest.mark.parametrize("size", [KIB, 200 * KIB, 3 * MIB])
@virtual_clock
async def test_a_write_at_once_leaves_nothing_behind_that_is_not_written_too(size: int) -> None:
    async with pair(Echo(), buffer=16 * MIB) as peers:
        for _ in range(2 * outgoing_calls._ONE_BY_ONE_MIN):
            assert await peers.dialer.call("echo", "one", bytes(size), timeout=60.0) == bytes(size)
        await eventually(lambda: all(connection_of(side).outbox.idle for side in peers))


@virtual_clock
async def test_leaving_a_stream_early_cancels_it() -> None:
    gate = Gate()
    async with pair(gate, Echo()) as (peer, acceptor):
        async with peer.stream("gate", "items", b"1000") as stream:
            async for _ in stream:
                break
        await eventually(lambda: len(gate.ended) == 1)
        async for _ in peer.stream("gate", "items", b"1000"):
            break
        gc.collect()
        await eventually(lambda: len(gate.ended) == 2)
        await idle(peer, acceptor)
        assert await peer.call("echo", "one", b"goes on") == b"goes on"


@virtual_clock
async def test_a_stream_that_was_left_is_at_its_end() -> None:
    async with pair(Gate()) as (peer, _):
        stream = peer.stream("gate", "items", b"0")
        await anext(stream)
        await stream.aclose()
        await stream.aclose()
        assert [item async for item in stream] == []


@virtual_clock
async def test_leaving_a_stream_early_ends_its_source() -> None:
    """The source waits for room that will never come."""
    ended: list[str] = []

    async def source() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(100 * KIB)
        finally:
            ended.append("ended")

    async with pair(Gate()) as (peer, acceptor):
        stream = peer.stream("gate", "items", b"0", items=source())
        await anext(stream)
        await turns()
        del stream
        gc.collect()
        await eventually(lambda: ended)
        await idle(peer, acceptor)


@virtual_clock
async def test_no_half_read_answer_leaks_into_the_next_call() -> None:
    """Trap: a half-read answer that leaks into the next call."""
    async with pair(Gate(), Echo()) as (peer, acceptor):
        for number in range(50):
            async with peer.stream("gate", "items", b"%d" % (number * 1000)) as stream:
                assert (await anext(stream))[:4] == bytes(4)
            answer = b"%d" % number * 5000
            assert await peer.call("echo", "one", answer) == answer
            assert [item async for item in peer.stream("echo", "many", b"2")] == [b"0", b"1"]
        await idle(peer, acceptor)


@virtual_clock
async def test_ids_are_not_used_again_after_a_time_out() -> None:
    """Trap: ids used again after a time-out; the late answer belongs to nobody."""
    service = Batches()
    async with pair(service) as (peer, acceptor):
        late = peer.request("batches", "x", b"late", timeout=0.01)
        with pytest.raises(DeadlineExceeded):
            await late
        calls = [peer.request("batches", "x", b"%d" % number, timeout=None) for number in range(10)]
        await eventually(lambda: len(service.requests) == 11)
        streams = [request.stream for request in service.requests]
        assert streams == sorted(set(streams))
        for request in service.requests:
            request.respond(request.payload)
        assert [(await call).payload for call in calls] == [b"%d" % number for number in range(10)]
        await idle(peer, acceptor)


@pytest.mark.parametrize("repeats", [False, True])
@virtual_clock
async def test_a_damaged_answer_is_held_for_a_caller_that_repeats_its_request(repeats: bool) -> None:
    service = Batches()
    async with pair(service) as (peer, acceptor):
        calls = [
            peer.request("batches", "x", b"", timeout=None, request_id=bytes([number]) * 16, repeats=repeats)
            for number in range(2)
        ]
        await eventually(lambda: len(service.requests) == 2)
        link_of(peer).data_received(damaged(RESPONSE, calls[0].stream) + frame(RESPONSE, calls[1].stream))
        assert [(await call).failure is None for call in calls] == [False, True]
        first = calls[0].stream if repeats else calls[1].stream + 2
        assert lowest_unanswered(connection_of(peer)) == first
        calls[0].release()
        assert lowest_unanswered(connection_of(peer)) == calls[1].stream + 2
        link_of(acceptor).abort()


# -- a call is a future ----------------------------------------------------------------------------------


@virtual_clock
async def test_a_call_can_be_awaited_any_number_of_times() -> None:
    async with pair(Echo()) as (peer, _):
        call = peer.request("echo", "later", b"x", timeout=5.0)
        answers = await asyncio.gather(call, call, asyncio.shield(call))
        assert [answer.payload for answer in answers] == [b"x"] * 3
        assert await call is answers[0]
        done, pending = await asyncio.wait([call, peer.request("echo", "one", b"y", timeout=None)])
        assert (len(done), len(pending)) == (2, 0)


@virtual_clock
async def test_cancelling_a_gather_cancels_all_its_calls() -> None:
    gate = Gate()
    async with pair(gate) as (peer, acceptor):
        together = asyncio.gather(*(peer.request("gate", "wait", b"x", timeout=None) for _ in range(10)))
        await eventually(lambda: len(gate.started) == 10)
        together.cancel()
        with pytest.raises(asyncio.CancelledError):
            await together
        await eventually(lambda: len(gate.cancelled) == 10)
        await idle(peer, acceptor)


@virtual_clock
async def test_a_call_cancelled_before_it_was_sent_is_never_sent() -> None:
    gate = Gate()
    async with pair(gate, acceptor_config={"limits": Limits(max_streams=64)}) as (peer, acceptor):
        running = [peer.request("gate", "wait", b"r", timeout=None) for _ in range(64)]
        waiting = [peer.request("gate", "wait", b"w%d" % number, timeout=None) for number in range(10)]
        assert [call.cancel() for call in waiting[:9]] == [True] * 9
        assert not waiting[0].cancel()
        gate.open.set()
        await asyncio.gather(*running, waiting[9])
        await idle(peer, acceptor)
        assert [payload for payload in gate.started if payload != b"r"] == [b"w9"]


@virtual_clock
async def test_cancelling_what_is_done_changes_nothing() -> None:
    async with pair(Echo()) as (peer, _):
        call = peer.request("echo", "one", b"x", timeout=None)
        answer = await call
        assert not call.cancel()
        assert call.result() is answer


@virtual_clock
async def test_an_error_is_an_answer_of_a_request_and_an_exception_of_a_call() -> None:
    async with pair() as (peer, _):
        answer = await peer.request("nope", "x", b"", timeout=5.0)
        assert answer.failure is not None
        assert answer.failure.code == 3001
        with pytest.raises(haptera.errors.UnknownService):
            answer.result()


@virtual_clock
async def test_a_call_for_one_answer_is_given_up_where_items_come() -> None:
    """They are not dropped in silence: the caller is told what to call, and the handler is cancelled."""
    gate = Gate()
    async with pair(Echo(), gate) as (peer, acceptor):
        for service, method in (("echo", "many"), ("gate", "items")) * 3:
            with pytest.raises(LocalProtocolError, match=rf"{service}\.{method} answers with items.*Peer\.stream"):
                await peer.call(service, method, b"20000", timeout=30.0)
        await idle(peer, acceptor)
        assert len(gate.ended) == 3
        with pytest.raises(LocalProtocolError):
            await peer.request("echo", "many", b"1", timeout=None)
        assert await peer.call("echo", "many", b"0") == b"", "without an item there is nothing that could be lost"
        assert [item async for item in peer.stream("echo", "many", b"2")] == [b"0", b"1"]
        await idle(peer, acceptor)


@virtual_clock
async def test_the_answer_of_a_stream_is_there_after_its_end() -> None:
    class Counted(Batches):
        name = "counted"

        def handle(self, requests: list[haptera.Request]) -> None:
            self.task = asyncio.ensure_future(self.answer(requests[0]))

        async def answer(self, request: haptera.Request) -> None:
            await request.send(b"item")
            request.respond(b"the end")

    async with pair(Counted()) as (peer, _):
        stream = peer.stream("counted", "x")
        assert [item async for item in stream] == [b"item"]
        assert stream.answer is not None
        assert stream.answer.payload == b"the end"
        assert [item async for item in stream] == []


# -- sources of items ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [ValueError("source"), CallError(10_001, "SOURCE", "source"), KeyError("x")])
@virtual_clock
async def test_a_source_that_raises_is_what_the_call_raises_and_cancels_it(fault: Exception) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"x"
        raise fault

    async with pair(Echo()) as (peer, acceptor):
        with pytest.raises(type(fault)) as caught:
            await peer.call("echo", "total", items=source())
        assert caught.value is fault
        with pytest.raises(type(fault)):
            async for _ in peer.stream("echo", "both", items=source()):
                pass
        await idle(peer, acceptor)


@virtual_clock
async def test_a_source_that_was_cancelled_inside_ends_its_call() -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"x"
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        future.cancel()
        yield await future

    async with pair(Echo()) as (peer, acceptor):
        with pytest.raises(asyncio.CancelledError):
            await peer.call("echo", "total", items=source(), timeout=None)
        await idle(peer, acceptor)


@virtual_clock
async def test_a_source_may_be_longer_than_its_answer() -> None:
    """An early answer: no FINISH is owed, and what is not sent yet never is."""
    ended: list[str] = []

    async def source() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(KIB)
        finally:
            ended.append("ended")

    async with pair(Echo()) as (peer, acceptor):
        assert await peer.call("echo", "one", b"early", items=source()) == b"early"
        await eventually(lambda: ended)
        await idle(peer, acceptor)


@pytest.mark.parametrize("item", ["text", 5, None])
@virtual_clock
async def test_an_item_is_bytes(item: object) -> None:
    async with pair(Echo()) as (peer, acceptor):
        with pytest.raises(TypeError):
            await peer.call("echo", "total", items=items_of(item))  # type: ignore[arg-type]
        await idle(peer, acceptor)


# -- what cannot be sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", ["text", 5, None])
@virtual_clock
async def test_a_payload_is_bytes(payload: object) -> None:
    async with pair(Echo()) as (peer, acceptor):
        for _ in range(3):
            with pytest.raises(TypeError):
                await peer.call("echo", "one", payload)  # type: ignore[call-overload]
        for like_bytes in (bytearray(b"ab"), memoryview(b"ab")):
            assert await peer.call("echo", "one", like_bytes) == b"ab"  # type: ignore[call-overload]
        await idle(peer, acceptor)


@virtual_clock
async def test_a_payload_that_changes_later_is_sent_as_it_was() -> None:
    async with pair(Echo()) as (peer, _):
        payload = bytearray(b"before")
        call = asyncio.create_task(peer.call("echo", "one", payload))  # type: ignore[call-overload]
        await asyncio.sleep(0)
        payload[:] = b"behind"
        assert await call == b"before"


@pytest.mark.parametrize("request_id", [b"", b"short", bytes(17)])
@virtual_clock
async def test_a_request_id_has_16_bytes(request_id: bytes) -> None:
    async with pair(Echo()) as (peer, acceptor):
        with pytest.raises(ValueError, match="16 bytes"):
            await peer.request("echo", "one", b"", timeout=None, request_id=request_id)
        await idle(peer, acceptor)


@pytest.mark.parametrize(("service", "name"), [("", "one"), ("echo", ""), ("x" * 256, "one"), ("echo", "x" * 256)])
@virtual_clock
async def test_a_name_that_cannot_be_sent_is_an_error_here(service: str, name: str) -> None:
    async with pair(Echo()) as (peer, acceptor):
        with pytest.raises(LocalProtocolError):
            await peer.call(service, name)
        await idle(peer, acceptor)
        assert await peer.call("echo", "one", b"goes on") == b"goes on"


@virtual_clock
async def test_a_message_too_large_for_the_other_side_is_refused_here_and_poisons_nothing() -> None:
    """Trap: an oversized message that poisons the connection."""
    acceptor_config = {"limits": Limits(max_message=MIB)}
    async with pair(Echo(), acceptor_config=acceptor_config) as (peer, acceptor):
        assert peer.max_message == MIB
        fitting, large = bytes(MIB), bytes(MIB + 1)
        with pytest.raises(LocalProtocolError) as caught:
            await peer.call("echo", "one", large)
        assert caught.value.code == 3004
        with pytest.raises(LocalProtocolError) as caught:
            await peer.call("echo", "total", items=items_of(b"x", large))
        assert caught.value.code == 3004
        assert await peer.call("echo", "one", fitting) == fitting
        assert await peer.call("echo", "total", items=items_of(fitting, b"x")) == b"%d" % (MIB + 1)
        await idle(peer, acceptor)


@virtual_clock
async def test_a_message_too_large_in_the_first_flight_fails_when_the_limit_is_known() -> None:
    async with served(ANY_PORT, Echo(), limits=Limits(max_message=MIB)) as server:
        peer = await haptera.dial(server.url)
        calls = [peer.call("echo", "one", bytes(size)) for size in (MIB + 1, 1, MIB)]
        large, *fitting = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(large, LocalProtocolError)
        assert large.code == 3004
        assert fitting == [bytes(1), bytes(MIB)]
        await peer.aclose()


# -- more than the other side takes ----------------------------------------------------------------------


@virtual_clock
async def test_more_calls_than_streams_wait_and_all_finish() -> None:
    gate = Gate()
    async with pair(gate, acceptor_config={"limits": Limits(max_streams=64)}) as (peer, _):
        calls = [peer.request("gate", "wait", b"%d" % number, timeout=None) for number in range(500)]
        await eventually(lambda: len(gate.started) == 64)
        await turns()
        assert len(gate.started) == 64
        gate.open.set()
        assert [(await call).payload for call in calls] == [b"%d" % number for number in range(500)]
        assert gate.started == [b"%d" % number for number in range(500)]


@pytest.mark.parametrize(("count", "size"), [(200, 0), (30, 4 * KIB), (3, 100 * KIB), (1, 3 * MIB)])
@virtual_clock
async def test_more_than_a_first_flight_before_welcome_waits_and_all_finish(count: int, size: int) -> None:
    async with served(ANY_PORT, Echo()) as server:
        peer = await haptera.dial(server.url)
        payloads = [number.to_bytes(4, "big") + bytes(size) for number in range(count)]
        calls = [peer.call("echo", "one", payload) for payload in payloads]
        assert await asyncio.gather(*calls) == payloads
        await peer.aclose()


@virtual_clock
async def test_large_payloads_share_the_connection_and_all_arrive() -> None:
    async with pair(Echo(), dialer_services=(Echo(),)) as (dialer, acceptor):
        payloads = [bytes((number,)) * (number * 300 * KIB + 1) for number in range(12)]
        calls = [side.call("echo", "one", payload) for payload in payloads for side in (dialer, acceptor)]
        assert await asyncio.gather(*calls) == [payload for payload in payloads for _ in range(2)]
        await idle(dialer, acceptor)


@virtual_clock
async def test_the_queue_of_waiting_calls_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (limits.WAITING_CALLS_MAX, limits.WAITING_SIZE_MAX) == (100_000, 64 * MIB)
    monkeypatch.setattr(outgoing_calls, "WAITING_CALLS_MAX", 100)
    monkeypatch.setattr(outgoing_calls, "WAITING_SIZE_MAX", 10_000)
    gate = Gate()
    async with pair(gate, acceptor_config={"limits": Limits(max_streams=64)}) as (peer, _):
        running = [peer.request("gate", "wait", b"r", timeout=None) for _ in range(64)]
        waiting = [peer.request("gate", "wait", b"w", timeout=None) for _ in range(100)]
        for payload in (b"x", bytes(20_000)):
            answer = await peer.request("gate", "wait", payload, timeout=None)
            assert answer.failure is not None
            assert (answer.failure.code, answer.failure.outcome) == (3007, "not_applied")
        # Those that are given up make room.
        for call in waiting[:50]:
            call.cancel()
        waiting += [peer.request("gate", "wait", b"w", timeout=None) for _ in range(50)]
        answer = await peer.request("gate", "wait", b"x", timeout=None)
        assert answer.failure is not None
        gate.open.set()
        answers = await asyncio.gather(*running, *waiting[50:])
        assert not [answer for answer in answers if answer.failure]
        assert (peer._caller._waiting_size, peer._caller._waiting_done, peer._caller.waits) == (0, 0, False)


@virtual_clock
async def test_calls_given_up_while_they_wait_are_forgotten() -> None:
    gate = Gate()
    async with pair(gate, acceptor_config={"limits": Limits(max_streams=64)}) as (peer, _):
        running = [peer.request("gate", "wait", b"r", timeout=None) for _ in range(64)]
        for _ in range(1000):
            peer.request("gate", "wait", bytes(1000), timeout=None).cancel()
        assert sum(map(len, peer._caller._queues())) <= 1
        assert peer._caller._waiting_size == 0
        gate.open.set()
        await asyncio.gather(*running)


@virtual_clock
async def test_a_call_on_a_closed_connection_is_lost_and_not_applied() -> None:
    async with pair(Echo()) as (peer, _):
        await peer.aclose()
        with pytest.raises(ConnectionLost) as caught:
            await peer.call("echo", "one")
        assert caught.value.outcome == "not_applied"
        with pytest.raises(ConnectionLost):
            await anext(peer.stream("echo", "many", b"1", items=items_of(b"x")))


@virtual_clock
async def test_a_damaged_answer_leaves_nothing_behind() -> None:
    """The call fails here at once; its stream ends when the other side has answered the CANCEL."""
    gate = Gate()
    async with pair(gate, dialer_config={"limits": Limits(max_message=64 * KIB)}) as (peer, acceptor):
        connection_of(acceptor)._streams.peer_message_max = MIB  # it forgets what we take
        with pytest.raises(haptera.errors.MessageTooLarge) as caught:
            await anext(peer.stream("gate", "items", b"%d" % (100 * KIB)))
        assert caught.value.outcome == "unknown"
        await idle(peer, acceptor)
        assert not peer._caller.calls
