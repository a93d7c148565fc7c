"""The commit pipeline: what is written together, what is answered when, and what happens when the disk does not."""

from __future__ import annotations

import asyncio
import errno
import gc
import random
import threading
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from haptera.errors import Failure
from haptera.node import apply_committed, commit
from haptera.node.commands import ANONYMOUS, Envelope
from haptera.node.health import Health, health
from haptera.node.node import Node
from haptera.node.services.server import status
from haptera.node.write_batch import DROPPED, Batch, Submission
from haptera.replication import ThreadWriter
from haptera.state import Logged, decode_commands
from haptera.state.operations import DeleteMany, Get, Increment, Set, SetMany
from haptera.storage import DataDirectory, Log, open_keyring
from haptera.storage.errors import DiskFailed
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.nodes import CONFIG, Asked, ManualWriter, done, opened, turn

if TYPE_CHECKING:
    from collections.abc import Iterator


def logged(fs: MemoryFileSystem) -> list[tuple[int, int, int]]:
    """(index, time_ms, number of commands) of each entry that a closed node left."""
    directory = DataDirectory.open(fs, CONFIG.data_dir)
    log = Log.open(fs, directory, open_keyring(directory))
    try:
        return [(entry.index, entry.time_ms, len(decode_commands(entry.payload))) for entry in log.replay()]
    finally:
        log.close()
        directory.close()


async def test_trap_acknowledged_before_any_fsync() -> None:
    """Until the sync has returned, a write is neither answered nor seen by anyone."""
    fs, writer = MemoryFileSystem(), ManualWriter()
    async with opened(fs, writer=writer) as node:
        asked = Asked(node, Set("a", b"1"))
        await turn()
        assert len(writer.jobs) == 1
        assert not asked.answered
        assert Asked(node, Get("a")).failures == [(4001, "not_applied")]
        before = len(fs.calls)
        await writer.write()
        assert [name for name, _ in fs.calls[before:]][-2:] == ["pwrite", "fdatasync"]
        assert asked.result == (1, None)
        assert Asked(node, Get("a")).result == (b"1", 1, None)


async def test_what_is_answered_survives_a_power_failure() -> None:
    """In the node's default durability; every answer of a segment, and over its end."""
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        for number in range(1, 200):
            asked = Asked(node, Set(f"k{number}", bytes(500)))
            await turn()
            assert asked.result == (number, None)
            if number % 13 == 0 or number > 190:
                async with opened(fs.power_failure("drop")) as left:
                    assert (left.keys, left.revision) == (number, number)


async def test_writes_of_one_turn_of_the_loop_are_one_entry() -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    async with opened(fs, writer=writer) as node:
        asked = [Asked(node, Set(f"k{number}", b"")) for number in range(5)]
        await turn()
        assert len(writer.jobs) == 1
        await writer.write()
        assert [each.result for each in asked] == [(version, None) for version in range(1, 6)]
        assert not writer.jobs
    assert [count for _, _, count in logged(fs)] == [5]


async def test_while_the_disk_is_busy_the_next_batch_fills() -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    async with opened(fs, writer=writer) as node:
        first = Asked(node, Set("a", b"1"))
        await turn()
        later = []
        for number in range(4):
            later.append(Asked(node, Set("a", b"%d" % number)))
            await turn()
        assert len(writer.jobs) == 1, "one batch is with the disk, the others wait"
        await writer.write()
        assert first.answered
        assert not any(each.answered for each in later)
        await writer.write()
        assert [each.result for each in later] == [(2, None), (3, None), (4, None), (5, None)]
    assert [count for _, _, count in logged(fs)] == [1, 4]


async def test_the_next_batch_is_with_the_disk_before_the_last_is_applied() -> None:
    writer = ManualWriter()
    with_disk = []
    async with opened(writer=writer) as node:
        node.commands.submit(ANONYMOUS, [Envelope(Set("a", b"1"))], lambda _: with_disk.append(len(writer.jobs)))
        await turn()
        Asked(node, Set("b", b"2"))
        await writer.write()
        assert with_disk == [1]
        await writer.write()


