"""Point-in-time recovery against an independent record of what the store held."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import TYPE_CHECKING

import pytest

from haptera.errors import CorruptionError, StorageError
from haptera.node import NodeConfig, Timeline, build_directory, verify
from haptera.state import EventCursor, Logged, dump_pieces, encode_commands, operations
from haptera.storage import TAG_SIZE, open_keyring
from haptera.storage.segment_format import RECORD_HEADER_SIZE
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.offline.directories import CONFIG, PATH, START_MS, Recorded, append, opened, snapshot

if TYPE_CHECKING:
    from haptera.state import StateMachine, Write

SEED = random.randrange(1 << 32)
TARGET = NodeConfig(data_dir="restored", segment_size=CONFIG.segment_size)
FAR = 1 << 45


@pytest.fixture(scope="module")
def recorded() -> tuple[MemoryFileSystem, Recorded]:
    """A node's directory while the node runs on it."""
    fs = MemoryFileSystem()
    return fs, Recorded(fs, SEED)


def content(machine: StateMachine) -> dict[str, bytes]:
    machine.check()
    return {key: value for key, (value, _, _) in machine.kv.entries.items()}


def test_fifty_random_revisions_equal_the_record(recorded: tuple[MemoryFileSystem, Recorded]) -> None:
    fs, record = recorded
    timeline = Timeline(fs, PATH, open_keyring)
    last = len(record.states) - 1
    for revision in {0, 1, last, *random.Random(SEED).choices(range(last + 1), k=50)}:
        machine = timeline.at_revision(revision).machine
        assert (machine.revision, content(machine)) == (revision, record.states[revision]), f"seed {SEED}"


def test_fifty_random_times_equal_the_record(recorded: tuple[MemoryFileSystem, Recorded]) -> None:
    fs, record = recorded
    timeline = Timeline(fs, PATH, open_keyring)
    first, last = record.times[0][0], record.times[-1][0]
    choices = random.Random(SEED)
    exact = [time + choices.choice((-1, 0, 1)) for time, _ in choices.sample(record.times, 25)]
    for time_ms in {first, last, *choices.choices(range(first, last + 1), k=25), *exact}:
        if first <= time_ms:
            machine = timeline.at_time(time_ms, FAR).machine
            assert content(machine) == record.at(time_ms), f"seed {SEED}"
            assert machine.time_ms <= time_ms


def test_a_revision_within_an_entry_of_many_commands_is_reached_exactly() -> None:
    fs = MemoryFileSystem()
    record = Recorded(fs, 7, entries=40, snapshot_each=1000)
    timeline = Timeline(fs, PATH, open_keyring)
    within = [
        revision
        for (_, before), (_, after) in zip(record.times, record.times[1:], strict=False)
        for revision in range(before + 1, after)
    ]
    assert len(within) > 20
    for revision in within:
        machine = timeline.at_revision(revision).machine
        assert (machine.revision, content(machine)) == (revision, record.states[revision])


def test_each_revision_is_reached_where_keys_expire_and_leases_end() -> None:
    """A change in the place of a dead key makes two revisions, and the end of a lease removes several keys at one."""
    fs = MemoryFileSystem()
    durable = opened(fs)
    dead = [operations.Set(key, b"1", ttl_ms=1000) for key in "abcdefghi"]
    append(durable, [operations.GrantLease(5000), operations.GrantLease(5000), *dead], START_MS)
    append(
        durable, [operations.SetMany([("l", b"1"), ("m", b"1")], lease=1), operations.Set("n", b"1", lease=2)], START_MS
    )
    changes: list[Write] = [
        operations.Set("a", b"2"),
        operations.SetMany([("b", b"2"), ("c", b"2"), ("o", b"2")]),
        operations.Increment("d"),
        operations.Rename("a", "e"),
        operations.Transact([], [operations.Set("f", b"2"), operations.Delete("l"), operations.Delete("g")]),
        operations.ExpireDue(["g"]),
        operations.EndLeases([1, 2]),
        operations.Clear(""),
        operations.Set("z", b"3"),
    ]
    append(durable, changes, START_MS + 2000)
    states = states_of(durable.machine)
    timeline = Timeline(fs, PATH, open_keyring)
    for revision in range(durable.machine.revision + 1):
        machine = timeline.at_revision(revision).machine
        assert (machine.revision, content(machine)) == (revision, states.get(revision, content(machine)))
    assert len(states) >= 25
    assert timeline.at_revision(durable.machine.revision).machine.digest() == durable.machine.digest()


