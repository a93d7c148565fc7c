"""Which data keys are in use: the headers of the files that are still to be read name them (storage-format 2.2)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from haptera.storage.directory import segment_name
from haptera.storage.errors import translated
from haptera.storage.found_segments import read_segment_header, segment_numbers
from haptera.storage.snapshot import find_snapshots

if TYPE_CHECKING:
    from haptera.storage.directory import DataDirectory

__all__ = ["used_key_ids"]


def used_key_ids(directory: DataDirectory) -> set[bytes]:
    """The ids of the data keys that a segment or a snapshot of the directory is under.

    For `StoredKeyring.drop_unused`. Raises StorageError where a segment's header cannot be read. A snapshot whose
    header is damaged cannot be read with any key.
    """
    fs, log_path = directory.fs, directory.log_path
    with translated(log_path, "look for the keys of the segments"):
        paths = {number: os.path.join(log_path, segment_name(number)) for number in segment_numbers(fs, log_path)}
        used = {read_segment_header(fs, path, number)[0].key_id for number, path in paths.items()}
    used |= {file.key_id for file in find_snapshots(fs, directory.snapshots_path) if file.key_id is not None}
    with translated(log_path, "make the removal of old files durable"):
        # After a look at all of them: a file that was removed before it, and needs a key, must not come back.
        fs.sync_directory(log_path)
        fs.sync_directory(directory.snapshots_path)
    return used
