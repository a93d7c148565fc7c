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

from haptera.errors import StorageError
from haptera.storage.directory import KEYS_NAME, LOG_NAME, NODE_FILE_SIZE_MAX, NODE_NAME, DataDirectory, node_text
from haptera.storage.errors import DiskFailed, translated
from haptera.storage.filesystem import TEMPORARY, read_file
from haptera.storage.findings import Finding, Findings
from haptera.storage.overlay import OverlayFileSystem
from haptera.storage.segment_check import CheckedSegment, check_segments

if TYPE_CHECKING:
    from haptera.storage.filesystem import FileSystem
    from haptera.storage.keyring import Keyring

__all__ = ["Check", "Unlock", "check_directory"]

#: Opens the keyring of a directory, with the master key that the caller has for it.
Unlock = Callable[[DataDirectory], "Keyring"]

#: Times that a log is read because a node has removed a file of it meanwhile. Retention removes one every few minutes.
_ATTEMPTS: Final = 5

#: Bytes of a text that a finding shows.
_SHOWN: Final = 40


@dataclass(slots=True)
class Check:
    """A data directory as the check has found it. `node_id` is empty, and `keyring` None, where they cannot be read."""

    path: str
    node_id: bytes = b""
    keyring: Keyring | None = None
    segments: list[CheckedSegment] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)

    @property
    def log_path(self) -> str:
        return os.path.join(self.path, LOG_NAME)


def check_directory(fs: FileSystem, path: str, unlock: Unlock) -> Check:
    """Check every byte of a data directory. Nothing is changed and nothing is locked.

    Everything that is wrong becomes a finding. Raises StorageError where there is no data directory, and DiskFailed
    where the operating system does not list it.
    """
    path = os.path.normpath(path)
    view = OverlayFileSystem(fs)
    try:
        for _ in range(_ATTEMPTS):
            check = Check(path)
            names = _names(view, path)
            _check_identity(view, check, names, unlock)
            try:
                _check_files(view, check, names)
            except FileNotFoundError:
                continue  # a node has removed the file since it was listed
            return check
        raise StorageError(f"{path}: its files are removed while they are read")
    finally:
        view.close()


def _names(fs: FileSystem, path: str) -> list[str]:
    """The names in a data directory. Raises StorageError where a start would make a new one, and DiskFailed."""
    try:
        with translated(path, "list the data directory"):
            names = sorted(fs.listdir(path))
            there = NODE_NAME in names or KEYS_NAME in names or _is_filled(fs, path, names)
    except DiskFailed as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise StorageError(f"{path}: there is no data directory") from None
        raise
    if not there:
        raise StorageError(f"{path}: there is no data directory")
    return names


def _is_filled(fs: FileSystem, path: str, names: list[str]) -> bool:
    return LOG_NAME in names and bool(fs.listdir(os.path.join(path, LOG_NAME)))


def _check_identity(fs: FileSystem, check: Check, names: list[str], unlock: Unlock) -> None:
    """Read node.toml and the keys as an opening does."""
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


def _check_node_file(directory: DataDirectory, check: Check) -> None:
    try:
        directory.identify()
    except StorageError as error:
        check.findings.add_error(error, directory.node_path)
        return
    check.node_id = directory.node_id
    # An opening reads the file's meaning; the check looks at every byte.
    with translated(directory.node_path, "read the file of the node"):
        data = read_file(directory.fs, directory.node_path, NODE_FILE_SIZE_MAX)
    expected = node_text(directory.node_id, directory.format, directory.complete)
    if data != expected:
        at = next((at for at, (one, other) in enumerate(zip(data, expected, strict=False)) if one != other), len(data))
        shown, wanted = repr(data[at : at + _SHOWN]), repr(expected[at : at + _SHOWN])
        check.findings.add(Finding("damage", directory.node_path, at, wanted, shown))


def _check_files(fs: FileSystem, check: Check, names: list[str]) -> None:
    if LOG_NAME in names:
        check.segments = check_segments(fs, check.log_path, check.keyring, check.findings)
