"""Salvage makes the newest state without a hole of a damaged directory, and says what is lost."""

from __future__ import annotations

import random

import pytest

from haptera.errors import MissingKey
from haptera.node import NodeConfig, NothingWhole, Salvaged, salvage, verify
from haptera.state import operations
from haptera.storage import Check, check_directory, open_keyring
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.offline.directories import (
    CONFIG,
    PATH,
    START_MS,
    Recorded,
    append,
    opened,
    snapshot,
    write_sets,
)
from tests.unit.node.offline.test_pitr import content

SEED = random.randrange(1 << 32)
TARGET = NodeConfig(data_dir="salvaged", segment_size=CONFIG.segment_size)


def recorded() -> tuple[MemoryFileSystem, Recorded, Check]:
    fs = MemoryFileSystem()
    record = Recorded(fs, SEED)
    record.durable.close()
    return fs, record, check_directory(fs, PATH, open_keyring)


def flip(fs: MemoryFileSystem, path: str, at: int) -> None:
    data = bytearray(fs.read(path))
    data[at] ^= 1
    fs.write(path, bytes(data))


def salvaged(fs: MemoryFileSystem) -> Salvaged:
    before = {path: fs.read(path) for path in files(fs)}
    found = salvage(fs, CONFIG, TARGET, open_keyring)
    assert {path: fs.read(path) for path in files(fs)} == before, "the source stays as it is"
    result = verify(fs, TARGET, open_keyring)
    assert result.sound
    assert (result.start.revision, result.start.keys) == (found.revision, found.keys)
    return found


def files(fs: MemoryFileSystem) -> list[str]:
    folders = [f"{PATH}/log", f"{PATH}/snapshots"]
    return [f"{folder}/{name}" for folder in folders for name in fs.listdir(folder)] + [
        f"{PATH}/{name}" for name in fs.listdir(PATH) if name not in {"log", "snapshots", "lock"}
    ]


def check_record(fs: MemoryFileSystem, record: Recorded, found: Salvaged) -> None:
    durable = opened(fs, TARGET)
    assert content(durable.machine) == record.states[found.revision], f"seed {SEED}"
    durable.close()


def test_of_a_sound_directory_everything_is_salvaged() -> None:
    fs, record, _ = recorded()
    found = salvaged(fs)
    assert (found.revision, found.lost) == (len(record.states) - 1, [])
    check_record(fs, record, found)
    assert found.node_id != check_directory(fs, PATH, open_keyring).node_id


def test_everything_up_to_the_damage_behind_the_last_snapshot() -> None:
    fs, record, check = recorded()
    last = [segment for segment in check.segments if segment.records][-1]
    flip(fs, last.path, last.end - 100)
    found = salvaged(fs)
    newest = check.snapshots[-1]
    assert newest.index < found.index < last.index
    assert found.rule == f"everything from the first entry to the first fault behind it, at index {found.index}"
    check_record(fs, record, found)
    (lost,) = found.lost
    assert (lost.file, lost.first_index) == (last.path, found.index + 1)
    assert lost.last_index in {0, 120}, "the segment behind it may say, if there is one"
    assert lost.offset + lost.bytes == last.used  # its size, unless the last byte happens to be zero


def test_a_whole_snapshot_behind_the_damage_is_newer() -> None:
    fs, record, check = recorded()
    early = check.segments[1]
    flip(fs, early.path, early.end // 2)
    found = salvaged(fs)
    assert found.index == 120
    assert "everything from the snapshot" in found.rule
    assert found.rule.endswith("to the end of the log, at index 120")
    assert found.lost == []
    check_record(fs, record, found)


def test_a_damaged_snapshot_costs_nothing_while_the_log_before_it_is_there() -> None:
    fs, record, check = recorded()
    flip(fs, check.snapshots[-1].path, 200)
    found = salvaged(fs)
    assert found.revision == len(record.states) - 1
    check_record(fs, record, found)


@pytest.mark.parametrize("seed", range(6))
def test_several_faults_leave_a_state_without_a_hole(seed: int) -> None:
    fs, record, check = recorded()
    choices = random.Random(SEED + seed)
    paths = [segment.path for segment in check.segments] + [snapshot.path for snapshot in check.snapshots]
    for path in choices.sample(paths, 4):
        flip(fs, path, choices.randrange(len(fs.read(path))))
    found = salvaged(fs)
    check_record(fs, record, found)
    assert found.index in {0, *range(121)}
    behind = [segment for segment in check.segments if segment.index > found.index and segment.records]
    assert {segment.path for segment in behind} <= {each.file for each in found.lost}, f"seed {SEED + seed}"


def test_a_missing_segment_and_a_cut_one() -> None:
    fs, record, check = recorded()
    newest = check.snapshots[-1]
    assert newest.point is not None
    behind = [segment for segment in check.segments if segment.number >= newest.point.next_segment and segment.records]
    fs.unlink(behind[-1].path)
    fs.unlink(newest.path)
    found = salvaged(fs)
    assert found.index == behind[0].index if len(behind) > 1 else newest.index
    check_record(fs, record, found)


def test_the_newest_segment_is_gone_behind_a_snapshot() -> None:
    """Its entries were acknowledged: how many they were is not known, and that they are lost is said."""
    fs = MemoryFileSystem()
    durable = write_sets(fs, 5)
    point = snapshot(durable, fs)
    append(durable, [operations.Set("tail", b"v")], START_MS + 10)
    durable.close()
    gone = f"{PATH}/log/{point.next_segment:016x}.seg"
    fs.unlink(gone)
    found = salvaged(fs)
    assert found.index == point.index
    assert [(lost.file, lost.first_index, lost.last_index) for lost in found.lost] == [(gone, point.index + 1, 0)]


def test_damage_in_the_file_of_the_node_costs_nothing() -> None:
    fs, record, _ = recorded()
    flip(fs, f"{PATH}/node.toml", 20)
    found = salvaged(fs)
    assert found.revision == len(record.states) - 1
    check_record(fs, record, found)


def test_a_torn_tail_is_lost_and_named() -> None:
    fs = MemoryFileSystem()
    write_sets(fs, 20, size=1000)
    fs = fs.power_failure("drop")
    path = max(path for path in files(fs) if path.endswith(".seg"))
    data = fs.read(path)
    end = len(data.rstrip(b"\0"))
    fs.write(path, data[: end - 9] + bytes(len(data) - end + 9))
    found = salvaged(fs)
    assert (found.revision, found.index) == (19, 19)


def test_without_the_keys_nothing_can_be_salvaged() -> None:
    fs, _, _ = recorded()
    fs.unlink(f"{PATH}/keys")
    with pytest.raises(MissingKey):
        salvage(fs, CONFIG, TARGET, open_keyring)
    assert "salvaged" not in fs.listdir("")


def test_without_a_state_to_begin_from_nothing_can_be_salvaged() -> None:
    fs, _, check = recorded()
    flip(fs, check.segments[0].path, 3)
    for whole in check.snapshots:
        flip(fs, whole.path, 3)
    with pytest.raises(NothingWhole, match="no state can be rebuilt"):
        salvage(fs, CONFIG, TARGET, open_keyring)
