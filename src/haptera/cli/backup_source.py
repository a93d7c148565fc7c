"""The backup that an offline command reads: from a file or from standard input, opened with the master key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final

from haptera.cli import standard_streams
from haptera.cli.progress_option import Update, progress
from haptera.errors import MissingKey, StorageError

if TYPE_CHECKING:
    from haptera.cli.offline import Offline
    from haptera.storage import Archive, ArchivedSegments, BackupReader, File, MasterKey

#: How errors name standard input.
STANDARD_INPUT: Final = "standard input"


class BackupSource:
    """An open backup: ``reader`` has read what stands before its files. ``file`` is None for standard input."""

    def __init__(self, reader: BackupReader, file: File | None, master: MasterKey) -> None:
        self.reader = reader
        self.file = file
        self._master = master

    def archived(self, archive: Archive | None) -> ArchivedSegments | None:
        """The segments of an archive that go on where the backup ends."""
        if archive is None:
            return None
        from haptera.storage import ArchivedSegments

        return ArchivedSegments(archive, self.reader, self._master)

    def progress(self, doing: str, *, wanted: bool) -> AbstractContextManager[Update]:
        """Return the progress over the bytes of the backup."""
        return progress(doing, self.reader.size, wanted=wanted)


@contextmanager
def open_backup(name: str, offline: Offline) -> Iterator[BackupSource]:
    """Open the backup in a file; - is standard input. Raises StorageError (there is none), and as `BackupReader`."""
    from haptera.storage import BackupReader, unwrap_keyring

    master = offline.master_key()
    if master is None:
        raise MissingKey(name, "no master key is given, and a backup is noise without that of its node")
    with _opened(name) as (shown, file, read):
        reader = BackupReader(shown, read, lambda path, data: unwrap_keyring(path, data, master))
        yield BackupSource(reader, file, master)


@contextmanager
def _opened(name: str) -> Iterator[tuple[str, File | None, Callable[[int], bytes]]]:
    """(its name in errors, the file if it is one, a function that reads the next bytes)"""
    from haptera.storage import OsFileSystem

    try:
        if name == "-":
            with standard_streams.open_input() as stream:
                yield STANDARD_INPUT, None, lambda size: _read(stream.read, size)
            return
        file = OsFileSystem().open(name, "r")
    except OSError as error:
        raise StorageError(f"cannot read {name}: {error.strerror or error}") from error
    try:
        offset = 0

        def read(size: int) -> bytes:
            nonlocal offset
            data = file.pread(size, offset)
            offset += len(data)
            return data

        yield name, file, read
    finally:
        file.close()


def _read(read: Callable[[int], bytes | None], size: int) -> bytes:
    """The next ``size`` bytes of a stream, which may give them in pieces; fewer at its end."""
    pieces = []
    while size and (piece := read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
