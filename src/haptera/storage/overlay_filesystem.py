"""A file system over another one, which it reads and never changes: the changes stay in memory.

The offline tools read a data directory through it. So they can open the directory exactly as a node does, locks and
repairs included, and no call of theirs can change the disk or keep a node out.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from haptera.storage.segment_reader import nonzero_end

if TYPE_CHECKING:
    from haptera.storage.filesystem import File, FileSystem, OpenMode

__all__ = ["OverlayFileSystem"]


class _Content:
    """A file with its changes: the first `kept` bytes of `base`, then zeros up to `size`, with `writes` over them.

    Zeros at the end of the file stay zeros: a node that runs may be writing records there, and a part of them would
    look like damage.
    """

    def __init__(self, base: File | None) -> None:
        self.base = base
        self.kept = self.size = 0
        if base is not None:
            self.size = base.size()
            self.kept = nonzero_end(base, 0, self.size)
        self.writes: list[tuple[int, bytes]] = []

    def read(self, size: int, offset: int) -> bytes:
        size = max(0, min(size, self.size - offset))
        kept = max(0, min(size, self.kept - offset))
        data = bytearray(self.base.pread(kept, offset) if self.base is not None and kept else b"")
        data.extend(bytes(size - len(data)))
        for start, written in self.writes:
            first, end = max(start, offset), min(start + len(written), offset + size)
            if first < end:
                data[first - offset : end - offset] = written[first - start : end - start]
        return bytes(data)

    def write(self, data: bytes, offset: int) -> None:
        self.writes.append((offset, bytes(data)))
        self.size = max(self.size, offset + len(data))

    def resize(self, size: int) -> None:
        self.size = size
        self.kept = min(self.kept, size)
        self.writes = [(start, data[: size - start]) for start, data in self.writes if start < size]


class OverlayFileSystem:
    """Shows the files of another file system, and keeps every change in memory.

    The names in a directory are those of the first look at it. A node that runs may make another file meanwhile, and
    the opening of a data directory in this view would take it for the work of a second process.

    A lock is granted without asking anyone, and a sync has nothing to do. A reservation takes no memory. The files that
    were opened for a change stay open until `close`.
    """

    def __init__(self, base: FileSystem) -> None:
        self._base = base
        # None stands for a file that was removed.
        self._changed: dict[str, _Content | None] = {}
        self._made: set[str] = set()
        self._names: dict[str, list[str]] = {}
        # Files of other places, each with its file system and its path there.
        self._shown: dict[str, tuple[FileSystem, str]] = {}

    def show(self, path: str, fs: FileSystem, source: str) -> None:
        """Show the file `source` of another file system at `path`, in place of any that is there."""
        self._shown[os.path.normpath(path)] = (fs, source)

    def open(self, path: str, mode: OpenMode) -> File:
        name = os.path.normpath(path)
        if name in self._changed:
            content = self._changed[name]
            if content is None and mode != "x":
                raise _error(errno.ENOENT, path)
            if content is not None:
                if mode == "x":
                    raise _error(errno.EEXIST, path)
                return _OverlayFile(content)
        elif mode == "r":
            return self._open_base(name)
        if mode == "x":
            if name not in self._changed and os.path.basename(name) in self.listdir(os.path.dirname(name)):
                raise _error(errno.EEXIST, path)
            content = self._changed[name] = _Content(None)
        else:
            content = self._changed[name] = _Content(self._open_base(name))
        return _OverlayFile(content)

    def listdir(self, path: str) -> list[str]:
        folder = os.path.normpath(path)
        names = set() if folder in self._made else set(self._base_names(folder))
        names.update(os.path.basename(shown) for shown in self._shown if os.path.dirname(shown) == folder)
        for name, content in self._changed.items():
            if os.path.dirname(name) == (folder if folder != "." else ""):
                (names.discard if content is None else names.add)(os.path.basename(name))
        names.update(os.path.basename(made) for made in self._made if os.path.dirname(made) == folder)
        return sorted(names)

    def mkdir(self, path: str) -> None:
        name = os.path.normpath(path)
        if os.path.basename(name) in self.listdir(os.path.dirname(name)):
            raise _error(errno.EEXIST, path)
        self._made.add(name)

    def rename(self, source: str, target: str) -> None:
        old, new = os.path.normpath(source), os.path.normpath(target)
        if old not in self._changed:
            self._changed[old] = _Content(self._open_base(old))
        content = self._changed[old]
        if content is None:
            raise _error(errno.ENOENT, source)
        self._changed[old] = None
        self._changed[new] = content

    def unlink(self, path: str) -> None:
        name = os.path.normpath(path)
        if os.path.basename(name) not in self.listdir(os.path.dirname(name)):
            raise _error(errno.ENOENT, path)
        self._changed[name] = None

    def rmdir(self, path: str) -> None:
        name = os.path.normpath(path)
        if name not in self._made:
            raise _error(errno.EROFS, path)  # the directories of the base stay
        if self.listdir(name):
            raise _error(errno.ENOTEMPTY, path)
        self._made.remove(name)

    def sync_directory(self, path: str) -> None:
        """Nothing here outlives the process."""

    def boot_id(self) -> str:
        """That of the base, whose files are seen here."""
        return self._base.boot_id()

    def _base_names(self, folder: str) -> list[str]:
        if folder not in self._names:
            self._names[folder] = self._base.listdir(folder)
        return self._names[folder]

    def _open_base(self, name: str) -> File:
        fs, path = self._shown.get(name, (self._base, name))
        return fs.open(path, "r")

    def close(self) -> None:
        """Close the files that were opened for a change, and forget the changes."""
        for content in self._changed.values():
            if content is not None and content.base is not None:
                content.base.close()
        self._changed.clear()
        self._made.clear()


class _OverlayFile:
    """An open file whose changes stay in memory."""

    def __init__(self, content: _Content) -> None:
        self._content = content

    def pread(self, size: int, offset: int) -> bytes:
        return self._content.read(size, offset)

    def pwrite(self, data: bytes, offset: int) -> None:
        self._content.write(data, offset)

    def allocate(self, size: int) -> None:
        self._content.size = max(self._content.size, size)

    def truncate(self, size: int) -> None:
        self._content.resize(size)

    def fdatasync(self) -> None:
        """Nothing here outlives the process."""

    def fsync(self) -> None:
        """Nothing here outlives the process."""

    def size(self) -> int:
        return self._content.size

    def drop_cache(self) -> None:
        if self._content.base is not None:
            self._content.base.drop_cache()

    def try_lock(self) -> bool:
        return True

    def close(self) -> None:
        """The content stays with the file system, which the next opening sees."""


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
