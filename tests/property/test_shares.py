"""Trap: a bounded table for everyone that nobody empties. However many connections keep all the answers that they are
given, one that comes later makes its change, as long as they are connected.
"""

from __future__ import annotations

import asyncio

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from haptera.node.services.share_sizes import SMALL_SHARE, share_of
from haptera.state import limits
from haptera.transport.limits import CONNECTIONS_MAX
from tests.unit.node.doubles import FakePeer, FakeRequest
from tests.unit.node.nodes import ManualWriter, opened
from tests.unit.node.test_kv import Served


class Table:
    """The places that connections have in a user's table when each takes all that it may have."""

    def __init__(self) -> None:
        self.free = limits.ANSWERS_PER_USER_MAX
        self.held: dict[int, int] = {}

    def take(self, connection: int, most: int) -> None:
        held = self.held.get(connection, 0)
        while held < share_of(self.free) and most:
            held, most = held + 1, most - 1
            self.free -= 1
        self.held[connection] = held


#: Runs of neighbouring connections, each of which takes up to so many.
RUNS = st.lists(
    st.tuples(st.integers(0, CONNECTIONS_MAX - 1), st.integers(1, CONNECTIONS_MAX), st.sampled_from([1, 20, 10_000])),
    max_size=6,
)


@settings(max_examples=40)
@given(RUNS)
@example([(0, CONNECTIONS_MAX, 10_000)])
def test_a_newcomer_has_a_share_beside_all_the_connections_of_a_listener(runs: list[tuple[int, int, int]]) -> None:
    table = Table()
    for first, count, most in runs:
        for connection in range(first, min(first + count, CONNECTIONS_MAX - 1)):
            table.take(connection, most)
    before = table.free
    table.take(-1, 1)
    assert table.free == before - 1


@settings(max_examples=40)
@given(st.permutations(range(100)), st.integers(0, 700))
def test_hundreds_of_greedy_connections_leave_a_newcomer_a_small_share(order: list[int], others: int) -> None:
    table = Table()
    for connection in (*order, *range(100, 100 + others)):
        table.take(connection, 10_000)
    table.take(-1, 10_000)
    assert table.held[-1] >= SMALL_SHARE


def test_connections_that_read_their_answers_have_the_share_that_they_need() -> None:
    """Sixty of them, each with as many changes under way as it may have by default, and as many answers to be read."""
    table = Table()
    for connection in range(60):
        table.take(connection, 1024 + 16)
    assert set(table.held.values()) == {1024 + 16}


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.integers(0, 19), st.integers(1, 100)),
        st.tuples(st.just("read"), st.integers(0, 19), st.integers(0, 40)),
        st.tuples(st.just("write"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(ACTIONS, st.booleans())
@example([("change", number, 100) for number in range(20)], False)
def test_a_newcomer_makes_its_change_whatever_others_have_under_way(
    actions: list[tuple[str, int, int]], resent: bool
) -> None:
    async def run() -> None:
        writer = ManualWriter()
        async with opened(writer=writer) as node:
            store, ids = Served(node), iter(range(1 << 20))
            peers = [FakePeer() for _ in range(20)]

            def change(peer: FakePeer, count: int) -> list[FakeRequest]:
                requests = [
                    peer.request("increment", "n", 1, request_id=next(ids).to_bytes(16, "big"), resent=resent)
                    for _ in range(count)
                ]
                store.handle(*requests)
                return requests

            for action, number, count in actions:
                if action == "change":
                    change(peers[number], count)
                elif action == "read":
                    store.read_below(count, peers[number])
                else:
                    await writer.write_all()
            newcomer = FakePeer()
            (request,) = change(newcomer, 1)
            await writer.write_all()
            while not request.answered:  # many answers take several turns of the loop
                await asyncio.sleep(0)
            assert request.failure is None
            assert store.service._answers._under_way == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "ANSWERS_PER_USER_MAX", 200)
        asyncio.run(run())
