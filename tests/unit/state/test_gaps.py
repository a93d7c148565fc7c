"""Gaps: the revision rises above all that may have been given, and no read or watch knows the numbers in between."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import msgspec
import pytest

from haptera.errors import Failure
from haptera.state import Logged, StateMachine, limits
from haptera.state.command_encoding import UnknownPart
from haptera.state.event_history import EventBounds
from haptera.state.gaps import GAP_MIN, REVISION_BY_TIME_MAX, Gaps, revision_behind
from haptera.state.operations import AsOf, Count, Get, LeaveGap, OpenHistory, OpenScan, Set
from haptera.state.piece_decoding import MalformedPieces
from haptera.state.scan_cursor import ScanCursor
from haptera.state.sliced_work import finish
from haptera.state.snapshot_pieces import dump_pieces, load_pieces
from haptera.state.validation import validate
from tests.unit.state.store import Store, drain

encode = msgspec.msgpack.encode

ID: Final = b"the new server's"
SECOND: Final = b"the one after it"


#: The length of a gap that is left by this id where the clock says nothing.
LENGTH: Final = GAP_MIN + int.from_bytes(ID[:4], "big")


def with_gap(clock_ms: int = 1_000) -> tuple[Store, int]:
    """A store with two changes before a gap and two behind it, and the revision behind the gap."""
    store = Store()
    store.now_ms = clock_ms
    store.do(Set("a", b"1"))
    store.do(Set("b", b"2"))
    [behind] = _tuple(store.do(LeaveGap(ID)))
    store.do(Set("a", b"3"))
    store.do(Set("c", b"4"))
    return store, behind


def _tuple(result: object) -> tuple[Any, ...]:
    assert isinstance(result, tuple)
    return result


def get(store: Store, key: str, **moment: int) -> tuple[Any, int] | int:
    """The entry at a moment with its revision, or the code of the error."""
    found = finish(store.read_steps(AsOf(Get(key), **moment), 10_000))
    return found.code if isinstance(found, Failure) else found


NOW_MS: Final = 1_800_000_000_000
BY_TIME: Final = NOW_MS * 1024


def test_the_revision_rises_to_the_thousandths_of_a_millisecond_where_the_clock_goes_on() -> None:
    for server_id in (ID, SECOND):
        assert revision_behind(0, NOW_MS - 1, NOW_MS, server_id) == BY_TIME
        assert revision_behind(BY_TIME - GAP_MIN - 1, 0, NOW_MS, server_id) == BY_TIME
        assert revision_behind(0, 0, 2**42 - 1, server_id) == REVISION_BY_TIME_MAX - 1024


@pytest.mark.parametrize(
    ("revision", "earlier_ms", "time_ms", "least"),
    [
        (5, NOW_MS, NOW_MS, BY_TIME),
        (5, 0, 0, 5 + GAP_MIN),
        (7, 0, 1, 7 + GAP_MIN),
        (BY_TIME - GAP_MIN, 0, NOW_MS, BY_TIME),
        (BY_TIME + 5, 0, NOW_MS, BY_TIME + 5 + GAP_MIN),
        (7, 0, 2**42, REVISION_BY_TIME_MAX),
        (7, 0, 2**60, REVISION_BY_TIME_MAX),
        (REVISION_BY_TIME_MAX, 0, 2**60, REVISION_BY_TIME_MAX + GAP_MIN),
    ],
)
def test_chance_tells_two_stores_apart_where_the_clock_does_not(
    revision: int, earlier_ms: int, time_ms: int, least: int
) -> None:
    """A clock that stands, is behind, says nothing or was set to anything."""
    chances = {bytes(16): 0, b"\0\0\0\1" + bytes(12): 1, b"\xff" * 16: 2**32 - 1, ID: int.from_bytes(ID[:4], "big")}
    found = {each: revision_behind(revision, earlier_ms, time_ms, each) - least for each in chances}
    assert found == chances


def test_half_a_million_gaps_find_room_above_all_that_time_leads_to() -> None:
    longest = revision_behind(REVISION_BY_TIME_MAX, 0, 0, b"\xff" * 16) - REVISION_BY_TIME_MAX
    assert (2**53 - REVISION_BY_TIME_MAX) // longest == 2**19


def test_the_clock_of_a_gap_stands_where_its_entry_has_the_time_of_the_one_before() -> None:
    for passed_ms in (0, 1):
        store = Store()
        store.now_ms = NOW_MS
        store.do(Set("a", b"1"))
        store.now_ms += passed_ms
        assert store.do(LeaveGap(ID)) == (revision_behind(1, NOW_MS, NOW_MS + passed_ms, ID),)
        again = load_pieces(dump_pieces(store), index=store.index, time_ms=store.time_ms)
        for each in (store, again):
            [behind] = _tuple(each.apply(each.index + 1, each.time_ms, [Logged(LeaveGap(SECOND))])[0])
            assert behind == store.kv.gaps.found[0][1] + GAP_MIN + int.from_bytes(SECOND[:4], "big")


def test_a_gap_leaves_the_entries_as_they_are_and_the_next_change_comes_behind_it() -> None:
    store, behind = with_gap()
    assert behind == 2 + LENGTH
    assert store.revision == behind + 2
    assert store.kv.entries.get("b") == (b"2", 2, None)
    assert store.kv.entries.get("a") == (b"3", behind + 1, None)
    assert store.kv.gaps.server_id == ID


def test_a_revision_in_a_gap_is_not_read_and_its_ends_are() -> None:
    store, behind = with_gap()
    assert get(store, "a", at_revision=2) == ((b"1", 1, None), 2)
    assert get(store, "a", at_revision=behind) == ((b"1", 1, None), behind)
    assert get(store, "a", at_revision=behind + 1) == ((b"3", behind + 1, None), behind + 1)
    for revision in (3, 4, behind - 1):
        assert get(store, "a", at_revision=revision) == 4009
        lost = store.open_scan(OpenScan(), None, AsOf(Get("a"), revision))
        assert isinstance(lost, Failure)
        assert (lost.code, lost.details) == (4009, {"revision": revision, "oldest": 1, "newest": behind + 2})
    scan = store.open_scan(OpenScan(), None, AsOf(Get("a"), behind))
    assert isinstance(scan, ScanCursor)
    assert drain(scan) == [("a", b"1", 1, None), ("b", b"2", 2, None)]
    assert get(store, "a", at_time_ms=1_000) == ((b"3", behind + 1, None), behind + 2)


def test_the_history_of_a_key_goes_over_a_gap() -> None:
    store, behind = with_gap()
    rows, more, oldest = _tuple(finish(store.read_steps(OpenHistory("a"), 10_000)))[0]
    assert [row[:3] for row in rows] == [(1, 1, b"1"), (behind + 1, 1, b"3")]
    assert (more, oldest) == (False, 1)
    rows, _, _ = _tuple(finish(store.read_steps(OpenHistory("a", after=5), 10_000)))[0]
    assert [row[0] for row in rows] == [behind + 1]


def test_no_one_goes_on_from_a_revision_in_a_gap() -> None:
    """The next revision behind the last one before the gap is where all go on who have seen nothing that is lost."""
    store, behind = with_gap()
    gaps = store.kv.gaps
    parted = {start for start in (1, 2, 3, 4, 5, behind - 1, behind, behind + 1, behind + 2) if gaps.parts(start)}
    assert parted == {4, 5, behind - 1, behind}


def test_a_gap_takes_no_memory_for_what_is_in_it_and_no_event() -> None:
    store, _ = with_gap()
    assert len(store.kv.events) == 4
    assert store.kv.events.size < 4_000


def test_the_oldest_revision_that_can_be_read_is_none_of_a_gap() -> None:
    store = Store(EventBounds(events=1))
    for number in range(600):
        store.do(Set("a", b"%d" % number))
    compacted = store.kv.events.compacted
    assert (compacted, store.kv.oldest) == (512, 513)
    loaded = _without_events(store)
    [behind] = _tuple(loaded.apply(loaded.index + 1, loaded.time_ms, [Logged(LeaveGap(ID))])[0])
    assert (loaded.kv.events.compacted, loaded.kv.oldest) == (600, behind + 1)
    empty = Store()
    [behind] = _tuple(empty.do(LeaveGap(ID)))
    assert empty.kv.oldest == behind
    assert empty.open_scan(OpenScan(), None, AsOf(Get("a"), behind)).__class__ is ScanCursor


@pytest.mark.parametrize("kept", [0, 10])
def test_the_oldest_revision_that_can_be_read_is_behind_all_gaps_that_follow_each_other(kept: int) -> None:
    """A store may leave a gap right behind another: its end is then no revision that anyone can read."""
    gaps = Gaps()
    ends = [kept, kept + GAP_MIN, kept + 2 * GAP_MIN, kept + 3 * GAP_MIN]
    for before, behind in pairwise(ends):
        gaps.leave(before, behind, ID)
    gaps.leave(ends[-1] + 5, ends[-1] + 9, SECOND)
    for compacted in ends[1:]:
        assert gaps.oldest_behind(compacted) == ends[-1] + 1
    assert gaps.oldest_behind(ends[-1] + 5) == ends[-1] + 10
    assert gaps.oldest_behind(ends[-1] + 4) == ends[-1] + 5
    assert gaps.oldest_behind(kept) == (ends[-1] + 1 if kept else GAP_MIN), "of an empty store all is known"


def test_a_read_that_is_refused_is_told_of_a_revision_that_can_be_read() -> None:
    store = Store(EventBounds(events=1))
    for number in range(600):
        store.do(Set("a", b"%d" % number))
    loaded = _without_events(store)
    for _ in range(3):
        loaded.apply(loaded.index + 1, loaded.time_ms, [Logged(LeaveGap(ID))])
    loaded.apply(loaded.index + 1, loaded.time_ms, [Logged(Set("a", b"new"))])
    refused = finish(loaded.read_steps(AsOf(Get("a"), at_revision=600), 10_000))
    assert isinstance(refused, Failure)
    oldest = refused.details["oldest"]
    assert finish(loaded.read_steps(AsOf(Get("a"), at_revision=oldest), 10_000)) == (
        (b"new", loaded.revision, None),
        loaded.revision,
    )


def _without_events(store: StateMachine) -> StateMachine:
    """The store as a snapshot without its history gives it."""
    pieces = [piece for piece in dump_pieces(store) if piece[0] != "events"]
    return load_pieces(pieces, index=store.index, time_ms=store.time_ms)


def test_the_oldest_gap_goes_when_there_are_too_many_and_with_it_what_was_before() -> None:
    store = Store()
    for number in range(limits.GAPS_MAX + 2):
        store.do(Set("a", b"%d" % number))
        store.do(LeaveGap(ID))
    gaps = store.kv.gaps.found
    assert len(gaps) == limits.GAPS_MAX
    forgotten = gaps[0][0] - 1  # the end of the second gap; one change follows it
    assert store.kv.events.compacted == forgotten
    for revision in (1, forgotten - LENGTH, forgotten - 5, forgotten):
        assert get(store, "a", at_revision=revision) == 4009
    assert get(store, "a", at_revision=forgotten + 1) == ((b"2", forgotten + 1, None), forgotten + 1)
    assert store.ask(Count()) == (1,)


def test_the_state_as_bytes_has_the_gaps_and_the_id() -> None:
    store, behind = with_gap()
    store.do(LeaveGap(SECOND))
    again = load_pieces(dump_pieces(store), index=store.index, time_ms=store.time_ms)
    again.check()
    assert again.digest() == store.digest()
    assert (
        again.kv.gaps.found
        == store.kv.gaps.found
        == [
            (2, behind),
            (behind + 2, behind + 2 + GAP_MIN + int.from_bytes(SECOND[:4], "big")),
        ]
    )
    assert again.kv.gaps.server_id == SECOND
    again.kv.gaps.server_id = ID
    assert again.digest() != store.digest()


def test_a_store_without_gaps_is_what_older_software_reads() -> None:
    store = Store()
    store.do(Set("a", b"1"))
    assert "gaps" not in {section for section, _ in dump_pieces(store)}


def test_older_software_refuses_a_state_with_gaps_as_one_of_a_newer_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A section that is not known was written by a newer version: so that of the gaps is, to one that has none."""
    store, _ = with_gap()
    pieces = [("gaps of a later version" if name == "gaps" else name, piece) for name, piece in dump_pieces(store)]
    with pytest.raises(UnknownPart):
        load_pieces(pieces, index=store.index, time_ms=store.time_ms)


