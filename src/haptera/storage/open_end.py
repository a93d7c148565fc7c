"""The file ``open-end``: whether clients may know of changes that the log does not have (storage-format 2.5).

Only durability "os" answers changes that a loss of power may take. A node of it names the boot of its machine in the
file before it appends anything, and removes the file when the log is sealed. So a later start that finds the file, and
runs in another boot, may have lost changes. In the same boot changes may be lost where a write or a sync has failed,
because the system drops what it could not write: the file is emptied then. A command that makes a
directory of a backup or of an older state makes the file, too, without a boot.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

from haptera.errors import StorageError
from haptera.storage.errors import failing, translated
from haptera.storage.filesystem import read_file, write_file_atomically

if TYPE_CHECKING:
    from haptera.storage.filesystem import FileSystem

__all__ = ["OPEN_END_NAME", "OpenEnd", "write_open_end"]

OPEN_END_NAME: Final = "open-end"
#: Bytes of the file that are read: more than the id of a boot has.
_SIZE_MAX: Final = 256


def write_open_end(fs: FileSystem, directory: str, boot_id: str = "") -> None:
    """Make the file, durably, for a log that is written in a boot, or for one that may lack changes in any case.

    Raises DiskFull, DiskFailed.
    """
    with translated(directory, "note that changes may be lost"):
        write_file_atomically(fs, directory, OPEN_END_NAME, f"{boot_id}\n".encode())


class OpenEnd:
    """The file of an open directory. ``changes_lost`` says that clients may know of changes that the log lacks.

    ``begun`` says that the disk knows what a loss of power would take from now on.
    """

    def __init__(self, fs: FileSystem, directory: str, *, synced: bool) -> None:
        """Read the file. ``synced`` says that a loss of power takes nothing of what is appended. Raises DiskFailed."""
        self._fs = fs
        self._directory = directory
        self._synced = synced
        self._boot_id = fs.boot_id()
        found = self._read()
        #: Whether the file is there and names this boot: all that was appended in it is there as well.
        self._of_this_boot = bool(self._boot_id) and found == f"{self._boot_id}\n".encode()
        self.changes_lost: bool = found is not None and not self._of_this_boot

    @property
    def begun(self) -> bool:
        return self._synced or self._of_this_boot or self.changes_lost

    def begin(self) -> None:
        """Note that a loss of power takes changes, before the first that it may take. Raises DiskFull, DiskFailed."""
        if not self.begun:
            write_open_end(self._fs, self._directory, self._boot_id)
            self._of_this_boot = True

    def found_unsealed(self, *, torn: bool) -> None:
        """Note, before it is sealed, that a log was not: older software leaves it so without the file, and in this boot
        it ends with a record that is ``torn`` where the system has dropped what it could not write. Raises DiskFull,
        DiskFailed.
        """
        if torn or not self._of_this_boot:
            self._doubt()

    def recovered(self) -> None:
        """Note that all that is in the log is durable. Raises DiskFailed."""
        if self._synced:
            self.end()

    def failed(self) -> None:
        """Note, where the disk lets it, that a write or a sync has failed: the system may have dropped what it had not
        written. The process may be killed right after that.
        """
        if self._of_this_boot:
            with suppress(StorageError):
                self._doubt()

    def end(self) -> None:
        """Remove the file, because all that was appended is durable. It stays while `changes_lost` stands. Raises
        DiskFailed.
        """
        if self._of_this_boot and not self.changes_lost:
            self._remove()

    def settle(self) -> None:
        """Remove the file, because the store has left a gap behind what may be lost, durably. Raises DiskFailed."""
        if self.changes_lost:
            self._remove()

    def _doubt(self) -> None:
        if self._of_this_boot:
            self._forget_boot()
        elif not self.changes_lost:
            write_open_end(self._fs, self._directory)
        self.changes_lost, self._of_this_boot = True, False

    def _forget_boot(self) -> None:
        """Empty the file that names this boot. It needs no room on a full disk, and no sync: what a loss of power
        leaves of it is of another boot.
        """
        path = os.path.join(self._directory, OPEN_END_NAME)
        with failing(path, "note that changes may be lost"), closing(self._fs.open(path, "r+")) as file:
            file.truncate(0)

    def _read(self) -> bytes | None:
        path = os.path.join(self._directory, OPEN_END_NAME)
        with translated(path, "read whether changes may be lost"):
            try:
                return read_file(self._fs, path, _SIZE_MAX)
            except FileNotFoundError:
                return None

    def _remove(self) -> None:
        path = os.path.join(self._directory, OPEN_END_NAME)
        with failing(path, "note that no change is lost"):
            with suppress(FileNotFoundError):  # a full disk had no room for it
                self._fs.unlink(path)
            self._fs.sync_directory(self._directory)
        self.changes_lost = self._of_this_boot = False
