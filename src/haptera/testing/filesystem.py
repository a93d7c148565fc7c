"""A file system in memory that knows the state after a power failure (storage-format 7).

Beside the files that a process sees it keeps their synced state and the unsynced changes. So a test can stop a program
after any call, take the power away with unsynced changes lost, kept, torn or out of order, and open the rest.
"""

from __future__ import annotations

import copy
import errno
import os
import random
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from haptera.storage import OpenMode

__all__ = ["Crashed", "MemoryFile", "MemoryFileSystem", "Unsynced"]

#: The effect of a power failure on unsynced changes: lose all, lose none, keep a first part (with the change
#: at the cut torn in the middle), or keep any of them (with writes torn by sector).
Unsynced = Literal["drop", "keep", "tear", "reorder"]

SECTOR_SIZE = 512
#: The calls that change or sync something.
CHANGES = frozenset(
    {"create", "mkdir", "rename", "unlink", "pwrite", "allocate", "truncate", "fsync", "fdatasync", "sync_directory"}
)

_T = TypeVar("_T")


class Crashed(BaseException):
    """The program was stopped here. Not an Exception, so that nothing in the program handles it."""


class _Node:
    """A file's data: as seen, as on the disk, and the writes between the two."""

    def __init__(self) -> None:
        self.seen: bytearray = bytearray()
        self.disk: bytearray = bytearray()
        self.pending: list[tuple[Literal["pwrite", "resize"], bytes, int]] = []
        self.locked = False

    def __deepcopy__(self, memo: dict[int, Any]) -> _Node:
        # By hand, as below: tests copy thousands of these, and the general way takes ten times as long.
        other = _Node()
        other.seen, other.disk, other.pending = self.seen.copy(), self.disk.copy(), self.pending.copy()
        other.locked = self.locked
        return other

    def change(self, kind: Literal["pwrite", "resize"], data: bytes, position: int) -> None:
        self.pending.append((kind, data, position))
        _apply(self.seen, kind, data, position)

    def sync(self) -> None:
        # Not "disk = seen": a change that a failed sync dropped is seen, but no later sync writes it.
        for change in self.pending:
            _apply(self.disk, *change)
        self.pending.clear()

    def drop_cache(self) -> None:
        self.seen = bytearray(self.disk)
        for change in self.pending:
            _apply(self.seen, *change)


