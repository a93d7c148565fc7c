"""Trap: refused changes are logged and synced, and the log is for ever; or they are judged out of the log's order.

What is on its way, in part or whole, when a change that may change nothing comes.
"""

from __future__ import annotations

import asyncio
import errno

import pytest

from haptera.client import Database, connect
from haptera.errors import KeyExists
from haptera.node.commands import ANONYMOUS, Envelope, Submitter
from haptera.state import Replayed, Write
from haptera.state.operations import Clear, Delete, DeleteMany, Increment, Rename, Set, SetMany
from haptera.testing import node, virtual_clock
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.nodes import Asked, ManualWriter, opened, turn

KEYS = [f"k{number:05}" for number in range(5_000)]
LOCK = Set("lock", b"mine", condition="absent")
ID, OTHER_ID, DIGEST = bytes(16), b"\x01" * 16, bytes(32)


@pytest.mark.parametrize("op", [Clear("k"), DeleteMany(["k/lock", *KEYS])], ids=["clear", "delete_many"])
async def test_a_condition_that_a_large_change_makes_true_is_judged_behind_it(op: Write) -> None:
    """The change is applied in part, and readers see the key before or without it."""
    async with opened() as node:
        key = "k/lock"
        Asked(node, Set(key, b"theirs"), SetMany([(each, b"") for each in KEYS]))
        while node.keys < len(KEYS) + 1:
            await asyncio.sleep(0)
        large = Asked(node, op)
        while not node._machine.changing:
            await asyncio.sleep(0)
        taken = Asked(node, Set(key, b"mine", condition="absent"))
        refused = Asked(node, Set(key, b"yours", condition="absent"))
        assert not any(asked.answered for asked in (taken, refused))
        while not refused.answered:
            await asyncio.sleep(0)
        assert large.answered
        assert (taken.result, refused.failures) == ((4, None), [(4003, "not_applied")])
        assert (node.index, node.metrics.writes_unlogged_total) == (3, 0)


async def test_what_comes_while_a_large_batch_is_answered_is_judged_behind_all_of_it() -> None:
    """Its changes are applied, and some callers have not heard of it. One of them asks for the key of another."""
    async with opened() as node:
        asked = [Asked(node, Set(key, b"")) for key in KEYS[:3000]]
        while not asked[0].answered:
            await asyncio.sleep(0)
        assert not asked[-1].answered
        refused = Asked(node, Set(KEYS[2999], b"", condition="absent"))
        assert refused.failures == [(4003, "not_applied")]
        deleted = Asked(node, Delete(KEYS[2999]))
        taken = Asked(node, Set(KEYS[2999], b"", condition="absent"))
        while not taken.answered:
            await asyncio.sleep(0)
        assert (deleted.result, taken.result) == ((True, 3001, None), (3002, None))


async def test_a_write_that_was_taken_back_is_not_on_its_way() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        Asked(node, Set("lock", b"theirs"))
        await writer.write_all()
        released = Asked(node, Delete("lock"))
        logged = Asked(node, LOCK)
        assert node.commands.drop(released.submission, 0)
        assert not logged.answered
        assert node.commands.drop(logged.submission, 0)
        assert Asked(node, LOCK).failures == [(4003, "not_applied")]
        await turn()
        assert not writer.jobs


async def test_a_condition_that_fails_is_told_as_such_on_a_full_disk() -> None:
    """The disk is not asked, so that a lock's holder and its waiters hear the same as ever."""
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        Asked(node, Set("lock", b"theirs"))
        await turn()
        fs.failing, fs.fail_with = frozenset({"allocate"}), errno.ENOSPC
        for _ in range(2):
            full = Asked(node, Set("large", bytes(80_000)))
            assert not full.answered
            behind = Asked(node, LOCK)
            await turn()
            assert (full.failures, behind.failures) == ([(5002, "not_applied")], [(5002, "not_applied")])
            assert Asked(node, LOCK).failures == [(4003, "not_applied")]
        fs.failing = frozenset()
        assert node.index == 1


