"""Flip each byte of a small store, cut its files at each length: it opens with the same entries, or refuses.

What no log can tell, and what these tests allow: the last record of an active segment was flipped or cut (it looks
torn, and is reported), or the end of the log was cut off exactly where a record ends, or within the last segment's
header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from haptera.errors import CorruptionError
from haptera.storage.errors import MissingKey, NewerFormat
from haptera.storage.segment import RECORD_HEADER_SIZE, SEGMENT_HEADER_SIZE
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.storage.stores import LOG_PATH, PATH, SEGMENT_SIZE, Store, entries, opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.storage import Entry

COUNT = 11
RECORD_SIZE = RECORD_HEADER_SIZE + 24 + 16
REFUSALS = (CorruptionError, NewerFormat)


def closed_store() -> MemoryFileSystem:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(COUNT)
    return fs.power_failure("drop")


def active_store() -> MemoryFileSystem:
    """What a power failure leaves: the last segment is still at its preallocated size."""
    fs = MemoryFileSystem()
    Store.open(fs).append(COUNT)
    left = fs.power_failure("drop")
    assert len(left.read(segment_paths(left)[-1])) == SEGMENT_SIZE
    return left


def segment_paths(fs: MemoryFileSystem) -> list[str]:
    return [f"{LOG_PATH}/{name}" for name in sorted(fs.listdir(LOG_PATH))]


def paths(fs: MemoryFileSystem) -> list[str]:
    return [f"{PATH}/keys", f"{PATH}/node.toml", *segment_paths(fs)]


def found(fs: MemoryFileSystem) -> tuple[list[Entry] | None, int]:
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
            elif path in segment_paths(whole):
                assert make is active_store, (path, at)
                assert torn > 0, (path, at)
    assert refused > 500


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
            complete = max(0, length - SEGMENT_HEADER_SIZE) // RECORD_SIZE
            end = SEGMENT_HEADER_SIZE + complete * RECORD_SIZE
            assert length <= end or not any(data[end:length]), "cut within a record: it must refuse"
            assert kept == entries(before_last + complete), (path, length)


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
