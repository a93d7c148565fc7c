"""A state is recovered from its newest snapshot and the log behind it; from the one before where that is damaged."""

from __future__ import annotations

import errno
import gc
import logging
from typing import TYPE_CHECKING

import google_crc32c
import msgspec
import pytest

from haptera.cli.serve import exit_code
from haptera.errors import CorruptionError, NewerFormat, OutdatedCopy, WrongKey
from haptera.node.recovery import Abandoned, recover
from haptera.state import UnknownPart
from haptera.storage import (
    DataDirectory,
    Keyring,
    LogPoint,
    find_snapshots,
    open_keyring,
    read_segments,
    write_snapshot,
)
from haptera.storage.data_key import DataKey
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.nodes import CONFIG, opened
from tests.unit.node.stored_state import LOG_PATH, PATH, SNAPSHOTS_PATH, StoredState, digest_after, stored

if TYPE_CHECKING:
    from haptera.node.recovery import Recovered
    from haptera.storage import SnapshotFile

COUNTS = (10, 13, 9, 4)
TOTAL = sum(COUNTS)


def store_with_snapshots(count: int = 3) -> tuple[MemoryFileSystem, list[SnapshotFile]]:
    """A closed store with a snapshot behind each of the first lots of entries."""
    fs = MemoryFileSystem()
    files = []
    with stored(fs) as state:
        for number, entries in enumerate(COUNTS):
            state.write(entries)
            if number < count:
                files.append(state.snapshot())
    return fs, files


def damage(fs: MemoryFileSystem, path: str, at: int = -20) -> None:
    data = bytearray(fs.read(path))
    data[at] ^= 1
    fs.write(path, bytes(data))


def event(caplog: pytest.LogCaptureFixture, name: str) -> dict[str, object]:
    [record] = [each for each in caplog.records if each.message == name]
    return record.__dict__


def remove_segments(fs: MemoryFileSystem, before: int) -> None:
    for name in fs.listdir(LOG_PATH):
        if name.endswith(".seg") and int(name[:16], 16) < before:
            fs.unlink(f"{LOG_PATH}/{name}")


