"""The files that the audit log is written to: repaired when they are opened, synced with each write, rotated by size.

All of it blocks, and runs on the thread that waits for the disk. A line counts when it is synced. After a failed write
or sync nothing more is written until the next start: what the page cache holds then cannot be trusted. A full disk is
told from a broken one. Nothing of the write is left then, and the same lines may be tried again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from haptera.errors import StorageError
from haptera.node.audit.chain import BEGINNING, LINE_SIZE_MAX, Head, digest_of, sealed
from haptera.node.audit.chain_check import ChainCheck
from haptera.node.audit.event import BEGUN, BEHIND, CONTINUED, DAMAGED, DIFFERS, REMOVED, REPAIRED, AuditEvent
from haptera.node.audit.event_line import KeyForm, fields_of, plain_key
from haptera.node.audit.found_files import file_name, find_files, pieces
from haptera.storage import DiskFailed, make_directory, translated

if TYPE_CHECKING:
    from haptera.storage import File, FileSystem

__all__ = ["BATCH_SIZE_MAX", "Appended", "AuditFiles", "Sizes"]

_logger = logging.getLogger(__name__)

#: Bytes that are written and synced together, so that a crash leaves no more than that unfinished.
BATCH_SIZE_MAX: Final = 1024 * 1024

#: Lines that are made in one slice: a fraction of a millisecond.
_SLICE_LINES: Final = 64


#: The words of the lines that the log writes about itself where somebody has changed it.
_DAMAGE: Final = {
    DAMAGED: "a line of its last file was changed",
    BEHIND: "its last lines were cut off",
    DIFFERS: "it was made again from some line on",
}


class Appended(NamedTuple):
    """The number of events that are on the disk, and why the others are not."""

    done: int
    error: StorageError | None = None


class Sizes(NamedTuple):
    """Bytes of one file, unless a batch is larger, and of all files together; 0: there is no bound."""

    file: int
    all: int


class AuditFiles:
    """The audit log in one folder, which is made with the first line.

    ``head`` is that of the last line on the disk, ``size`` the bytes of all files. ``failed`` is the error after which
    nothing is written any more.
    """

    def __init__(
        self, fs: FileSystem, path: str, sizes: Sizes, *, clock_ms: Callable[[], int], key_form: KeyForm = plain_key
    ) -> None:
        self.path = path
        self.head: Head = BEGINNING
        self.size: int = 0
        self.failed: StorageError | None = None
        #: The fault that was found in the log when it was opened, in a clause, or "".
        self.damage: str = ""
        self._fs = fs
        self._sizes = sizes
        self._clock_ms = clock_ms
        self._key_form = key_form
        self._files: dict[int, int] = {}  # sizes by first sequence, in order; retention bounds them
        self._file: File | None = None
        self._active = 0  # the first sequence of that file
        self._file_size = 0
        self._made = False
        self._opened = False
        self._noted = BEGINNING

    def open(self, noted: Head = BEGINNING) -> None:
        """Find the end of the log, and repair what a crash has left of it. Never raises for trouble with the files: the
        log opens with the first line for which a full disk has room again, and after any other error ``failed`` has it.

        ``noted`` is the newest head that is known from elsewhere: a log that ends before it, or has another line in its
        place, says so in a line.
        """
        self._noted = noted
        try:
            self._see_open()
        except StorageError as error:
            _logger.error("audit_not_opened", extra={"path": self.path, "reason": str(error)})
            if isinstance(error, DiskFailed):
                self.failed = error

    def append(self, events: Sequence[AuditEvent]) -> Appended:
        """Write events, and sync them. Nothing of an event behind the first that could not be written is there."""
        done = 0
        try:
            if self.failed is not None:
                return Appended(0, self.failed)
            self._see_open()
            while done < len(events):
                done += self._write(events[done:])
        except DiskFailed as error:
            self.failed = error
            return Appended(done, error)
        except StorageError as error:
            return Appended(done, error)
        return Appended(done)

    def close(self) -> None:
        """Close the file. Every line that counts is synced."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    # -- opening ----------------------------------------------------------------------------------------------------

    def _see_open(self) -> None:
        if self._opened:
            return
        self.close()
        self.head, self._files = BEGINNING, {}
        with translated(self.path, "open the audit log"):
            self._find_end()
            differs = self._noted_line_differs()
        if self._noted.sequence > self.head.sequence:
            self._go_on_behind_noted()
        elif differs:
            _logger.error("audit_differs", extra={"path": self.path, "noted": str(self._noted)})
            self._write([self._own(DIFFERS, {"noted": str(self._noted)})])
        elif self._file is not None and not self.head.sequence:
            self._write([])  # begins the chain: files without a line look like ones that were emptied
        self._opened = True

    def _go_on_behind_noted(self) -> None:
        """Go on behind the noted head, in another file, so that the lines that are not there stay missing for each
        verifier. Where there is no line at all, the directory was restored; or somebody has removed all of them.
        """
        told = {"path": self.path, "sequence": self.head.sequence, "noted": str(self._noted)}
        # A directory that was restored has no file; one that has a file without a line had lines.
        method = BEHIND if self.head.sequence or self._files else CONTINUED
        if method == BEHIND:
            _logger.error("audit_behind", extra=told)
        else:
            _logger.warning("audit_continued", extra=told)
        self.close()
        self.head = self._noted
        self._write([self._own(method, {"noted": str(self._noted)})])

    def _noted_line_differs(self) -> bool:
        """Whether the line of the noted head is there, and is another one. Raises OSError."""
        sequence, digest = self._noted
        first = max((each for each in self._files if each <= sequence <= self.head.sequence), default=None)
        if first is None:
            return False
        file = self._fs.open(os.path.join(self.path, file_name(first)), "r")
        try:
            lines = (digest_of(piece.data) for piece in pieces(file))
            found = next(islice(lines, sequence - first, None), digest)
        finally:
            file.close()
        return found != digest

    def _find_end(self) -> None:
        fs = self._fs
        try:
            found = find_files(fs, self.path)
        except FileNotFoundError:
            return
        self._made = True
        for first, path in found.items():
            file = fs.open(path, "r")
            try:
                self._files[first] = file.size()
            finally:
                file.close()
        self.size = sum(self._files.values())
        empty: list[int] = []
        for first in reversed(found):
            check, torn_at = self._read(first)
            if check.lines:
                self._go_on(first, check, torn_at, empty)
                return
            empty.append(first)
        self._go_on(None, ChainCheck(), None, empty)

    def _read(self, first: int) -> tuple[ChainCheck, int | None]:
        """Read a file to its end. Returns where its last lines are torn, if they are."""
        path = os.path.join(self.path, file_name(first))
        check, offset = ChainCheck(), 0
        check.begin_file(path, first)
        file = self._fs.open(path, "r")
        try:
            size = file.size()
            for piece in pieces(file):
                # A sector that was lost in a power failure is zeros, and no line has one.
                if not piece.ended or (b"\0" in piece.data and size - offset <= BATCH_SIZE_MAX):
                    return check, offset
                check.add_line(piece.data, piece.end)
                offset = piece.end
        finally:
            file.close()
        return check, None

    def _go_on(self, first: int | None, check: ChainCheck, torn_at: int | None, empty: Sequence[int]) -> None:
        """Go on behind the last line, which is in the file ``first`` if there is one.

        Of the files behind it, which are ``empty`` of whole lines, rotation has made one and got no further.
        """
        self.head = check.head
        if first is not None:
            self._use(first)
            if torn_at is not None:
                self._repair(torn_at, check.lines + 1)
        for each in reversed(empty):
            if each == self.head.sequence + 1:
                self._use(each)
                if self._file_size:
                    self._repair(0, 1)
            else:
                self._fs.unlink(os.path.join(self.path, file_name(each)))
                self.size -= self._files.pop(each)
        if check.faults:
            self._leave(check)
        self._remove([each for each, end in self._ends() if end <= check.removed_through])

    def _use(self, first: int) -> None:
        self.close()
        self._file = self._fs.open(os.path.join(self.path, file_name(first)), "r+")
        self._active, self._file_size = first, self._files[first]

    def _repair(self, offset: int, line: int) -> None:
        """Put a line that says so in place of what a crash has left at the end of the last file."""
        path, file, cut = self._active_path, self._file, self._file_size - offset
        assert file is not None
        _logger.warning("audit_torn_line_cut_off", extra={"file": path, "offset": offset, "bytes": cut})
        event = self._own(REPAIRED, {"file": os.path.basename(path), "line": line, "bytes": cut})
        data, head, _ = self._encoded([*self._begun(), event])
        file.pwrite(data, offset)
        file.truncate(offset + len(data))
        self._sync(file, path)
        self._file_size, self.size = offset, self.size - cut
        self._note_written(data, head)

    def _leave(self, check: ChainCheck) -> None:
        """Go on in another file: one that is damaged stays as it is, as evidence."""
        fault = check.faults[0]
        _logger.error(
            "audit_damaged",
            extra={
                "file": fault.file,
                "line": fault.line,
                "problem": fault.problem,
                "meaning": "the audit log goes on in another file",
                "help": "run `haptera audit verify`, and keep a copy of the files",
            },
        )
        self.close()
        detail: dict[str, str | int] = {
            "file": os.path.basename(fault.file),
            "line": fault.line,
            "problem": fault.problem,
        }
        self._write([self._own(DAMAGED, detail)])

    # -- writing ----------------------------------------------------------------------------------------------------

    def _write(self, events: Sequence[AuditEvent]) -> int:
        """Write as many events as make a batch, at least one, and return their number. Raises StorageError."""
        begun = self._begun()
        data, head, count = self._encoded([*begun, *events])
        rotated = self._make_file(len(data))
        file, path = self._file, self._active_path
        assert file is not None
        try:
            with translated(path, "write to the audit log"):
                file.pwrite(data, self._file_size)
        except StorageError as error:
            if not isinstance(error, DiskFailed):
                with translated(path, "take back a write to the audit log"):
                    file.truncate(self._file_size)
            raise
        self._sync(file, path)
        self._note_written(data, head)
        if rotated:
            self._retain()
        return count - len(begun)

    def _begun(self) -> list[AuditEvent]:
        """The event of a chain that has no line yet."""
        return [] if self.head.sequence else [self._own(BEGUN, {})]

    def _encoded(self, events: Sequence[AuditEvent]) -> tuple[bytes, Head, int]:
        """The lines of the first events: their bytes, the head behind them, and their number."""
        head, lines, size = self.head, [], 0
        for number, event in enumerate(events, 1):
            if not number % _SLICE_LINES:
                time.sleep(0)  # lets the loop go on, which else waits for the interpreter
            line, head = sealed(fields_of(event, self._key_form), head)
            assert len(line) <= LINE_SIZE_MAX
            lines.append(line)
            size += len(line) + 1
            if size >= BATCH_SIZE_MAX - LINE_SIZE_MAX:
                break
        return b"\n".join((*lines, b"")), head, len(lines)

    def _make_file(self, size: int) -> bool:
        """See that there is a file for so many bytes; whether it is one that follows another."""
        if self._file is not None and (not self._file_size or self._file_size + size <= self._sizes.file):
            return False
        first = self.head.sequence + 1
        path = os.path.join(self.path, file_name(first))
        with translated(path, "make a file of the audit log"):
            if not self._made:
                make_directory(self._fs, self.path)
                self._made = True
            file = self._fs.open(path, "x")
            try:
                self._fs.sync_directory(self.path)
            except BaseException:
                file.close()
                with contextlib.suppress(OSError):
                    self._fs.unlink(path)
                raise
        self.close()
        self._file, self._active, self._file_size = file, first, 0
        self._files[first] = 0
        return len(self._files) > 1

    def _sync(self, file: File, path: str) -> None:
        """Sync. After a failure, a full disk too, it is not known what is on the disk."""
        try:
            file.fdatasync()
        except OSError as error:
            raise DiskFailed(f"{path}: cannot sync the audit log: {error.strerror or error}") from error

    def _note_written(self, data: bytes, head: Head) -> None:
        self.head = head
        self._file_size += len(data)
        self.size += len(data)
        self._files[self._active] = self._file_size

    # -- retention --------------------------------------------------------------------------------------------------

    def _retain(self) -> None:
        """Remove the oldest files beyond the bound. A line says so first, so that no other removal looks like this."""
        if not self._sizes.all:
            return
        left, going, through = self.size, [], 0
        for first, end in self._ends():
            if left <= self._sizes.all:
                break
            left -= self._files[first]
            going.append(first)
            through = end
        if going:
            self._write([self._own(REMOVED, {"through": through})])
            self._remove(going)

    def _ends(self) -> list[tuple[int, int]]:
        """The first and the last sequence of each file but the last one."""
        firsts = list(self._files)
        return [(first, after - 1) for first, after in pairwise(firsts)]

    def _remove(self, going: Sequence[int]) -> None:
        for first in going:
            path = os.path.join(self.path, file_name(first))
            try:
                self._fs.unlink(path)
            except OSError as error:
                _logger.warning("audit_file_not_removed", extra={"file": path, "reason": str(error)})
                return
            self.size -= self._files.pop(first)

    @property
    def _active_path(self) -> str:
        return os.path.join(self.path, file_name(self._active))

    def _own(self, method: str, detail: dict[str, str | int]) -> AuditEvent:
        self.damage = _DAMAGE.get(method, self.damage)
        return AuditEvent(time_ms=self._clock_ms(), kind="log", method=method, detail=detail)
