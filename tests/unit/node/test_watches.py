"""The watches of a node: what each is told, when, and how it ends."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.errors import Failure, LocalProtocolError, failure
from haptera.node.commands import ANONYMOUS, Submitter
from haptera.node.watches import delivery, follower, shared_items
from haptera.node.watches import watches as module
from haptera.node.watches.follower import Follower
from haptera.node.watches.groups import Groups
from haptera.node.watches.items import ITEM_SIZE_MAX, pack
from haptera.node.watches.shared_items import SharedItem, SharedItems
from haptera.state import EventBounds, EventCursor, EventHistory
from haptera.state.access_operations import AddToken, AddUser, FindQuota, SetQuota
from haptera.state.operations import Clear, Delete, DeleteMany, OpenWatch, Rename, Set, SetMany
from haptera.testing import virtual_clock
from tests.support.verifiers import VERIFIER
from tests.unit.node.nodes import Asked, opened
from tests.unit.node.test_large import Calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from haptera.node.node import Node
    from haptera.state import Write

decode = msgspec.msgpack.decode

PUT, DELETE = 1, 2


class Reader:
    """A feed that takes ITEMs while it has room for some; ``failure`` is how the watch ended."""

    def __init__(self, room: int = 1 << 60) -> None:
        self.items: list[bytes] = []
        self.failure: Failure | None = None
        self._room = room
        self._opened = asyncio.Event()

    def try_send(self, item: bytes) -> bool:
        if self._room <= 0:
            return False
        self._room -= 1
        self.items.append(item)
        return True

    @staticmethod
    def try_send_all(feeds: Sequence[Reader], item: bytes) -> list[int]:
        return [place for place, feed in enumerate(feeds) if not feed.try_send(item)]

    async def send(self, item: bytes) -> None:
        assert self._room > 0, "it was asked for room"
        self.try_send(item)
        await self.room()

    async def room(self) -> None:
        while self._room <= 0:
            self._opened.clear()
            await self._opened.wait()

    async def left(self) -> None:
        await self.room()

    def fail(self, reason: Failure) -> None:
        assert self.failure is None, "a watch ends once"
        self.failure = reason

    def fill(self) -> None:
        """Have no more room."""
        self._room = 0

    def take(self, items: int = 1 << 60) -> None:
        """Have room for more items."""
        self._room += items
        self._opened.set()

    @property
    def told(self) -> list[Any]:
        return [decode(item) for item in self.items]

    @property
    def events(self) -> list[tuple[int, int, str, Any]]:
        """Revision, kind, key and value of each event that was told."""
        return [(event[3], event[0], event[1], event[2]) for item in self.told for event in item[1]]


def watch(node: Node, reader: Reader, owner: object = None, **fields: Any) -> Follower:
    opened = node.watches.open(ANONYMOUS, OpenWatch(**fields), reader, owner)
    assert not isinstance(opened, Failure), opened
    return opened


def refused(node: Node, owner: object = None, **fields: Any) -> tuple[int, dict[str, Any]]:
    failed = node.watches.open(ANONYMOUS, OpenWatch(**fields), Reader(), owner)
    assert isinstance(failed, Failure)
    return failed.code, failed.details


async def do(node: Node, *ops: Write) -> None:
    for op in ops:
        asked = Asked(node, op)
        while not asked.answered:
            await asyncio.sleep(0)
        assert not isinstance(asked.result, Failure), asked.result
    await told_all(node)


async def told_all(node: Node) -> None:
    """Return when each watch that has room was told everything."""
    for _ in range(200):
        await asyncio.sleep(0)


@asynccontextmanager
async def small(events: int = 0) -> AsyncIterator[Node]:
    """A node that keeps few events."""
    async with opened() as node:
        node._machine.kv.events.bounds = EventBounds(events, 1 << 40)
        yield node


async def test_a_watch_is_told_of_the_changes_of_its_keys() -> None:
    async with opened() as node:
        everything, prefix, key = Reader(), Reader(), Reader()
        watch(node, everything)
        watch(node, prefix, prefix="a/")
        watch(node, key, key="a/1")
        await do(node, Set("a/1", b"1"), Set("a/2", b"2"), Set("b", b"3"), Delete("a/1"), Rename("b", "a/1"))
        told = [
            (1, PUT, "a/1", b"1"),
            (2, PUT, "a/2", b"2"),
            (3, PUT, "b", b"3"),
            (4, DELETE, "a/1", None),
            (5, DELETE, "b", None),
            (5, PUT, "a/1", b"3"),
        ]
        assert everything.events == told
        assert prefix.events == [event for event in told if event[2].startswith("a/")]
        assert key.events == [event for event in told if event[2] == "a/1"]
        assert everything.told[0] == prefix.told[0] == key.told[0] == [0, [], False], "the mark comes first"


async def test_a_watch_begins_in_the_past() -> None:
    async with opened() as node:
        await do(node, *(Set("a", b"%d" % number) for number in range(5)))
        reader = Reader()
        for start in range(1, 7):
            reader = Reader()
            watch(node, reader, start_revision=start)
            await told_all(node)
            assert reader.told[0] == [start - 1, [], False]
            assert [event[0] for event in reader.events] == list(range(start, 6))
        await do(node, Set("a", b""))
        assert reader.events == [(6, PUT, "a", b"")]


async def test_the_entry_of_before_comes_if_it_is_asked_for() -> None:
    async with opened() as node:
        plain, full = Reader(), Reader()
        watch(node, plain)
        watch(node, full, with_previous=True)
        await do(node, Set("a", b"1"), Set("a", b"2"), Delete("a"))
        assert [event[4] for item in plain.told for event in item[1]] == [None, None, None]
        assert [event[4] for item in full.told for event in item[1]] == [None, [b"1", 1, None], [b"2", 2, None]]


@pytest.mark.parametrize("fields", [{}, {"prefix": "key/1"}, {"key": "key/17"}])
async def test_a_watch_begins_with_the_entries_that_are_there(fields: dict[str, str]) -> None:
    async with opened() as node:
        await do(node, SetMany([(f"key/{number}", b"%d" % number) for number in range(2000)]))
        reader = Reader(room=1)
        watch(node, reader, initial=True, **fields)
        await told_all(node)
        await do(node, Set("key/17", b"new"), Delete("key/19"))
        reader.take()
        await told_all(node)
        entries = [item for item in reader.told if any(event[0] == 0 for event in item[1])]
        keys = [event[1] for item in entries for event in item[1]]
        prefix = fields.get("prefix", fields.get("key", ""))
        wanted = [key for key in (f"key/{number}" for number in range(2000)) if key.startswith(prefix)]
        wanted = ["key/17"] if "key" in fields else wanted
        assert keys == sorted(wanted)
        assert all(item[0] == 1 and item[2] and {event[3] for event in item[1]} == {1} for item in entries)
        assert reader.told[len(entries)] == [1, [], False]
        later = [(2, PUT, "key/17", b"new"), (3, DELETE, "key/19", None)]
        assert reader.events[len(keys) :] == [event for event in later if event[2] in wanted]


async def test_a_large_change_comes_in_pieces_of_which_each_but_the_last_says_more() -> None:
    async with opened() as node:
        readers = [Reader(), Reader(), Reader()]
        watch(node, readers[0])
        watch(node, readers[1], prefix="key/1")
        await do(node, SetMany([(f"key/{number:05}", bytes(100)) for number in range(20_000)]), Set("b", b""))
        watch(node, readers[2], start_revision=1, prefix="key/1")
        await told_all(node)
        await told_all(node)
        for reader, prefix in zip(readers, ("", "key/1", "key/1"), strict=True):
            changes = [event for event in reader.events if event[0] == 1]
            assert sorted(event[2] for event in changes) == [
                key for key in (f"key/{number:05}" for number in range(20_000)) if key.startswith(prefix)
            ]
            items = reader.told
            for item, behind in pairwise(items):
                assert item[2] is (item[0] == (behind[1][0][3] if behind[1] else behind[0]))
            assert all(len(item) < ITEM_SIZE_MAX for item in reader.items)
        assert readers[0].events[-1] == (2, PUT, "b", b"")
        assert readers[0].told[-1][2] is readers[1].told[-1][2] is False
        assert readers[1].told[-1][:2] == [1, []], "the revision went on, but not for this prefix: a mark says so"
        assert readers[1].events == readers[2].events


async def test_trap_a_change_is_told_only_when_it_is_whole() -> None:
    async with opened() as node:
        reader = Reader()
        watch(node, reader)
        asked, late = Asked(node, SetMany([(f"key/{number:05}", b"") for number in range(20_000)])), Reader()
        while not asked.answered:
            assert not reader.events
            if node._machine.changing:
                late = Reader()
                watch(node, late)
                assert late.told == [[0, [], False]], "the change is still to come"
            await asyncio.sleep(0)
        await told_all(node)
        assert len(reader.events) == len(late.events) == 20_000


async def test_a_watch_that_begins_in_the_midst_of_an_entry_of_many_commands_goes_on_from_what_was_read() -> None:
    async with opened() as node:
        asked = [Asked(node, Set("k", b"")) for _ in range(2000)]
        begun: list[tuple[int, Reader, Reader]] = []
        while not asked[-1].answered:
            await asyncio.sleep(0)
            revision = node.revision
            if revision > node.watches._delivery.revision:
                begun.append((revision, Reader(), Reader()))
                watch(node, begun[-1][1], key="k", start_revision=revision + 1)
                watch(node, begun[-1][2], key="k", initial=True)
        assert len(begun) > 3
        await do(node, Set("k", b""))
        await told_all(node)
        for revision, behind, whole in begun:
            assert behind.failure is whole.failure is None
            assert [version for version, *_ in behind.events] == list(range(revision + 1, 2002))
            mark = next(item[0] for item in whole.told if not item[1])
            changes = [event for event in whole.events if event[1] != 0]
            assert mark >= revision
            assert [version for version, *_ in changes] == list(range(mark + 1, 2002))


async def test_a_clear_of_everything_is_a_delete_of_each_key() -> None:
    async with opened() as node:
        keys = [f"key/{number:05}" for number in range(3000)]
        readers = [Reader(), Reader(room=2), Reader()]
        await do(node, SetMany([(key, b"") for key in keys]))
        watch(node, readers[0])
        watch(node, readers[1], prefix="key/000")
        await do(node, Clear(), Set("key/00001", b""))
        readers[1].take()
        watch(node, readers[2], start_revision=2, prefix="key/02")
        await told_all(node)
        assert [event[2] for event in readers[0].events if event[1] == DELETE] == keys
        assert [event[2] for event in readers[1].events if event[1] == DELETE] == keys[:100]
        assert [event[2] for event in readers[2].events] == keys[2000:3000]
        assert readers[0].events[-1] == readers[1].events[-1] == (3, PUT, "key/00001", b"")


async def test_watches_of_the_same_keys_share_one_encoding() -> None:
    async with opened() as node:
        readers = [Reader() for _ in range(300)]
        for reader in readers:
            watch(node, reader, prefix="a")
        await do(node, Set("a", b""), Set("b", b""), Set("a", b""))
        for reader in readers:
            assert [event[0] for event in reader.events] == [1, 3]
            assert all(item is first for item, first in zip(reader.items[1:], readers[0].items[1:], strict=True))


async def test_many_changes_between_two_deliveries_are_one_item() -> None:
    async with opened() as node:
        reader = Reader()
        watch(node, reader)
        asked = Asked(node, *(Set("a", b"%d" % number) for number in range(100)))
        await told_all(node)
        assert asked.answered
        assert [item[0] for item in reader.told] == [0, 100]
        assert reader.told[1][2] is False


# -- readers that are slow


async def test_a_watch_without_room_falls_behind_and_misses_nothing() -> None:
    async with opened() as node:
        slow, fast = Reader(room=2), Reader()
        watch(node, slow)
        watch(node, fast)
        await do(node, *(Set("a", b"%d" % number) for number in range(10)))
        assert [event[0] for event in slow.events] == [1]
        assert node.watches.behind == 1
        assert node.metrics.watches_behind_total == 1
        slow.take()
        await told_all(node)
        assert node.watches.behind == 0
        await do(node, Set("a", b"last"))
        assert slow.events == fast.events


async def test_a_watch_that_falls_behind_between_two_items_of_a_piece_is_told_nothing_twice() -> None:
    async with opened() as node:
        slow, fast = Reader(room=2), Reader()
        watch(node, slow)
        watch(node, fast)
        await do(node, SetMany([(f"{number:03}", bytes(1500)) for number in range(400)]))
        assert 0 < len(slow.events) < 400, "it has had the first of several ITEMs"
        slow.take()
        await told_all(node)
        assert slow.events == fast.events
        assert len(fast.events) == 400


@virtual_clock
async def test_a_watch_that_takes_nothing_for_60_seconds_ends_with_3009() -> None:
    async with opened() as node:
        slow, steady = Reader(room=1), Reader(room=1)
        watch(node, slow)
        watch(node, steady)
        await do(node, *(Set("a", b"") for _ in range(20)))
        for _ in range(14):
            await asyncio.sleep(5)
            steady.take(1)
            await do(node, Set("a", b""))
        assert slow.failure is not None
        assert (slow.failure.code, slow.failure.outcome) == (3009, "not_applied")
        assert node.metrics.watches_slow_total == 1
        assert steady.failure is None
        assert len(node.watches) == 1


async def test_a_watch_that_is_overtaken_by_the_end_of_the_history_ends_with_4009() -> None:
    async with small() as node:
        slow, fast = Reader(room=1), Reader()
        watch(node, slow)
        watch(node, fast)
        for number in range(40):
            await do(node, SetMany([(f"{each}", b"%d" % number) for each in range(100)]))
        slow.take()
        await told_all(node)
        assert slow.failure is not None
        compacted = node._machine.kv.events.compacted
        assert (slow.failure.code, slow.failure.outcome) == (4009, "not_applied")
        assert slow.failure.details["oldest"] == compacted + 1
        assert slow.failure.details["newest"] == 40
        assert fast.failure is None
        assert len(fast.events) == 4000
        assert refused(node, start_revision=compacted) == (
            4009,
            {"revision": compacted, "oldest": compacted + 1, "newest": 40},
        )
        watch(node, Reader(), start_revision=compacted + 1)


async def test_watches_in_step_whose_events_are_gone_before_they_are_told_end_with_4009() -> None:
    async with small() as node:
        reader, later = Reader(), Reader()
        watch(node, reader)
        ops = [DeleteMany([f"{each}" for each in range(600)]), SetMany([(f"{each}", b"") for each in range(600)])]
        asked = Asked(node, ops[1], *ops * 4)
        while not asked.answered:
            await asyncio.sleep(0)
        watch(node, later)
        await told_all(node)
        assert reader.failure is not None
        assert reader.failure.code == 4009
        await do(node, Set("a", b""))
        assert later.failure is None
        assert later.events == [(10, PUT, "a", b"")]


# -- watches that are behind together


class Packer:
    """Counts the ITEMs that are packed for watches that are behind."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.packed = 0

        def counted(*arguments: Any) -> Any:
            self.packed += 1
            return pack(*arguments)

        monkeypatch.setattr(follower, "pack", counted)


