"""Backups of the directories of these tests, and what is restored of them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import msgspec

from haptera.node import NodeConfig, restore_backup
from haptera.node.apply_committed import Applied
from haptera.node.backups import extent_of, writer_of
from haptera.node.snapshots import snapshots_of
from haptera.storage import ArchivedSegments, BackupReader, MasterKey, unwrap_keyring
from tests.unit.node.offline.directories import CONFIG, PATH, opened

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.node import Restored
    from haptera.node.recovery import DurableState
    from haptera.storage import Archive, FileSystem

TARGET = "restored"


def backup_of(durable: DurableState) -> bytes:
    """A backup of an open directory as it is."""
    machine = durable.machine
    newest = next((each for each in reversed(snapshots_of(durable.recovered)) if each.whole), None)
    writer = writer_of(
        durable, newest, extent_of(durable), Applied(machine.revision, machine.time_ms), 1_700_000_000_000
    )
    return b"".join(writer.pieces())


class Restoring:
    """Restores backups, with the master key that the directory in ``fs`` has generated."""

    def __init__(self, fs: FileSystem, folder: Path) -> None:
        file = fs.open(f"{PATH}/master.key", "r")
        content = file.pread(100, 0)
        file.close()
        master = MasterKey.parse(content)
        assert master is not None
        self.master = master
        key_file = folder / "the master key"
        key_file.write_bytes(content)
        key_file.chmod(0o600)
        self.config = NodeConfig(data_dir=TARGET, master_key_file=str(key_file), segment_size=CONFIG.segment_size)

    def reader(self, data: bytes, name: str = "b") -> BackupReader:
        return BackupReader(name, io.BytesIO(data).read, lambda path, keys: unwrap_keyring(path, keys, self.master))

    def restore(self, fs: FileSystem, data: bytes, archive: Archive | None = None) -> Restored:
        reader = self.reader(data)
        archived = None if archive is None else ArchivedSegments(archive, reader, self.master)
        return restore_backup(fs, self.config, reader, archived)

    def open(self, fs: FileSystem, path: str = TARGET) -> DurableState:
        return opened(fs, msgspec.structs.replace(self.config, data_dir=path))
