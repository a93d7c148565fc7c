"""The check of a data directory: it reads every byte, names every fault that the format lets it see, and changes
nothing (storage-format 9).

It takes no lock, so it keeps no node from starting, and it works beside one that runs: a sealed segment never changes,
and of the active one it sees what a crash at this moment would leave.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from haptera.errors import NewerFormat, StorageError
from haptera.storage.check_findings import Finding, Findings
from haptera.storage.directory import (
    KEYRING_SIZE_MAX,
    KEYS_NAME,
    LOG_NAME,
    NODE_FILE_SIZE_MAX,
    NODE_NAME,
    SNAPSHOTS_NAME,
    DataDirectory,
    node_text,
    segment_name,
)
from haptera.storage.errors import DiskFailed, translated
from haptera.storage.filesystem import TEMPORARY, read_file
from haptera.storage.overlay_filesystem import OverlayFileSystem
from haptera.storage.segment_check import CheckedSegment, check_segments
from haptera.storage.snapshot_check import CheckedSnapshot, check_snapshots

if TYPE_CHECKING:
    from haptera.storage.filesystem import FileSystem
    from haptera.storage.keyring import Keyring
    from haptera.storage.segment_format import LogPoint

__all__ = ["Check", "Unlock", "check_directory"]

#: Opens the keyring of a directory, with the master key that the caller has for it.
Unlock = Callable[[DataDirectory], "Keyring"]

#: Times that a log is read because a node has removed a file of it, or made a data key, meanwhile. Retention removes a
#: file every few minutes.
_ATTEMPTS: Final = 5

#: Bytes of a text that a finding shows.
_SHOWN: Final = 40


@dataclass(slots=True)
class Check:
    """A data directory as the check has found it. `node_id` is empty, and `keyring` None, where they cannot be read.

    `complete` is whether a segment must follow each snapshot: a restored directory gets its first one from its first
    start. `refusal` is the error for which nothing in it can be decrypted, or may be.
    """

    path: str
    node_id: bytes = b""
    complete: bool = True
    keyring: Keyring | None = None
    segments: list[CheckedSegment] = field(default_factory=list)
    #: Oldest first, as the segments are.
    snapshots: list[CheckedSnapshot] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    refusal: StorageError | None = None

    @property
    def log_path(self) -> str:
        return os.path.join(self.path, LOG_NAME)


def check_directory(fs: FileSystem, path: str, unlock: Unlock) -> Check:
    """Check every byte of a data directory. Nothing is changed and nothing is locked.

    Everything that is wrong becomes a finding. Raises StorageError where there is no data directory, and DiskFailed
    where the operating system does not list it.
    """
    for _ in range(_ATTEMPTS):
        view = OverlayFileSystem(fs)
        try:
            keyring = _keyring_of(fs, path)
            check, _ = begin_check(view, path, unlock)
            _check_files(view, check)
            _check_continuations(fs, check)
            if not check.findings.lacking_key or _keyring_of(fs, path) == keyring:
                return check
            # A node has made a data key since its keyring was read, and a file under it.
        except FileNotFoundError:
            pass  # a node has removed the file since it was listed
        finally:
            view.close()
    raise StorageError(f"{path}: its files are removed or its keys are changed while they are read")


def _keyring_of(fs: FileSystem, path: str) -> bytes:
    """The file of the keyring as it is; empty where there is none."""
    try:
        return read_file(fs, os.path.join(path, KEYS_NAME), KEYRING_SIZE_MAX)
    except OSError:
        return b""  # the opening of the keyring says why


def _names(fs: FileSystem, path: str) -> list[str]:
    """The names in a data directory. Raises StorageError where a start would make a new one, and DiskFailed."""
    try:
        with translated(path, "list the data directory"):
            names = sorted(fs.listdir(path))
            there = NODE_NAME in names or KEYS_NAME in names or _is_filled(fs, path, names)
    except DiskFailed as error:
        if isinstance(error.__cause__, NotADirectoryError):
            raise StorageError(f"{path}: there is a file, and no data directory") from None
        if isinstance(error.__cause__, FileNotFoundError):
            raise StorageError(f"{path}: there is no data directory") from None
        raise
    if not there:
        raise StorageError(f"{path}: there is no data directory")
    return names


def _is_filled(fs: FileSystem, path: str, names: list[str]) -> bool:
    return LOG_NAME in names and bool(fs.listdir(os.path.join(path, LOG_NAME)))


def begin_check(fs: FileSystem, path: str, unlock: Unlock) -> tuple[Check, DataDirectory]:
    """Read the identity and the keys of a data directory, as an opening does. `fs` is a view, which may be changed.

    Raises StorageError where there is no data directory, and DiskFailed.
    """
    check = Check(os.path.normpath(path))
    names = _names(fs, check.path)
    for name in names:
        if name.endswith(TEMPORARY):
            check.findings.add(Finding.left_over(os.path.join(check.path, name)))
    directory = DataDirectory.unidentified(fs, check.path)
    if NODE_NAME in names:
        _check_node_file(directory, check)
    else:
        expected = "the file that identifies the keys and the log beside it"
        check.findings.add(Finding("damage", directory.node_path, 0, expected, "nothing"))
    try:
        check.keyring = unlock(directory)
    except StorageError as error:
        check.findings.add_error(error, directory.keys_path)
        check.refusal = check.refusal or error
    return check, directory


def _check_node_file(directory: DataDirectory, check: Check) -> None:
    try:
        directory.identify()
    except StorageError as error:
        check.findings.add_error(error, directory.node_path)
        if isinstance(error, NewerFormat):
            check.refusal = error
        return
    check.node_id, check.complete = directory.node_id, directory.complete
    # An opening reads the file's meaning; the check looks at every byte.
    with translated(directory.node_path, "read the file of the node"):
        data = read_file(directory.fs, directory.node_path, NODE_FILE_SIZE_MAX)
    expected = node_text(directory.node_id, directory.format, directory.complete)
    if data != expected:
        at = next((at for at, (one, other) in enumerate(zip(data, expected, strict=False)) if one != other), len(data))
        shown, wanted = repr(data[at : at + _SHOWN]), repr(expected[at : at + _SHOWN])
        check.findings.add(Finding("damage", directory.node_path, at, wanted, shown))


def _check_files(fs: FileSystem, check: Check) -> None:
    """Check the snapshots before the segments: then the log of a node that runs has reached each of them."""
    path = os.path.join(check.path, SNAPSHOTS_NAME)
    names = fs.listdir(check.path)
    if SNAPSHOTS_NAME in names:
        check.snapshots = check_snapshots(fs, path, check.keyring, check.findings)
    if LOG_NAME in names:
        check.segments = check_segments(fs, check.log_path, check.keyring, check.findings)


def _check_continuations(fs: FileSystem, check: Check) -> None:
    """Whether the log goes on behind each snapshot that is still there: retention removes it with its segments."""
    if not check.snapshots:
        return
    still_there = set(fs.listdir(os.path.join(check.path, SNAPSHOTS_NAME)))
    for snapshot in check.snapshots:
        if snapshot.point is not None and os.path.basename(snapshot.path) in still_there:
            _check_continuation(check, snapshot.point)


def _check_continuation(check: Check, point: LogPoint) -> None:
    """Whether the log goes on behind a snapshot: with a segment that continues it, and may be empty."""
    segment = next((segment for segment in check.segments if segment.number == point.next_segment), None)
    path = os.path.join(check.log_path, segment_name(point.next_segment))
    expected = f"a segment that goes on behind the snapshot of index {point.index}"
    if segment is None:
        if check.complete or any(segment.number > point.next_segment for segment in check.segments):
            check.findings.add(Finding("damage", path, 0, expected, "no file"))
    elif segment.header is not None and segment.header.first_index != point.index + 1:
        actual = f"one from index {segment.header.first_index}"
        check.findings.add(Finding("damage", path, 0, expected, actual))
    elif segment.header is not None and segment.header.previous_tag != point.tag:
        check.findings.add(Finding("damage", path, 0, expected, "another log's segment"))