async def test_watches_that_are_behind_together_share_each_item(monkeypatch: pytest.MonkeyPatch) -> None:
    packer = Packer(monkeypatch)
    async with opened() as node:
        fast, slow = Reader(), [Reader(room=1) for _ in range(50)]
        watch(node, fast)
        for number, reader in enumerate(slow):
            watch(node, reader, owner=number % 3)
        for number in range(1500):
            Asked(node, Set("a", b"%d" % number))
        await told_all(node)
        assert node.watches.behind == 50
        for reader in slow:
            reader.take()
        for _ in range(10):
            await told_all(node)
        assert node.watches.behind == 0
        assert packer.packed <= 8, "so many blocks the history has, and not fifty times as many"
        for reader in slow:
            assert reader.events == fast.events
            assert all(item is same for item, same in zip(reader.items[1:], slow[0].items[1:], strict=True))


async def test_the_item_that_had_no_room_is_the_one_that_a_watch_is_sent_first(monkeypatch: pytest.MonkeyPatch) -> None:
    packer = Packer(monkeypatch)
    async with opened() as node:
        fast, slow = Reader(), Reader(room=1)
        watch(node, fast)
        watch(node, slow)
        await do(node, Set("a", b"1"))
        slow.take()
        await told_all(node)
        assert slow.items[1] is fast.items[1]
        assert packer.packed == 0


