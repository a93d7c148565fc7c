"""The place of an import that can go on: how much of its file is certainly stored, in a file beside it.

The place is noted when the rows before it have been answered, so it never stands behind a row that is not stored. Rows
behind it may be stored, too: they are sent again, in their order, and the result is the same. The digest of the rows
up to the place shows whether they are still those of the file; rows behind it are taken as they are.

The folder may be one in which others make files, too, so the file is believed only if it is one of this user or of
root. It always gets its name by a rename: a link that stands there is replaced, and nothing is written where it leads.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from haptera.cli.transfer.write_rows import new_file

if TYPE_CHECKING:
    from haptera.cli.transfer.row_batches import RowBatch

#: The end of the name of the file with the place.
SUFFIX: Final = ".haptera-import"
#: Bytes of such a file at most: it has a few numbers, and the options of a command.
_STATE_SIZE_MAX: Final = 64 * 1024
#: The user whose files are believed as one's own are.
_ROOT: Final = 0
#: Seconds between two notes of the place: an import that is killed repeats as much, and the disk has little to do.
NOTE_SECONDS: Final = 0.5
_FORMAT: Final = 1


class CannotResume(Exception):
    """The import cannot go on, for the reason that this gives."""


Count = Annotated[int, msgspec.Meta(ge=0)]


class ImportState(msgspec.Struct, forbid_unknown_fields=True):
    """The place: all rows up to the line or item ``place`` are stored or expired, as many as are counted here.

    ``digest`` is that of these rows, ``options`` are those that give the rows their meaning, and ``store`` is the id of
    the node.
    """

    format: int
    store: str | None
    options: dict[str, str]
    place: Count = 0
    digest: str = ""
    stored: Count = 0
    expired: Count = 0


class ImportPlace:
    """Keeps the place of one import of the file ``name`` on the disk."""

    def __init__(self, name: str, store: str | None, options: dict[str, str]) -> None:
        """Find the place. Raises ``CannotResume``, and ``OSError`` where the file with it cannot be read."""
        self.path: str = name + SUFFIX
        self.state: ImportState = ImportState(_FORMAT, store, options)
        self._noted_at = -NOTE_SECONDS
        found = self._read()
        if found is not None:
            self._check(found)
            self.state = found
        #: Rows that earlier runs have stored.
        self.stored_before: int = self.state.stored

    def advance(self, batch: RowBatch, *, stored: bool) -> None:
        """All rows up to the end of ``batch`` are stored, or their time was over. Raises ``OSError``."""
        state = self.state
        state.place, state.digest = batch.last, batch.digest
        if stored:
            state.stored += len(batch.items)
        else:
            state.expired += len(batch.items)
        now = time.monotonic()
        if now - self._noted_at >= NOTE_SECONDS:
            self.note()
            self._noted_at = now

    def note(self) -> None:
        """Have the place on the disk. Raises ``OSError``."""
        with new_file(self.path, replaces_links=True) as file:
            file.write(msgspec.json.encode(self.state))

    def remove(self) -> None:
        """The import is done. Raises ``OSError``."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def _read(self) -> ImportState | None:
        try:
            self._believe(os.lstat(self.path))
            with open(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                self._believe(os.fstat(file.fileno()))
                data = file.read(_STATE_SIZE_MAX + 1)
        except FileNotFoundError:
            return None
        try:
            found = msgspec.json.decode(data, type=ImportState)
        except (ValueError, RecursionError):
            found = None
        if found is None or found.format != _FORMAT:
            raise CannotResume(f"{self.path} is not the place of an import that this version knows")
        return found

    def _believe(self, found: os.stat_result) -> None:
        """Raise `CannotResume` for a link, which another user may have made, and for the file of another user."""
        if not stat.S_ISREG(found.st_mode):
            raise CannotResume(f"{self.path} is no regular file")
        if found.st_uid not in {os.geteuid(), _ROOT}:
            raise CannotResume(f"{self.path} belongs to another user, the one with the number {found.st_uid}")

    def _check(self, found: ImportState) -> None:
        """Raise `CannotResume` where ``found`` is the place of another import."""
        asked = self.state
        if found.options != asked.options:
            names = sorted(name for name in found.options | asked.options if _differ(found, asked, name))
            raise CannotResume(f"{self.path} was begun with other values of {', '.join(names)}")
        if None not in (found.store, asked.store) and found.store != asked.store:
            raise CannotResume(f"{self.path} is of an import into another store, the node {found.store}")


def is_regular(name: str) -> bool:
    """Whether a name is that of a file which can be read again. Raises ``OSError``."""
    return stat.S_ISREG(Path(name).stat().st_mode)


def _differ(found: ImportState, asked: ImportState, name: str) -> bool:
    return found.options.get(name) != asked.options.get(name)
