"""One queue of slices for the node: what it runs in one turn of the loop, and whose turn is next."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.node.slice_queue import HURRIED_WORK_MAX, SLICE_OVERHEAD, TURN_WORK_MAX, Turns

if TYPE_CHECKING:
    from haptera.state.sliced_work import Steps

SLICE = 4096


class Work:
    """Work of many slices, which notes each in ``log``: whose it is, and in which turn of the loop."""

    def __init__(self) -> None:
        self.log: list[tuple[object, int]] = []
        self.loop_turns = 0
        self.running = True
        asyncio.get_running_loop().call_soon(self._count)

    def _count(self) -> None:
        self.loop_turns += 1
        if self.running:
            asyncio.get_running_loop().call_soon(self._count)

    def steps(self, owner: object, slices: int, units: int = SLICE) -> Steps[None]:
        for _ in range(slices):
            self.log.append((owner, self.loop_turns))
            yield units


async def done(turns: Turns, work: Work) -> None:
    while len(turns):
        await asyncio.sleep(0)
    work.running = False


@pytest.mark.parametrize("owners", [1, 16])
async def test_trap_a_turn_for_everyone_per_loop_and_not_per_caller(owners: int) -> None:
    """However many callers have long work, one turn of the loop runs a bounded amount of it, then one runs none."""
    turns, work = Turns(asyncio.get_running_loop()), Work()
    for owner in range(owners):
        for _ in range(256):
            turns.start(owner, work.steps(owner, 2))
    await done(turns, work)
    assert len(work.log) == owners * 256 * 2
    per_turn = Counter(turn for _, turn in work.log)
    assert max(per_turn.values()) * SLICE <= TURN_WORK_MAX
    assert not any(turn + 1 in per_turn for turn in per_turn), "what arrived meanwhile is read between two turns"


async def test_an_owner_with_many_items_has_no_more_slices_than_one_with_one() -> None:
    turns, work = Turns(asyncio.get_running_loop()), Work()
    for _ in range(100):
        turns.start("greedy", work.steps("greedy", 10))
    turns.start("modest", work.steps("modest", 10))
    await done(turns, work)
    first = Counter(owner for owner, _ in work.log[:20])
    assert first == {"greedy": 10, "modest": 10}


async def test_trap_writers_wait_for_a_large_change_behind_all_readers() -> None:
    """Trap: a turn for everyone, per loop and not per caller. The pipeline has half of each turn, not an owner's share:
    every writer of the node waits for it.
    """
    turns, work = Turns(asyncio.get_running_loop()), Work()
    for owner in range(200):
        turns.start(owner, work.steps("reader", 4))
    turns.start_first(work.steps("pipeline", 20))
    await done(turns, work)
    per_turn = Counter(turn for owner, turn in work.log if owner == "pipeline")
    assert set(per_turn.values()) == {1}
    last = max(position for position, (owner, _) in enumerate(work.log) if owner == "pipeline")
    assert Counter(owner for owner, _ in work.log[:last]) == {"pipeline": 19, "reader": 19}


async def test_turns_are_short_while_a_write_waits() -> None:
    turns, work = Turns(asyncio.get_running_loop()), Work()
    turns.hurried = lambda: True
    for owner in range(16):
        turns.start(owner, work.steps(owner, 8, units=HURRIED_WORK_MAX))
    await done(turns, work)
    assert set(Counter(turn for _, turn in work.log).values()) == {1}


async def test_a_large_change_that_is_applied_and_the_readers_share_turns_while_writes_wait() -> None:
    turns, work = Turns(asyncio.get_running_loop()), Work()
    turns.hurried = lambda: True
    for owner in range(200):
        turns.start(owner, work.steps("reader", 4))
    turns.start_first(work.steps("pipeline", 20))
    await done(turns, work)
    last = max(position for position, (owner, _) in enumerate(work.log) if owner == "pipeline")
    assert Counter(owner for owner, _ in work.log[:last]) == {"pipeline": 19, "reader": 19}


@pytest.mark.parametrize(
    "units", [HURRIED_WORK_MAX, TURN_WORK_MAX], ids=["a page that leaves room in its turn", "a page of a turn"]
)
async def test_a_write_that_comes_during_a_slice_is_handed_to_the_disk_before_the_next_one(units: int) -> None:
    """It is read in the next pass of the loop, and the pipeline hands it over in a callback that this schedules."""
    loop = asyncio.get_running_loop()
    turns, order = Turns(loop), list[str]()
    server, client = socket.socketpair()

    def read() -> None:
        server.recv(1)
        order.append("read")
        loop.call_soon(order.append, "handed over")

    def page() -> Steps[None]:
        order.append("slice")
        client.send(b"w")
        yield units

    with server, client:
        loop.add_reader(server, read)
        for _ in range(3):
            await turns.run("client", page())
        for _ in range(3):
            await asyncio.sleep(0)
        loop.remove_reader(server)
    assert order == ["slice", "read", "handed over"] * 3


async def test_work_beside_the_queue_is_bounded_in_each_turn_of_the_loop() -> None:
    turns = Turns(asyncio.get_running_loop())
    for _ in range(3):
        admitted = sum(turns.admits(SLICE // 4) for _ in range(100))
        assert admitted * SLICE // 4 == TURN_WORK_MAX
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_the_pipeline_has_whole_turns_where_nobody_else_has_work() -> None:
    turns, work = Turns(asyncio.get_running_loop()), Work()
    turns.start_first(work.steps("pipeline", 20))
    await done(turns, work)
    assert set(Counter(turn for _, turn in work.log).values()) == {TURN_WORK_MAX // SLICE}


async def test_the_items_of_an_owner_go_round_too() -> None:
    turns, work = Turns(asyncio.get_running_loop()), Work()
    for item in range(3):
        turns.start("one", work.steps(item, 2))
    await done(turns, work)
    assert [item for item, _ in work.log] == [0, 1, 2, 0, 1, 2]


async def test_slices_of_no_work_are_bounded_too() -> None:
    """Each wakes a task in the end: ten thousand of them in one turn are a pause as well."""
    turns, work = Turns(asyncio.get_running_loop()), Work()
    for owner in range(1000):
        turns.start(owner, work.steps(owner, 1, units=0))
    await done(turns, work)
    assert max(Counter(turn for _, turn in work.log).values()) <= TURN_WORK_MAX // SLICE_OVERHEAD


async def test_work_gives_its_result_or_its_error() -> None:
    def adds(number: int) -> Steps[int]:
        yield 1
        return number + 1

    def fails() -> Steps[int]:
        yield 1
        raise ValueError("no")

    turns = Turns(asyncio.get_running_loop())
    assert await turns.run("one", adds(1)) == 2
    with pytest.raises(ValueError, match="no"):
        await turns.run("one", fails())
    assert len(turns) == 0


async def test_work_that_nobody_waits_for_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> Steps[None]:
        yield 1
        raise ValueError("no")

    turns, work = Turns(asyncio.get_running_loop()), Work()
    turns.start("one", fails())
    turns.start("one", work.steps("one", 3))
    await done(turns, work)
    assert len(work.log) == 3
    assert "work_failed" in caplog.text


async def test_a_caller_that_is_cancelled_ends_its_work() -> None:
    ended: list[str] = []

    def endless() -> Steps[None]:
        try:
            while True:
                yield TURN_WORK_MAX
        finally:
            ended.append("closed")

    turns = Turns(asyncio.get_running_loop())
    task = asyncio.ensure_future(turns.run("one", endless()))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert (ended, len(turns), task.cancelled()) == (["closed"], 0, True)


async def test_closing_ends_all_work() -> None:
    turns, work = Turns(asyncio.get_running_loop()), Work()
    waiting = asyncio.ensure_future(turns.run("one", work.steps("one", 1000)))
    turns.start("two", work.steps("two", 1000))
    await asyncio.sleep(0)
    turns.close()
    with pytest.raises(haptera.errors.ServerError, match="SHUTTING_DOWN"):
        await waiting
    assert len(turns) == 0
    done_by_then = len(work.log)
    for _ in range(5):
        await asyncio.sleep(0)
    work.running = False
    assert len(work.log) == done_by_then