async def test_an_item_that_is_shared_costs_a_turn_the_work_of_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    packer = Packer(monkeypatch)
    async with opened() as node:
        slow = [watch(node, Reader(room=1)) for _ in range(3)]
        for size, work_min in ((0, 1), (200_000, 195)):
            await do(node, Set("a", bytes(size)))
            for each in slow:
                units = [*each.item_steps(node.watches._delivery.until, node.watches._shared)]
                assert work_min <= sum(units) < work_min + 50
        assert packer.packed == 1, "the second change, for the first of them"


async def test_watches_with_other_fields_share_nothing() -> None:
    async with opened() as node:
        fields: list[dict[str, Any]] = [{}, {"with_previous": True}, {"prefix": "a"}, {"key": "a/1"}, {"prefix": "b"}]
        readers = [[Reader(room=1), Reader(room=1)] for _ in fields]
        for two, each in zip(readers, fields, strict=True):
            for reader in two:
                watch(node, reader, **each)
        for number in range(300):
            Asked(node, Set(f"{'ab'[number % 2]}/{number % 5}", b"%d" % number))
        await told_all(node)
        assert node.watches.behind == 10
        for two in readers:
            for reader in two:
                reader.take()
        for _ in range(5):
            await told_all(node)
        rows = [[event for item in two[0].told for event in item[1]] for two in readers]
        assert [len(each) for each in rows] == [300, 300, 150, 30, 150]
        assert [row[4] for row in rows[0]] == [None] * 300
        assert sum(row[4] is not None for row in rows[1]) == 290
        assert [row[:4] for row in rows[0]] == [row[:4] for row in rows[1]]
        for place, wanted in ((2, "a/"), (3, "a/1"), (4, "b/")):
            assert rows[place] == [row for row in rows[0] if row[1].startswith(wanted)]
        for one, other in readers:
            assert one.items == other.items


