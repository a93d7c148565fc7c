"""Flip each byte of a small store, cut its files at each length: it opens with the same entries, or refuses.

What no log can tell, and what these tests allow: the end of the last record of an active segment became zeros (it looks
torn, and is reported), so did the last records altogether, or the end of the log was cut off exactly where a record
ends.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING

import pytest

from haptera.errors import CorruptionError
from haptera.storage.errors import MissingKey, NewerFormat
from haptera.storage.segment_format import RECORD_HEADER_SIZE, SEGMENT_HEADER_SIZE
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.storage.stores import LOG_PATH, PATH, SEGMENT_SIZE, Store, entries, opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.storage import LogEntry

COUNT = 11
RECORD_SIZE = RECORD_HEADER_SIZE + 24 + 16
REFUSALS = (CorruptionError, NewerFormat)


def closed_store() -> MemoryFileSystem:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(COUNT)
    return fs.power_failure("drop")


def active_store(count: int = COUNT, segment_size: int = SEGMENT_SIZE) -> MemoryFileSystem:
    """What a power failure leaves: the last segment is still at its preallocated size.

    No record and no header of one ends in a zero by chance, so that nothing but zeros looks cut.
    """
    while True:
        fs = MemoryFileSystem()
        Store.open(fs, segment_size=segment_size).append(count)
        left = fs.power_failure("drop")
        data = left.read(segment_paths(left)[-1])
        assert len(data) == segment_size
        records = data[SEGMENT_HEADER_SIZE:].rstrip(b"\0")
        ends = records[RECORD_HEADER_SIZE - 1 :: RECORD_SIZE] + records[RECORD_SIZE - 1 :: RECORD_SIZE]
        if len(records) % RECORD_SIZE == 0 and 0 not in ends:
            return left


def segment_paths(fs: MemoryFileSystem) -> list[str]:
    return [f"{LOG_PATH}/{name}" for name in sorted(fs.listdir(LOG_PATH))]


def paths(fs: MemoryFileSystem) -> list[str]:
    return [f"{PATH}/keys", f"{PATH}/node.toml", *segment_paths(fs)]


def found(fs: MemoryFileSystem) -> tuple[list[LogEntry] | None, int]:
    """The entries and the torn bytes of a store, or None if it refuses."""
    try:
        with opened(fs) as store:
            return store.entries, store.log.recovery.torn_bytes
    except REFUSALS:
        return None, 0


@pytest.mark.parametrize("mask", [0x01, 0x20, 0xFF])
@pytest.mark.parametrize("make", [closed_store, active_store])
def test_each_byte_flipped(make: Callable[[], MemoryFileSystem], mask: int) -> None:
    whole = make()
    last = segment_paths(whole)[-1]
    refused = 0
    for path in paths(whole):
        data = whole.read(path)
        for at in range(len(data)):
            fs = whole.power_failure("keep")
            fs.write(path, data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
            kept, torn = found(fs)
            if kept is None:
                refused += 1
            elif kept != entries(COUNT):
                assert make is active_store, (path, at)
                assert path == last, (path, at)
                assert kept == entries(COUNT - 1), (path, at)
                assert torn > 0, (path, at)
                flipped = last_record_flipped(whole, last, at, mask)
                assert flipped[RECORD_HEADER_SIZE - 1] == 0 or flipped[-1] == 0, "the flip made a zero of its end"
            elif path in segment_paths(whole):
                assert make is active_store, (path, at)
                assert torn > 0, (path, at)
    assert refused > 500


def last_record_flipped(whole: MemoryFileSystem, path: str, at: int, mask: int) -> bytes:
    """The last record of a segment with the byte `at` of the file flipped."""
    data = bytearray(whole.read(path))
    end = len(data.rstrip(b"\0"))
    data[at] ^= mask
    return bytes(data[end - RECORD_SIZE : end])


DAMAGES: dict[str, Callable[[bytearray], None]] = {
    "header": lambda record: record.__setitem__(11, record[11] ^ 0x10),
    "length": lambda record: record.__setitem__(3, record[3] ^ 0x10),
    "body": lambda record: record.__setitem__(-20, record[-20] ^ 0x10),
    "zeros": lambda record: record.__setitem__(slice(None), bytes(len(record))),
    "ones": lambda record: record.__setitem__(slice(None), b"\xff" * len(record)),
    "end": lambda record: record.__setitem__(slice(40, None), bytes(len(record) - 40)),
}


@pytest.mark.parametrize(("one", "other"), [*product(DAMAGES, repeat=2)])
def test_each_pair_of_damaged_records_of_an_active_segment(one: str, other: str) -> None:
    """Trap: a torn tail that is none. Two damaged records are damage, but where all that can be seen is missing."""
    count = 6
    whole = active_store(count, 4096)
    (path,) = segment_paths(whole)
    for first, second in combinations(range(count), 2):
        data = bytearray(whole.read(path))
        for number, damage in ((first, one), (second, other)):
            start = SEGMENT_HEADER_SIZE + number * RECORD_SIZE
            record = data[start : start + RECORD_SIZE]
            DAMAGES[damage](record)
            data[start : start + RECORD_SIZE] = record
        fs = whole.power_failure("keep")
        fs.write(path, bytes(data))
        kept, _ = found(fs)
        # The header of the first is gone, and no valid one follows: this is what one torn record may look like. So is
        # one whose end is missing, with nothing behind it.
        alone = (first, second) == (count - 2, count - 1)
        torn = alone and (one, other) in {
            *(("zeros", header) for header in ("header", "length", "zeros", "ones")),
            ("end", "zeros"),
        }
        assert kept == (entries(first) if torn else None), (first, second)


@pytest.mark.parametrize("make", [closed_store, active_store])
def test_each_file_cut_at_each_length(make: Callable[[], MemoryFileSystem]) -> None:
    whole = make()
    last = segment_paths(whole)[-1]
    before_last = COUNT - (len(closed_store().read(last)) - SEGMENT_HEADER_SIZE) // RECORD_SIZE
    for path in paths(whole):
        data = whole.read(path)
        for length in range(len(data)):
            fs = whole.power_failure("keep")
            fs.write(path, data[:length])
            kept, _ = found(fs)
            if kept is None or kept == entries(COUNT):
                continue
            assert path == last, (path, length)
            complete, rest = divmod(length - SEGMENT_HEADER_SIZE, RECORD_SIZE)
            assert (rest, complete > 0) == (0, True), "cut within its header or a record: it must refuse"
            assert kept == entries(before_last + complete), (path, length)


def test_an_active_segment_cut_below_its_first_record_is_refused_and_kept() -> None:
    """Trap: a torn tail that is none. A segment has its name when it has its header, so a shorter one was cut."""
    for length in range(SEGMENT_HEADER_SIZE + 1):
        fs = active_store(3)
        (path,) = segment_paths(fs)
        fs.write(path, fs.read(path)[:length])
        with pytest.raises(CorruptionError) as caught:
            Store.open(fs)
        assert caught.value.file == path
        assert fs.read(path)[:length] == fs.read(path), "a refusal changes nothing"
        assert segment_paths(fs) == [path]


def test_a_segment_whose_making_was_cut_short_is_none() -> None:
    """Whatever it holds; the next segment is made in its place."""
    for left in (b"", b"HAPTERAL", bytes(SEGMENT_SIZE)):
        fs = closed_store()
        temporary = f"{LOG_PATH}/{len(segment_paths(fs)) + 1:016x}.seg.tmp"
        fs.write(temporary, left)
        with opened(fs) as store:
            assert store.entries == entries(COUNT)
            store.append(1)
        assert temporary not in segment_paths(fs)
        with opened(fs) as store:
            assert store.entries == entries(COUNT + 1)


@pytest.mark.parametrize("make", [closed_store, active_store])
def test_each_file_missing(make: Callable[[], MemoryFileSystem]) -> None:
    whole = make()
    last = segment_paths(whole)[-1]
    for path in paths(whole):
        fs = whole.power_failure("keep")
        fs.unlink(path)
        if path == last:  # nothing in the log says that there was more
            kept, _ = found(fs)
            assert kept is not None
            assert kept == entries(len(kept))
        else:
            with pytest.raises((CorruptionError, MissingKey)):
                Store.open(fs)


def test_bytes_after_the_end_of_a_sealed_segment() -> None:
    for path in segment_paths(closed_store()):
        for extra in (b"\0", b"x", bytes(SEGMENT_SIZE)):
            fs = closed_store()
            fs.write(path, fs.read(path) + extra)
            with pytest.raises(CorruptionError):
                Store.open(fs)


def test_damage_is_named_with_file_and_offset() -> None:
    fs = closed_store()
    path = segment_paths(fs)[0]
    data = bytearray(fs.read(path))
    data[SEGMENT_HEADER_SIZE + RECORD_SIZE + RECORD_HEADER_SIZE] ^= 1
    fs.write(path, bytes(data))
    with pytest.raises(CorruptionError) as caught:
        Store.open(fs)
    assert (caught.value.file, caught.value.offset) == (path, SEGMENT_HEADER_SIZE + RECORD_SIZE)
    assert caught.value.expected == "the record of index 2"


def test_a_refusal_changes_nothing() -> None:
    fs = active_store()
    path = segment_paths(fs)[-1]
    data = bytearray(fs.read(path))
    data[SEGMENT_HEADER_SIZE] ^= 1
    fs.write(path, bytes(data))
    before = {name: fs.read(name) for name in paths(fs)}
    for _ in range(2):
        with pytest.raises(CorruptionError):
            Store.open(fs)
    assert {name: fs.read(name) for name in paths(fs)} == before
