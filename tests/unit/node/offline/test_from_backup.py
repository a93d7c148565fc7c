"""A data directory that is made of a backup is the store that was backed up, or does not open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from haptera.errors import CorruptionError, DamagedBackup, ForeignArchive, HapteraError, StorageError, WrongKey
from haptera.node import Timeline, verify, verify_backup
from haptera.state import Logged, dump_pieces, encode_commands, operations
from haptera.storage import (
    Archive,
    LogEntry,
    MasterKey,
    find_source,
    open_keyring,
    sealed_segments,
    write_snapshot,
)
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.offline.backups import TARGET, Restoring, backup_of
from tests.unit.node.offline.directories import LOG_PATH, PATH, START_MS, append, opened, write_sets

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.node.recovery import DurableState


def archive_of(fs: MemoryFileSystem, node_id: bytes) -> Archive:
    """An archive of all that is sealed."""
    archive = Archive(fs, "archive", node_id)
    archive.create()
    archive.add_keyring(fs.read(f"{PATH}/keys"))
    for number, path in sealed_segments(fs, LOG_PATH).items():
        archive.add(number, path)
    return archive


@pytest.mark.parametrize("count", [0, 1, 7, 120])
def test_a_restored_directory_has_the_state_and_goes_on(count: int, tmp_path: Path) -> None:
    fs = MemoryFileSystem()
    durable = write_sets(fs, count)
    restoring = Restoring(fs, tmp_path)
    made = restoring.restore(fs, backup_of(durable))
    assert made.digest == durable.machine.digest()
    assert (made.revision, made.index) == (count, count)
    assert made.node_id != durable.directory.node_id
    again = restoring.open(fs)
    assert again.directory.node_id == made.node_id
    assert again.machine.digest() == durable.machine.digest()
    append(again, [operations.Set("more", b"v")], START_MS + 1000)
    digest = again.machine.digest()
    again.close()
    assert restoring.open(fs.restart()).machine.digest() == digest


def with_snapshot(fs: MemoryFileSystem, before: int, after: int) -> DurableState:
    """A directory with a snapshot of so many entries, without the segments before it, and with some behind it."""
    durable = write_sets(fs, before)
    point = durable.log.roll()
    machine = durable.machine
    write_snapshot(fs, durable.directory.snapshots_path, durable.keyring, point, machine.revision, dump_pieces(machine))
    durable.log.forget_before(point.next_segment)
    durable.close()
    durable = opened(fs)
    for number in range(before, before + after):
        append(durable, [operations.Set(f"key {number % 7}", b"%d " % number * 500)], START_MS + number)
    return durable


def test_a_backup_of_a_snapshot_alone_is_whole_and_so_is_the_directory_that_is_made_of_it(tmp_path: Path) -> None:
    """No segment stands behind the snapshot: the first start makes one."""
    fs = MemoryFileSystem()
    durable = with_snapshot(fs, 100, 0)
    restoring = Restoring(fs, tmp_path)
    fs.write("b", backup_of(durable))
    timeline = Timeline.of(find_source(fs, "b", None, restoring.master))
    assert list(timeline.check.findings) == []
    assert [(reach.first_revision, reach.last_revision) for reach in timeline.reach()] == [(100, 100)]
    restoring.restore(fs, fs.read("b"))
    found = verify(fs, restoring.config, lambda directory: open_keyring(directory, restoring.master))
    assert (list(found.check.findings), found.sound, found.start.revision) == ([], True, 100)


def test_a_segment_that_is_missing_behind_the_snapshot_of_a_backup_is_damage(tmp_path: Path) -> None:
    """Where a later segment is there, the first one behind the snapshot has to be there too."""
    fs = MemoryFileSystem()
    durable = with_snapshot(fs, 100, 0)
    restoring = Restoring(fs, tmp_path)
    restoring.restore(fs, backup_of(durable))
    fs.write(f"{TARGET}/log/{9:016x}.seg", b"later")
    found = verify(fs, restoring.config, lambda directory: open_keyring(directory, restoring.master))
    assert "no file" in [finding.actual for finding in found.check.findings]


@pytest.mark.parametrize("after", [0, 1, 70])
def test_a_backup_begins_with_the_newest_snapshot(after: int, tmp_path: Path) -> None:
    fs = MemoryFileSystem()
    durable = with_snapshot(fs, 100, after)
    restoring, data = Restoring(fs, tmp_path), backup_of(durable)
    kinds = [file.kind for file in restoring.reader(data).manifest.files]
    assert kinds[0] == "snapshot"
    assert len(kinds) == 1 + len(durable.log.segments)
    assert restoring.restore(fs, data).digest == durable.machine.digest()
    again = restoring.open(fs)
    assert again.machine.digest() == durable.machine.digest()
    append(again, [operations.Set("more", b"v")], START_MS + 1000)
    digest = again.machine.digest()
    again.close()
    assert restoring.open(fs).machine.digest() == digest
    fs.write("file", data)
    config = msgspec.structs.replace(restoring.config, data_dir="file")
    assert (
        verify_backup(fs.open("file", "r"), config, restoring.reader(data, "file")).digest == durable.machine.digest()
    )


def test_remembered_answers_are_restored(tmp_path: Path) -> None:
    fs = MemoryFileSystem()
    durable = write_sets(fs, 3)
    command = Logged(operations.Set("k", b"v"), request_id=bytes(16), digest=bytes(32))
    durable.log.append(LogEntry(1, 4, START_MS + 5, encode_commands([command])))
    durable.machine.apply(4, START_MS + 5, [command])
    restoring = Restoring(fs, tmp_path)
    restoring.restore(fs, backup_of(durable))
    assert restoring.open(fs).machine.known(command) == durable.machine.known(command) is not None


def test_a_directory_that_is_used_is_refused_and_left_alone(tmp_path: Path) -> None:
    fs = MemoryFileSystem()
    durable = write_sets(fs, 3)
    restoring, data = Restoring(fs, tmp_path), backup_of(durable)
    made = restoring.restore(fs, data)
    with pytest.raises(StorageError, match="restored: it is not empty"):
        restoring.restore(fs, data)
    assert restoring.open(fs).directory.node_id == made.node_id


def test_a_damaged_backup_makes_nothing_that_opens(tmp_path: Path) -> None:
    fs = MemoryFileSystem()
    data = backup_of(write_sets(fs, 3, 40))
    restoring = Restoring(fs, tmp_path)
    for at in range(0, len(data), 7):
        broken = bytearray(data)
        broken[at] ^= 1 << at % 8
        target = MemoryFileSystem()
        with pytest.raises((HapteraError, ValueError)):
            restoring.restore(target, bytes(broken))
        assert target.listdir("") == [], "what was made is removed"
        refuses_or_is_new(restoring, target)
    for size in range(0, len(data), 11):
        target = MemoryFileSystem()
        with pytest.raises(DamagedBackup):
            restoring.restore(target, data[:size])
        refuses_or_is_new(restoring, target)


def refuses_or_is_new(restoring: Restoring, fs: MemoryFileSystem) -> None:
    """Nothing of a backup is in a directory that opens."""
    try:
        assert restoring.open(fs).machine.index == 0
    except CorruptionError:
        pass


def test_another_master_key_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    fs = MemoryFileSystem()
    data = backup_of(write_sets(fs, 3))
    restoring = Restoring(fs, tmp_path)
    restoring.master = MasterKey.new()
    with pytest.raises(WrongKey):
        restoring.restore(fs, data)
    assert TARGET not in fs.listdir(".")


def test_a_backup_is_verified_where_it_is(tmp_path: Path) -> None:
    fs = MemoryFileSystem()
    durable = write_sets(fs, 120)
    restoring = Restoring(fs, tmp_path)
    data = backup_of(durable)
    fs.write(TARGET, data)
    before = len(fs.changes())
    start = verify_backup(fs.open(TARGET, "r"), restoring.config, restoring.reader(data))
    assert (start.index, start.digest) == (120, durable.machine.digest())
    assert len(fs.changes()) == before


@pytest.mark.parametrize("other", [-1, 1])
def test_a_manifest_that_says_another_state_is_damage_and_nothing_opens(other: int, tmp_path: Path) -> None:
    fs = MemoryFileSystem()
    durable = write_sets(fs, 5)
    restoring = Restoring(fs, tmp_path)
    durable.machine.kv.revision += other
    with pytest.raises(DamagedBackup, match="as the manifest says"):
        restoring.restore(fs, backup_of(durable))
    assert TARGET not in fs.listdir("")


class TestArchive:
    """A backup with the segments of an archive behind it."""

    @pytest.mark.parametrize(("before", "after"), [(0, 120), (3, 120), (60, 60), (100, 30), (120, 0)])
    def test_the_store_goes_on_to_the_end_of_the_archive(self, before: int, after: int, tmp_path: Path) -> None:
        fs = MemoryFileSystem()
        durable = write_sets(fs, before)
        data = backup_of(durable)
        states = {before: durable.machine.digest()}
        for number in range(before, before + after):
            append(durable, [operations.Set(f"key {number % 10}", b"%d " % number * 500)], START_MS + number)
            states[number + 1] = durable.machine.digest()
        archive = archive_of(fs, durable.directory.node_id)
        sealed = [segment for segment in durable.log.segments if segment.number in archive.segments()]
        restoring = Restoring(fs, tmp_path)
        made = restoring.restore(fs, data, archive)
        last = durable.log.segments[len(sealed)].first_index - 1 if len(sealed) < len(durable.log.segments) else 0
        assert made.index == max(before, last)
        assert made.digest == states[made.index]
        assert restoring.open(fs).machine.digest() == states[made.index]

    def test_the_archive_of_another_node_is_refused(self, tmp_path: Path) -> None:
        fs = MemoryFileSystem()
        durable = write_sets(fs, 120)
        archive = archive_of(fs, bytes(16))
        with pytest.raises(ForeignArchive):
            Restoring(fs, tmp_path).restore(fs, backup_of(durable), archive)

    def test_a_segment_that_is_missing_in_the_middle_is_named(self, tmp_path: Path) -> None:
        fs = MemoryFileSystem()
        durable = write_sets(fs, 10)
        data = backup_of(durable)
        for number in range(10, 150):
            append(durable, [operations.Set("k", bytes(2000))], START_MS + number)
        archive = archive_of(fs, durable.directory.node_id)
        fs.unlink("archive/log/0000000000000002.seg")
        with pytest.raises(CorruptionError, match=r"0000000000000002\.seg is damaged at byte 0: expected a segment"):
            Restoring(fs, tmp_path).restore(fs, data, archive)

    def test_a_segment_of_another_log_is_refused(self, tmp_path: Path) -> None:
        fs, other = MemoryFileSystem(), MemoryFileSystem()
        durable = write_sets(fs, 10)
        write_sets(other, 120)
        archive = Archive(fs, "archive", durable.directory.node_id)
        archive.create()
        fs.write("archive/log/0000000000000001.seg", other.read(f"{LOG_PATH}/0000000000000001.seg"))
        with pytest.raises(CorruptionError, match="another segment"):
            Restoring(fs, tmp_path).restore(fs, backup_of(durable), archive)

    def test_keys_that_are_newer_than_the_backup_come_from_the_archive(self, tmp_path: Path) -> None:
        fs = MemoryFileSystem()
        durable = write_sets(fs, 40)
        data = backup_of(durable)
        durable.keyring.rotate()
        for number in range(40, 150):
            append(durable, [operations.Set("k", bytes(2000))], START_MS + number)
        archive = archive_of(fs, durable.directory.node_id)
        restoring = Restoring(fs, tmp_path)
        made = restoring.restore(fs, data, archive)
        assert made.index > 60
        again = restoring.open(fs)
        assert [key.id for key in again.keyring.keys] == [key.id for key in durable.keyring.keys]


class TestChangedMasterKey:
    """A backup, and the archive of its node behind it, between which the keys were changed."""

    def made(self, fs: MemoryFileSystem, tmp_path: Path) -> tuple[Restoring, bytes, DurableState, list[MasterKey]]:
        """A backup, its node with two more master keys and with a data key under each of them, and these master keys.

        The archive has a keyring of each time, also of the middle of the changes.
        """
        durable = write_sets(fs, 40)
        restoring, data = Restoring(fs, tmp_path), backup_of(durable)
        archive = archive_of(fs, durable.directory.node_id)
        masters = []
        for first in (40, 100):
            durable.keyring.change_generated_master()
            masters.append(durable.keyring.master)
            archive.add_keyring(fs.read(f"{PATH}/keys"))
            durable.keyring.rotate()
            durable.log.roll()
            for number in range(first, first + 60):
                append(durable, [operations.Set(f"key {number % 10}", b"%d " % number * 500)], START_MS + number)
        first_key, middle = durable.keyring.keys[:2]
        archive.add_keyring(fs.read(f"{PATH}/keys"))
        durable.keyring.drop_unused(lambda: {durable.keyring.newest.id})
        archive.add_keyring(fs.read(f"{PATH}/keys"))
        for number, path in sealed_segments(fs, LOG_PATH).items():
            if number not in archive.segments():
                archive.add(number, path)
        assert {first_key.id, middle.id, durable.keyring.newest.id} == segment_keys(fs)
        return restoring, data, durable, masters

    def test_the_store_goes_on_to_the_end_with_the_master_keys_of_the_archive(self, tmp_path: Path) -> None:
        fs = MemoryFileSystem()
        restoring, data, durable, masters = self.made(fs, tmp_path)
        made = restoring.restore(fs, data, Archive.find(fs, "archive", masters))
        assert made.index > 120
        again = restoring.open(fs)
        assert again.keyring.master == restoring.master, "the new directory is under the key of the backup"
        assert len({key.id for key in again.keyring.keys}) == len(again.keyring.keys) == 3
        assert again.keyring.newest == durable.keyring.newest

    @pytest.mark.parametrize("given", [0, 1])
    def test_a_missing_master_key_is_named_before_anything_is_made(self, given: int, tmp_path: Path) -> None:
        """The last master key opens keyrings with every data key that the archive had then; the first one does not."""
        fs = MemoryFileSystem()
        restoring, data, _, masters = self.made(fs, tmp_path)
        found = Archive.find(fs, "archive", masters[:given])
        with pytest.raises(WrongKey) as caught:
            restoring.restore(fs, data, found)
        assert caught.value.kind == "data key"
        assert "archive/log/" in caught.value.file
        assert masters[-1].id.hex() in str(caught.value)
        assert "--archive-master-key-file" in str(caught.value)
        assert TARGET not in fs.listdir(".")

    def test_a_master_key_that_opens_nothing_of_the_archive_is_told_from_that_of_the_backup(
        self, tmp_path: Path
    ) -> None:
        fs = MemoryFileSystem()
        restoring, data, _, masters = self.made(fs, tmp_path)
        wrong = MasterKey.of(b"wrong".ljust(32))
        with pytest.raises(WrongKey, match="archive/keys: encrypted under the archive master key") as caught:
            restoring.restore(fs, data, Archive.find(fs, "archive", [*masters, wrong]))
        assert caught.value.actual == wrong.id.hex()
        assert all(master.id.hex() in caught.value.expected for master in masters)
        assert wrong.secret.hex() not in str(caught.value)
        restoring.master = wrong
        with pytest.raises(WrongKey, match="b: encrypted under the master key") as caught:
            restoring.restore(fs, data, Archive.find(fs, "archive", masters))
        assert TARGET not in fs.listdir(".")

    def test_every_moment_of_backup_and_archive_is_reached_with_the_keys_of_both(self, tmp_path: Path) -> None:
        fs = MemoryFileSystem()
        restoring, data, _, masters = self.made(fs, tmp_path)
        fs.write("backup", data)
        timeline = Timeline.of(find_source(fs, "backup", Archive.find(fs, "archive", masters), restoring.master))
        (reach,) = timeline.reach()
        assert reach.last_index > 120
        assert timeline.at_revision(reach.last_revision).machine.kv.entries
        shorter = Timeline.of(find_source(fs, "backup", Archive.find(fs, "archive"), restoring.master))
        assert shorter.reach()[0].last_revision == 40
        with pytest.raises(StorageError, match=f"{masters[0].id.hex()}, .*--archive-master-key-file"):
            shorter.at_revision(reach.last_revision)
        lacking = shorter.check.findings.lacking_key
        assert lacking is not None
        assert masters[-1].id.hex() in lacking.expected


def segment_keys(fs: MemoryFileSystem) -> set[bytes]:
    """The ids of the data keys of all archived segments."""
    return {fs.read(f"archive/log/{name}")[12:20] for name in fs.listdir("archive/log")}


def test_the_directory_of_the_source_is_only_read(tmp_path: Path) -> None:
    fs = MemoryFileSystem()
    durable = write_sets(fs, 5)
    digest, data = durable.machine.digest(), backup_of(durable)
    durable.close()
    Restoring(fs, tmp_path).restore(fs, data)
    assert opened(fs).machine.digest() == digest