async def test_a_watch_far_behind_has_large_items_where_others_had_small_ones() -> None:
    async with opened() as node:
        steady, far = Reader(room=1), Reader(room=1)
        watch(node, steady)
        watch(node, far)
        await do(node, Set("a", b""))
        for number in range(100):
            steady.take(1)
            await do(node, Set("a", b"%d" % number))
        assert len(steady.items) > 90
        far.take()
        await told_all(node)
        assert [event[0] for event in far.events] == list(range(1, 102))
        assert len(far.items) < 12, "an ITEM has half of the events that there are, at least"


async def test_shared_items_are_bounded_and_go_when_no_watch_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_items, "SHARED_SIZE_MAX", 100_000)
    async with opened() as node:
        kept, sizes = node.watches._shared, []
        slow = [Reader(room=1) for _ in range(4)]
        for reader in slow:
            watch(node, reader)
        for number in range(60):
            Asked(node, SetMany([(f"{each}", b"%d" % number * 10) for each in range(100)]))
        for _ in range(5):
            await told_all(node)
        for _ in range(100):
            for reader in slow:
                reader.take(1)
            for _ in range(20):
                await asyncio.sleep(0)
            sizes.append(kept.size)
            assert kept.size == sum(shared_items._OVERHEAD + len(each.item) for each in kept._items.values())
        assert 50_000 < max(sizes) <= 100_000
        assert node.watches.behind == 0
        assert kept.size == 0
        assert not kept._items
        assert all(len(reader.events) == 6000 for reader in slow)


