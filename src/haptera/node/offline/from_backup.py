"""Makes a data directory of a backup and, if there is one, of the archive behind it; and verifies a backup.

A backup is read once, from its beginning to its end, so it may come through a pipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from haptera.errors import DamagedBackup
from haptera.node.offline.verify import Start, rehearse
from haptera.storage import BackupImage, NewDirectory, OverlayFileSystem, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.node.config import NodeConfig
    from haptera.storage import ArchivedSegments, BackupReader, File, FileSystem

__all__ = ["Restored", "restore_backup", "verify_backup"]


@dataclass(frozen=True, slots=True)
class Restored:
    """A data directory that was made of a backup: its new node id, and the state that a start finds in it."""

    node_id: bytes
    revision: int
    index: int
    keys: int
    digest: bytes


def restore_backup(
    fs: FileSystem,
    config: NodeConfig,
    reader: BackupReader,
    archived: ArchivedSegments | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Restored:
    """Make the data directory of ``config`` of a backup and the archived segments that go on where it ends.

    The directory must not exist, or be empty. Nothing opens it before all of it is durable, the backup's digest was
    right, and a start was rehearsed. ``on_progress`` is told the bytes of the backup that were read. Raises
    StorageError (something is there), DamagedBackup, CorruptionError, WrongKey, NewerFormat, ApplyFailed, DiskFull and
    DiskFailed; what was written before is removed.
    """
    with NewDirectory.make(fs, config.data_dir) as new:
        directory = new.directory
        unpack(reader, directory, archived, on_progress)
        view = OverlayFileSystem(fs)
        new.finish(view)
        start = _checked(rehearse(view, config), reader, more=archived is not None)
        new.finish(fs)
        return Restored(directory.node_id, start.revision, start.index, start.keys, start.digest)


def verify_backup(
    file: File, config: NodeConfig, reader: BackupReader, on_progress: Callable[[int], None] = lambda _: None
) -> Start:
    """Read every byte of the backup that ``reader`` has begun in ``file``, and rehearse a start from it.

    ``config`` is that of the node that would open the file's path. Needs as much memory as the node, and no space on a
    disk. Raises as `restore_backup`.
    """
    for _ in reader.chunks():
        on_progress(reader.offset)
    return _checked(rehearse(BackupImage(config.data_dir, reader, file), config), reader, more=False)


def _checked(start: Start, reader: BackupReader, *, more: bool) -> Start:
    """The start, unless it was refused or came to another state than the backup's manifest says."""
    if start.error is not None:
        raise start.error
    manifest = reader.manifest
    found, expected = (start.index, start.revision), (manifest.index, manifest.revision)
    if found < expected or (found > expected and not more):
        raise DamagedBackup(
            reader.name,
            reader.header.manifest_offset,
            f"the state of index {manifest.index} and revision {manifest.revision}, as the manifest says",
            f"index {start.index} and revision {start.revision}",
        )
    return start
