"""The one door to the operating system's files.

Everything that storage does to a disk goes through these two protocols, so a test can stand in the disk's place,
record each call, and crash between any two (`haptera.testing.MemoryFileSystem`). All calls block, and raise OSError
as the operating system does.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import weakref
from typing import Literal, NoReturn, Protocol

from haptera import forks

__all__ = [
    "TEMPORARY",
    "File",
    "FileSystem",
    "OpenMode",
    "OsFile",
    "OsFileSystem",
    "ReadOnlyFile",
    "ReadOnlyFileSystem",
    "create_anew",
    "give_name",
    "open_regular",
    "read_file",
    "write_file_atomically",
]

#: r: read; r+: read and write an existing file; x: create, read and write, FileExistsError if there is one.
OpenMode = Literal["r", "r+", "x"]

#: Ends the name of a file that is being made: it gets its own name when it is whole and durable.
TEMPORARY = ".tmp"

#: Where Linux has the id of the boot, and the most bytes of it that are read.
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_BOOT_ID_SIZE_MAX = 128

#: Directories that stay open: those of one data directory and its archive.
DIRECTORIES_OPEN_MAX = 8

PRIVATE_FILE_MODE = 0o600
PRIVATE_DIRECTORY_MODE = 0o700


class File(Protocol):
    """An open file. Offsets and sizes are in bytes."""

    def pread(self, size: int, offset: int) -> bytes:
        """`size` bytes from `offset`; fewer only at the end of the file."""

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data`. After an error any part of it may have been written."""

    def allocate(self, size: int) -> None:
        """Grow to `size` bytes of zeros with the disk space reserved."""

    def truncate(self, size: int) -> None: ...

    def fdatasync(self) -> None:
        """Make the data durable, and the size where it is needed to read them."""

    def fsync(self) -> None: ...

    def size(self) -> int: ...

    def drop_cache(self) -> None:
        """Forget clean cached pages, so that reads see the bytes of the disk.

        A hint: does nothing where it cannot be done.
        """

    def try_lock(self) -> bool:
        """Take the exclusive lock, held until close. False: someone else has it."""

    def close(self) -> None: ...


class FileSystem(Protocol):
    """A hierarchy of directories and files. Paths are absolute or relative to the process."""

    def open(self, path: str, mode: OpenMode) -> File:
        """Open a regular file; anything else is an OSError. A new one is readable by its owner alone (0600)."""

    def listdir(self, path: str) -> list[str]: ...

    def mkdir(self, path: str) -> None:
        """Create one directory, for its owner alone (0700)."""

    def rename(self, source: str, target: str) -> None:
        """Replace `target` by `source` in one step."""

    def unlink(self, path: str) -> None: ...

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable: creations, renames and removals."""

    def boot_id(self) -> str:
        """A name of this run of the machine, which a kill of the process leaves and a loss of power does not; empty
        where it is not known.
        """

    def close(self) -> None:
        """Let go of what stays open between two calls. Later calls work all the same."""


class OsFile:
    """A file of the operating system. It belongs to the process that opened it: in a forked child it is closed."""

    __slots__ = ("__weakref__", "_descriptor", "_locked")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._locked = False
        forks.watch(self)

    def fileno(self) -> int:
        """The descriptor, for a call of the system that no method here makes."""
        return self._descriptor

    def pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        if len(data) == size:
            return data
        pieces = [data]
        while data and (size := size - len(data)) > 0:
            offset += len(data)
            data = os.pread(self._descriptor, size, offset)
            pieces.append(data)
        return b"".join(pieces)

    def pwrite(self, data: bytes, offset: int) -> None:
        written = os.pwrite(self._descriptor, data, offset)
        while written < len(data):
            written += os.pwrite(self._descriptor, memoryview(data)[written:], offset + written)

    def allocate(self, size: int) -> None:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._descriptor, 0, size)
        else:  # macOS: the space is not reserved, so a full disk shows at the write
            os.ftruncate(self._descriptor, size)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def fdatasync(self) -> None:
        _fdatasync(self._descriptor)

    def fsync(self) -> None:
        _fsync(self._descriptor)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def drop_cache(self) -> None:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def try_lock(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._locked = True
        return True

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                if self._locked:
                    # The lock belongs to the open file, which a child that was forked without Python's knowledge, by a
                    # library for instance, still has: closing our descriptor alone would leave it locked.
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            finally:
                os.close(descriptor)

    def disown(self, owner: int) -> None:
        """Close the descriptor of a forked child. Its lock stays with the process `owner`, and ends with that one."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class OsFileSystem:
    """The operating system's files.

    A directory that was synced once stays open, because a rename that cannot be synced for want of a descriptor would
    be no less than a failed disk.
    """

    def __init__(self) -> None:
        self._directories: dict[str, int] = {}
        self._lock = threading.Lock()  # directories are synced by several threads
        weakref.finalize(self, _close_all, self._directories)
        forks.watch(self)

    def open(self, path: str, mode: OpenMode) -> OsFile:
        return OsFile(open_regular(path, _FLAGS[mode], PRIVATE_FILE_MODE))

    def listdir(self, path: str) -> list[str]:
        return os.listdir(path)

    def mkdir(self, path: str) -> None:
        os.mkdir(path, PRIVATE_DIRECTORY_MODE)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def sync_directory(self, path: str) -> None:
        with self._lock:
            _fsync(self._directory(path))

    def boot_id(self) -> str:
        try:
            with open(_BOOT_ID, encoding="ascii") as file:
                return file.read(_BOOT_ID_SIZE_MAX).strip()
        except (OSError, ValueError):  # no Linux, or one that hides it
            return ""

    def close(self) -> None:
        with self._lock:
            _close_all(self._directories)

    def disown(self, owner: int) -> None:
        """Close the directories of a forked child."""
        _close_all(self._directories)
        self._lock = threading.Lock()  # a thread of the process `owner` may have held it

    def _directory(self, path: str) -> int:
        """A descriptor of the directory that has this name now."""
        found = self._directories.get(path)
        if found is not None:
            if os.path.samestat(os.fstat(found), os.stat(path)):
                return found
            os.close(self._directories.pop(path))
        if len(self._directories) >= DIRECTORIES_OPEN_MAX:
            os.close(self._directories.pop(next(iter(self._directories))))
        self._directories[path] = opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return opened


