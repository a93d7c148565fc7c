"""Without ``pipelining`` requests run one at a time and are answered in order (spec/protocol.md, section 4.1)."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import haptera
from haptera import Request, Service, method
from haptera.testing import virtual_clock
from tests.unit.peer.hosts import ANY_PORT, KIB, MIB, Gate, eventually, pair, served, turns
from tests.unit.peer.raw import RawPeer, hello, request

SERIAL: dict[str, Any] = {"capabilities": ()}


class Sleepy(Service):
    """Counts how many of its handlers run at once."""

    name = "sleepy"

    def __init__(self) -> None:
        self.draw = random.Random(random.getrandbits(64))
        self.running = 0
        self.most = 0
        self.order: list[bytes] = []

    @method
    async def sleep(self, request: Request) -> bytes:
        self.order.append(request.payload)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(self.draw.random() * 0.002)
        self.running -= 1
        return request.payload


@virtual_clock
async def test_a_dialer_without_pipelining_is_served_one_at_a_time_in_order() -> None:
    service = Sleepy()
    async with pair(service, dialer_config=SERIAL) as (peer, acceptor):
        assert peer.capabilities == acceptor.capabilities == frozenset()
        answered: list[bytes] = []

        async def call(number: int) -> None:
            answered.append(await peer.call("sleepy", "sleep", b"%d" % number))

        await asyncio.gather(*(call(number) for number in range(100)))
        assert service.most == 1
        assert service.order == answered == [b"%d" % number for number in range(100)]


@virtual_clock
async def test_requests_with_ids_run_at_once_where_pipelining_was_agreed() -> None:
    """Trap: requests with ids that are nevertheless run one at a time."""
    service = Sleepy()
    async with pair(service) as (peer, _):
        await asyncio.gather(*(peer.call("sleepy", "sleep", b"%d" % number) for number in range(100)))
        assert service.most == 100


@virtual_clock
async def test_a_dialer_without_pipelining_serves_one_at_a_time_as_well() -> None:
    service = Sleepy()
    async with pair(dialer_services=(service,), dialer_config=SERIAL) as (_, acceptor):
        await asyncio.gather(*(acceptor.call("sleepy", "sleep", b"%d" % number) for number in range(50)))
        assert (service.most, service.order) == (1, [b"%d" % number for number in range(50)])


class Sized(Service):
    """Answers at once, with as many bytes as it is asked for."""

    name = "sized"

    def handle(self, requests: list[Request]) -> None:
        for each in requests:
            each.respond(bytes(int(each.payload)))


@virtual_clock
async def test_an_answer_of_many_frames_is_not_overtaken() -> None:
    """It leaves in turns; what is small could go before it."""
    sizes = [3 * MIB, 10, 100 * KIB, 10]
    async with served(ANY_PORT, Sized()) as server:
        raw = await RawPeer.open(server.url)
        calls = [request(1 + 2 * number, "sized", "x", b"%d" % size) for number, size in enumerate(sizes)]
        await raw.send(hello(capabilities=[]) + b"".join(calls))
        assert [len(await raw.answer(1 + 2 * number)) for number in range(4)] == sizes
        streams = [frame.stream for frame in raw.frames if frame.stream]
        assert streams == sorted(streams)
        await raw.close()


@virtual_clock
async def test_the_session_service_need_not_wait_for_others() -> None:
    gate = Gate()
    async with pair(gate, dialer_config=SERIAL) as (peer, _):
        calls = [peer.request("gate", "wait", b"%d" % number, timeout=None) for number in range(3)]
        assert await peer.call("session", "describe", b"\x90")
        assert gate.started == [b"0"]
        gate.open.set()
        assert [(await call).payload for call in calls] == [b"0", b"1", b"2"]


@virtual_clock
async def test_a_cancelled_request_lets_the_next_one_run() -> None:
    gate = Gate()
    async with pair(gate, dialer_config=SERIAL) as (peer, _):
        calls = [peer.request("gate", "wait", b"%d" % number, timeout=None) for number in range(4)]
        await eventually(lambda: gate.started == [b"0"])
        calls[1].cancel()
        calls[0].cancel()
        await eventually(lambda: gate.started == [b"0", b"2"])
        await turns()
        assert gate.cancelled == [b"0"]
        gate.open.set()
        assert (await calls[3]).payload == b"3"


@virtual_clock
async def test_a_refused_request_lets_the_next_one_run() -> None:
    service = Sleepy()
    async with pair(service, dialer_config=SERIAL) as (peer, _):
        names = ["nope", "sleepy", "nope", "sleepy", "session"]
        calls = [peer.request(name, "sleep", b"x", timeout=None) for name in names]
        answers = await asyncio.gather(*calls)
        assert [answer.failure and answer.failure.code for answer in answers] == [3001, None, 3001, None, 3002]


@virtual_clock
async def test_serial_peers_may_call_each_other_from_their_handlers() -> None:
    class Back(Service):
        name = "back"

        @method
        async def ask(self, request: Request) -> bytes:
            return await request.peer.call("sleepy", "sleep", request.payload)

    services = (Back(), Sleepy())
    async with pair(*services, dialer_services=services, dialer_config=SERIAL) as (peer, _):
        answers = await asyncio.gather(*(peer.call("back", "ask", b"%d" % number) for number in range(10)))
        assert answers == [b"%d" % number for number in range(10)]
        assert isinstance(peer, haptera.Peer)