def test_shared_items_are_for_the_watches_that_lack_all_of_their_events() -> None:
    groups, kept = Groups(), SharedItems()
    group, other, alone = (
        groups.join(OpenWatch(prefix="a")),
        groups.join(OpenWatch(prefix="b")),
        groups.join(OpenWatch(prefix="c")),
    )
    assert groups.join(OpenWatch(prefix="a")) is group
    assert groups.join(OpenWatch(prefix="b")) is other
    history = EventHistory(lambda _: None, EventBounds())
    cursor, end = EventCursor(history, 10), EventCursor(history, 20)
    packed = SharedItem(b"item", 7, end, 0, 0, full=False)
    kept.keep(group, cursor, 3, packed)
    kept.keep(alone, cursor, 3, packed)
    found = kept.find(group, cursor.copy(), 3, 6, 20)
    assert found is packed
    assert kept.find(group, cursor, 3, 7, 20) is None, "the watch has its first event"
    assert kept.find(group, cursor, 2, 6, 20) is None
    assert kept.find(group, EventCursor(history, 11), 3, 6, 20) is None
    assert kept.find(group, EventCursor(history, 10, "key"), 3, 6, 20) is None, "in the midst of a clear"
    assert kept.find(other, cursor, 3, 6, 20) is None
    assert kept.find(alone, cursor, 3, 6, 20) is None, "there is no other watch"
    assert kept.find(group, cursor, 3, 6, 30) is packed
    assert kept.find(group, cursor, 3, 6, 31) is None, "more than twice as many events are there now"
    kept.keep(group, cursor, 3, packed._replace(full=True))
    assert kept.find(group, cursor, 3, 6, 1000) is not None
    kept.keep(group, end, 0, packed._replace(item=bytes(ITEM_SIZE_MAX + 1)))
    assert kept.find(group, end, 0, 6, 20) is None, "an event of that size is packed for each"


# -- many watches of one reader