class ReadOnlyFile:
    """A file of something that is read in place of files. A subclass gives its bytes."""

    def pwrite(self, data: bytes, offset: int) -> None:
        _refuse_change()

    def allocate(self, size: int) -> None:
        _refuse_change()

    def truncate(self, size: int) -> None:
        _refuse_change()

    def fdatasync(self) -> None:
        _refuse_change()

    def fsync(self) -> None:
        _refuse_change()

    def drop_cache(self) -> None:
        pass

    def try_lock(self) -> bool:
        _refuse_change()

    def close(self) -> None:
        pass


class ReadOnlyFileSystem:
    """Something that is read in place of files. A subclass opens them and lists them."""

    def mkdir(self, path: str) -> None:
        _refuse_change(path)

    def rename(self, source: str, target: str) -> None:
        _refuse_change(target)

    def unlink(self, path: str) -> None:
        _refuse_change(path)

    def rmdir(self, path: str) -> None:
        _refuse_change(path)

    def sync_directory(self, path: str) -> None:
        _refuse_change(path)

    def boot_id(self) -> str:
        """Nothing is written here in any boot."""
        return ""

    def close(self) -> None:
        pass


def _refuse_change(path: str | None = None) -> NoReturn:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)


_FLAGS: dict[OpenMode, int] = {"r": os.O_RDONLY, "r+": os.O_RDWR, "x": os.O_RDWR | os.O_CREAT | os.O_EXCL}


def _close_all(directories: dict[str, int]) -> None:
    while directories:
        os.close(directories.popitem()[1])


def _fsync(descriptor: int) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync alone stops at the drive's own cache
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


_fdatasync = os.fdatasync if hasattr(os, "fdatasync") else _fsync


def open_regular(path: str, flags: int, mode: int = 0) -> int:
    """Open a regular file and return its descriptor. Raises OSError for anything else, and never waits for it: neither
    for the other end of a pipe nor for a device.
    """
    # Looked at before, because opening alone makes some devices act, and after, because it may be another file by then.
    if not flags & os.O_CREAT:
        _check_regular(os.stat(path))
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, mode)
    try:
        _check_regular(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind} and no regular file")


_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_file(fs: FileSystem, path: str, size_max: int) -> bytes:
    """The first `size_max` bytes of a file. Raises OSError."""
    file = fs.open(path, "r")
    try:
        return file.pread(size_max, 0)
    finally:
        file.close()


def create_anew(fs: FileSystem, path: str) -> File:
    """Create a file in place of one that a crash may have left. Raises OSError."""
    try:
        return fs.open(path, "x")
    except FileExistsError:
        fs.unlink(path)
        return fs.open(path, "x")


def give_name(fs: FileSystem, directory: str, name: str) -> None:
    """Give a file that was made and synced under its temporary name its own, durably. Raises OSError."""
    path = os.path.join(directory, name)
    fs.rename(path + TEMPORARY, path)
    fs.sync_directory(directory)


def write_file_atomically(fs: FileSystem, directory: str, name: str, data: bytes) -> None:
    """Make `directory`/`name` hold `data`, durably: after a crash at any instant it is the old file or the new one.
    Raises OSError.
    """
    path = os.path.join(directory, name)
    temporary = path + TEMPORARY
    file = create_anew(fs, temporary)
    try:
        file.pwrite(data, 0)
        file.fsync()
    finally:
        file.close()
    give_name(fs, directory, name)
