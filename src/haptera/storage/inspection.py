"""A look into a data directory: its identity, its keys, the headers of its files, and its last index and time.

It reads the headers, and the records of the last segment that has some. Whether the rest is as it should be is for
`haptera.storage.directory_check` to say.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from haptera.errors import StorageError
from haptera.storage.directory import segment_name
from haptera.storage.directory_check import Unlock, begin_check
from haptera.storage.errors import translated
from haptera.storage.found_segments import read_segment_header, segment_numbers
from haptera.storage.overlay_filesystem import OverlayFileSystem
from haptera.storage.segment_format import RECORD_HEADER_SIZE, RecordCipher
from haptera.storage.segment_reader import SegmentReader
from haptera.storage.snapshot import SnapshotFile, find_snapshots

if TYPE_CHECKING:
    from haptera.storage.directory_check import Check
    from haptera.storage.filesystem import FileSystem

__all__ = ["Contents", "SegmentContents", "look_into"]


@dataclass(slots=True)
class SegmentContents:
    """A segment, as far as its header and the next one's say. An index or a time is 0 where there is no entry.

    `state` is "sealed", "active" (it is appended to, or a crash left it) or "empty". `trouble` says what keeps it from
    being read.
    """

    number: int
    file: str
    bytes: int = 0
    state: str = ""
    key_id: str = ""
    durability: str = ""
    first_index: int = 0
    last_index: int = 0
    first_time_ms: int = 0
    last_time_ms: int = 0
    trouble: str = ""


@dataclass(slots=True)
class Contents:
    """The contents of a data directory. `keys` are the ids of its data keys, oldest first; `troubles` are lines.

    `refusal` is the error for which nothing in it can be decrypted.
    """

    path: str
    node_id: str
    format: int
    keys: list[str] = field(default_factory=list)
    segments: list[SegmentContents] = field(default_factory=list)
    snapshots: list[SnapshotFile] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    refusal: StorageError | None = None


def look_into(fs: FileSystem, path: str, unlock: Unlock) -> Contents:
    """Look into a data directory. Nothing is changed and nothing is locked.

    Raises StorageError where there is none, and DiskFailed.
    """
    view = OverlayFileSystem(fs)
    try:
        check, directory = begin_check(view, path, unlock)
        found = Contents(check.path, check.node_id.hex(), directory.format, refusal=check.refusal)
        found.troubles = [f"{each.file}: expected {each.expected}, found {each.actual}" for each in check.findings]
        if check.keyring is not None:
            found.keys = [key.id.hex() for key in check.keyring.keys]
        with translated(check.log_path, "look into the log"):
            found.segments = [_segment(view, check, number) for number in segment_numbers(view, check.log_path)]
            for segment in [segment for segment in found.segments if segment.state != "empty"][-1:]:
                _read_to_its_end(view, check, segment)
        for segment, following in zip(found.segments, found.segments[1:], strict=False):
            if segment.state == "sealed" and following.first_index and not segment.last_index:
                segment.last_index, segment.last_time_ms = following.first_index - 1, following.first_time_ms
        found.snapshots = find_snapshots(view, directory.snapshots_path)[::-1]
        return found
    finally:
        view.close()


def _segment(fs: FileSystem, check: Check, number: int) -> SegmentContents:
    found = SegmentContents(number, os.path.join(check.log_path, segment_name(number)))
    try:
        header, found.bytes, record = read_segment_header(fs, found.file, number)
        found.state = "sealed" if found.bytes < header.capacity else "active"
        found.key_id, found.durability = header.key_id.hex(), "sync" if header.synced else "os"
        found.first_index = header.first_index
        if check.keyring is not None:
            key = check.keyring.key_of(found.file, header.key_id)
            fields = RecordCipher(header, key).decode_header(record) if len(record) == RECORD_HEADER_SIZE else None
            if fields is None:
                found.state = "empty"
            else:
                found.first_time_ms = fields[3]
    except StorageError as error:
        found.trouble = str(error)
    return found


def _read_to_its_end(fs: FileSystem, check: Check, found: SegmentContents) -> None:
    """Read the records of the last segment that has some: no record behind it says when it ends."""
    if found.trouble or check.keyring is None:
        return
    try:
        header, size, _ = read_segment_header(fs, found.file, found.number)
        file = fs.open(found.file, "r")
        try:
            reader = SegmentReader(file, found.file, size, header, check.keyring.key_of(found.file, header.key_id))
            for entry in reader.entries(0, 0, lambda count, offset: None):
                found.last_index, found.last_time_ms = entry.index, entry.time_ms
        finally:
            file.close()
    except StorageError as error:
        found.trouble = str(error)