def states_of(machine: StateMachine) -> dict[int, dict[str, bytes]]:
    """The keys and values at each revision that changed some, as a watch of everything tells them."""
    events, state = machine.kv.events, dict[str, bytes]()
    cursor, states = EventCursor(events, 0), dict[int, dict[str, bytes]]()
    while cursor.place < events.end:
        for revision, _, key, entry, *_ in cursor.read(events.end, 1000):
            if entry is None:
                del state[key]
            else:
                state[key] = entry[0]
            states[revision] = dict(state)
    return states


def test_the_ranges_say_what_can_be_restored(recorded: tuple[MemoryFileSystem, Recorded]) -> None:
    fs, record = recorded
    (reach,) = Timeline(fs, PATH, open_keyring).reach()
    assert (reach.first_revision, reach.last_revision) == (0, len(record.states) - 1)
    assert (reach.first_time_ms, reach.last_time_ms) == (record.times[0][0], record.times[-1][0])
    assert (reach.first_index, reach.last_index, reach.snapshots) == (0, 120, 4)
    assert not reach.broken


def test_a_gap_is_left_out_of_what_can_be_restored_and_passed_over_on_the_way() -> None:
    fs = MemoryFileSystem()
    durable = opened(fs)
    append(durable, [operations.Set("a", b"1"), operations.Set("a", b"2")], 1_000)
    append(durable, [operations.LeaveGap(b"the new server's"), operations.Set("a", b"3")], 2_000)
    snapshot(durable, fs)
    append(durable, [operations.Set("a", b"4")], 3_000)
    behind = 2 + 2**32 + int.from_bytes(b"the ", "big")
    timeline = Timeline(fs, PATH, open_keyring)
    (reach,) = timeline.reach()
    assert str(reach).startswith(f"revisions 0 to 2 and {behind} to {behind + 2}, ")
    expected = {1: b"1", 2: b"2", behind: b"2", behind + 1: b"3", behind + 2: b"4"}
    for revision, value in expected.items():
        found = timeline.at_revision(revision)
        assert (found.machine.revision, content(found.machine)) == (revision, {"a": value})
    for revision in (3, behind - 1, behind + 3):
        with pytest.raises(
            StorageError, match=f"revision {revision} cannot be reached; these can: revisions 0 to 2 and"
        ):
            timeline.at_revision(revision)
    newest = timeline.at_time(3_000, FAR)
    build_directory(fs, NodeConfig(data_dir="later"), open_keyring, newest)
    (reach,) = Timeline(fs, "later", open_keyring).reach()
    assert (reach.first_revision, reach.last_revision, reach.gaps) == (behind + 2, behind + 2, [])


def test_a_recovery_beside_a_node_that_runs_changes_nothing(recorded: tuple[MemoryFileSystem, Recorded]) -> None:
    fs, _ = recorded
    before = len(fs.calls)
    Timeline(fs, PATH, open_keyring).at_revision(5)
    assert {call for call, _ in fs.calls[before:]} <= {"open", "listdir", "pread", "size", "drop_cache"}


def test_the_restored_directory_holds_the_state_and_is_another_node(
    recorded: tuple[MemoryFileSystem, Recorded],
) -> None:
    fs, record = recorded
    timeline = Timeline(fs, PATH, open_keyring)
    for number, revision in enumerate((0, 1, 77, len(record.states) - 1)):
        target = NodeConfig(data_dir=f"restored {number}", segment_size=CONFIG.segment_size)
        node_id = build_directory(fs, target, open_keyring, timeline.at_revision(revision))
        found = verify(fs, target, open_keyring)
        assert found.sound, list(found.check.findings)
        assert found.check.node_id == node_id != record.durable.directory.node_id
        assert found.check.keyring is not None
        assert found.check.keyring.newest != open_keyring(record.durable.directory).newest
        durable = opened(fs, target)
        assert (durable.machine.revision, content(durable.machine)) == (revision, record.states[revision])
        assert durable.machine.digest() == timeline.at_revision(revision).machine.digest()
        durable.close()
        assert Timeline(fs, target.data_dir, open_keyring).at_revision(revision).machine.revision == revision