class _Directory:
    """A directory's names: as seen, as on the disk, and the changes between the two. None stands for a removed name."""

    def __init__(self) -> None:
        self.seen: dict[str, _Node | _Directory] = {}
        self.disk: dict[str, _Node | _Directory] = {}
        self.pending: list[dict[str, _Node | _Directory | None]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> _Directory:
        other = _Directory()
        other.seen = {name: copy.deepcopy(node, memo) for name, node in self.seen.items()}
        other.disk = {name: copy.deepcopy(node, memo) for name, node in self.disk.items()}
        other.pending = [{name: copy.deepcopy(node, memo) for name, node in change.items()} for change in self.pending]
        return other

    def change(self, names: dict[str, _Node | _Directory | None]) -> None:
        self.pending.append(names)
        _rename(self.seen, names)


class MemoryFileSystem:
    """A `FileSystem` in memory.

    `calls` lists every call so far as (name, path). With `stop_after` = n the program is stopped (`Crashed`) by any
    call after the n-th. The n-th call fails with `fail_at` = n, and every call whose name is in `failing`, with the
    errno `fail_with`. Every call for a directory in `unreachable`, or a path below it, fails with the errno that stands
    there. A write that fails has been done in part; a sync of a file that fails drops the changes that it should have
    synced, as Linux does: the process still sees it, the disk never will.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.stop_after: int | None = None
        self.fail_at: int | None = None
        self.failing: frozenset[str] = frozenset()
        self.fail_with: int = errno.EIO
        self.unreachable: dict[str, int] = {}
        self._root = _Directory()
        self._boot = 1

    def __deepcopy__(self, memo: dict[int, Any]) -> MemoryFileSystem:
        other = copy.copy(self)
        other.calls, other.unreachable = self.calls.copy(), self.unreachable.copy()
        other._root = copy.deepcopy(self._root, memo)
        return other

    def open(self, path: str, mode: OpenMode) -> MemoryFile:
        if mode == "x":
            self.called("create", path)
            directory, name = self._parent(path)
            if name in directory.seen:
                raise _error(errno.EEXIST, path)
            node: _Node | _Directory = _Node()
            directory.change({name: node})
        else:
            self.called("open", path)
            node = self._find(path)
        if isinstance(node, _Directory):
            raise _error(errno.EISDIR, path)
        return MemoryFile(self, node, path, writable=mode != "r")

    def listdir(self, path: str) -> list[str]:
        self.called("listdir", path)
        return list(self._directory(path).seen)

    def mkdir(self, path: str) -> None:
        self.called("mkdir", path)
        directory, name = self._parent(path)
        if name in directory.seen:
            raise _error(errno.EEXIST, path)
        directory.change({name: _Directory()})

    def rename(self, source: str, target: str) -> None:
        self.called("rename", target)
        node = self._find(source)
        (directory, old), (other, new) = self._parent(source), self._parent(target)
        if directory is not other:
            raise _error(errno.EXDEV, target)
        directory.change({old: None, new: node})

    def unlink(self, path: str) -> None:
        self.called("unlink", path)
        if isinstance(self._find(path), _Directory):
            raise _error(errno.EISDIR, path)
        directory, name = self._parent(path)
        directory.change({name: None})

    def rmdir(self, path: str) -> None:
        self.called("rmdir", path)
        if self._directory(path).seen:
            raise _error(errno.ENOTEMPTY, path)
        directory, name = self._parent(path)
        directory.change({name: None})

    def sync_directory(self, path: str) -> None:
        directory = self._directory(path)
        self.called("sync_directory", path)
        for change in directory.pending:
            _rename(directory.disk, change)
        directory.pending.clear()

    def boot_id(self) -> str:
        return f"boot {self._boot}"

    def close(self) -> None:
        pass

    def restart(self) -> MemoryFileSystem:
        """The files of the next process after this one was killed: everything that this one saw, synced or not."""
        for node in _nodes(self._root):
            node.locked = False
        after = MemoryFileSystem()
        after._root, after._boot = self._root, self._boot
        return after

    def power_failure(self, unsynced: Unsynced, seed: int = 0) -> MemoryFileSystem:
        """The files of the next process after a power failure. This file system is left as it was."""
        after = MemoryFileSystem()
        after._boot = self._boot + 1
        after._root = _surviving_directory(self._root, unsynced, random.Random(seed))
        return after

    def read(self, path: str) -> bytes:
        """A whole file as it is seen. Not counted as a call."""
        return bytes(self._file(path).seen)

    def write(self, path: str, data: bytes) -> None:
        """Make a file hold `data`, seen and on the disk. Not counted as a call."""
        directory, name = self._parent(path)
        node = _Node()
        node.seen, node.disk = bytearray(data), bytearray(data)
        directory.seen[name] = directory.disk[name] = node

    def changes(self) -> list[int]:
        """The numbers of the calls that changed or synced something: the places to stop after."""
        return [number for number, (name, _) in enumerate(self.calls, 1) if name in CHANGES]

    def called(self, name: str, path: str) -> None:
        """Count a call; stop or fail where that was asked for."""
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise Crashed(f"stopped before {name} {path}")
        self.calls.append((name, path))
        if len(self.calls) == self.fail_at or name in self.failing:
            raise _error(self.fail_with, path)
        for directory, number in self.unreachable.items():
            if os.path.commonpath((directory, os.path.normpath(path))) == directory:
                raise _error(number, path)

    def _find(self, path: str) -> _Node | _Directory:
        node: _Node | _Directory = self._root
        for name in _parts(path):
            if not isinstance(node, _Directory):
                raise _error(errno.ENOTDIR, path)
            if name not in node.seen:
                raise _error(errno.ENOENT, path)
            node = node.seen[name]
        return node

    def _file(self, path: str) -> _Node:
        node = self._find(path)
        if isinstance(node, _Directory):
            raise _error(errno.EISDIR, path)
        return node

    def _directory(self, path: str) -> _Directory:
        node = self._find(path)
        if not isinstance(node, _Directory):
            raise _error(errno.ENOTDIR, path)
        return node

    def _parent(self, path: str) -> tuple[_Directory, str]:
        return self._directory(os.path.dirname(path)), os.path.basename(path)


class MemoryFile:
    """An open file of a `MemoryFileSystem`."""

    def __init__(self, fs: MemoryFileSystem, node: _Node, path: str, *, writable: bool) -> None:
        self._fs = fs
        self._node = node
        self._path = path
        self._writable = writable
        self._locking = False
        self._closed = False

    def pread(self, size: int, offset: int) -> bytes:
        self._called("pread")
        return bytes(self._node.seen[offset : offset + size])

    def pwrite(self, data: bytes, offset: int) -> None:
        try:
            self._called("pwrite", writes=True)
        except OSError:
            self._node.change("pwrite", data[: len(data) // 2], offset)
            raise
        self._node.change("pwrite", bytes(data), offset)

    def allocate(self, size: int) -> None:
        try:
            self._called("allocate", writes=True)
        except OSError:
            self._grow(size // 2)
            raise
        self._grow(size)

    def truncate(self, size: int) -> None:
        self._called("truncate", writes=True)
        self._node.change("resize", b"", size)

    def fdatasync(self) -> None:
        self._sync("fdatasync")

    def fsync(self) -> None:
        self._sync("fsync")

    def size(self) -> int:
        self._called("size")
        return len(self._node.seen)

    def drop_cache(self) -> None:
        self._called("drop_cache")
        self._node.drop_cache()

    def try_lock(self) -> bool:
        self._called("lock")
        if self._node.locked:
            return False
        self._node.locked = self._locking = True
        return True

    def close(self) -> None:
        if self._locking:
            self._node.locked = self._locking = False
        self._closed = True

    def _grow(self, size: int) -> None:
        self._node.change("resize", b"", max(size, len(self._node.seen)))

    def _sync(self, name: str) -> None:
        try:
            self._called(name)
        except OSError:
            self._node.pending.clear()
            raise
        self._node.sync()

    def _called(self, name: str, *, writes: bool = False) -> None:
        if self._closed or (writes and not self._writable):
            raise _error(errno.EBADF, self._path)
        self._fs.called(name, self._path)


@lru_cache(maxsize=1024)
def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in os.path.normpath(path).split("/") if part not in ("", "."))


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


def _apply(data: bytearray, kind: Literal["pwrite", "resize"], new: bytes, position: int) -> None:
    if kind == "resize":
        del data[position:]
        data.extend(bytes(position - len(data)))
    else:
        data.extend(bytes(max(0, position + len(new) - len(data))))
        data[position : position + len(new)] = new


def _rename(names: dict[str, _Node | _Directory], change: dict[str, _Node | _Directory | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _nodes(directory: _Directory) -> list[_Node]:
    found = []
    for node in directory.seen.values():
        found.extend(_nodes(node) if isinstance(node, _Directory) else [node])
    return found


def _surviving_directory(directory: _Directory, unsynced: Unsynced, choices: random.Random) -> _Directory:
    names = dict(directory.disk)
    for change in _surviving(directory.pending, unsynced, choices)[0]:
        _rename(names, change)
    after = _Directory()
    for name, node in names.items():
        if isinstance(node, _Directory):
            after.seen[name] = _surviving_directory(node, unsynced, choices)
        else:
            after.seen[name] = _surviving_file(node, unsynced, choices)
    after.disk = dict(after.seen)
    return after


def _surviving_file(node: _Node, unsynced: Unsynced, choices: random.Random) -> _Node:
    data = bytearray(node.disk)
    kept, torn = _surviving(node.pending, unsynced, choices)
    for kind, new, position in kept:
        if kind == "pwrite" and unsynced == "reorder":
            _apply_by_sector(data, new, position, choices)
        else:
            _apply(data, kind, new, position)
    if torn is not None and torn[0] == "pwrite":
        kind, new, position = torn
        _apply(data, kind, new[: choices.randrange(len(new) + 1)], position)
    after = _Node()
    after.seen, after.disk = data, bytearray(data)
    return after


def _surviving(pending: list[_T], unsynced: Unsynced, choices: random.Random) -> tuple[list[_T], _T | None]:
    """The changes that a power failure keeps whole, and the one that it tears."""
    if unsynced == "drop" or not pending:
        return [], None
    if unsynced == "keep":
        return pending, None
    if unsynced == "tear":
        cut = choices.randrange(len(pending))
        return pending[:cut], pending[cut]
    return [change for change in pending if choices.random() < 0.5], None


def _apply_by_sector(data: bytearray, new: bytes, position: int, choices: random.Random) -> None:
    """Write a random part of the sectors of a write; the others are as they were, or zeros where the file grew."""
    start = position
    while start < position + len(new):
        end = min(position + len(new), (start // SECTOR_SIZE + 1) * SECTOR_SIZE)
        if choices.random() < 0.5:
            _apply(data, "pwrite", new[start - position : end - position], start)
        start = end
    data.extend(bytes(max(0, position + len(new) - len(data))))