async def test_a_batch_ends_at_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "BATCH_COMMANDS_MAX", 3)
    monkeypatch.setattr(commit, "BATCH_SIZE_MAX", 5000)
    fs, writer = MemoryFileSystem(), ManualWriter()
    async with opened(fs, writer=writer) as node:
        small = Asked(node, *(Set(f"s{number}", b"") for number in range(7)))
        await writer.write_all()
        assert len(small.results) == 7
        large = Asked(node, *(Set(f"l{number}", bytes(3000)) for number in range(3)), Set("huge", bytes(20000)))
        await writer.write_all()
        assert [result[0] for result in large.results if isinstance(result, tuple)] == [8, 9, 10, 11]
    assert [count for _, _, count in logged(fs)] == [3, 3, 1, 1, 1, 1, 1]


async def test_entry_time_never_goes_back() -> None:
    """Nor over a restart. How it follows the wall clock: test_entry_clock.py."""
    fs = MemoryFileSystem()
    for clock_ms in (5000, 3000):
        async with opened(fs, clock_ms=lambda now=clock_ms: now, monotonic_ns=lambda: 0) as node:
            for number in range(2):
                asked = Asked(node, Set("a", b"%d" % number))
                await turn()
                assert asked.answered
    assert [(index, time_ms) for index, time_ms, _ in logged(fs)] == [(index, 5000) for index in range(1, 5)]


async def test_too_much_waiting_for_the_disk_is_refused_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "PENDING_COMMANDS_MAX", 3)
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        asked = [Asked(node, Set("a", b"")) for _ in range(5)]
        assert [each.failures for each in asked[3:]] == [[(3007, "not_applied")]] * 2
        await writer.write_all()
        assert all(each.answered for each in asked)
        again = Asked(node, Set("a", b""))
        await writer.write_all()
        assert again.result == (4, None)
        assert node.metrics.writes_refused_total == 2


async def test_too_many_bytes_waiting_for_the_disk_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "PENDING_SIZE_MAX", 10_000)
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        fits = Asked(node, Set("a", bytes(9000)))
        assert Asked(node, Set("b", bytes(9000))).failures == [(3007, "not_applied")]
        await writer.write_all()
        assert fits.result == (1, None)


async def test_a_list_that_is_partly_refused_is_answered_once_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "PENDING_COMMANDS_MAX", 1)
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        asked = Asked(node, Get("a"), Set("a", b""), Set("", b""), Set("b", b""))
        await writer.write_all()
        read, written, invalid, refused = asked.results
        assert written == (1, None)
        assert [result.code for result in (read, invalid, refused) if isinstance(result, Failure)] == [4001, 4006, 3007]


async def test_one_caller_that_raises_does_not_keep_the_others_from_their_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("no")

    async with opened() as node:
        node.commands.submit(ANONYMOUS, [Envelope(Set("a", b""))], fails)
        asked = Asked(node, Set("b", b""))
        await turn()
        assert asked.result == (2, None)
    assert "answer_failed" in caplog.text


@pytest.mark.parametrize("failing", ["pwrite", "fdatasync"])
async def test_after_a_failed_write_nothing_more_is_written(failing: str) -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await failing_node(fs, writer, failing)
    handed = Asked(node, Set("handed", b""), Set("handed too", b""))
    await turn()
    waiting = Asked(node, Set("waiting", b""))
    await writer.write()
    assert handed.failures == [(5001, "unknown")] * 2
    assert waiting.failures == [(5001, "not_applied")]
    assert isinstance(node.failed.result(), DiskFailed)
    calls = len(fs.calls)
    assert Asked(node, Set("later", b"")).failures == [(5001, "not_applied")]
    await turn()
    assert not writer.jobs
    assert len(fs.calls) == calls, "a failed sync is never tried again"
    assert Asked(node, Get("before")).result == (b"1", 1, None), "reads go on"
    assert Asked(node, Get("handed")).failures == [(4001, "not_applied")], "what may not be durable is not seen"
    await node.aclose()


