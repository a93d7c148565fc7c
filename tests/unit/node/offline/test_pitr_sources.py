"""Point-in-time recovery from a backup, alone or with the archive behind it, and from a directory and its archive."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from haptera.errors import CorruptionError, ForeignArchive, MissingKey, StorageError
from haptera.node import Timeline
from haptera.storage import (
    DIRECTORY_FORMAT,
    Archive,
    BackupFile,
    BackupWriter,
    Manifest,
    MasterKey,
    find_snapshots,
    find_source,
    open_keyring,
    sealed_segments,
)
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.offline.directories import LOG_PATH, PATH, Recorded
from tests.unit.node.offline.test_pitr import FAR, content

if TYPE_CHECKING:
    from haptera.node.recovery import DurableState

SEED = random.randrange(1 << 32)
BACKUP_AFTER = 60


class Kept:
    """A recorded history with a backup of its middle, and an archive of all its sealed segments."""

    def __init__(self) -> None:
        self.fs = MemoryFileSystem()
        self.backup_revision = 0
        self.record = Recorded(self.fs, SEED, after=self._after)
        directory = self.record.durable.directory
        archive = Archive(self.fs, "archive", directory.node_id)
        archive.create()
        archive.add_keyring(directory.read_keyring())
        sealed = sealed_segments(self.fs, LOG_PATH)
        for number, path in sealed.items():
            archive.add(number, path)
        master = MasterKey.parse(self.fs.read(f"{PATH}/master.key"))
        assert master is not None
        self.master = master
        self.archived = Timeline(self.fs, PATH, open_keyring).check.segments[len(sealed) - 1].index

    def _after(self, number: int, durable: DurableState) -> None:
        if number != BACKUP_AFTER:
            return
        directory, log = durable.directory, durable.log
        keyring = open_keyring(directory)
        newest = find_snapshots(self.fs, directory.snapshots_path)[0]
        assert newest.point is not None
        segments = [segment for segment in log.segments if segment.number >= newest.point.next_segment]
        manifest = Manifest(
            directory_format=DIRECTORY_FORMAT,
            version="1.2.3",
            node_id=directory.node_id,
            time_ms=FAR,
            index=number,
            revision=durable.machine.revision,
            entry_time_ms=durable.machine.time_ms,
            first_segment=newest.point.next_segment,
            keys=[key.id for key in keyring.keys],
            files=[
                BackupFile("snapshot", newest.index, newest.size_bytes),
                *(BackupFile("segment", segment.number, segment.size_bytes) for segment in segments),
            ],
        )
        writer = BackupWriter(self.fs, directory.path, keyring.newest, directory.read_keyring(), manifest)
        self.fs.write("backup", b"".join(writer.pieces()))
        self.backup_revision = durable.machine.revision

    def timeline(self, path: str, archive: str | None = None) -> Timeline:
        found = None if archive is None else Archive.find(self.fs, archive)
        return Timeline.of(find_source(self.fs, path, found, self.master if path == "backup" else None))


@pytest.fixture(scope="module")
def kept() -> Kept:
    return Kept()


def check(timeline: Timeline, record: Recorded, first: int, last: int) -> None:
    for revision in {first, last, *random.Random(SEED).choices(range(first, last + 1), k=15)}:
        machine = timeline.at_revision(revision).machine
        assert (machine.revision, content(machine)) == (revision, record.states[revision]), f"seed {SEED}"


def test_a_backup_gives_its_own_window(kept: Kept) -> None:
    timeline = kept.timeline("backup")
    (reach,) = timeline.reach()
    assert reach.last_revision == kept.backup_revision
    assert 0 < reach.first_revision < reach.last_revision
    check(timeline, kept.record, reach.first_revision, reach.last_revision)


def test_the_archive_continues_a_backup(kept: Kept) -> None:
    """The segment that was appended to when the backup was made is whole in the archive."""
    timeline = kept.timeline("backup", "archive")
    (reach,) = timeline.reach()
    assert reach.last_index == kept.archived > BACKUP_AFTER
    check(timeline, kept.record, reach.first_revision, reach.last_revision)
    assert reach.first_revision == 0, "the archive has the log from its beginning"


def test_the_archive_extends_a_directory_beyond_its_retention(kept: Kept) -> None:
    fs = kept.fs.power_failure("keep")
    for name in sorted(fs.listdir(LOG_PATH))[:3]:
        fs.unlink(f"{LOG_PATH}/{name}")
    for name in sorted(fs.listdir(f"{PATH}/snapshots"))[:2]:
        fs.unlink(f"{PATH}/snapshots/{name}")
    (shorter,) = Timeline.of(find_source(fs, PATH, None, None)).reach()
    assert shorter.first_revision > 0
    timeline = Timeline.of(find_source(fs, PATH, Archive.find(fs, "archive"), None))
    (reach,) = timeline.reach()
    assert (reach.first_revision, reach.last_revision) == (0, len(kept.record.states) - 1)
    check(timeline, kept.record, 0, reach.last_revision)


def test_nothing_in_backup_or_archive_is_changed(kept: Kept) -> None:
    before = len(kept.fs.calls)
    kept.timeline("backup", "archive").reach()
    assert {call for call, _ in kept.fs.calls[before:]} <= {"open", "listdir", "pread", "size", "drop_cache"}


def test_a_backup_needs_the_master_key_of_its_node(kept: Kept) -> None:
    with pytest.raises(MissingKey, match="backup: no master key is given"):
        find_source(kept.fs, "backup", None, None)


def test_the_archive_of_another_node_is_refused(kept: Kept) -> None:
    Archive(kept.fs, "foreign", bytes(16)).create()
    with pytest.raises(ForeignArchive):
        kept.timeline(PATH, "foreign")


def test_a_damaged_backup_is_refused(kept: Kept) -> None:
    fs = kept.fs.power_failure("keep")
    data = bytearray(fs.read("backup"))
    data[len(data) // 2] ^= 1
    fs.write("backup", bytes(data))
    with pytest.raises(CorruptionError):
        find_source(fs, "backup", None, kept.master)


def test_a_backup_says_nothing_of_the_time_behind_its_end(kept: Kept) -> None:
    timeline = kept.timeline("backup")
    (reach,) = timeline.reach()
    with pytest.raises(StorageError, match="cannot be reached"):
        timeline.at_time(reach.last_time_ms + 1, FAR)
    assert timeline.at_time(reach.last_time_ms, FAR).machine.revision == reach.last_revision
