"""The check of the snapshots of a directory: it reads every byte of each, and goes on behind a damaged one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haptera.errors import StorageError
from haptera.storage.check_findings import Finding, Findings
from haptera.storage.directory import snapshot_index
from haptera.storage.errors import DiskFailed, translate
from haptera.storage.filesystem import TEMPORARY
from haptera.storage.snapshot import SnapshotReader

if TYPE_CHECKING:
    from haptera.storage.filesystem import FileSystem
    from haptera.storage.keyring import Keyring
    from haptera.storage.segment_format import LogPoint

__all__ = ["CheckedSnapshot", "check_snapshots"]


@dataclass(slots=True)
class CheckedSnapshot:
    """A snapshot file as the check has found it. `point` is None where the header cannot be read."""

    index: int
    path: str
    size: int = 0
    point: LogPoint | None = None
    revision: int = 0
    whole: bool = False


def check_snapshots(fs: FileSystem, path: str, keyring: Keyring | None, findings: Findings) -> list[CheckedSnapshot]:
    """Check every snapshot in a folder, oldest first. Without a keyring none can be read.

    Of a damaged snapshot the first fault is named: each chunk is chained to the one before it. Raises FileNotFoundError
    if one is gone that was listed: a node that runs has removed it.
    """
    try:
        names = sorted(fs.listdir(path))
    except OSError as error:
        findings.add_error(translate(error, path, "list the snapshots"), path)
        return []
    checked = []
    for name in names:
        file, index = os.path.join(path, name), snapshot_index(name)
        if name.endswith(TEMPORARY):
            findings.add(Finding.left_over(file))
        elif index is not None:
            snapshot = CheckedSnapshot(index, file)
            checked.append(snapshot)
            if keyring is not None:
                _read(fs, snapshot, keyring, findings)
    return checked


def _read(fs: FileSystem, snapshot: CheckedSnapshot, keyring: Keyring, findings: Findings) -> None:
    path = snapshot.path
    try:
        with SnapshotReader(fs, path, keyring) as reader:
            snapshot.size, snapshot.point, snapshot.revision = reader.size, reader.point, reader.revision
            for _ in reader.pieces():
                pass
    except StorageError as error:
        if isinstance(error, DiskFailed) and isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        findings.add_error(error, path)
        return
    if reader.point.index != snapshot.index:
        actual = f"that of index {reader.point.index}"
        findings.add(Finding("damage", path, 0, f"the snapshot of index {snapshot.index}", actual))
        return
    snapshot.whole = True