async def failing_node(fs: MemoryFileSystem, writer: ManualWriter, failing: str) -> Node:
    node = await Node.open(CONFIG, filesystem=fs, writer=writer)
    Asked(node, Set("before", b"1"))
    await writer.write_all()
    fs.fail_at = len(fs.calls) + {"pwrite": 1, "fdatasync": 2}[failing]
    return node


async def test_a_full_disk_refuses_writes_and_takes_them_again_when_there_is_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "haptera.node.commit")
    probe = MemoryFileSystem()
    async with opened(probe) as node:
        Asked(node, Set("a", b""))
        await turn()
    fs, writer = MemoryFileSystem(), ManualWriter()
    fs.fail_at = max(at for at, (name, _) in enumerate(probe.calls, 1) if name == "allocate")  # the first write's
    fs.fail_with = errno.ENOSPC
    async with opened(fs, writer=writer) as node:
        refused = Asked(node, Set("a", b"1"), Increment("n"))
        await turn()
        next_batch = Asked(node, Set("b", b"2"))
        await writer.write()
        assert refused.failures == [(5002, "not_applied")] * 2
        assert health(node)[0] == "full"
        await writer.write()
        assert next_batch.result == (1, None)
        assert health(node) == Health("ok")
        told = [record.getMessage() for record in caplog.records if record.name == "haptera.node.commit"]
        assert told == ["storage_full", "storage_has_room"]
        assert not node.failed.done()
    assert [(index, count) for index, _, count in logged(fs)] == [(1, 1)]


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EFBIG, "the limit on the size of a file is met"),
        (errno.EMFILE, "the process has no free file descriptor"),
        (errno.ENFILE, "the machine has no free file descriptor"),
    ],
)
async def test_what_is_used_up_is_named_by_the_health_and_to_the_client(number: int, cause: str) -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    async with opened(fs, writer=writer) as node:
        fs.failing, fs.fail_with = frozenset({"create", "allocate"}), number
        refused = Asked(node, Set("a", b"1"))
        await writer.write_all()
        (result,) = refused.results
        assert isinstance(result, Failure)
        assert (result.code, result.outcome) == (5002, "not_applied")
        assert cause in result.message
        found = health(node)
        assert found.state == "full"
        assert f"{cause}: writes are refused, reads go on" in found.reason
        assert found.help.endswith("; writes come back by themselves")
        assert found.since_ms is not None
        assert 0 <= node.clock_ms() - found.since_ms < 60_000
        told = status(node)
        assert (told["health"], told["health_reason"], told["health_help"]) == found[:3]
        fs.failing = frozenset()
        back = Asked(node, Set("b", b"2"))
        await writer.write_all()
        assert back.result == (1, None)
        assert health(node) == Health("ok")


async def test_closing_answers_what_waits_and_refuses_the_rest() -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    async with opened(fs, writer=writer) as node:
        with_disk = Asked(node, Set("a", b""))
        await turn()
        in_open_batch = Asked(node, Set("b", b""))
        closing = asyncio.ensure_future(node.aclose())
        await turn()
        assert Asked(node, Set("c", b"")).failures == [(5005, "not_applied")]
        await writer.write_all()
        await closing
        assert with_disk.result == (1, None)
        assert in_open_batch.result == (2, None)
    assert [count for _, _, count in logged(fs)] == [1, 1]


async def test_draining_waits_for_what_was_submitted() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        await node.drain()
        asked = Asked(node, Set("a", b""))
        draining = asyncio.ensure_future(node.drain())
        await turn()
        assert not draining.done()
        await writer.write_all()
        await draining
        assert asked.answered


