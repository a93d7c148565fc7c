"""The log: the one place where an entry becomes durable.

This comment is the format of a data directory's log, and the rules by which it is written and recovered.
spec/storage-format.md says the same at more length. Integers are unsigned and big-endian; CRC-32C is Castagnoli's.

Files
    log/<number>.seg, the number in 16 lower-case hex digits, counting from 1 without a gap. The last one may be
    active: appended to. log/<number>.seg.tmp is a segment that is being made; it holds no record, and means nothing
    when a crash leaves it.

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
    durable. A new segment: create under its .tmp name, allocate, header, fsync, rename, fsync of the directory; then
    its first record. So a segment has its header and its whole size as soon as it has its name. Before it, the old
    segment is sealed: cut to its records and fsynced (in "os" its data is synced first). So only the last segment can
    be unfinished, and no segment is sealed without a record. No nonce repeats: a segment is appended to by one opening
    of the log alone, and by that only until a call fails. After an opening, or a failure, the old records are never
    written to again, and a new segment has a new id and so a new key. After any failed write or sync the log takes no
    more writes: the page cache may then differ from the disk, and a second fsync would not tell. A
    full disk met while a new segment is allocated is different: nothing was written, so the append may be tried again.

Recovery
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
    synced (a process may have been killed between a write and its sync) and sealed; if it holds no record it is
    removed. The first append makes the next segment. Damage that turns the end of the very last record of an active
    segment into zeros looks like a torn tail, and so do zeros in place of the last records. A log that was closed has
    no active segment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from haptera.storage.errors import DiskFailed, DiskFull
from haptera.storage.recovery import Progress, Replay, Segment
from haptera.storage.segment import (
    ENTRY_SIZE_MAX,
    RECORD_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
    TAG_SIZE,
    U64_MAX,
    LogEntry,
    SegmentHeader,
)
from haptera.storage.writer import SegmentWriter

if TYPE_CHECKING:
    from haptera.storage.directory import DataDirectory
    from haptera.storage.filesystem import FileSystem
    from haptera.storage.keyring import Keyring

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
        segment_size: int,
        durability: Durability,
    ) -> None:
        self.durability = durability
        self.recovery = replay.recovery
        self._fs = fs
        self._directory = directory
        self._path = directory.log_path
        self._keyring = keyring
        self._replay = replay
        self._end = replay.end
        self._segment_size = segment_size
        self._state: _State = "opened"
        self._active: SegmentWriter | None = None

    @classmethod
    def open(
        cls,
        fs: FileSystem,
        directory: DataDirectory,
        keyring: Keyring,
        *,
        segment_size: int = SEGMENT_SIZE,
        durability: Durability = "sync",
        on_progress: Progress | None = None,
    ) -> Log:
        """Look at a log's segments, without changing anything yet.

        `directory` is open (and so locked) for as long as the log is; `segment_size` is in bytes and holds for new
        segments. Raises CorruptionError (a segment is missing or its header damaged), WrongKey, NewerFormat,
        DiskFailed. See storage-format 6.
        """
        replay = Replay(fs, directory.log_path, keyring, on_progress)
        return cls(fs, directory, keyring, replay, segment_size, durability)

    @property
    def first_index(self) -> int:
        """The first entry's index; 0 while there is none."""
        return 1 if self._end.index else 0

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

    def replay(self) -> Iterator[LogEntry]:
        """Every entry, oldest first, once. At its end a torn tail has been cut off (see `recovery`), the directory is
        complete and of the newest format, and the log takes appends.

        Raises CorruptionError, DiskFull, DiskFailed. See storage-format 6.
        """
        if self._state != "opened":
            raise RuntimeError("a log is replayed once, after it was opened")
        self._state = "recovering"
        yield from self._replay.entries()
        self._directory.finish()
        self._state = "ready"

    def append(self, entry: LogEntry) -> None:
        """Add the next entry. In durability "sync" it is durable on return.

        Raises ValueError (above ENTRY_SIZE_MAX, not the next index, or a term or time that goes back), DiskFull
        (nothing was written: the same entry may be tried again), DiskFailed (whether it was written is unknown,
        and the log takes no more). See storage-format 5.
        """
        self._check(entry)
        size = RECORD_HEADER_SIZE + len(entry.payload) + TAG_SIZE
        # Only a call that comes to its end opens the log for the next one, for any reason that stopped it.
        self._state = "failed"
        if self._active is None or not self._active.has_room(size):
            self._roll(entry.index, size)
        assert self._active is not None
        self._active.append(entry)
        self._state = "ready"
        end = self._end
        end.index, end.term, end.time_ms = entry.index, entry.term, entry.time_ms

    def close(self) -> None:
        """Seal the log, unless a write has failed, and close it. Raises DiskFailed. Safe to call again."""
        state, self._state = self._state, "closed"
        active, last, self._active = self._active, self._active_segment(), None
        if active is None:
            return
        if last is not None:
            self._end.sealed.append(last)
        try:
            if state == "ready":
                active.seal()
        finally:
            active.close()

    def _check(self, entry: LogEntry) -> None:
        if self._state != "ready":
            if self._state == "failed":
                raise DiskFailed(f"{self._path}: the log takes no more writes, because one has failed")
            raise RuntimeError(f"append to a log that is {self._state}, not ready")
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

    def _roll(self, first_index: int, record_size: int) -> None:
        """Seal the active segment, if there is one, and make the next."""
        last = self._active_segment()
        if self._active is not None:
            self._active.seal()
            self._end.tag = self._active.tag
            self._active = None
        if last is not None:
            self._end.sealed.append(last)
            self._end.next_number = last.number + 1
        capacity = max(self._segment_size, SEGMENT_HEADER_SIZE + record_size + 1)
        synced = self.durability == "sync"
        key = self._keyring.newest
        header = SegmentHeader.new(self._end.next_number, key, first_index, self._end.tag, capacity, synced)
        try:
            self._active = SegmentWriter.create(self._fs, self._path, header, key)
        except DiskFull:
            self._state = "ready"
            raise

    def _active_segment(self) -> Segment | None:
        active = self._active
        if active is None or active.offset == SEGMENT_HEADER_SIZE:
            return None
        return Segment(active.header.number, active.path, active.header.first_index, active.offset)