def test_the_restored_node_goes_on(recorded: tuple[MemoryFileSystem, Recorded]) -> None:
    fs, record = recorded

    target = NodeConfig(data_dir="goes on", segment_size=CONFIG.segment_size)
    build_directory(fs, target, open_keyring, Timeline(fs, PATH, open_keyring).at_revision(50))
    for _ in range(2):
        durable = opened(fs, target)
        append(durable, [operations.Set("more", b"1")], FAR)
        durable.close()
    durable = opened(fs, target)
    assert content(durable.machine) == {**record.states[50], "more": b"1"}
    assert durable.machine.revision == 52
    durable.close()
    assert verify(fs, target, open_keyring).sound


@pytest.mark.parametrize("revision", [10_000, 1 << 60])
def test_a_revision_out_of_range_is_refused_with_the_ranges(
    recorded: tuple[MemoryFileSystem, Recorded], revision: int
) -> None:
    fs, record = recorded
    with pytest.raises(StorageError) as refused:
        Timeline(fs, PATH, open_keyring).at_revision(revision)
    assert f"revision {revision} cannot be reached; these can: revisions 0 to {len(record.states) - 1}, " in str(
        refused.value
    )


def test_a_time_before_the_first_entry_or_after_the_present_is_refused(
    recorded: tuple[MemoryFileSystem, Recorded],
) -> None:
    fs, record = recorded
    timeline = Timeline(fs, PATH, open_keyring)
    first, last = record.times[0][0], record.times[-1][0]
    for time_ms in (first - 1, 0, last + 2):
        with pytest.raises(StorageError, match="cannot be reached; these can: revisions 0 to"):
            timeline.at_time(time_ms, now_ms=last + 1)
    assert content(timeline.at_time(last + 1, now_ms=last + 1).machine) == record.states[-1]


def test_after_retention_the_window_begins_at_the_oldest_snapshot() -> None:
    fs = MemoryFileSystem()
    record = Recorded(fs, SEED)
    timeline = Timeline(fs, PATH, open_keyring)
    oldest = timeline.ranges[0].bases[2]
    for base in timeline.ranges[0].bases[1:2]:
        assert base.file is not None
        fs.unlink(base.file)
    record.durable.log.forget_before(oldest.point.next_segment)
    timeline = Timeline(fs, PATH, open_keyring)
    (reach,) = timeline.reach()
    assert (reach.first_revision, reach.last_revision) == (oldest.revision, len(record.states) - 1)
    for revision in random.Random(SEED).choices(range(oldest.revision, len(record.states)), k=20):
        assert content(timeline.at_revision(revision).machine) == record.states[revision], f"seed {SEED}"
    with pytest.raises(StorageError, match="cannot be reached"):
        timeline.at_revision(oldest.revision - 1)