async def test_a_command_too_large_for_a_record_is_refused_before_the_log() -> None:
    """Trap: a record is written that the reader refuses as too large."""
    async with opened() as node:
        items = [(f"k{number}", bytes(7 << 20)) for number in range(4)]
        assert Asked(node, SetMany(items)).failures == [(3004, "not_applied")]
        assert node.index == 0


async def test_the_thread_runs_jobs_in_order_beside_the_loop() -> None:
    writer = ThreadWriter()
    seen: list[int] = []
    threads: set[int] = set()

    def job(number: int) -> None:
        seen.append(number)
        threads.add(threading.get_ident())

    for number in range(100):
        writer.submit(partial(job, number))
    writer.close()
    assert seen == list(range(100))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


class Dropper:
    """One submission of writes, of which the test takes some back."""

    def __init__(self, node: Node, *keys: str, size: int = 0) -> None:
        self.node = node
        self.calls: list[list[object]] = []
        commands = [Envelope(Set(key, bytes(size))) for key in keys]
        self.submission = node.commands.submit(ANONYMOUS, commands, lambda results: self.calls.append([*results]))

    def drop(self, position: int) -> bool:
        return self.node.commands.drop(self.submission, position)


async def test_a_write_is_taken_back_as_long_as_it_is_not_with_the_disk() -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    async with opened(fs, writer=writer) as node:
        handed = Dropper(node, "handed")
        await turn()
        waiting = Dropper(node, "a", "b", "c")
        assert (handed.drop(0), waiting.drop(1), waiting.drop(1)) == (False, True, False)
        assert node.metrics.values()["pending_writes"] == 3
        await writer.write_all()
        assert handed.calls == [[(1, None)]], "what is with the disk has its result"
        assert waiting.calls == [[(2, None), DROPPED, (3, None)]]
        assert waiting.drop(0) is False
        assert Asked(node, Get("b")).failures == [(4001, "not_applied")]
        assert (node.metrics.writes_dropped_total, node.metrics.values()["pending_writes"]) == (1, 0)
    assert [count for _, _, count in logged(fs)] == [1, 2]


async def test_a_batch_that_is_taken_back_whole_is_not_written() -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    async with opened(fs, writer=writer) as node:
        both = Dropper(node, "a", "b")
        assert both.drop(0)
        assert both.calls == []
        assert both.drop(1)
        assert both.calls == [[DROPPED, DROPPED]]
        await node.drain()
        await turn()
        assert not writer.jobs
    assert logged(fs) == []


async def test_draining_ends_when_the_last_write_is_taken_back() -> None:
    async with opened(writer=ManualWriter()) as node:
        asked = Dropper(node, "a", "b")
        draining = node.drain()
        draining.send(None)  # it waits now, and the turn of the loop that hands the batch over has not ended
        assert asked.drop(0)
        assert asked.drop(1)
        with pytest.raises(StopIteration):
            draining.send(None)


@pytest.mark.parametrize("seed", range(20))
async def test_whichever_writes_are_taken_back_the_others_are_written_in_order(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "BATCH_COMMANDS_MAX", 7)
    chance = random.Random(seed)
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        Asked(node, Set("keeps the disk busy", b""))
        await turn()
        asked, dropped = [], set()
        for number in range(30):
            keys = [f"{number}.{position}" for position in range(chance.randrange(1, 5))]
            asked.append((keys, Dropper(node, *keys, size=chance.randrange(100))))
            for _ in range(chance.randrange(4)):
                keys, each = chance.choice(asked)
                position = chance.randrange(len(keys))
                assert each.drop(position) is (keys[position] not in dropped), "each can be, once"
                dropped.add(keys[position])
        pipeline = node.commands._pipeline
        left = [key for keys, _ in asked for key in keys if key not in dropped]
        assert node.metrics.values()["pending_writes"] == 1 + len(left)
        assert sum(len(batch.commands) for batch in pipeline._full) <= 2 * len(left) + 7, "holes are closed"
        await writer.write_all()
        assert (pipeline._count, pipeline._size) == (0, 0)
        versions = {}
        for keys, each in asked:
            (results,) = each.calls
            for key, result in zip(keys, results, strict=True):
                assert (result is DROPPED) is (key in dropped)
                if isinstance(result, tuple):
                    versions[key] = result[0]
        assert sorted(versions, key=lambda key: versions[key]) == left