async def test_a_condition_behind_a_change_that_the_disk_refuses_is_judged_without_it() -> None:
    """The first is not applied, and the second finds what was there before it."""
    fs, writer = MemoryFileSystem(), ManualWriter()
    async with opened(fs, writer=writer) as node:
        Asked(node, Set("lock", b"theirs"))
        await writer.write_all()
        released = Asked(node, Rename("lock", "other"), Set("large", bytes(80_000)))
        await turn()
        refused = Asked(node, LOCK)
        fs.failing, fs.fail_with = frozenset({"allocate"}), errno.ENOSPC
        await writer.write()
        fs.failing = frozenset()
        await writer.write_all()
        assert released.failures == [(5002, "not_applied")] * 2
        assert refused.failures == [(4003, "not_applied")]


async def test_after_the_disk_has_failed_nothing_is_judged() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        Asked(node, Set("lock", b"theirs"))
        await turn()
        fs.failing = frozenset({"fdatasync"})
        lost = Asked(node, Delete("lock"))
        await turn()
        assert lost.failures == [(5001, "unknown")]
        assert Asked(node, LOCK, Delete("none")).failures == [(5001, "not_applied")] * 2
        fs.failing = frozenset()


async def test_answers_that_wait_to_be_forgotten_make_one_entry_and_no_more() -> None:
    async with opened() as node:
        Asked(node, Envelope(Increment("n"), ID, DIGEST))
        await turn()
        node.commands.forget(ANONYMOUS, [ID])
        refusals = []
        for _ in range(10):
            refusals.append(Asked(node, Set("n", b"", condition="absent")))
            await turn()
        assert [each.failures for each in refusals] == [[(4003, "not_applied")]] * 10
        assert (node.index, len(node._machine.requests)) == (2, 0)


async def test_a_repetition_by_another_user_is_a_change_of_its_own() -> None:
    async with opened() as node:
        once = Envelope(LOCK, ID, DIGEST)
        Asked(node, once)
        await turn()
        assert Asked(node, once, submitter=Submitter("bob")).failures == [(4003, "not_applied")]
        assert Asked(node, once).result == Replayed((1, None))
        await turn()
        assert node.index == 1


async def test_the_id_of_another_change_is_refused_without_an_entry_though_it_may_come_again() -> None:
    """Of a resent change whatever it is answered is remembered, but not that its id is another's."""
    async with opened() as node:
        Asked(node, Envelope(Increment("n"), ID, DIGEST))
        await turn()
        for resent in (False, True):
            reused = Asked(node, Envelope(Increment("n"), ID, b"x" * 32, resent))
            assert reused.failures == [(3012, "not_applied")]
        assert node.index == 1


async def test_refusals_of_a_resent_change_make_one_entry_however_often_it_comes() -> None:
    fs = MemoryFileSystem()
    lock = Envelope(LOCK, ID, DIGEST, resent=True)
    async with opened(fs) as node:
        Asked(node, Set("lock", b"theirs"))
        await turn()
        first = Asked(node, lock)
        await turn()
        Asked(node, Delete("lock"))
        await turn()
        late = [Asked(node, lock) for _ in range(5)]
        assert [each.result for each in late] == [Replayed(first.result)] * 5  # type: ignore[arg-type]
        assert node.index == 3
        digest = node._machine.digest()
    async with opened(fs.restart()) as node:
        assert node._machine.digest() == digest
        assert Asked(node, lock).result == Replayed(first.result)  # type: ignore[arg-type]
        taken = Asked(node, Envelope(LOCK, OTHER_ID, DIGEST))
        await turn()
        assert taken.result == (3, None)


@virtual_clock
async def test_of_clients_that_want_one_lock_one_has_it_and_the_others_take_no_entry() -> None:
    async with node(storage="memory", listen="tcp") as url, connect(url) as first, connect(url) as second:

        async def take(db: Database, name: str) -> bool:
            try:
                await db.set("lock", name, if_absent=True)
            except KeyExists:
                return False
            return True

        taken = await asyncio.gather(*(take(db, str(n)) for n in range(20) for db in (first, second)))
        assert sum(taken) == 1
        entries = url.node.index
        for _ in range(50):
            assert not await take(second, "late")
        assert url.node.index == entries
