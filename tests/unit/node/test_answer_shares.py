"""The shares of remembered answers: what a connection keeps, what it has forgotten, and what it may not have."""

from __future__ import annotations

import logging
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from haptera.node.commands import ANONYMOUS
from haptera.node.services import answer_shares as answers
from haptera.node.services import share_sizes
from haptera.node.services.share_sizes import Share
from haptera.state import limits
from haptera.state.operations import Set
from tests.unit.node.doubles import TAG_REPLAYED, FakePeer, FakeRequest
from tests.unit.node.nodes import Asked, ManualWriter, opened, turn
from tests.unit.node.test_kv import Served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest


def request_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    async with opened() as node:
        yield Served(node)


async def change(store: Served, number: int, peer: FakePeer | None = None) -> FakeRequest:
    before, store.peer = store.peer, peer or store.peer
    try:
        return await store.ask("increment", "n", 1, request_id=request_id(number))
    finally:
        store.peer = before


def shares(peer: FakePeer) -> list[Share]:
    return [each for each in peer.attributes.values() if isinstance(each, Share)]


def tracked(peer: FakePeer) -> int:
    return sum(map(len, shares(peer)))


def remembered(store: Served) -> int:
    return int(store.node.metrics.values()["remembered_answers"])


async def test_a_full_share_refuses_its_connection_and_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Trap: a bounded table for everyone that no client empties and that then refuses everybody."""
    monkeypatch.setattr(share_sizes, "ANSWERS_PER_CONNECTION_MAX", 5)
    async with served() as store:
        silent, other = FakePeer(), FakePeer()
        for number in range(5):
            assert (await change(store, number, silent)).result == [number + 1, number + 1]
        index = store.node.index
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            refusals = [await change(store, 9, silent) for _ in range(3)]
        for refused in refusals:
            assert refused.failure is not None
            assert (refused.code, refused.failure.outcome) == (3008, "not_applied")
            assert refused.failure.details == {"remembered_requests_max": 5, "share": "connection"}
        assert store.node.index == index
        assert [record.message for record in caplog.records] == ["connection_share_full"]
        assert store.node.metrics.answers_refused_total == 3
        assert TAG_REPLAYED in (await change(store, 2, silent)).entries
        assert (await change(store, 10, other)).result == [6, 6]
        store.read_below(5, silent)
        assert (await change(store, 11, silent)).result == [7, 7]


async def test_what_may_have_come_on_another_connection_fills_its_share_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: a bounded table for everyone. Only time empties it of these, whatever its connection says to have read."""
    monkeypatch.setattr(share_sizes, "ANSWERS_PER_CONNECTION_MAX", 5)
    async with served() as store:
        for number in range(5):
            argument = [{"if": "present"}] if number < 2 else []
            await store.ask("set", "k", b"", *argument, request_id=request_id(number), resent=True)
        store.read_below(store.peer.streams)
        refused = await change(store, 9)
        assert (refused.code, remembered(store)) == (3008, 5)
        store.node.commands.forget(ANONYMOUS, [request_id(0), request_id(1)])
        Asked(store.node, Set("a", b""))
        await turn()
        assert (await change(store, 9)).failure is None


async def test_a_share_has_room_again_when_its_answers_have_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share_sizes, "ANSWERS_PER_CONNECTION_MAX", 5)
    async with served() as store:
        for number in range(5):
            await change(store, number)
        store.node.commands.forget(ANONYMOUS, [request_id(number) for number in range(5)])
        Asked(store.node, Set("a", b""))
        await turn()
        assert (await change(store, 9)).result == [6, 7]
        assert tracked(store.peer) == 1


async def test_what_was_refused_or_changed_nothing_leaves_no_id_behind() -> None:
    """Trap: memory outside every budget."""
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        store = Served(node)
        Asked(node, Set("before", b""))
        await turn()  # with the disk: what follows can still be dropped
        requests = [
            store.peer.request("set", "a", b"1", {"if": "present"}, request_id=request_id(1)),
            store.peer.request("set", "a", b"1", {"if_version": 7}, request_id=request_id(2)),
            store.peer.request("set", "", b"1", request_id=request_id(3)),
            store.peer.request("increment", "n", 1, request_id=request_id(4)),
            store.peer.request("increment", "n", 1, request_id=request_id(5)),
        ]
        store.handle(*requests)
        requests[3].cancel()
        await turn()
        await writer.write_all()
        assert [request.answers for request in requests] == [1] * 5
        assert tracked(store.peer) == 1


async def test_what_takes_no_entry_leaves_no_id_behind() -> None:
    """Trap: memory outside every budget. Its answer is not remembered."""
    async with served() as store:
        for number in range(5):
            assert (await store.ask("delete", "none", request_id=request_id(number))).result == [False, None, None]
        assert (store.node.index, tracked(store.peer)) == (0, 0)


async def test_an_id_takes_as_few_bytes_as_its_bound_counts_on() -> None:
    """Trap: memory outside every budget. No budget is charged for ids, because a full share is small."""
    async with served() as store:
        for number in range(200):
            await change(store, number)
        (share,) = shares(store.peer)
        size = sum(map(sys.getsizeof, (share.streams, share.ids, *share.streams, *share.ids)))
    assert size <= 150 * len(share)
    assert 150 * share_sizes.ANSWERS_PER_CONNECTION_MAX <= 1.25e6