def test_a_store_opens_from_its_newest_snapshot(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fs, files = store_with_snapshots()
    caplog.clear()
    with stored(fs) as state:
        assert state.machine.digest() == digest_after(TOTAL)
        state.machine.check()
        assert state.log.recovery.entries == COUNTS[3]
        said = event(caplog, "recovered")
        assert (said["entries"], said["index"], said["snapshot_index"]) == (COUNTS[3], TOTAL, files[2].index)
        assert said["snapshot_bytes"] == files[2].size_bytes
        assert "snapshots_damaged" not in said
        state.write(20)
    with stored(fs) as state:
        assert state.machine.digest() == digest_after(TOTAL + 20)


def test_a_store_opens_from_a_snapshot_without_the_log_before_it() -> None:
    fs, files = store_with_snapshots()
    assert files[2].point is not None
    remove_segments(fs, files[2].point.next_segment)
    for count in (TOTAL, TOTAL + 5):
        with stored(fs) as state:
            assert state.machine.digest() == digest_after(count)
            state.write(5)


def test_a_store_whose_snapshot_covers_all_of_the_log() -> None:
    fs, files = store_with_snapshots()
    with stored(fs) as state:
        file = state.snapshot()
        state.log.forget_before(state.log.point.next_segment)
    assert file.index == TOTAL
    for _ in range(2):
        with stored(fs) as state:
            assert state.machine.digest() == digest_after(TOTAL)
            assert state.log.recovery.entries == 0
            assert find_snapshots(fs, SNAPSHOTS_PATH) == [file, *files[::-1]]
    with stored(fs) as state:
        state.write(3)
    with stored(fs) as state:
        assert state.machine.digest() == digest_after(TOTAL + 3)


@pytest.mark.parametrize("damaged", [1, 2, 3])
def test_a_damaged_snapshot_is_said_and_the_one_before_it_is_taken(
    damaged: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fs, files = store_with_snapshots()
    for file in files[-damaged:]:
        damage(fs, file.path)
    caplog.clear()
    with stored(fs) as state:
        assert state.machine.digest() == digest_after(TOTAL)
        assert state.log.recovery.entries == sum(COUNTS[3 - damaged :])
    said = [record.__dict__ for record in caplog.records if record.message == "snapshot_damaged"]
    assert [each["file"] for each in said] == [file.path for file in files[: -damaged - 1 : -1]]
    assert all({"offset", "expected", "actual"} <= set(each) for each in said)
    assert event(caplog, "recovered")["snapshots_damaged"] == damaged


@pytest.mark.parametrize("at", [0, 10, 40, 95, 96, 100, 300])
def test_a_snapshot_that_is_damaged_anywhere_is_not_loaded(at: int) -> None:
    fs, files = store_with_snapshots()
    damage(fs, files[2].path, at)
    with stored(fs) as state:
        assert state.machine.digest() == digest_after(TOTAL)
        assert state.log.recovery.entries == COUNTS[2] + COUNTS[3]


def test_a_snapshot_that_the_disk_does_not_give_is_damaged_too(caplog: pytest.LogCaptureFixture) -> None:
    class Unreadable(MemoryFileSystem):
        def called(self, name: str, path: str) -> None:
            super().called(name, path)
            if name == "pread" and path == files[2].path and self.calls.count((name, path)) > 2:
                raise OSError(errno.EIO, "a bad sector", path)

    whole, files = store_with_snapshots()
    fs = Unreadable()
    fs._root = whole._root
    with stored(fs) as state:
        assert state.machine.digest() == digest_after(TOTAL)
    assert "a bad sector" in str(event(caplog, "snapshot_damaged")["reason"])


def test_without_a_whole_snapshot_and_the_first_segment_a_store_is_refused() -> None:
    for gone in (True, False):
        fs, files = store_with_snapshots()
        remove_segments(fs, 2)
        for file in files:
            fs.unlink(file.path) if gone else damage(fs, file.path)
        for _ in range(2):
            with pytest.raises(CorruptionError) as caught:
                StoredState.begin(fs)
            assert caught.value.file == f"{LOG_PATH}/{1:016x}.seg"


def test_an_older_copy_of_the_log_is_refused() -> None:
    """Trap: the log was put back from a copy that was made before the newest snapshot."""
    fs = MemoryFileSystem()
    copies = []
    with stored(fs) as state:
        for entries in COUNTS:
            copies.append({name: fs.read(f"{LOG_PATH}/{name}") for name in fs.listdir(LOG_PATH)})
            state.write(entries)
            state.snapshot()
    for copy in copies:
        left = fs.power_failure("keep")
        for name in left.listdir(LOG_PATH):
            left.unlink(f"{LOG_PATH}/{name}")
        for name, data in copy.items():
            left.write(f"{LOG_PATH}/{name}", data)
        for _ in range(2):
            with pytest.raises(OutdatedCopy):
                StoredState.begin(left)


def test_an_older_copy_is_refused_though_the_newest_snapshot_is_damaged() -> None:
    fs, files = store_with_snapshots()
    assert files[2].point is not None
    for name in fs.listdir(LOG_PATH):
        if name.endswith(".seg") and int(name[:16], 16) >= files[2].point.next_segment - 1:
            fs.unlink(f"{LOG_PATH}/{name}")
    damage(fs, files[2].path)
    with pytest.raises(OutdatedCopy):
        StoredState.begin(fs)


def test_a_log_without_any_segment_behind_a_snapshot_is_refused() -> None:
    fs, _ = store_with_snapshots()
    remove_segments(fs, 1 << 60)
    with pytest.raises(OutdatedCopy, match="no segment"):
        StoredState.begin(fs)


def test_a_snapshot_of_a_newer_version_is_refused_and_not_passed_over() -> None:
    fs, files = store_with_snapshots()
    data = fs.read(files[2].path)
    header = data[:8] + b"\0\2" + data[10:92]
    crc: int = google_crc32c.value(header)
    fs.write(files[2].path, header + crc.to_bytes(4, "big") + data[96:])
    with pytest.raises(NewerFormat):
        StoredState.begin(fs)


def test_a_section_of_a_newer_version_is_refused_and_not_passed_over() -> None:
    fs = MemoryFileSystem()
    with stored(fs) as state:
        state.write(3)
        point = state.log.roll()
        write_snapshot(fs, SNAPSHOTS_PATH, state.keyring, point, state.machine.revision, [("locks", b"")])
    with pytest.raises(UnknownPart, match="locks"):
        StoredState.begin(fs)


def test_a_snapshot_of_no_state_is_damaged(caplog: pytest.LogCaptureFixture) -> None:
    """It decrypts, so no disk did this; the log makes the state all the same."""
    fs = MemoryFileSystem()
    with stored(fs) as state:
        state.write(3)
        point = state.log.roll()
        write_snapshot(fs, SNAPSHOTS_PATH, state.keyring, point, state.machine.revision, [("kv", b"\xc1")])
    with stored(fs) as state:
        assert state.machine.digest() == digest_after(3)
    assert "kv" in str(event(caplog, "snapshot_damaged")["reason"])


def test_unfinished_snapshots_are_removed_at_the_start() -> None:
    fs, files = store_with_snapshots()
    fs.write(f"{SNAPSHOTS_PATH}/{99:016x}.{bytes(16).hex()}.snap.tmp", b"half")
    with stored(fs):
        assert sorted(fs.listdir(SNAPSHOTS_PATH)) == [file.path[len(SNAPSHOTS_PATH) + 1 :] for file in files]


def test_a_start_makes_the_names_of_snapshots_durable() -> None:
    """A process was killed between the rename and the sync: retention may trust the snapshot after the next start."""
    fs = MemoryFileSystem()
    with stored(fs) as state:
        state.write(5)
        state.snapshot()
        rename = max(at for at, call in enumerate(fs.calls, 1) if call[0] == "rename")
    fs = MemoryFileSystem()
    with stored(fs) as state:
        state.write(5)
        fs.stop_after = rename
        with pytest.raises(BaseException, match="stopped"):
            state.snapshot()
        fs.stop_after = None
        left = fs.restart()
    with stored(left) as state:
        assert len(find_snapshots(left, SNAPSHOTS_PATH)) == 1
        assert len(find_snapshots(left.power_failure("drop"), SNAPSHOTS_PATH)) == 1


def recovered(fs: MemoryFileSystem, index_max: int | None = None) -> Recovered:
    """Recover beside a node, as the process that makes snapshots does."""
    directory = DataDirectory.open(fs, PATH)
    keyring = open_keyring(directory)
    directory.close()

    def entries_after(point: LogPoint):  # type: ignore[no-untyped-def]
        for entry in read_segments(fs, LOG_PATH, keyring, point):
            if index_max is None or entry.index <= index_max:
                yield entry

    return recover(fs, LOG_PATH, SNAPSHOTS_PATH, keyring, entries_after, index_max=index_max)


def test_the_same_function_recovers_any_point_without_a_node() -> None:
    fs, files = store_with_snapshots()
    before = {name: fs.read(f"{LOG_PATH}/{name}") for name in fs.listdir(LOG_PATH)}
    for index in range(TOTAL + 1):
        found = recovered(fs, index)
        assert found.machine.digest() == digest_after(index)
        usable = [file for file in files if file.index <= index]
        assert found.snapshot == (usable[-1] if usable else None)
    assert recovered(fs).machine.digest() == digest_after(TOTAL)
    assert {name: fs.read(f"{LOG_PATH}/{name}") for name in fs.listdir(LOG_PATH)} == before


def test_a_recovery_that_is_abandoned_ends_in_the_midst_of_a_snapshot_or_of_the_log() -> None:
    fs, _ = store_with_snapshots()
    directory = DataDirectory.open(fs, PATH)
    keyring = open_keyring(directory)
    for asked in (1, 3, 5, 7):
        left = iter([False] * asked)
        with pytest.raises(Abandoned):
            recover(
                fs,
                LOG_PATH,
                SNAPSHOTS_PATH,
                keyring,
                lambda point: read_segments(fs, LOG_PATH, keyring, point),
                abandoned=lambda left=left: next(left, True),  # type: ignore[misc]
            )
        assert gc.isenabled()
    directory.close()


def test_the_loading_of_a_snapshot_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("haptera.node.recovery.PROGRESS_INTERVAL_S", 0)
    caplog.set_level(logging.INFO)
    fs, files = store_with_snapshots()
    caplog.clear()
    with stored(fs):
        said = [record.__dict__ for record in caplog.records if record.message == "loading_snapshot"]
    assert len(said) == 6, "a head and rows of each section"
    assert [each["bytes"] for each in said] == sorted(each["bytes"] for each in said)
    assert {each["bytes_total"] for each in said} == {files[-1].size_bytes}


def test_serve_ends_with_a_code_of_its_own_for_an_older_copy() -> None:
    assert exit_code(OutdatedCopy("/data/log", "segment 9", "segment 2")) == 17


async def test_a_node_opens_from_a_snapshot() -> None:
    fs, _ = store_with_snapshots()
    async with opened(fs) as node:
        assert node.index == TOTAL
        assert node._machine.digest() == digest_after(TOTAL)
    async with opened(fs, config=msgspec.structs.replace(CONFIG, durability="os")) as node:
        assert node.index == TOTAL


def test_a_keyring_without_the_key_of_the_log_is_refused() -> None:
    fs, _ = store_with_snapshots()
    other = Keyring([DataKey.of(b"x" * 32)])
    with pytest.raises(WrongKey):
        recover(fs, LOG_PATH, SNAPSHOTS_PATH, other, lambda point: read_segments(fs, LOG_PATH, other, point))
