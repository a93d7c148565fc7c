"""Trap: a turn for everyone, per loop and not per caller. What many connections send at one instant is read and begun
over several turns of the loop, a part of each connection after the other.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import haptera
from haptera.peer import link_of
from haptera.peer.limits import BATCH_MAX
from haptera.peer.loop_fairness import PART_MAX, TURN_MAX, Round
from tests.unit.peer.hosts import ANY_PORT, eventually, served
from tests.unit.peer.raw import RawPeer
from tests.unit.peer.raw import request as raw_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haptera.peer import Request

CONNECTIONS, REQUESTS = 16, 200


async def test_a_turn_has_room_until_it_is_used_up_and_the_next_one_has_it_again() -> None:
    round_ = Round.of(asyncio.get_running_loop())
    seen = [(round_.has_room, round_.part)]
    for units in (TURN_MAX - 1, 1):
        round_.spend(units)
        seen.append((round_.has_room, round_.part))
    await asyncio.sleep(0)
    seen.append((round_.has_room, round_.part))
    assert seen == [(True, TURN_MAX), (True, PART_MAX), (False, PART_MAX), (True, TURN_MAX)]


async def test_a_turn_has_no_room_while_others_wait() -> None:
    round_ = Round.of(asyncio.get_running_loop())
    round_.add(lambda: None)
    assert (round_.has_room, round_.part) == (False, PART_MAX)


async def test_what_waits_has_its_turn_in_the_order_in_which_it_came() -> None:
    round_ = Round.of(asyncio.get_running_loop())
    done: list[int] = []

    def work(number: int) -> None:
        done.append(number)
        round_.spend(TURN_MAX // 2)

    for number in range(5):
        round_.add(lambda number=number: work(number))  # type: ignore[misc]
    per_turn = []
    while len(done) < 5:
        before = len(done)
        await asyncio.sleep(0)
        per_turn.append(len(done) - before)
    assert done == list(range(5))
    assert max(per_turn) == 2


async def test_work_that_fails_does_not_end_the_round() -> None:
    loop = asyncio.get_running_loop()
    errors: list[object] = []
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    round_, done = Round.of(loop), asyncio.Event()
    error = ValueError("no")

    def fail() -> None:
        raise error

    round_.add(fail)
    round_.add(done.set)
    await done.wait()
    assert errors == [error]


async def test_bytes_count_too() -> None:
    round_ = Round.of(asyncio.get_running_loop())
    round_.spend(1, 1 << 20)
    assert not round_.has_room


class Late(haptera.Service):
    """Answers in the next turn of the loop, or not at all. It notes whose requests begin and end in each turn."""

    name = "late"

    def __init__(self, *, answers: bool) -> None:
        self.turn = 0
        self.begun: dict[int, list[haptera.Peer]] = {}
        self.ended: dict[int, int] = {}
        self.running = True
        self._answers = answers
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self.turn += 1
        if self.running:
            asyncio.get_running_loop().call_soon(self._next)

    def handle(self, requests: list[Request]) -> None:
        for request in requests:
            self.begun.setdefault(self.turn, []).append(request.peer)
            request.on_cancel = self._end
            if self._answers:
                asyncio.get_running_loop().call_soon(request.respond, b"")

    def _end(self) -> None:
        self.ended[self.turn] = self.ended.get(self.turn, 0) + 1


def many_requests(number: int) -> bytes:
    return b"".join(raw_request(1 + 2 * place, "late", "x") for place in range(number))


@asynccontextmanager
async def attacked(service: Late) -> AsyncIterator[tuple[haptera.Server, list[RawPeer]]]:
    """A server, and connections that have sent it many requests at one instant; the last one has sent a single one."""
    async with served(ANY_PORT, service) as server:
        raws = [await RawPeer.open(server.url) for _ in range(CONNECTIONS + 1)]
        for raw in raws:
            await raw.hello()
        for raw in raws[:-1]:
            raw.writer.write(many_requests(REQUESTS))
        raws[-1].writer.write(many_requests(1))
        yield server, raws
        service.running = False
        for raw in raws:
            await raw.close()


async def test_many_requests_of_many_connections_are_begun_over_many_turns() -> None:
    """In each turn a part of each connection that has not waited yet, and a bounded number of those that have. Who
    asks for one thing waits behind none of them.
    """
    service = Late(answers=True)
    async with attacked(service) as (_, raws):
        for raw in raws[:-1]:
            await raw.answer(2 * REQUESTS - 1)
        assert await raws[-1].answer(1) == b""
        begun = [len(peers) for peers in service.begun.values()]
        assert sum(begun) == CONNECTIONS * REQUESTS + 1
        assert max(begun) <= (CONNECTIONS + 1) * BATCH_MAX + TURN_MAX + BATCH_MAX
        assert len(begun) >= CONNECTIONS * REQUESTS // (2 * TURN_MAX)
        counts = Counter(peer for peers in service.begun.values() for peer in peers)
        (innocent,) = [peer for peer, count in counts.items() if count == 1]
        (served_in,) = [turn for turn, peers in service.begun.items() if innocent in peers]
        assert sum(len(peers) for turn, peers in service.begun.items() if turn < served_in) < CONNECTIONS * REQUESTS / 4


async def test_connections_that_have_read_all_and_wait_for_their_turns_have_them() -> None:
    service = Late(answers=False)
    async with served(ANY_PORT, service) as server:
        raws = [await RawPeer.open(server.url) for _ in range(3)]
        for raw in raws:
            await raw.hello()
        await eventually(lambda: sum(link_of(peer).established for peer in server.peers) == len(raws))
        for peer in server.peers:
            link_of(peer).wait_turn()
            link_of(peer).data_received(many_requests(BATCH_MAX))
        assert not service.begun
        for _ in range(2 * len(raws)):
            await asyncio.sleep(0)
        assert sum(map(len, service.begun.values())) == len(raws) * BATCH_MAX
        service.running = False
        for raw in raws:
            await raw.close()


async def test_a_connection_that_is_alone_has_what_it_sent_begun_over_several_turns_too() -> None:
    """To read many requests and to begin all of them is more than a turn's work."""
    service = Late(answers=True)
    async with served(ANY_PORT, service) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        raw.writer.write(many_requests(REQUESTS))
        await raw.answer(2 * REQUESTS - 1)
        service.running = False
        assert max(map(len, service.begun.values())) < REQUESTS
        await raw.close()


async def test_handlers_of_many_connections_that_end_are_stopped_over_many_turns() -> None:
    service = Late(answers=False)
    async with attacked(service) as (server, raws):
        await eventually(lambda: sum(map(len, service.begun.values())) == CONNECTIONS * REQUESTS + 1)
        for raw in raws:
            raw.writer.transport.abort()
        await eventually(lambda: sum(service.ended.values()) == CONNECTIONS * REQUESTS + 1)
        assert max(service.ended.values()) <= (CONNECTIONS + 1) * PART_MAX + TURN_MAX + PART_MAX
        assert not server.peers