def test_a_fault_in_the_middle_makes_two_ranges_and_a_gap() -> None:
    fs = MemoryFileSystem()
    record = Recorded(fs, SEED)
    record.durable.close()
    whole = Timeline(fs, PATH, open_keyring)
    base = whole.ranges[0].bases[2]
    segment = next(each for each in whole.check.segments if each.number == base.point.next_segment)
    data = bytearray(fs.read(segment.path))
    data[segment.end // 2] ^= 1
    fs.write(segment.path, bytes(data))
    timeline = Timeline(fs, PATH, open_keyring)
    first, second = timeline.reach()
    assert first.broken
    assert not second.broken
    assert base.point.index <= first.last_index < second.first_index
    assert second.first_revision == whole.ranges[0].bases[3].revision
    for reach in (first, second):
        for revision in (reach.first_revision, reach.last_revision):
            assert content(timeline.at_revision(revision).machine) == record.states[revision]
    for revision in range(first.last_revision + 1, second.first_revision):
        with pytest.raises(StorageError, match="cannot be reached"):
            timeline.at_revision(revision)
    gap = (first.last_time_ms + 1 + second.first_time_ms) // 2
    if first.last_time_ms < gap < second.first_time_ms:
        with pytest.raises(StorageError, match="cannot be reached"):
            timeline.at_time(gap, FAR)


def test_a_damaged_snapshot_costs_no_revision() -> None:
    fs = MemoryFileSystem()
    record = Recorded(fs, SEED)
    record.durable.close()
    for base in Timeline(fs, PATH, open_keyring).ranges[0].bases[1:]:
        assert base.file is not None
        data = bytearray(fs.read(base.file))
        data[len(data) // 2] ^= 1
        fs.write(base.file, bytes(data))
    timeline = Timeline(fs, PATH, open_keyring)
    for revision in random.Random(SEED).choices(range(len(record.states)), k=10):
        assert content(timeline.at_revision(revision).machine) == record.states[revision], f"seed {SEED}"


def test_a_target_that_holds_something_is_refused_and_left_alone(
    recorded: tuple[MemoryFileSystem, Recorded],
) -> None:
    fs, _ = recorded
    fs.mkdir("taken")
    fs.write("taken/file", b"x")
    target = NodeConfig(data_dir="taken")
    with pytest.raises(StorageError, match="taken: it is not empty"):
        build_directory(fs, target, open_keyring, Timeline(fs, PATH, open_keyring).at_revision(3))
    assert fs.listdir("taken") == ["file"]


def test_a_segment_of_another_history_is_not_taken_for_this_one() -> None:
    """Two copies of a directory went different ways: the same keys and indexes, and other entries."""
    fs = MemoryFileSystem()
    record = Recorded(fs, SEED, entries=50)
    record.durable.close()
    other = deepcopy(fs).restart()
    durables = [opened(one) for one in (fs, other)]
    for number in range(6):
        for durable, value in zip(durables, (b"this" * 3000, b"that" * 3000), strict=True):
            append(durable, [operations.Set("key", value)], FAR + number)
    for durable in durables:
        durable.close()
    whole = Timeline(fs, PATH, open_keyring)
    second = whole.check.segments[-1]
    assert second.records
    assert whole.check.segments[-2].records
    fs.write(second.path, other.read(second.path))
    timeline = Timeline(fs, PATH, open_keyring)
    (reach,) = timeline.reach()
    assert reach.broken
    assert reach.last_index == second.header.first_index - 1 if second.header else 0
    assert timeline.check.findings.damaged


@pytest.mark.parametrize("part", ["of the last record", "the last record"])
def test_files_that_change_between_check_and_recovery_are_noticed(part: str) -> None:
    fs = MemoryFileSystem()
    record = Recorded(fs, SEED, entries=40, snapshot_each=1000)
    change = operations.Set("key", b"last")
    append(record.durable, [change], FAR)
    record.durable.close()
    timeline = Timeline(fs, PATH, open_keyring)
    last = [segment for segment in timeline.check.segments if segment.records][-1]
    size = RECORD_HEADER_SIZE + len(encode_commands([Logged(change)])) + TAG_SIZE
    fs.write(last.path, fs.read(last.path)[: last.end - (size if part == "the last record" else 1)])
    with pytest.raises(CorruptionError):
        timeline.reach()


def test_a_target_that_reads_back_as_another_state_is_refused(
    recorded: tuple[MemoryFileSystem, Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    fs, _ = recorded
    timeline = Timeline(fs, PATH, open_keyring)
    other = timeline.at_revision(9).machine
    monkeypatch.setattr("haptera.node.offline.target.dump_pieces", lambda _: dump_pieces(other))
    target = NodeConfig(data_dir="other", segment_size=CONFIG.segment_size)
    with pytest.raises(CorruptionError, match="expected the state that was written, found another state"):
        build_directory(fs, target, open_keyring, timeline.at_revision(10))
    assert "other" not in fs.listdir("")
