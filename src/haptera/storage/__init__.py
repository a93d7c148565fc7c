"""Keeps entries: the data directory, its keys and the log. Knows nothing of an entry's meaning.

`haptera.storage.log` says how the log is written and recovered.
"""

from __future__ import annotations

from haptera.storage.archive import Archive
from haptera.storage.backup import (
    ArchivedSegments,
    BackupFile,
    BackupImage,
    BackupReader,
    BackupWriter,
    Manifest,
    unpack,
)
from haptera.storage.check_findings import Finding, Findings
from haptera.storage.data_key import DataKey
from haptera.storage.directory import (
    DIRECTORY_FORMAT,
    DataDirectory,
    make_directory,
    sealed_segments,
    segment_name,
)
from haptera.storage.directory_check import Check, Unlock, check_directory
from haptera.storage.errors import DiskFailed, DiskFull, translated
from haptera.storage.filesystem import File, FileSystem, OpenMode, OsFile, OsFileSystem, open_regular
from haptera.storage.found_segments import Segment
from haptera.storage.history_source import HistorySource, find_source
from haptera.storage.inspection import Contents, SegmentContents, look_into
from haptera.storage.io_ring import RING_WRITE_MAX, IoRing
from haptera.storage.keyring import Keyring
from haptera.storage.keys_in_use import used_key_ids
from haptera.storage.log import Durability, Log
from haptera.storage.log_recovery import Recovery, Replay, read_segments
from haptera.storage.master_key import MASTER_KEY_FORM, MasterKey
from haptera.storage.new_directory import NewDirectory
from haptera.storage.overlay_filesystem import OverlayFileSystem
from haptera.storage.reachable_ranges import Base, ReachableRange, reachable_ranges
from haptera.storage.segment_format import ENTRY_SIZE_MAX, TAG_SIZE, LogEntry, LogPoint
from haptera.storage.segment_writer import PreparedRecord
from haptera.storage.snapshot import (
    SnapshotFile,
    SnapshotReader,
    find_snapshots,
    remove_snapshots,
    remove_unfinished_snapshots,
    write_snapshot,
)
from haptera.storage.stored_keyring import StoredKeyring, kept_master_keys, open_keyring, unwrap_keyring

__all__ = [
    "DIRECTORY_FORMAT",
    "ENTRY_SIZE_MAX",
    "MASTER_KEY_FORM",
    "RING_WRITE_MAX",
    "TAG_SIZE",
    "Archive",
    "ArchivedSegments",
    "BackupFile",
    "BackupImage",
    "BackupReader",
    "BackupWriter",
    "Base",
    "Check",
    "Contents",
    "DataDirectory",
    "DataKey",
    "DiskFailed",
    "DiskFull",
    "Durability",
    "File",
    "FileSystem",
    "Finding",
    "Findings",
    "HistorySource",
    "IoRing",
    "Keyring",
    "Log",
    "LogEntry",
    "LogPoint",
    "Manifest",
    "MasterKey",
    "NewDirectory",
    "OpenMode",
    "OsFile",
    "OsFileSystem",
    "OverlayFileSystem",
    "PreparedRecord",
    "ReachableRange",
    "Recovery",
    "Replay",
    "Segment",
    "SegmentContents",
    "SnapshotFile",
    "SnapshotReader",
    "StoredKeyring",
    "Unlock",
    "check_directory",
    "find_snapshots",
    "find_source",
    "kept_master_keys",
    "look_into",
    "make_directory",
    "open_keyring",
    "open_regular",
    "reachable_ranges",
    "read_segments",
    "remove_snapshots",
    "remove_unfinished_snapshots",
    "sealed_segments",
    "segment_name",
    "translated",
    "unpack",
    "unwrap_keyring",
    "used_key_ids",
    "write_snapshot",
]
