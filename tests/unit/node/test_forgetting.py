"""Trap: forgetting that presumes too much. What repeats, restarts, full disks and clocks do to remembered answers."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

import pytest

from haptera.node import commit
from haptera.node.commands import ANONYMOUS, Envelope, Submitter
from haptera.node.node import Node
from haptera.state import Replayed, limits
from haptera.state.operations import Clear, Increment, Set, SetMany
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.doubles import TAG_REPLAYED, FakePeer, FakeRequest
from tests.unit.node.nodes import CONFIG, Asked, ImmediateWriter, ManualWriter, fill_segment, opened, turn
from tests.unit.node.test_answer_shares import change, remembered, request_id, tracked
from tests.unit.node.test_kv import Served

if TYPE_CHECKING:
    from haptera.errors import Failure
    from haptera.state import Write

DIGEST = bytes(32)
ONCE = Envelope(Increment("n"), request_id(1), DIGEST)


def again(peer: FakePeer, number: int = 1, *, resent: bool = False, method: str = "increment") -> FakeRequest:
    """A change that is sent once more, under the id of an earlier one."""
    argument = ("n", 1) if method == "increment" else ("", b"")
    return peer.request(method, *argument, request_id=request_id(number), resent=resent)


async def held_up(store: Served, writer: ManualWriter) -> None:
    """Let a change be remembered, and then have the disk be busy with another."""
    first = again(store.peer)
    store.handle(first)
    await writer.write_all()
    assert first.result == [1, 1]
    Asked(store.node, Set("other", b""))
    await turn()


@pytest.mark.parametrize("resent", [False, True])
@pytest.mark.parametrize("refusal", ["dropped", "full disk", "overload", "invalid"])
async def test_a_repetition_that_is_refused_takes_no_place(
    refusal: str, resent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the first attempt is remembered, and says nothing of what became of the repetition. A full share
    lets repetitions in, so that places for them would be without bound.
    """
    fs, writer = MemoryFileSystem(), ManualWriter()
    async with opened(fs, writer=writer) as node:
        store = Served(node)
        await held_up(store, writer)
        if refusal == "overload":
            monkeypatch.setattr(commit, "PENDING_COMMANDS_MAX", 1)
        repetitions = [
            again(
                FakePeer() if resent else store.peer,
                resent=resent,
                method="set" if refusal == "invalid" else "increment",
            )
            for _ in range(5)
        ]
        for repetition in repetitions:
            store.handle(repetition)
            if refusal == "dropped":
                repetition.cancel()
        if refusal == "full disk":
            Asked(node, Set("large", bytes(80_000)))
        await turn()
        if refusal == "full disk":
            await writer.write()
            fs.failing, fs.fail_with = frozenset({"allocate"}), errno.ENOSPC
        await writer.write_all()
        codes = {"dropped": 3006, "full disk": 5002, "overload": 3007, "invalid": 4006}
        assert {repetition.code for repetition in repetitions} == {codes[refusal]}
        assert store.service._answers._tracked == tracked(store.peer) == 1
        fs.failing = frozenset()


async def test_what_a_full_disk_keeps_from_being_forgotten_is_forgotten_with_the_next_entry() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        store = Served(node)
        for number in range(5):
            await change(store, number)
        fill_segment(node)
        await turn()
        store.read_below(store.peer.streams)
        fs.unlink("/data/log/reserve")  # where such an entry would go
        fs.failing, fs.fail_with = frozenset({"allocate"}), errno.ENOSPC
        refused = Asked(node, Set("large", bytes(80_000)))
        await turn()
        assert (refused.failures, remembered(store)) == ([(5002, "not_applied")], 5)
        fs.failing = frozenset()
        Asked(node, Set("a", b""))
        await turn()
        assert remembered(store) == 0


async def test_a_repetition_between_two_slices_of_a_large_change_is_answered_with_its_result() -> None:
    async with opened() as node:
        items = [(f"k{number:05}", b"") for number in range(5_000)]
        changes: tuple[Write, ...] = (SetMany(items), Clear("k"))
        for version, op in enumerate(changes, 1):
            large = Envelope(op, request_id(version), DIGEST)
            first = Asked(node, large)
            while not node._machine.changing:
                await asyncio.sleep(0)
            second, resent = Asked(node, large), Asked(node, Envelope(op, request_id(version), DIGEST, resent=True))
            while not resent.answered:
                await asyncio.sleep(0)
            assert second.result == resent.result == Replayed(first.result)  # type: ignore[arg-type]
            assert node.revision == version


