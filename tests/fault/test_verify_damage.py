"""Flip each byte of a small store with snapshots and keys, cut its files: the check finds it, and fools no start."""

from __future__ import annotations

import random
from functools import cache

import pytest

from haptera.node import Timeline, verify
from haptera.state import dump_pieces, operations
from haptera.storage import check_directory, open_keyring, write_snapshot
from haptera.storage.preallocation import RESERVE_NAME
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.offline.directories import CONFIG, PATH, START_MS, append, opened, snapshot

ENTRIES = 9


@cache
def small_store() -> MemoryFileSystem:
    """Nine entries, and snapshots behind the third and the sixth."""
    fs = MemoryFileSystem()
    durable = opened(fs)
    for number in range(1, ENTRIES + 1):
        append(durable, [operations.Set(f"k{number % 2}", b"%d" % number)], START_MS + number)
        if number % 3 == 0 and number < ENTRIES:
            snapshot(durable, fs)
    durable.close()
    return fs.power_failure("drop")


def files() -> list[str]:
    """Every file whose bytes mean something: that is not the reserve, which only takes up space."""
    fs = small_store()
    folders = [(folder, sorted(fs.listdir(f"{PATH}/{folder}"))) for folder in ("log", "snapshots")]
    return [
        *(f"{PATH}/{name}" for name in ("keys", "master.key", "node.toml")),
        *(f"{PATH}/{folder}/{name}" for folder, names in folders for name in names if name != RESERVE_NAME),
    ]


def changed(path: str, data: bytes) -> MemoryFileSystem:
    fs = small_store().power_failure("keep")
    fs.write(path, data)
    return fs


def flipped(path: str, at: int, mask: int) -> MemoryFileSystem:
    data = bytearray(small_store().read(path))
    data[at] ^= mask
    return changed(path, bytes(data))


def test_the_store_is_sound_as_it_is() -> None:
    assert len([path for path in files() if path.endswith(".snap")]) == 2
    assert verify(small_store().power_failure("keep"), CONFIG, open_keyring).sound


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_each_flipped_byte_is_found_in_its_file(mask: int) -> None:
    """The key that opens all others names no file: one that is damaged does not open the keyring."""
    for path in files():
        end = len(small_store().read(path))
        for at in range(end - 1 if path.endswith("master.key") else end):  # any white space may end that one
            findings = check_directory(flipped(path, at, mask), PATH, open_keyring).findings
            assert findings.damaged, (path, at)
            named = {finding.file for finding in findings}
            assert named & ({path, f"{PATH}/keys"} if path.endswith("master.key") else {path}), (path, at, named)


@pytest.mark.parametrize("seed", range(3))
def test_a_start_with_a_flipped_byte_opens_with_the_same_state_or_refuses(seed: int) -> None:
    choices = random.Random(seed)
    expected = verify(small_store().power_failure("keep"), CONFIG, open_keyring).start.digest
    for path in files():
        for at in choices.sample(range(len(small_store().read(path))), 8):
            fs = flipped(path, at, 1 << choices.randrange(8))
            start = verify(fs, CONFIG, open_keyring).start
            assert start.error is not None or start.digest == expected, (path, at)
            if start.error is not None:
                with pytest.raises(type(start.error)):
                    opened(fs)
            else:
                durable = opened(fs)
                assert durable.machine.digest() == start.digest, (path, at)
                durable.close()


def test_each_cut_of_a_file_is_found() -> None:
    for path in files():
        data = small_store().read(path)
        for length in range(0, len(data), 7):
            assert check_directory(changed(path, data[:length]), PATH, open_keyring).findings.damaged, (path, length)


def test_each_missing_file_is_found_but_what_retention_may_have_removed() -> None:
    may_be_missing = {path for path in files() if path.endswith(".snap")} | {files()[3]}
    for path in files():
        fs = small_store().power_failure("keep")
        fs.unlink(path)
        assert check_directory(fs, PATH, open_keyring).findings.damaged == (path not in may_be_missing), path


def test_a_snapshot_of_another_state_is_found_by_replay() -> None:
    """Its bytes are whole, and its digest is not the one that the log before it gives."""
    other = MemoryFileSystem()
    durable = opened(other)
    for number in range(1, 4):
        append(durable, [operations.Set("k", b"other")], START_MS + number)
    machine = durable.machine
    fs = small_store().power_failure("keep")
    newest = Timeline(fs, PATH, open_keyring).ranges[0].bases[1]
    assert newest.file is not None
    directory = opened(fs)
    keyring = open_keyring(directory.directory)
    directory.close()
    fs.unlink(newest.file)
    write_snapshot(fs, f"{PATH}/snapshots", keyring, newest.point, machine.revision, dump_pieces(machine))
    found = verify(fs, CONFIG, open_keyring)
    assert [(each.file, each.expected) for each in found.check.findings] == [
        (newest.file, "the state that the log before it gives")
    ]
