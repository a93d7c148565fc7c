"""Keys of several generations in one log: each segment is read with the key that its header names."""

from __future__ import annotations

import pytest

from haptera.storage import DataDirectory, DataKey, Keyring, Log
from haptera.storage.errors import WrongKey
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.storage.stores import LOG_PATH, PATH, SEGMENT_SIZE, entries, entry

FIRST, SECOND, THIRD = (DataKey.of(bytes([fill]) * 32) for fill in b"123")


def write(fs: MemoryFileSystem, keyring: Keyring, count: int) -> None:
    """Append the next `count` entries, in new segments."""
    directory = DataDirectory.open(fs, PATH)
    log = Log.open(fs, directory, keyring, segment_size=SEGMENT_SIZE)
    last = len(list(log.replay()))
    for index in range(last + 1, last + count + 1):
        log.append(entry(index))
    log.close()
    directory.close()


def read(fs: MemoryFileSystem, keyring: Keyring) -> list[object]:
    directory = DataDirectory.open(fs, PATH)
    try:
        return list(Log.open(fs, directory, keyring).replay())
    finally:
        directory.close()


def test_segments_of_several_keys_are_one_log() -> None:
    fs = MemoryFileSystem()
    write(fs, Keyring([FIRST]), 10)
    write(fs, Keyring([FIRST, SECOND]), 10)
    write(fs, Keyring([FIRST, SECOND, THIRD]), 10)
    assert read(fs, Keyring([FIRST, SECOND, THIRD])) == entries(30)


def test_the_newest_key_encrypts_and_the_others_are_found_by_their_ids() -> None:
    keyring = Keyring([FIRST, SECOND])
    assert keyring.newest is SECOND
    assert keyring.find(FIRST.id) is FIRST
    assert keyring.find(THIRD.id) is None


def test_a_segment_whose_key_is_not_there_is_refused_before_anything_is_replayed() -> None:
    fs = MemoryFileSystem()
    write(fs, Keyring([FIRST]), 10)
    write(fs, Keyring([FIRST, SECOND]), 10)
    before = {name: fs.read(f"{LOG_PATH}/{name}") for name in fs.listdir(LOG_PATH)}
    with pytest.raises(WrongKey) as caught:
        read(fs, Keyring([FIRST, THIRD]))
    assert caught.value.expected == SECOND.id.hex()
    assert caught.value.actual == f"{FIRST.id.hex()}, {THIRD.id.hex()}"
    assert {name: fs.read(f"{LOG_PATH}/{name}") for name in fs.listdir(LOG_PATH)} == before


def test_a_keyring_without_a_key_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Keyring([])
