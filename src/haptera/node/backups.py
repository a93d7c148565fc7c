"""Backups of a node's store while it goes on: each is of one revision, the one at which it begins.

The point is taken on the writer's thread, between two entries: the segments as they are then, of which the active one
has a known length. All bytes up to there stay as they are, because a log is only appended to, and a pin keeps retention
from removing a file. Files are read in another thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from haptera.errors import Code, failure
from haptera.storage import DIRECTORY_FORMAT, BackupFile, BackupWriter, Manifest, Segment
from haptera.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.node.apply_committed import Applied
    from haptera.node.commit import CommitPipeline
    from haptera.node.master_key import Origin
    from haptera.node.recovery import DurableState
    from haptera.node.snapshots import Retention, Snapshot

_logger = logging.getLogger(__name__)

#: Backups of one node under way at once. Each pins files, reads the disk and has a processor busy with its digest.
BACKUPS_MAX: Final = 4


class LogExtent(msgspec.Struct, frozen=True):
    """The log between two entries: its last index, and the segments with the bytes that they have."""

    index: int
    segments: tuple[Segment, ...]


class OpenBackup:
    """One backup under way, of the state after the entry ``index``. ``size`` is in bytes."""

    def __init__(self, writer: BackupWriter, master_key: Origin) -> None:
        self.index: int = writer.manifest.index
        self.revision: int = writer.manifest.revision
        self.size: int = writer.size
        #: Where the node has its master key from.
        self.master_key = master_key
        #: The bytes that were handed out.
        self.taken: int = 0
        self._pieces = writer.pieces()
        self._reading: asyncio.Future[bytes] | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes of the backup, once, in pieces of at most 256 KiB. Raises StorageError."""
        loop = asyncio.get_running_loop()
        while True:
            # A future of its own: a task that is cancelled does not leave the files to a thread that still reads.
            self._reading = loop.run_in_executor(None, next, self._pieces, b"")
            piece = await asyncio.shield(self._reading)
            if not piece:
                return
            self.taken += len(piece)
            yield piece

    async def aclose(self) -> None:
        """Close the files."""
        if self._reading is not None and not self._reading.done():
            await asyncio.wait([self._reading])
        self._pieces.close()


class Backups:
    """Makes the backups of one node. ``clock_ms`` is Unix time in milliseconds."""

    def __init__(
        self, storage: DurableState, pipeline: CommitPipeline, retention: Retention, clock_ms: Callable[[], int]
    ) -> None:
        self._storage = storage
        self._pipeline = pipeline
        self._retention = retention
        self._clock_ms = clock_ms
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[OpenBackup]:
        """Begin a backup of the state as it is. Its files stay within the block.

        Raises TooManyRequests (3007, not_applied) beyond BACKUPS_MAX, and StorageError.
        """
        if self._count >= BACKUPS_MAX:
            raise failure(Code.TOO_MANY_REQUESTS, {"backups_max": BACKUPS_MAX}, outcome="not_applied").exception()
        self._count += 1
        try:
            with self._retention.pin_newest() as pin:
                extent, state = await self._point()
                loop = asyncio.get_running_loop()
                writer = await loop.run_in_executor(
                    None, writer_of, self._storage, pin.snapshot, extent, state, self._clock_ms()
                )
                async with self._opened(OpenBackup(writer, self._storage.master_key_source.origin)) as backup:
                    yield backup
        finally:
            self._count -= 1

    @asynccontextmanager
    async def _opened(self, backup: OpenBackup) -> AsyncIterator[OpenBackup]:
        """Close a backup at the end of the block, and log both ends of it."""
        fields = {"index": backup.index, "revision": backup.revision, "bytes": backup.size}
        _logger.info("backup_begun", extra=fields)
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            yield backup
        finally:
            await backup.aclose()
            _logger.info(
                "backup_ended", extra={**fields, "bytes_taken": backup.taken, "seconds": round(clock() - started, 3)}
            )

    async def _point(self) -> tuple[LogExtent, Applied]:
        """An extent of the log, and the state at its end."""
        states: list[asyncio.Future[Applied]] = []
        extent = await self._pipeline.on_writer(
            self._extent, lambda extent: states.append(self._pipeline.applied(extent.index))
        )
        return extent, await states[0]

    def _extent(self) -> LogExtent:
        return extent_of(self._storage)


def extent_of(storage: DurableState) -> LogExtent:
    """The log as it is; on the writer's thread, or while nothing is written."""
    return LogExtent(storage.log.last_index, storage.log.segments)


def writer_of(
    storage: DurableState, base: Snapshot | None, extent: LogExtent, state: Applied, time_ms: int
) -> BackupWriter:
    """The backup of a snapshot and of an extent of the log, with the state at its end. ``time_ms`` is now.

    Raises DiskFailed.
    """
    keyring, directory = storage.keyring, storage.directory
    newest = keyring.newest
    first_segment = 1 if base is None else base.next_segment
    files = [] if base is None else [BackupFile("snapshot", base.index, base.size_bytes)]
    files += [
        BackupFile("segment", segment.number, segment.size_bytes)
        for segment in extent.segments
        if segment.number >= first_segment
    ]
    manifest = Manifest(
        directory_format=DIRECTORY_FORMAT,
        version=__version__,
        node_id=directory.node_id,
        time_ms=time_ms,
        index=extent.index,
        revision=state.revision,
        entry_time_ms=state.time_ms,
        first_segment=first_segment,
        keys=[key.id for key in keyring.keys],
        files=files,
    )
    # The file is read after the segments are known: it has every key that they are under.
    return BackupWriter(directory.fs, directory.path, newest, directory.read_keyring(), manifest)
