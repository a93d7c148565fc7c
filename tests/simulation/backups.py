"""What is kept of a simulated node's past outside its directory: backups that were read meanwhile, and the archive.

A backup is restored into another directory in memory, and has to have the state of its revision; with the archive
behind it, the state of the end.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final, NamedTuple

import haptera
from haptera.errors import HapteraError, StorageError, WrongKey
from haptera.node.config import NodeConfig
from haptera.node.offline.from_backup import Restored, restore_backup
from haptera.node.recovery import DurableState
from haptera.storage import Archive, ArchivedSegments, BackupReader, unwrap_keyring
from haptera.storage.keyring_format import WrappedKeyring
from haptera.testing import MemoryFileSystem
from haptera.testing.nodes import MEMORY_DATA_DIR
from tests.simulation.keys import read
from tests.simulation.promises import PromiseBroken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.storage import Keyring

#: Virtual seconds for a whole backup.
TIMEOUT_S: Final = 60.0

ARCHIVE_DIR: Final = "/archive"


class Taken(NamedTuple):
    """A backup that has ended: all of its bytes, and the revision that the node has named."""

    revision: int
    data: bytes


async def take(url: str) -> Taken:
    """Read a backup of a node. Raises HapteraError."""
    async with haptera.connect(url) as db, db.backup(timeout=TIMEOUT_S) as pieces:
        data = b"".join([piece async for piece in pieces])
        assert pieces.revision is not None
        return Taken(pieces.revision, data)


def digest_of(taken: Taken, keys: Sequence[str], archive: MemoryFileSystem | None = None) -> tuple[int, bytes]:
    """The revision that a restored backup has, and the digest of its keys. ``keys`` are the files of all master keys.

    With the file system of an archive, its segments are behind the backup. Raises PromiseBroken.
    """
    for path in keys:
        key = read(path)

        def unlock(name: str, data: bytes) -> Keyring:
            return unwrap_keyring(name, data, key)  # noqa: B023  # it is called before the next key is tried

        disk = MemoryFileSystem()
        try:
            reader = BackupReader("backup", io.BytesIO(taken.data).read, unlock)
            archived = None
            if archive is not None:
                archived = ArchivedSegments(_opened_archive(archive, keys), reader, key)
            config = NodeConfig(data_dir=MEMORY_DATA_DIR, master_key_file=path)
            found: Restored = restore_backup(disk, config, reader, archived)
        except WrongKey:
            continue
        except HapteraError as error:
            raise PromiseBroken(f"a backup cannot be restored: {error}") from error
        return found.revision, _opened(disk, config)
    raise PromiseBroken("no master key opens a backup")


def _opened_archive(disk: MemoryFileSystem, keys: Sequence[str]) -> Archive:
    """The archive, with all master keys that open a keyring in it."""
    keyrings = Archive.find(disk, ARCHIVE_DIR).keyrings()
    ids = {master_id for path, data in keyrings for master_id in WrappedKeyring(path, data).master_ids}
    return Archive.find(disk, ARCHIVE_DIR, [key for key in map(read, keys) if key.id in ids])


def _opened(disk: MemoryFileSystem, config: NodeConfig) -> bytes:
    """The digest of the keys that a start finds in a directory."""
    state = DurableState(config, disk)
    try:
        state.open()
        return state.machine.kv.digest()
    finally:
        state.close()


def check_archive(disk: MemoryFileSystem, newest: int) -> None:
    """Hold the archive against the log: it has every segment before the number ``newest``, and the same bytes.

    Raises PromiseBroken.
    """
    try:
        archived = Archive.find(disk, ARCHIVE_DIR).segments()
    except StorageError as error:
        raise PromiseBroken(f"the archive cannot be read: {error}") from error
    missing = sorted(set(range(1, newest)) - archived.keys())
    if missing:
        raise PromiseBroken(f"the segments {missing} are not archived")
    log_path = f"{MEMORY_DATA_DIR}/log"
    for name in set(disk.listdir(log_path)).intersection(disk.listdir(f"{ARCHIVE_DIR}/log")):
        if disk.read(f"{log_path}/{name}") != disk.read(f"{ARCHIVE_DIR}/log/{name}"):
            raise PromiseBroken(f"the archive has another segment {name} than the log")