async def test_what_was_to_be_forgotten_when_the_power_failed_is_still_remembered() -> None:
    fs = MemoryFileSystem()
    node = await Node.open(CONFIG, filesystem=fs, writer=ImmediateWriter())
    store = Served(node)
    await change(store, 1)
    store.read_below(store.peer.streams)
    async with opened(fs.power_failure("drop")) as after:
        assert TAG_REPLAYED in (await change(Served(after), 1)).entries


async def test_a_change_that_was_written_and_never_answered_is_answered_after_a_restart() -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await Node.open(CONFIG, filesystem=fs, writer=writer)
    Asked(node, ONCE)
    await turn()
    writer.jobs.popleft()()  # durable, and the loop never hears of it
    async with opened(fs.power_failure("drop")) as after:
        assert Asked(after, ONCE).result == Replayed((1, 1))


@pytest.mark.parametrize("step_ms", [3_600_000, 86_400_000, -3_600_000])
async def test_restarts_under_a_clock_that_jumps_each_time_forget_nothing(step_ms: int) -> None:
    """Five in a row, each with an entry of its own, while a client tries for five minutes."""
    fs, now_ms = MemoryFileSystem(), 1_000_000_000_000
    for restart in range(6):
        async with opened(fs, clock_ms=lambda at=now_ms: at) as node:
            once = Asked(node, ONCE)
            await turn()
            assert once.result == (Replayed((1, 1)) if restart else (1, 1))
            Asked(node, Set("other", b""))
            await turn()
        now_ms += step_ms
        fs = fs.restart()


async def test_an_answer_that_was_reduced_is_reduced_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWERS_SIZE_PER_USER_MAX", 5000)
    fs = MemoryFileSystem()
    commands = [Envelope(Set("k", bytes(3000), return_previous=True), request_id(each), DIGEST) for each in range(4)]

    async def repeated(node: Node) -> list[object]:
        asked = [Asked(node, command) for command in commands]
        await turn()
        return [each.result for each in asked]

    async with opened(fs) as node:
        first = await repeated(node)
        before = await repeated(node)
    async with opened(fs.restart()) as node:
        assert await repeated(node) == before
    reduced: Failure = before[2]  # type: ignore[assignment]
    assert (reduced.code, reduced.outcome, reduced.details) == (3011, "applied", {"version": 3})
    assert before[3] == Replayed(first[3])  # type: ignore[arg-type]


async def test_a_connection_that_goes_away_has_only_what_it_has_read_forgotten() -> None:
    """Changes are under way when it says so, and have their answers when it has ended."""
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        store = Served(node)
        await held_up(store, writer)
        late = again(store.peer, 2)
        store.handle(late)
        store.read_below(late.stream)
        store.peer.close()
        await writer.write_all()
        Asked(node, Set("next", b""))
        await writer.write_all()
        assert remembered(store) == 1
        assert Asked(node, Envelope(Increment("n"), request_id(2), b"x" * 32)).failures == [(3012, "not_applied")]
        assert store.service._answers._under_way == store.service._answers._tracked == 0


async def test_a_connection_that_says_more_than_it_was_sent_has_nothing_forgotten_that_comes_later() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        store = Served(node)
        await held_up(store, writer)
        late = again(store.peer, 2)
        store.handle(late)
        store.read_below(2**64 - 1)
        await writer.write_all()
        assert late.result == [2, 3]
        repetition = again(store.peer, 2)
        store.handle(repetition)
        await writer.write_all()
        assert TAG_REPLAYED in repetition.entries


async def test_an_id_of_another_user_is_another_id_after_a_restart_too() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        Asked(node, ONCE)
        Asked(node, ONCE, submitter=Submitter("bob"))
        await turn()
        node.commands.forget(ANONYMOUS, [request_id(1)])
        Asked(node, Set("a", b""))
        await turn()
    async with opened(fs.restart()) as node:
        assert Asked(node, ONCE, submitter=Submitter("bob")).result == Replayed((2, 2))
        mine = Asked(node, ONCE)
        await turn()
        assert mine.result == (3, 4)


async def test_a_table_that_is_full_when_changes_are_applied_leaves_none_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were admitted one beside the other, and the state judges them in log order."""
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        store = Served(node)
        await held_up(store, writer)
        monkeypatch.setattr(limits, "ANSWERS_PER_USER_MAX", 3)
        requests = [again(FakePeer(), number) for number in range(10, 15)]
        store.handle(*requests[:1])
        for request in requests[1:]:
            store.handle(request)
        await writer.write_all()
        assert sorted(request.failure is None for request in requests) == [False] * 3 + [True] * 2
        assert (remembered(store), store.service._answers._under_way) == (3, 0)
