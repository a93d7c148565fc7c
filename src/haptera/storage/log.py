"""The log: the one place where an entry becomes durable.

This comment is the format of a data directory's log, and the rules by which it is written and recovered.
spec/storage-format.md says the same at more length. Integers are unsigned and big-endian; CRC-32C is Castagnoli's.

Files
    log/<number>.seg, the number in 16 lower-case hex digits. The first is 1, and there is no gap; the oldest are
    removed when a snapshot replaces them. The last one may be active: appended to. Or it is empty: with a capacity of
    81 bytes it has room for nothing. It is there so that the log of a complete directory has a segment, and each
    snapshot a segment that goes on from it, and the next segment takes its place. log/<number>.seg.tmp is a segment
    that is being made; it holds no record, and means nothing when a crash leaves it.

Segment
    header (80 bytes):
        offset size field
             0    8 magic "HAPTERAL"
             8    2 format: 1. Magic, this field and the CRC keep their places in every format
            10    1 durability: 0 sync, 1 os
            11    1 zero
            12    8 id of the data key: each segment may have another key
            20    8 segment number
            28   16 segment id: random
            44    8 index of the first record
            52   16 tag of the last record of the segment before; zeros in segment 1
            68    8 capacity: the file's size while the segment is active
            76    4 CRC-32C of bytes 0..75
    records, one after the other; then, while the segment is active, zeros up to its capacity. The last byte is never
    part of a record.

Record
    header (32 bytes):
             0    4 length of the ciphertext, tag included: 16 to 32 MiB + 16
             4    8 index: one more than the record's before; the first of the log is 1
            12    8 term: never less than the record's before
            20    8 time_ms: Unix milliseconds; never less than the record's before
            28    4 CRC-32C of segment id || bytes 0..27. The id makes foreign bytes fail it
    ciphertext and tag: AES-256-GCM of the entry's payload with
        key    HKDF-SHA256(data key, salt = segment id, info = "haptera log segment/1")
        nonce  the record's number within the segment, from 0, in 12 bytes
        AAD    segment header || record header || tag of the record before (of the segment header, for the first)
    So no record can be altered, moved, left out of the middle or taken from another file without the tag, its own or
    the next one's, failing. The log alone does not show that its end was cut off where a record ends,
    or replaced by an older state.

Writing
    One entry is one record, one write, one fdatasync ("os": no fdatasync): record n+1 is not begun before record n is
    durable. In "sync" an append may write zeros over the zeros behind its record first. A new segment: create under its
    .tmp name, allocate; seal the old one; header, fsync, rename, fsync of the directory; then its first record. The
    rename replaces an empty segment of that number. So a segment has its header and its whole size as soon as it has
    its name. The old segment is cut to its records and fsynced (in "os" its data is synced first). So only the last
    segment can be unfinished, and no segment is sealed without a record. No nonce repeats: a segment is appended to by
    one opening of the log alone, and by that only until a call fails. After an opening, or a failure, the old records
    are never written to again, and a new segment has a new id and so a new key. After any failed write or sync the log
    takes no more writes: the page cache may then differ from the disk, and a second fsync would not tell. A full disk
    met while a new segment is allocated is different: nothing was written, so the append may be tried again, and an
    entry that frees space goes to the reserve, a file of zeros that takes the place of the .tmp one. Segments are
    removed oldest first, each with an fsync of the directory, so that a crash leaves no gap.

Recovery
    Begins at the point of the newest whole snapshot (`haptera.storage.snapshot`), or at segment 1; segments before it
    are history, whose records are not read. A log that ends before that point is an older copy: OutdatedCopy.
    Reads the segments in order, and stops at the first thing that is no valid record (bad CRC, bad tag, or past the
    end of the file).
    - At the exact end of the file, or where only zeros follow in an active segment: the end.
    - In a segment that another follows, or that is sealed (shorter than its capacity): damage.
    - In the active segment, "sync": a torn tail only if it can be the one record that was being written when the power
      went. That was the last one to be begun, because it was not durable yet. And its space was zeros, which a crash
      leaves in its last bytes or in whole sectors. So it is damage
        - if a valid record header with a later index follows anywhere;
        - if a byte that is not zero follows its end. A valid header says where that is; without one, it is the end of
          the largest record, or of the segment's last but one byte;
        - if none of its bytes can be missing: the last one is not zero, there are no 16 zeros in a row, and the bytes
          before the first boundary of a sector, where they are fewer than 16, are not all zeros. Without a valid
          header this is asked of the header's own bytes.
    - In the active segment, "os": a torn tail. Unsynced bytes may be missing anywhere.
    A valid record out of its place (index, term, time), a missing segment, a file that is too short for its header, a
    segment that was sealed without a record, a header that does not continue the segment before: damage. Damage is
    refused: CorruptionError. A torn tail is cut off and reported; it was never acknowledged. Then the last segment is
    synced (a process may have been killed between a write and its sync) and sealed, and an empty one is made behind it;
    if it holds no record it stays, with a sync of its name, until the first append replaces it. On a full disk the
    empty one has to wait, and the log is read. Damage that turns the end of the very last record of an active segment
    into zeros looks like a torn tail, and so do zeros in place of the last records. A log that was closed has no active
    segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Literal

from haptera.storage.directory import segment_name
from haptera.storage.errors import DiskFailed, DiskFull, OutdatedCopy, failing, translated
from haptera.storage.found_segments import Segment, missing_segment
from haptera.storage.log_recovery import Progress, Replay
from haptera.storage.open_end import OpenEnd
from haptera.storage.preallocation import Reserve, allocate
from haptera.storage.segment_format import (
    EMPTY_CAPACITY,
    ENTRY_SIZE_MAX,
    RECORD_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
    TAG_SIZE,
    U64_MAX,
    LogEntry,
    LogPoint,
    SegmentHeader,
)
from haptera.storage.segment_writer import SegmentWriter, create_empty, remove_segment

if TYPE_CHECKING:
    from haptera.storage.data_key import DataKey
    from haptera.storage.directory import DataDirectory
    from haptera.storage.filesystem import FileSystem
    from haptera.storage.keyring import Keyring
    from haptera.storage.log_recovery import Recovery
    from haptera.storage.segment_writer import PreparedRecord

__all__ = ["SEGMENT_SIZE", "Durability", "Log"]

#: The size of a segment, in bytes, unless one entry needs more.
SEGMENT_SIZE = 64 << 20

#: sync: an append is durable when it returns. os: when the operating system gets round to it.
Durability = Literal["sync", "os"]

_State = Literal["opened", "recovering", "ready", "failed", "closed"]


class Log:
    """An open log. Open it, take all of `replay`, then `append`.

    Synchronous; `append` and `close` are for one thread at a time. `recovery` is complete after the replay. See
    storage-format 3 to 6.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: DataDirectory,
        keyring: Keyring,
        replay: Replay,
        open_end: OpenEnd,
        segment_size: int,
        durability: Durability,
        reserve_size: int,
    ) -> None:
        self.durability = durability
        #: Bytes of the segments that are made from now on, unless one entry needs more.
        self.segment_size = segment_size
        #: Called by the thread that appends when a segment was made for records.
        self.on_roll: Callable[[], None] | None = None
        self.recovery: Recovery = replay.recovery
        self._fs = fs
        self._directory = directory
        self._path = directory.log_path
        self._keyring = keyring
        self._replay = replay
        self._end = replay.end
        self._state: _State = "opened"
        self._active: SegmentWriter | None = None
        self._reserve = Reserve(fs, self._path, reserve_size)
        self._open_end = open_end
        self._on_reserve = False  # whether the segment that is appended to was the reserve

    @classmethod
    def open(
        cls,
        fs: FileSystem,
        directory: DataDirectory,
        keyring: Keyring,
        *,
        start: LogPoint = LogPoint.START,
        segment_size: int = SEGMENT_SIZE,
        durability: Durability = "sync",
        reserve_size: int = 0,
        on_progress: Progress | None = None,
    ) -> Log:
        """Look at a log's segments, without changing anything yet.

        `directory` is open (and so locked) for as long as the log is; `start` is where the replay begins, the point of
        a snapshot; `segment_size` is in bytes and holds for new segments; `reserve_size` is kept for a full disk.
        Raises CorruptionError (a segment is missing or its header damaged), OutdatedCopy (the log ends before `start`),
        WrongKey, NewerFormat, DiskFailed. See storage-format 6.
        """
        open_end = OpenEnd(fs, directory.path, synced=durability == "sync")
        replay = Replay(fs, directory.log_path, keyring, start, open_end=open_end, on_progress=on_progress)
        if directory.complete and replay.empty:
            if start != LogPoint.START:
                raise OutdatedCopy(directory.log_path, segment_name(start.next_segment), "no segment")
            raise missing_segment(directory.log_path, start.next_segment)
        return cls(fs, directory, keyring, replay, open_end, segment_size, durability, reserve_size)

    @property
    def first_index(self) -> int:
        """The index of the first entry that a segment still holds; 0 while there is none."""
        segments = self.segments
        return segments[0].first_index if segments else 0

    @property
    def last_index(self) -> int:
        """The last entry's index; 0 while there is none."""
        return self._end.index

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments with entries, oldest first."""
        active = self._active_segment()
        return (*self._end.sealed, active) if active else tuple(self._end.sealed)

    @property
    def size_bytes(self) -> int:
        """Bytes of the segments, without space that is only reserved."""
        return sum(segment.size_bytes for segment in self.segments)

    @property
    def reserved_bytes(self) -> int:
        """Bytes that the log takes on the disk and that no record has yet."""
        active = self._active
        return self._reserve.size + (0 if active is None else active.header.capacity - active.offset)

    def size_after(self, number: int) -> int:
        """Bytes of the segments from this number on."""
        return sum(segment.size_bytes for segment in self.segments if segment.number >= number)

    @property
    def point(self) -> LogPoint:
        """Where the newest segment begins: a snapshot that stands there replaces all segments before it."""
        return self._end.point

    @property
    def changes_lost(self) -> bool:
        """Whether clients may know of changes that are not here: the first entry has to answer for that."""
        return self._open_end.changes_lost

    def replay(self) -> Iterator[LogEntry]:
        """Every entry from the start on, oldest first, once. At its end a torn tail has been cut off (see `recovery`),
        the directory is complete and of the newest format, and the log takes appends.

        Raises CorruptionError, DiskFull, DiskFailed. See storage-format 6.
        """
        if self._state != "opened":
            raise RuntimeError("a log is replayed once, after it was opened")
        self._state = "recovering"
        yield from self._replay.entries()
        self._ensure_segment()
        self._directory.finish()
        self._open_end.recovered()
        self._reserve.fill()
        self._state = "ready"

    def append(self, entry: LogEntry, frees: bool = False) -> None:
        """Add the next entry. In durability "sync" it is durable on return.

        One that ``frees`` space is written to the log's reserve where the disk is full, as far as that reaches.
        Raises ValueError (above ENTRY_SIZE_MAX, not the next index, or a term or time that goes back), DiskFull
        (nothing was written: the same entry may be tried again), DiskFailed (whether it was written is unknown,
        and the log takes no more). See storage-format 5.
        """
        self._check_ready()
        self._check(entry)
        size = RECORD_HEADER_SIZE + len(entry.payload) + TAG_SIZE
        # Only a call that comes to its end opens the log for the next one, for any reason that stopped it.
        self._state = "failed"
        active = self._active
        if active is None or not active.has_room(size) or (self._on_reserve and not frees):
            active = self._next_segment(size, frees)
        try:
            active.append(entry)
        except BaseException:
            self._open_end.failed()
            raise
        self._appended(entry)

    def prepare(self, entry: LogEntry) -> PreparedRecord | None:
        """Make the record of the next entry for somebody else to write, who calls `finish` then; None where an append
        is more than one write, as at the beginning of a segment. Takes no other call before `finish`.

        Raises ValueError and DiskFailed as `append` does.
        """
        self._check_ready()
        self._check(entry)
        size = RECORD_HEADER_SIZE + len(entry.payload) + TAG_SIZE
        active = self._active
        if active is None or self._on_reserve or not (active.has_room(size) and active.has_zeros(size)):
            return None
        self._state = "failed"
        return active.prepare(entry)

    def finish(self, record: PreparedRecord, error: BaseException | None) -> None:
        """Take note that a prepared record is durable, or of the error, which is raised then as `append` does."""
        active = self._active
        assert active is not None
        if error is not None:
            self._open_end.failed()
            with failing(active.path, "append to the log"):
                raise error
        active.written(record)
        self._appended(record.entry)

    def _appended(self, entry: LogEntry) -> None:
        end = self._end
        end.index, end.term, end.time_ms = entry.index, entry.term, entry.time_ms
        self._state = "ready"

    def settle(self) -> None:
        """Note that an entry has answered for the changes that may be lost. It is durable then. Raises DiskFailed."""
        self._check_ready()
        if self.durability == "os":
            with suppress(DiskFull):  # for the segment behind: what was appended is durable
                self.roll()
        self._open_end.settle()

    def roll(self) -> LogPoint:
        """Seal the segment that is appended to, if there is one, and return the point behind it.

        For the thread that appends. Raises DiskFull (what was appended is safe, and appending may go on) and
        DiskFailed.
        """
        self._check_ready()
        self._state = "failed"
        self._seal_active()
        if self._end.empty is None:
            try:
                self._create_empty()
            except DiskFull:
                self._state = "ready"
                raise
        self._state = "ready"
        return self.point

    def forget_before(self, number: int) -> None:
        """Remove the segments before the one with this number, oldest first; a crash leaves no gap in the others.

        A snapshot, whose name is durable, must stand at the beginning of this segment or a later one. The newest
        segment cannot be removed (ValueError). Raises DiskFailed.
        """
        if number > self.point.next_segment:
            raise ValueError(f"segment {number} is not older than the newest, {self.point.next_segment}")
        sealed = self._end.sealed
        while sealed and sealed[0].number < number:
            with failing(sealed[0].path, "remove the segment"):
                remove_segment(self._fs, self._path, sealed[0].path)
            del sealed[0]

    def close(self) -> None:
        """Seal the log, unless a write has failed, and close it. Raises DiskFailed. Safe to call again."""
        state, self._state = self._state, "closed"
        active, last, self._active = self._active, self._active_segment(), None
        if last is not None:
            self._end.sealed.append(last)
        if active is not None:
            with closing(active):
                if state == "ready":
                    self._seal(active)
        if state == "ready":
            self._open_end.end()

    def _check_ready(self) -> None:
        if self._state != "ready":
            if self._state == "failed":
                raise DiskFailed(f"{self._path}: the log takes no more writes, because one has failed")
            raise RuntimeError(f"append to a log that is {self._state}, not ready")

    def _check(self, entry: LogEntry) -> None:
        if len(entry.payload) > ENTRY_SIZE_MAX:
            raise ValueError(
                f"the entry has {len(entry.payload)} bytes, and {ENTRY_SIZE_MAX} is the most a record can hold"
            )
        if entry.index != self._end.index + 1:
            raise ValueError(f"the entry has index {entry.index}, and the next is {self._end.index + 1}")
        if not (self._end.term <= entry.term <= U64_MAX and self._end.time_ms <= entry.time_ms <= U64_MAX):
            raise ValueError(
                f"term {entry.term} or time {entry.time_ms} ms goes back from {self._end.term}, {self._end.time_ms} ms"
            )

    def _seal_active(self) -> None:
        """Seal the segment that is appended to, if there is one."""
        active, last = self._active, self._active_segment()
        if active is None:
            return
        self._seal(active)
        self._active = None
        if last is not None:
            self._end.tag = active.tag
            self._end.sealed.append(last)
            self._end.next_number += 1

    def _seal(self, active: SegmentWriter) -> None:
        try:
            active.seal()
        except BaseException:
            self._open_end.failed()
            raise

    def _next_segment(self, record_size: int, frees: bool) -> SegmentWriter:
        """Make the next segment, for a record of this size, and seal the active one, if there is one.

        Space first: where there is none, everything stays as it is.
        """
        last = self._active_segment()
        number = self._end.next_number if last is None else last.number + 1
        needed = SEGMENT_HEADER_SIZE + record_size + 1
        on_reserve = False
        try:
            self._open_end.begin()
            space = allocate(self._fs, self._path, number, max(self.segment_size, needed), self._end.empty)
        except DiskFull:
            reserve = self._reserve.take(needed) if frees and self._open_end.begun else None
            if reserve is None:
                self._state = "ready"
                raise
            space, on_reserve = reserve, True
        self._seal_active()
        header, key = self._next_header(space.size)
        active = SegmentWriter.create(self._fs, self._path, header, key, space)
        self._end.begin(header.number)
        self._end.empty = None
        self._active = active
        self._on_reserve = on_reserve
        if not on_reserve:
            self._reserve.fill()
        if self.on_roll is not None:
            self.on_roll()
        return active

    def _ensure_segment(self) -> None:
        """Have a segment, with a name that is durable, behind the last record."""
        if self._end.empty is not None:  # its maker may have died before it synced the name
            with translated(self._path, "sync the log's directory"):
                self._fs.sync_directory(self._path)
            return
        try:
            self._create_empty()
        except DiskFull:  # a full disk is read all the same
            if not self._end.sealed:
                raise

    def _create_empty(self) -> None:
        """Make the next segment without room for a record, so that the log's directory is never empty."""
        header, key = self._next_header(EMPTY_CAPACITY)
        create_empty(self._fs, self._path, header, key, replaced=None)
        self._end.begin(header.number)
        self._end.empty = header

    def _next_header(self, capacity: int) -> tuple[SegmentHeader, DataKey]:
        end, key = self._end, self._keyring.newest
        synced = self.durability == "sync"
        return SegmentHeader.new(end.next_number, key, end.index + 1, end.tag, capacity, synced), key

    def _active_segment(self) -> Segment | None:
        active = self._active
        if active is None or active.offset == SEGMENT_HEADER_SIZE:
            return None
        header, end = active.header, self._end
        return Segment(header.number, active.path, header.first_index, end.index, end.time_ms, active.offset)