async def test_readers_take_turns_where_an_item_is_large() -> None:
    order: list[str] = []

    class Noting(Reader):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def try_send(self, item: bytes) -> bool:
            order.append(self.name)
            return super().try_send(item)

    async with opened() as node:
        for name in ("a", "a", "a", "b", "b", "c"):
            watch(node, Noting(name), owner=name)
        order.clear()
        await do(node, Set("k", b""))
        assert order == ["a", "a", "a", "b", "b", "c"]
        order.clear()
        await do(node, Set("k", bytes(200_000)))
        assert order == ["a", "b", "c", "a", "b", "a"]


@pytest.mark.parametrize(("of_each", "most"), [(1, 256), (4, 512), (50, 1024)])
async def test_of_many_readers_a_bounded_number_is_sent_to_in_each_turn(
    of_each: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reader costs its connection a write, beside the ITEMs of its watches."""
    async with opened() as node:
        for number in range(2000):
            watch(node, Reader(), owner=number // of_each)
        await told_all(node)
        sent = Calls(monkeypatch, Reader, "try_send")
        await do(node, Set("k", b""))
        sent.stop()
        assert sum(sent.per_turn.values()) == 2000
        assert most // 2 < max(sent.per_turn.values()) <= most


async def test_of_many_progress_marks_a_bounded_number_is_sent_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened() as node:
        for number in range(1000):
            watch(node, Reader(), owner=number, progress_ms=3_600_000)
        sent = Calls(monkeypatch, Reader, "try_send")
        node.watches._delivery.progress._tick(3_600_000)
        await told_all(node)
        sent.stop()
        assert sum(sent.per_turn.values()) == 1000
        assert max(sent.per_turn.values()) <= 256


async def test_an_item_that_a_reader_does_not_take_ends_its_watches_and_no_others() -> None:
    class Small(Reader):
        @staticmethod
        def try_send_all(feeds: Sequence[Reader], item: bytes) -> list[int]:
            if len(item) > 1000:
                raise LocalProtocolError(3004)
            return Reader.try_send_all(feeds, item)

    async with opened() as node:
        small, others = [Small(), Small()], [Reader(), Reader()]
        for reader in (small[0], others[0], small[1], others[1]):
            watch(node, reader, owner=type(reader))
        await do(node, Set("a", b""), Set("a", bytes(2000)), Set("a", b""))
        await do(node, Set("a", b""))
        assert [reader.failure and reader.failure.code for reader in small] == [3004, 3004]
        assert [len(reader.events) for reader in others] == [4, 4]
        assert len(node.watches) == 2


# -- limits, ends


async def test_fields_that_exclude_each_other_are_refused() -> None:
    async with opened() as node:
        assert refused(node, key="a", prefix="b")[0] == 3003
        assert refused(node, initial=True, start_revision=1)[0] == 3003
        assert refused(node, start_revision=0)[0] == 3003
        assert refused(node, progress_ms=999)[0] == 3003
        assert refused(node, key="")[0] == 4006
        assert refused(node, prefix="a" * 5000)[0] == 3003
        assert refused(node, start_revision=2) == (4009, {"revision": 2, "oldest": 1, "newest": 0})
        assert len(node.watches) == 0


async def test_watches_are_bounded_for_a_connection_and_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCHES_MAX", 5)
    monkeypatch.setattr(module, "WATCHES_PER_OWNER_MAX", 3)
    async with opened() as node:
        owner = object()
        opened_ = [watch(node, Reader(), owner) for _ in range(3)]
        assert refused(node, owner) == (3007, {"watches_max": 3})
        watch(node, Reader())
        watch(node, Reader())
        assert refused(node) == (3007, {"watches_max": 5})
        node.watches.close(opened_[0], failed())
        watch(node, Reader(), owner)
        assert refused(node, owner)[0] == 3007


def failed() -> Failure:
    return Failure(3006, "CANCELLED", "", "not_applied", {})


async def test_a_closed_watch_is_told_nothing_more() -> None:
    async with opened() as node:
        in_step, behind = Reader(), Reader(room=0)
        watches = [watch(node, in_step, prefix="a"), watch(node, behind, key="a")]
        await told_all(node)
        for each in watches:
            node.watches.close(each, failed())
            node.watches.close(each, failed())
        await told_all(node)
        behind.take()
        await do(node, Set("a", b""))
        assert in_step.failure == behind.failure == failed()
        assert in_step.told == [[0, [], False]]
        assert behind.told == []
        assert not list(node.watches._delivery.groups)
        assert len(node.watches) == 0


async def test_a_node_that_stops_ends_its_watches() -> None:
    async with opened() as node:
        readers = [Reader(), Reader(room=0), Reader(room=0)]
        watch(node, readers[0])
        watch(node, readers[1])
        watch(node, readers[2], initial=True)
        await told_all(node)
        node.watches.stop()
        await told_all(node)
        assert [reader.failure and reader.failure.code for reader in readers] == [5005, 5005, 5005]
        assert refused(node)[0] == 5005


@virtual_clock
async def test_progress_marks_tell_how_far_a_quiet_watch_is() -> None:
    async with opened() as node:
        quiet, busy, silent = Reader(), Reader(), Reader()
        ended = watch(node, quiet, prefix="quiet", progress_ms=1000)
        watch(node, busy, prefix="busy", progress_ms=1000)
        watch(node, silent, prefix="quiet")
        for _ in range(5):
            await asyncio.sleep(0.9)
            await do(node, Set("busy", b""))
            await asyncio.sleep(0.1)
            await told_all(node)
        assert [item[:2] for item in quiet.told] == [[revision, []] for revision in range(6)]
        assert [item[0] for item in busy.told if not item[1]] == [0]
        assert silent.told == [[0, [], False]]
        node.watches.close(ended, failed())
        await asyncio.sleep(5)
        assert len(quiet.told) == 6


def test_groups_find_the_watches_of_a_key() -> None:
    chance = random.Random(1)
    groups = Groups()
    joined: list[Any] = []
    names = ["", "a", "ab", "abc", "b", "ba", "é", "éa"]
    for _ in range(2000):
        if joined and chance.random() < 0.45:
            groups.leave(joined.pop(chance.randrange(len(joined))))
        else:
            name, previous = chance.choice(names), chance.random() < 0.5
            field: dict[str, Any] = {"key": name} if name and chance.random() < 0.3 else {"prefix": name}
            joined.append(groups.join(OpenWatch(**field, with_previous=previous)))
        key = chance.choice([*names[1:], "abcd", "c"])
        expected = {id(group) for group in joined if group.takes(key)}
        found = [id(group) for group in groups.matching(key)]
        assert len(found) == len(set(found))
        assert set(found) == expected
    for group in joined:
        groups.leave(group)
    assert groups.watches == 0
    assert not list(groups)
    assert not groups._lengths


@pytest.mark.parametrize("seed", range(6))
async def test_each_watch_is_told_of_each_change_once_and_in_order(seed: int) -> None:
    """Whatever their filters, whenever they begin, and however their readers take items."""
    chance = random.Random(seed)
    async with opened() as node:
        everything = Reader()
        watch(node, everything, with_previous=True)
        readers: list[tuple[Reader, dict[str, Any], int]] = []
        keys = [f"{name}/{number}" for name in "abc" for number in range(30)]
        for _ in range(120):
            step = chance.random()
            if step < 0.15:
                reader = Reader(chance.choice([0, 1, 3, 1 << 60]))
                start = chance.randint(1, node.revision + 1)
                fields: dict[str, Any] = chance.choice(
                    [{}, {"prefix": "a"}, {"prefix": "a/1"}, {"key": "b/3"}, {"prefix": "zz"}]
                )
                fields = {**fields, "with_previous": chance.random() < 0.3}
                watch(node, reader, chance.choice([None, "one", "another"]), start_revision=start, **fields)
                readers.append((reader, fields, start))
            elif step < 0.4 and readers:
                chance.choice(readers)[0].take(chance.randint(1, 4))
            elif step < 0.5:
                Asked(node, Clear(chance.choice([None, "a", "b/1"])))
            elif step < 0.75:
                Asked(node, SetMany([(key, b"x") for key in chance.sample(keys, chance.randint(1, 90))]))
            else:
                Asked(node, Set(chance.choice(keys), b"%d" % chance.randrange(9)), Delete(chance.choice(keys)))
            for _ in range(chance.choice([0, 0, 1, 5])):
                await asyncio.sleep(0)
        for reader, _, _ in readers:
            reader.take()
        for _ in range(10):
            await told_all(node)
        assert node.watches.behind == 0
        told = [event for item in everything.told for event in item[1]]
        assert [event[3] for event in told] == sorted(event[3] for event in told)
        for reader, fields, start in readers:
            wanted = OpenWatch(**fields)
            assert [event for item in reader.told for event in item[1]] == [
                [*event[:4], event[4] if wanted.with_previous else None, event[5]]
                for event in told
                if event[3] >= start
                and (event[1] == wanted.key if wanted.key else event[1].startswith(wanted.prefix or ""))
            ]
        node._machine.check()


async def test_trap_a_value_of_before_that_has_no_room_beside_the_new_one_is_left_out() -> None:
    """Else no message could have the event, and the watch would end at it each time that it is resumed."""
    async with opened() as node:
        half, largest = bytes(4 << 20), bytes(8 << 20)
        reader = Reader()
        watch(node, reader, with_previous=True)
        await do(node, Set("a", half), Set("a", half), Set("a", largest), Set("a", largest), Delete("a"))
        assert [event[4] for item in reader.told for event in item[1]] == [
            None,
            [half, 1, None],
            [None, 2, None],
            [None, 3, None],
            [largest, 4, None],
        ]
        assert max(map(len, reader.items)) < (8 << 20) + 1024


async def test_a_watch_that_falls_behind_again_before_its_task_is_gone_keeps_the_new_one() -> None:
    async with opened() as node:
        reader = Reader(room=1)
        opened_watch = watch(node, reader)
        await do(node, Set("a", b"1"))
        assert node.watches.behind == 1
        reader.take(2)
        for _ in range(200):
            await asyncio.sleep(0)
            if opened_watch.task is not None and opened_watch.task.done():
                break
        reader.fill()
        assert opened_watch.in_step
        events = node._machine.kv.events
        node.watches._fall_behind(opened_watch, EventCursor(events, events.end), 0, 0)
        await told_all(node)
        assert (node.watches.behind, opened_watch.task is None) == (1, False)
        await do(node, Set("a", b"2"))
        reader.take()
        await told_all(node)
        assert [event[0] for event in reader.events] == [1, 2]
        assert (node.watches.behind, opened_watch.task) == (0, None)


async def test_a_failure_of_delivery_ends_the_watches_that_would_miss_events_and_no_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened() as node:
        missing, behind = Reader(), Reader(room=1)
        watch(node, missing)
        watch(node, behind)
        await do(node, Set("a", b"1"))
        with monkeypatch.context() as patch:

            def fails(*_: Any) -> Any:
                raise RuntimeError("a defect")

            patch.setattr(delivery, "pack", fails)
            await do(node, Set("a", b"2"))
        assert missing.failure is not None
        assert (missing.failure.code, missing.failure.outcome) == (3010, "not_applied")
        assert [event[0] for event in missing.events] == [1]
        assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == ["delivery_failed"]
        later = Reader()
        watch(node, later, start_revision=2)
        await do(node, Set("a", b"3"))
        behind.take()
        await told_all(node)
        assert [event[0] for event in later.events] == [2, 3]
        assert behind.failure is None
        assert [event[0] for event in behind.events] == [1, 2, 3]


async def test_watches_count_for_the_user_for_whose_quota_their_submitter_counts_until_they_end() -> None:
    async with opened() as node:
        ann, token, bob = Submitter("ann"), Submitter("token:t"), Submitter("bob")
        await do(
            node, AddUser("ann", None, []), SetQuota("ann", watches=2), AddToken("token:t", VERIFIER, [], None, "ann")
        )
        begun = []
        for submitter in (ann, token):
            follower = node.watches.open(submitter, OpenWatch(prefix=""), Reader())
            assert isinstance(follower, Follower)
            begun.append(follower)
        assert node._machine.read(FindQuota("ann")) == ((None, None, 2, None), (0, 0, 2, 0))
        for submitter in (ann, token):
            failed = node.watches.open(submitter, OpenWatch(prefix=""), Reader())
            assert isinstance(failed, Failure)
            assert (failed.code, failed.details) == (3013, {"quota": "watches", "limit": 2, "used": 2})
        assert isinstance(node.watches.open(bob, OpenWatch(prefix=""), Reader()), Follower)
        await do(node, SetQuota("ann", watches=0))
        node.watches.close(begun[1], failure(3006, outcome="not_applied"))
        assert node._machine.read(FindQuota("ann")) == ((None, None, 0, None), (0, 0, 1, 0)), "the other goes on"
        node.watches.close(begun[0], failure(3006, outcome="not_applied"))
        await do(node, SetQuota("ann", watches=1))
        assert isinstance(node.watches.open(token, OpenWatch(prefix=""), Reader()), Follower)
