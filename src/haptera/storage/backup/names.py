"""Where the files of a backup belong in a data directory. No name is ever taken from a backup itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from haptera.storage.directory import LOG_NAME, SNAPSHOTS_NAME, segment_name, snapshot_name

if TYPE_CHECKING:
    from haptera.storage.backup.format import BackupFile

__all__ = ["FOLDERS", "file_path"]

#: The directories that the files belong in.
FOLDERS = (LOG_NAME, SNAPSHOTS_NAME)


def file_path(directory: str, file: BackupFile) -> str:
    """The path of a file of a backup in the data directory ``directory``."""
    if file.kind == "segment":
        return os.path.join(directory, LOG_NAME, segment_name(file.number))
    return os.path.join(directory, SNAPSHOTS_NAME, snapshot_name(file.number))
