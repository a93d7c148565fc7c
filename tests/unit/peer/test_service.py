"""Services: methods, batches, and what callers get when a handler goes wrong (spec/protocol.md, section 6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import haptera
from haptera import CallError, Request, Service, method
from haptera.connection.answers_read import TOLD_EVERY
from haptera.errors import HandlerFailed, LocalProtocolError, UnknownMethod, UnknownService, failure
from haptera.peer import link_of, respond_all
from haptera.peer.limits import BATCH_MAX, BATCH_UNANSWERED_MAX
from haptera.peer.loop_fairness import TURN_MAX
from haptera.testing import virtual_clock
from tests.unit.peer.hosts import (
    ANY_PORT,
    MIB,
    Batches,
    Echo,
    Gate,
    connected,
    connection_of,
    eventually,
    items_of,
    pair,
    turns,
)

if TYPE_CHECKING:
    from pathlib import Path

#: The metadata entry of a revision.
REVISION = b"\x0b\x08" + bytes(7) + b"\x07"

SECRET = "the password of the printer"


class Faulty(Service):
    """Every way for a handler to go wrong."""

    name = "faulty"

    @method
    async def raises(self, request: Request) -> bytes:
        raise ValueError(SECRET)

    @method
    async def raises_between_items(self, request: Request) -> AsyncIterator[bytes]:
        yield b"1"
        raise ValueError(SECRET)

    @method
    async def raises_at_its_end(self, request: Request) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"1"
        finally:
            raise ValueError(SECRET)

    @method
    async def call_error(self, request: Request) -> bytes:
        raise CallError(10_042, "TOO_HOT", "it is too hot", outcome="applied", details={"degrees": 99})

    @method
    async def call_error_that_cannot_be_encoded(self, request: Request) -> bytes:
        raise CallError(10_042, "TOO_HOT", "it is too hot", details={"object": object()})

    @method
    async def server_error(self, request: Request) -> bytes:
        raise haptera.KeyNotFound(4001, "KEY_NOT_FOUND", SECRET)

    @method
    async def text(self, request: Request) -> bytes:
        return SECRET  # type: ignore[return-value]

    @method
    async def number(self, request: Request) -> bytes:
        return 5  # type: ignore[return-value]

    @method
    async def text_item(self, request: Request) -> AsyncIterator[bytes]:
        yield SECRET  # type: ignore[misc]

    @method
    async def nothing(self, request: Request) -> bytes:
        return None  # type: ignore[return-value]

    @method
    async def bytearray(self, request: Request) -> bytes:
        return bytearray(b"ab")  # type: ignore[return-value]

    @method
    async def view(self, request: Request) -> AsyncIterator[bytes]:
        yield memoryview(b"ab")  # type: ignore[misc]

    @method
    async def waits_for_what_was_cancelled(self, request: Request) -> bytes:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        future.cancel()
        return await future

    @method
    async def too_large(self, request: Request) -> bytes:
        return bytes(17 * MIB)

    @method
    async def too_large_item(self, request: Request) -> AsyncIterator[bytes]:
        yield bytes(17 * MIB)


async def drawn(source: AsyncIterator[bytes]) -> list[bytes]:
    return [item async for item in source]


def failures(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


@virtual_clock
async def test_one_answer_many_answers_many_requests_and_both() -> None:
    async with pair(Echo()) as (peer, _):
        assert await peer.call("echo", "one", b"hello") == b"hello"
        assert await drawn(peer.stream("echo", "many", b"3")) == [b"0", b"1", b"2"]
        assert await drawn(peer.stream("echo", "many", b"0")) == []
        assert await peer.call("echo", "total", items=items_of(b"ab", b"", b"c")) == b"3"
        assert await peer.call("echo", "total", items=items_of()) == b"0"
        assert await drawn(peer.stream("echo", "both", items=items_of(b"ab", b"", b"c"))) == [b"ab", b"", b"c"]


@virtual_clock
async def test_both_sides_host_and_call_over_one_connection_at_the_same_time() -> None:
    async with pair(Echo(), dialer_services=(Echo(),)) as (dialer, acceptor):
        calls = [side.call("echo", "later", b"%d" % number) for number in range(100) for side in (dialer, acceptor)]
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(100) for _ in range(2)]
        assert (dialer.peer_services, acceptor.peer_services) == (("echo", "session"), ("echo", "session"))


@virtual_clock
async def test_items_that_arrive_together_with_their_request_are_not_lost() -> None:
    """They are there before the handler has started."""
    async with pair(Echo()) as (peer, _):
        calls = [peer.call("echo", "total", items=items_of(*[b"x"] * number)) for number in range(30)]
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(30)]


@pytest.mark.parametrize("name", ["raises", "server_error", "waits_for_what_was_cancelled", "text", "number"])
@virtual_clock
async def test_a_handler_that_fails_is_3010_without_its_reason_and_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture, name: str
) -> None:
    async with pair(Faulty(), Echo()) as (peer, acceptor):
        with pytest.raises(HandlerFailed) as caught:
            await peer.call("faulty", name)
        assert (caught.value.code, caught.value.outcome) == (3010, "unknown")
        assert SECRET not in f"{caught.value} {caught.value.details}"
        (record,) = failures(caplog)
        fields = vars(record)
        assert (record.name, record.getMessage(), record.levelname) == ("haptera.peer", "handler_failed", "ERROR")
        assert (fields["connection"], fields["stream"], fields["code"]) == (acceptor.session.hex(), 1, 3010)
        assert (fields["service"], fields["method"]) == ("faulty", f"faulty.{name}")
        assert record.exc_info
        assert await peer.call("echo", "one", b"goes on") == b"goes on"


@pytest.mark.parametrize("name", ["raises_between_items", "text_item"])
@virtual_clock
async def test_a_generator_that_fails_is_3010_behind_its_items(caplog: pytest.LogCaptureFixture, name: str) -> None:
    async with pair(Faulty()) as (peer, _):
        stream = peer.stream("faulty", name)
        if name == "raises_between_items":
            assert await anext(stream) == b"1"
        with pytest.raises(HandlerFailed):
            await anext(stream)
        assert len(failures(caplog)) == 1


@virtual_clock
async def test_a_generator_that_fails_while_it_is_closed_still_ends_its_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pair(Faulty()) as (peer, acceptor):
        async with peer.stream("faulty", "raises_at_its_end") as stream:
            await anext(stream)
        await eventually(lambda: not connection_of(peer).open_streams and not connection_of(acceptor).open_streams)
        assert [record.getMessage() for record in failures(caplog)] == ["handler_failed"]


@virtual_clock
async def test_a_call_error_reaches_the_caller_as_it_is_and_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with pair(Faulty()) as (peer, _):
        with pytest.raises(CallError) as caught:
            await peer.call("faulty", "call_error")
        error = caught.value
        assert (error.code, error.name, error.message) == (10_042, "TOO_HOT", "it is too hot")
        assert (error.outcome, error.details) == ("applied", {"degrees": 99})
        assert not failures(caplog)


@virtual_clock
async def test_a_call_error_that_cannot_be_sent_is_3010(caplog: pytest.LogCaptureFixture) -> None:
    async with pair(Faulty()) as (peer, _):
        with pytest.raises(HandlerFailed):
            await peer.call("faulty", "call_error_that_cannot_be_encoded")
        assert [record.getMessage() for record in failures(caplog)] == ["error_not_sent"]


@virtual_clock
async def test_an_answer_may_be_nothing_or_anything_like_bytes() -> None:
    async with pair(Faulty()) as (peer, _):
        assert await peer.call("faulty", "nothing") == b""
        assert await peer.call("faulty", "bytearray") == b"ab"
        assert await drawn(peer.stream("faulty", "view")) == [b"ab"]


@pytest.mark.parametrize("name", ["too_large", "too_large_item"])
@virtual_clock
async def test_an_answer_that_the_caller_would_not_take_is_3004(name: str) -> None:
    async with pair(Faulty(), Echo()) as (peer, _):
        with pytest.raises(haptera.errors.MessageTooLarge) as caught:
            await peer.call("faulty", name)
        assert caught.value.outcome == "unknown"
        assert await peer.call("echo", "one", b"goes on") == b"goes on"


@virtual_clock
async def test_an_unknown_service_is_3001_and_an_unknown_method_3002() -> None:
    async with pair(Echo()) as (peer, _):
        with pytest.raises(UnknownService) as service:
            await peer.call("nope", "one")
        assert (service.value.code, service.value.outcome) == (3001, "not_applied")
        assert service.value.details == {"service": "nope"}
        for name in ("nope", "handle", "methods", "name", "__init__", "_methods"):
            with pytest.raises(UnknownMethod) as caught:
                await peer.call("echo", name)
            assert (caught.value.code, caught.value.outcome) == (3002, "not_applied")
            assert caught.value.details == {"service": "echo", "method": name}


@virtual_clock
async def test_describe_lists_services_and_their_methods_on_both_sides() -> None:
    async with pair(Echo(), Batches(), dialer_services=(Gate(),)) as (dialer, acceptor):
        described = msgspec.msgpack.decode(await dialer.call("session", "describe", b"\x90"))
        assert described == [
            ["batches", ["anything"]],
            ["echo", ["both", "later", "many", "one", "total"]],
            ["session", ["describe"]],
        ]
        described = msgspec.msgpack.decode(await acceptor.call("session", "describe", b"\x90"))
        assert [name for name, _ in described] == ["gate", "session"]


@pytest.mark.parametrize("payload", [b"", b"\x80", b"\x91\x01", b"\x90\x90", b"\xc1", b"\x91" * 10_000])
@virtual_clock
async def test_describe_refuses_an_argument_that_it_does_not_know(payload: bytes) -> None:
    async with pair() as (peer, _):
        with pytest.raises(haptera.errors.InvalidArgument) as caught:
            await peer.call("session", "describe", payload)
        assert caught.value.outcome == "not_applied"


@virtual_clock
async def test_no_exchange_is_served_where_no_mechanism_is_offered_and_none_by_a_dialer() -> None:
    async with pair() as (dialer, acceptor):
        with pytest.raises(haptera.errors.UnsupportedMechanism) as caught:
            await dialer.call("session", "authenticate", b"\x90")
        assert caught.value.details == {"mechanisms": []}
        with pytest.raises(UnknownMethod):
            await dialer.call("session", "no_such_method", b"\x90")
        with pytest.raises(UnknownMethod):
            await acceptor.call("session", "authenticate", b"\x90")


@virtual_clock
async def test_a_batch_service_gets_what_came_together_and_answers_in_any_order() -> None:
    service = Batches()
    async with pair(service) as (peer, _):
        calls = [peer.request("batches", "x", b"%d" % number, timeout=None) for number in range(10)]
        await eventually(lambda: len(service.requests) == 10)
        assert [len(batch) for batch in service.batches] == [10]
        for request in reversed(service.requests):
            request.respond(request.payload * 2)
        assert [(await call).payload for call in calls] == [b"%d" % number * 2 for number in range(10)]


@virtual_clock
async def test_batches_are_small_as_long_as_their_answers_can_leave_early() -> None:
    class Prompt(Batches):
        def handle(self, requests: list[Request]) -> None:
            super().handle(requests)
            for request in requests:
                if request.method == "now":
                    request.respond()

    service = Prompt()
    async with pair(service) as (peer, _):

        async def sizes(method: str) -> list[int]:
            before = len(service.batches)
            calls = [peer.request("batches", method, b"", timeout=None) for _ in range(3 * BATCH_MAX)]
            await turns()
            batches = service.batches[before:]
            for request in service.requests:
                request.respond()
            await asyncio.gather(*calls)
            return list(map(len, batches))

        whole, rest = 3 * BATCH_MAX, [BATCH_MAX] * 3
        assert whole <= BATCH_UNANSWERED_MAX
        assert await sizes("now") == rest
        assert await sizes("later") == [BATCH_MAX, whole - BATCH_MAX]
        assert await sizes("later") == [whole]
        assert await sizes("now") == [whole]
        assert await sizes("now") == rest


@virtual_clock
async def test_a_large_batch_is_no_more_than_the_turn_of_the_loop_has_room_for() -> None:
    service = Batches()
    async with pair(service) as (peer, other):
        calls = [peer.request("batches", "x", b"", timeout=None)]
        await turns()
        link_of(peer).pause_writing()
        calls += [peer.request("batches", "x", b"", timeout=None) for _ in range(2 * BATCH_MAX)]
        arriving = connection_of(peer).data_to_send(MIB)
        link_of(peer).resume_writing()
        link_of(other).round.spend(TURN_MAX - 3 * BATCH_MAX)  # of which the frames that are read take a part
        link_of(other).data_received(arriving)
        assert [len(batch) for batch in service.batches] == [1, BATCH_MAX]
        await turns()
        for request in service.requests:
            request.respond()
        await asyncio.gather(*calls)


@virtual_clock
async def test_a_batch_service_may_add_entries_and_sees_the_request_id() -> None:
    service = Batches()
    async with pair(service) as (peer, _):
        call = peer.request("batches", "x", b"", timeout=None, request_id=bytes(range(16)))
        await eventually(lambda: service.requests)
        (request,) = service.requests
        assert (request.request_id, request.answered_below) == (bytes(range(16)), None)
        request.respond(b"", b"\x0b\x08" + (77).to_bytes(8, "big") + b"\x09\x00")
        answer = await call
        assert (answer.revision, answer.replayed) == (77, True)


class Remembering(Batches):
    name = "remembering"

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []

    def answers_read(self, peer: haptera.Peer, below: int) -> None:
        self.read.append(below)


@virtual_clock
async def test_every_service_hears_which_answers_were_read_with_requests_and_at_the_end() -> None:
    one, other = Remembering(), Batches()
    async with pair(one, other) as (peer, _):
        for number in range(TOLD_EVERY + 2):
            call = peer.request("batches", "x", b"", timeout=None, request_id=bytes([number]) * 16)
            while len(other.requests) <= number:
                await asyncio.sleep(0)
            other.requests[number].respond(b"")
            await call
        assert one.read == [2 * TOLD_EVERY + 1]
        await peer.aclose()
        await eventually(lambda: len(one.read) == 2)
        assert one.read[1] == 2 * TOLD_EVERY + 5


@virtual_clock
async def test_the_first_of_several_answers_counts() -> None:
    service = Batches()
    async with pair(service, Echo()) as (peer, acceptor):
        call = peer.request("batches", "x", b"", timeout=None)
        await eventually(lambda: service.requests)
        (request,) = service.requests
        request.respond(b"first")
        request.respond(b"second")
        request.fail(failure(3010))
        assert (await call).payload == b"first"
        request.fail(failure(3010))
        assert await peer.call("echo", "one", b"x") == b"x"
        assert not connection_of(acceptor).open_streams


@virtual_clock
async def test_a_batch_that_raises_is_3010_for_those_without_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Half(Service):
        name = "half"

        def handle(self, requests: list[Request]) -> None:
            requests[0].respond(b"done")
            raise ValueError(SECRET)

    async with pair(Half()) as (peer, _):
        answers = await asyncio.gather(*(peer.request("half", "x", b"", timeout=None) for _ in range(3)))
        assert [answer.failure and answer.failure.code for answer in answers] == [None, 3010, 3010]
        assert [record.getMessage() for record in failures(caplog)] == ["handler_failed"]
        assert [(vars(record)["service"], vars(record)["method"]) for record in failures(caplog)] == [
            ("half", "half.x")
        ]
        await peer.request("half", "x", b"", timeout=None)


@pytest.mark.parametrize("answer", ["text", 5, None, object()])
@virtual_clock
async def test_an_answer_of_the_wrong_type_raises_and_still_owes_the_answer(answer: Any) -> None:
    service = Batches()
    async with pair(service) as (peer, _):
        call = peer.request("batches", "x", b"", timeout=None)
        await eventually(lambda: service.requests)
        with pytest.raises(TypeError):
            service.requests[0].respond(answer)
        service.requests[0].respond(b"right")
        assert (await call).payload == b"right"


@virtual_clock
async def test_answers_may_be_given_together_and_the_first_of_each_counts() -> None:
    service = Batches()
    async with pair(service) as (peer, _):
        calls = [peer.request("batches", "x", b"", timeout=None) for _ in range(3)]
        await eventually(lambda: len(service.requests) == 3)
        first, second, third = service.requests
        second.fail(failure(3007))
        respond_all([(first, b"1", b""), (second, b"2", b""), (third, b"3", REVISION), (first, b"4", b"")])
        respond_all([])
        answers = await asyncio.gather(*calls)
        assert [answer.payload for answer in answers] == [b"1", b"", b"3"]
        assert [answer.failure and answer.failure.code for answer in answers] == [None, 3007, None]
        assert [answer.revision for answer in answers] == [None, None, 7]


@virtual_clock
async def test_of_answers_together_the_ones_that_cannot_be_sent_are_owed_still() -> None:
    service = Batches()
    async with pair(service) as (peer, acceptor):
        calls = [peer.request("batches", "x", b"", timeout=None) for _ in range(3)]
        await eventually(lambda: len(service.requests) == 3)
        first, second, third = service.requests
        with pytest.raises(LocalProtocolError):
            respond_all([(first, b"1", b""), (second, b"2", bytes(5000)), (third, b"3", b"")])
        assert (first.under_way, second.under_way, third.under_way) == (False, True, True)
        assert (await calls[0]).payload == b"1"
        assert acceptor.serving == 2
        respond_all([(second, b"2", b""), (third, b"3", b"")])
        assert [answer.payload for answer in await asyncio.gather(*calls)] == [b"1", b"2", b"3"]


@virtual_clock
async def test_a_handler_that_never_answers_ends_with_the_connection() -> None:
    service, gate = Batches(), Gate()
    stopped: list[str] = []
    async with pair(service, gate) as (peer, _):
        calls = [peer.request("batches", "x", b"", timeout=None), peer.request("gate", "wait", b"a", timeout=None)]
        await eventually(lambda: service.requests and gate.started)
        (request,) = service.requests
        request.on_cancel = lambda: stopped.append("stopped")
        await peer.aclose()
        await eventually(lambda: request.cancelled and gate.cancelled)
        assert stopped == ["stopped"]
        request.respond(b"too late")
        for call in calls:
            with pytest.raises(haptera.ConnectionLost) as caught:
                await call
            assert caught.value.outcome == "unknown"


@virtual_clock
async def test_a_callback_that_raises_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise ValueError("broken callback")

    service = Batches()
    seen: list[str] = []
    async with pair(service, Echo()) as (peer, acceptor):
        acceptor.on_close(broken)
        acceptor.on_close(lambda: seen.append("closed"))
        call = peer.request("batches", "x", b"", timeout=None)
        await eventually(lambda: service.requests)
        service.requests[0].on_cancel = broken
        call.cancel()
        acceptor.when_writable(broken)
        acceptor.when_writable(lambda: seen.append("writable"))
        await eventually(lambda: service.requests[0].cancelled and seen)
        assert await peer.call("echo", "one", b"goes on") == b"goes on"
        await peer.aclose()
        await eventually(lambda: len(seen) == 2)
    assert seen == ["writable", "closed"]
    assert [record.getMessage() for record in failures(caplog)] == ["callback_failed"] * 3


async def test_on_peer_sees_an_open_connection_and_may_fail(short_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[str, bool, bool]] = []

    def on_peer(peer: haptera.Peer) -> None:
        seen.append((peer.remote, peer.credentials is not None, peer.closed))
        raise ValueError("broken callback")

    async with connected(short_path, Echo(), listen_with={"on_peer": on_peer}) as (peer, _):
        assert await peer.call("echo", "one", b"x") == b"x"
    assert seen == [("unix", True, False)]
    assert [record.getMessage() for record in failures(caplog)] == ["callback_failed"]


@virtual_clock
async def test_a_request_may_be_sent_to_by_several_tasks_at_once() -> None:
    class Crowd(Service):
        name = "crowd"

        @method
        async def send(self, request: Request) -> bytes:
            await asyncio.gather(*(request.send(bytes(100_000)) for _ in range(20)))
            return b"done"

    async with pair(Crowd()) as (peer, _):
        stream = peer.stream("crowd", "send")
        assert sum([len(item) async for item in stream]) == 2_000_000
        assert stream.answer is not None
        assert stream.answer.payload == b"done"


@virtual_clock
async def test_items_are_for_one_task_at_a_time() -> None:
    class Two(Service):
        name = "two"

        @method
        async def read(self, request: Request) -> bytes:
            results = await asyncio.gather(*(anext(request.items) for _ in range(2)), return_exceptions=True)
            return repr(results).encode()

    source: asyncio.Queue[bytes] = asyncio.Queue()

    async def items() -> AsyncIterator[bytes]:
        yield await source.get()

    async with pair(Two()) as (peer, _):
        call = asyncio.create_task(peer.call("two", "read", items=items()))
        await turns()
        source.put_nowait(b"x")
        assert (await call).startswith(b"[b'x', RuntimeError(")


@pytest.mark.parametrize("function", [lambda self, request: b"", abs, Echo])
def test_a_method_is_async(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="async def"):
        method(function)


@virtual_clock
async def test_a_subclass_inherits_methods_and_may_take_one_away() -> None:
    class Less(Echo):
        name = "less"
        many = None  # type: ignore[assignment]

        @method
        async def more(self, request: Request) -> bytes:
            return b"more"

    assert Less().methods() == ["both", "later", "more", "one", "total"]
    assert Echo().methods() == ["both", "later", "many", "one", "total"]
    async with pair(Less()) as (peer, _):
        assert await peer.call("less", "more") == b"more"
        with pytest.raises(UnknownMethod):
            await peer.call("less", "many", b"1")


@virtual_clock
async def test_services_need_names_of_their_own() -> None:
    class Nameless(Service):
        pass

    for services, reason in (([Nameless()], "has no name"), ([Echo(), Echo()], "two services")):
        with pytest.raises(haptera.errors.ConfigurationError, match=reason):
            await haptera.listen(ANY_PORT, services=services)
        with pytest.raises(haptera.errors.ConfigurationError, match=reason):
            await haptera.dial(ANY_PORT, services=services)