#: A store at revision 9 without keys.
PIECES: Final = [("kv", encode((9, 0, 0))), ("requests", encode((20, 0)))]


def loaded_gaps(head: object, *rows: object) -> StateMachine:
    pieces = [*PIECES, ("gaps", encode(head)), *(("gaps", encode(piece)) for piece in rows)]
    return load_pieces(pieces, index=9, time_ms=20)


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        ((ID, 0), []),
        ((ID, 1), []),
        ((ID, 1), [[(1, 3), (4, 6)]]),
        ((ID, 65), [[(1, 3)]]),
        ((ID[1:], 1), [[(1, 3)]]),
        ((b"", 1), [[(1, 3)]]),
        ((ID, 1), [[(3, 3)]]),
        ((ID, 1), [[(-1, 3)]]),
        ((ID, 1), [[(8, 10)]]),
        ((ID, 2), [[(1, 4), (3, 6)]]),
        ((ID, 2), [[(4, 6), (1, 3)]]),
        ((ID, 1), [[(1, 3, 5)]]),
        ((ID, 1), [[("1", 3)]]),
    ],
)
def test_gaps_that_no_store_has_are_refused(head: object, rows: list[object]) -> None:
    with pytest.raises((MalformedPieces, UnknownPart)):
        loaded_gaps(head, *rows)


def test_gaps_that_a_store_may_have_are_loaded() -> None:
    machine = loaded_gaps((ID, 3), [(0, 3), (3, 6)], [(8, 9)])
    machine.check()
    assert machine.kv.gaps.found == [(0, 3), (3, 6), (8, 9)]


def test_the_id_of_a_server_has_16_bytes() -> None:
    assert validate(LeaveGap(ID)) is None
    for each in (b"", ID[1:], ID + b"!"):
        refused = validate(LeaveGap(each))
        assert refused is not None
        assert refused.code == 3003


def test_a_replay_to_a_revision_ends_before_a_gap_and_behind_it() -> None:
    commands = [Logged(op) for op in (Set("a", b"1"), Set("b", b"2"), LeaveGap(ID), Set("c", b"3"))]
    behind = 2 + LENGTH
    for revision, keys in ((1, "a"), (2, "ab"), (behind, "ab"), (behind + 1, "abc")):
        machine = StateMachine()
        machine.apply_until(revision, 1, 1_000, commands)
        assert (machine.revision, "".join(sorted(key for key, _ in machine.kv.entries.items()))) == (revision, keys)