async def test_the_ids_of_all_connections_are_bounded_by_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: memory outside every budget. Connections that write no more keep no ids of answers that have expired."""
    monkeypatch.setattr(answers, "TRACKED_MIN", 8)
    async with served() as store:
        store.service._answers._tracked_max = 8
        peers = [FakePeer() for _ in range(20)]
        for number, peer in enumerate(peers):
            for each in range(4):
                await change(store, 100 * number + each, peer)
            store.node.commands.forget(ANONYMOUS, [request_id(100 * number + each) for each in range(4)])
            Asked(store.node, Set("a", b""))
            await turn()
        assert sum(map(tracked, peers)) <= 8
        assert store.service._answers._tracked == sum(map(tracked, peers))
        for peer in peers:
            peer.close()
        assert store.service._answers._tracked == 0
        assert not store.service._answers._shares


async def test_a_change_that_is_repeated_without_end_does_not_fill_the_memory() -> None:
    """Trap: memory outside every budget. A repetition makes no answer, and so a full share does not refuse it."""
    async with served() as store:
        await change(store, 1)
        for resent in (False, True):
            for _ in range(10):
                again = await store.ask("increment", "n", 1, request_id=request_id(1), resent=resent)
                assert TAG_REPLAYED in again.entries
                reused = await store.ask("increment", "n", 2, request_id=request_id(1), resent=resent)
                assert reused.code == 3012
        assert tracked(store.peer) == store.service._answers._tracked == 1
        store.read_below(store.peer.streams)
        await change(store, 2)
        assert remembered(store) == 1


async def test_an_id_that_stands_for_another_change_is_forgotten_with_that_one() -> None:
    """Trap: a change applied twice. The answer to a misused id says nothing of the change that has it."""
    async with served() as store:
        first, other = FakePeer(), FakePeer()
        await change(store, 1, first)
        reused = other.request("increment", "n", 2, request_id=request_id(1))
        store.handle(reused)
        assert reused.code == 3012
        store.read_below(other.streams, other)
        await change(store, 2, other)
        assert TAG_REPLAYED in (await change(store, 1, first)).entries


async def test_changes_that_outlive_their_connection_are_counted_in_no_share() -> None:
    """Trap: memory outside every budget. Connections that are cut with changes under way must not pile up in it."""
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        store = Served(node)
        for before in (True, False):
            peer = FakePeer()
            if before:
                store.handle(peer.request("increment", "n", 1, request_id=request_id(1)))
                await turn()
                await writer.write_all()
            store.handle(peer.request("increment", "n", 1, request_id=request_id(2 + before)))
            peer.close()
            await turn()
            await writer.write_all()
        assert remembered(store) == 3
        assert store.service._answers._tracked == 0
        assert not store.service._answers._shares


async def test_what_goes_away_has_its_answers_forgotten_with_the_next_write() -> None:
    """Trap: a bounded table for everyone that nobody empties. It costs no entry, and so no sync, of its own."""
    async with served() as store:
        for number in range(5):
            await change(store, number)
        index = store.node.index
        store.read_below(store.peer.streams)
        await turn()
        assert (store.node.index, remembered(store)) == (index, 5)
        Asked(store.node, Set("a", b""))
        await turn()
        assert (store.node.index, remembered(store)) == (index + 1, 0)


async def test_what_waits_to_be_forgotten_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haptera.node.commands.interface.FORGOTTEN_MAX", 5)
    async with served() as store:
        for number in range(5):
            await change(store, number)
        index = store.node.index
        store.read_below(store.peer.streams)
        await turn()
        assert (store.node.index, remembered(store)) == (index + 1, 0)


async def test_a_write_that_needs_the_room_of_what_is_forgotten_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWERS_PER_USER_MAX", 3)
    async with served() as store:
        for number in range(3):
            await change(store, number)
        assert (await change(store, 9)).code == 3008
        store.read_below(store.peer.streams)
        assert (await change(store, 9)).result == [4, 4]


async def test_what_waits_to_be_forgotten_is_room_for_the_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWERS_PER_USER_MAX", 80)
    async with served() as store:
        peers = [FakePeer() for _ in range(5)]
        for number in range(5 * 16):
            await change(store, number, peers[number // 16])
        assert remembered(store) == 70, "the last share is full at six"
        (reader, *_) = peers
        store.read_below(reader.streams, reader)
        both = [reader.request("increment", "n", 1, request_id=request_id(100 + number)) for number in range(2)]
        store.handle(*both)
        await turn()
        assert [request.failure for request in both] == [None, None]


async def test_what_waits_to_be_forgotten_is_written_when_the_node_stops() -> None:
    async with served() as store:
        await change(store, 1)
        store.read_below(store.peer.streams)
        await store.node.aclose()
        assert remembered(store) == 0


async def test_the_log_warns_before_a_user_has_too_many_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "ANSWERS_PER_USER_MAX", 5)
    async with served() as store:
        lines = []
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            for number in range(6):
                await change(store, number)
                lines.append(len(caplog.records))
        assert lines == [0, 0, 0, 1, 1, 1]
        (record,) = caplog.records
        assert (record.message, record.answers, record.answers_max) == ("remembered_answers_many", 4, 5)  # type: ignore[attr-defined]