def test_a_write_that_is_taken_back_looks_at_no_run_for_the_second_time() -> None:
    class Counted(list[Any]):
        read = 0

        def __getitem__(self, place: Any) -> Any:
            found = super().__getitem__(place)
            self.read += len(found) if isinstance(place, slice) else 1
            return found

        def __iter__(self) -> Iterator[Any]:
            for run in super().__iter__():
                self.read += 1
                yield run

    batch, writes = Batch(), [Submission(list[Any].clear) for _ in range(600)]
    runs = batch._runs = Counted()
    for number, write in enumerate(writes[:500]):
        batch.add([Logged(Set(f"{number}", b""))] * 2, [number, 1000 + number], write, 0)
    for number, write in enumerate(writes[500:], 500):
        batch.add([Logged(Set(f"{number}", b""))] * 2, [number, 1000 + number], write, 0)
        assert batch.drop(write, 1) == 1000 + number
    assert runs.read == 600
    assert [batch.drop(writes[number], number % 2) for number in range(600)] == [
        number + number % 2 * 1000 if number < 500 or number % 2 == 0 else None for number in range(600)
    ]
    batch.seal()
    assert [command.op.key for command in batch.commands if isinstance(command.op, Set)] == [
        f"{number}" for number in range(600) if number < 500 or number % 2
    ]


async def test_what_was_taken_back_is_not_answered_again_when_the_disk_fails() -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    node = await failing_node(fs, writer, "fdatasync")
    Asked(node, Set("handed", b""))
    await turn()
    waiting = Dropper(node, "a", "b", "c")
    assert waiting.drop(0)
    await writer.write()
    (results,) = waiting.calls
    assert results[0] is DROPPED
    assert [(result.code, result.outcome) for result in results[1:] if isinstance(result, Failure)] == [
        (5001, "not_applied")
    ] * 2
    await node.aclose()


@pytest.mark.parametrize("enabled", [True, False])
async def test_the_collector_looks_at_what_writes_leave_before_it_is_much(
    enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected: list[int] = []
    monkeypatch.setattr(gc, "collect", collected.append)
    async with opened() as node:
        # From here on, because a start restores the collector as it finds it.
        monkeypatch.setattr(gc, "isenabled", lambda: enabled)
        monkeypatch.setattr(apply_committed, "COLLECTED_CHANGES", 3)
        for number in range(1, 32):
            Asked(node, Set("k", b""))
            await turn()
            assert len(collected) == (number // 3 if enabled else 0)
        assert collected == ([0, 0, 0, 1, 0, 0, 0, 1, 0, 0] if enabled else [])


async def test_the_collector_looks_at_what_a_large_change_leaves_while_it_is_applied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its objects are more than anything else leaves: 100,000 of them are a pause of 50 ms. A full history releases an
    old event for each new one, so that the collector does not begin by itself.
    """
    keys = 20 * apply_committed.COLLECTED_CHANGES
    async with opened() as node:
        await done(node, SetMany([(f"{number}", b"") for number in range(keys)]))
        at: list[int] = []
        monkeypatch.setattr(gc, "isenabled", lambda: True)
        monkeypatch.setattr(gc, "collect", lambda _: at.append(node._machine.kv.events.end))
        await done(node, DeleteMany([f"{number}" for number in range(keys)]))
        gaps = [after - before for before, after in pairwise([keys, *at, 2 * keys])]
        assert max(gaps) < 2 * apply_committed.COLLECTED_CHANGES
