"""Snapshots as files: the bytes, the order of the calls, and all that is refused."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

import google_crc32c
import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from haptera.errors import CorruptionError, NewerFormat, WrongKey
from haptera.storage import (
    Keyring,
    LogPoint,
    SnapshotFile,
    SnapshotReader,
    find_snapshots,
    remove_unfinished_snapshots,
    write_snapshot,
)
from haptera.storage import snapshot as module
from haptera.storage.data_key import DataKey, derive
from haptera.storage.errors import DiskFailed, DiskFull
from haptera.testing.filesystem import Crashed, MemoryFileSystem

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = "snapshots"
OLD, NEW = DataKey.of(b"o" * 32), DataKey.of(b"n" * 32)
KEYRING = Keyring([OLD, NEW])
POINT = LogPoint(0x1234, 3, 1_700_000_000_000, b"t" * 16, 9)
PIECES = [("kv", b"head"), ("kv", b"rows" * 10), ("kv", b""), ("requests", b"answers")]
FILE = f"{PATH}/0000000000001234.snap"


def disk() -> MemoryFileSystem:
    fs = MemoryFileSystem()
    fs.mkdir(PATH)
    fs.sync_directory("")
    return fs


def write(
    fs: MemoryFileSystem, pieces: list[tuple[str, bytes]] = PIECES, point: LogPoint = POINT, revision: int = 77
) -> SnapshotFile:
    return write_snapshot(fs, PATH, KEYRING, point, revision, iter(pieces))


def read(fs: MemoryFileSystem, path: str = FILE, keyring: Keyring = KEYRING) -> list[tuple[str, bytes]]:
    with SnapshotReader(fs, path, keyring) as reader:
        return list(reader.pieces())


def test_the_pieces_come_back() -> None:
    fs = disk()
    file = write(fs)
    assert file == SnapshotFile(FILE, 0x1234, len(fs.read(FILE)), POINT, 77, KEYRING.newest.id)
    assert find_snapshots(fs, PATH) == [file]
    assert read(fs) == PIECES
    with SnapshotReader(fs, FILE, KEYRING) as reader:
        assert (reader.point, reader.revision, reader.size, reader.path) == (POINT, 77, file.size_bytes, FILE)


def test_a_snapshot_of_nothing() -> None:
    fs = disk()
    write(fs, [])
    assert read(fs) == []


def test_a_piece_of_any_size_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_SIZE_MAX", 50)
    for size in [*range(45, 53), *range(92, 102), 1000]:
        fs = disk()
        pieces = [("kv", b"a"), ("kv", bytes(range(256)) * 4), ("requests", b"p" * size), ("kv", b"z")]
        write(fs, pieces)
        assert read(fs) == pieces


def test_the_largest_piece_comes_back_and_a_larger_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_SIZE_MAX", 5000)
    fs = disk()
    write(fs, [("kv", bytes(5000))])
    assert read(fs) == [("kv", bytes(5000))]
    with pytest.raises(ValueError, match="5001 bytes"):
        write(fs, [("kv", bytes(5001))])
    assert read(fs) == [("kv", bytes(5000))]


def test_the_file_is_as_the_specification_says() -> None:
    """Read by the specification alone (storage-format 12)."""
    fs = disk()
    write(fs)
    data = fs.read(FILE)
    header = data[:96]
    assert header[:12] == b"HAPTERAS\0\1\0\0"
    assert header[12:20] == NEW.id
    numbers = [int.from_bytes(header[at : at + 8], "big") for at in (36, 44, 52, 76, 84)]
    assert numbers == [0x1234, 3, 1_700_000_000_000, 9, 77]
    assert header[60:76] == b"t" * 16
    assert int.from_bytes(header[92:], "big") == google_crc32c.value(header[:92])
    cipher = AESGCM(derive(NEW.secret, header[20:36], b"haptera snapshot/1", 32))
    found, at, tag, count = [], 96, bytes(16), 0
    while at < len(data):
        chunk = data[at : at + 12]
        length = int.from_bytes(chunk[:4], "big")
        assert int.from_bytes(chunk[4:8], "big") == count
        body = data[at + 12 : at + 12 + length]
        plain = cipher.decrypt(count.to_bytes(12, "big"), body, header + chunk + tag)
        found.append((chunk[8], plain[: chunk[9]].decode(), plain[chunk[9] :]))
        at, tag, count = at + 12 + length, body[-16:], count + 1
    assert found[:-1] == [(0, section, piece) for section, piece in PIECES]
    flags, name, counts = found[-1]
    assert (flags, name) == (2, "")
    assert msgspec.msgpack.decode(counts) == {"kv": [3, 44], "requests": [1, 7]}


def test_two_snapshots_of_one_state_have_no_key_and_no_bytes_in_common() -> None:
    """Trap: a nonce used again. Each file has an id of its own, and so a key of its own."""
    seen = set()
    for _ in range(20):
        fs = disk()
        write(fs)
        seen.add(fs.read(FILE)[20:36])
        seen.add(fs.read(FILE)[96:])
    assert len(seen) == 40


def test_no_nonce_is_used_twice_in_a_snapshot() -> None:
    """With pieces of zeros the ciphertext is the key stream itself."""
    fs = disk()
    write(fs, [("kv", bytes(30))] * 500)
    data = fs.read(FILE)
    size = 12 + 2 + 30 + 16
    streams = {data[96 + at * size + 14 :][:30] for at in range(500)}
    assert len(streams) == 500


def test_the_order_of_the_calls_is_the_promise() -> None:
    fs = disk()
    fs.calls.clear()
    write(fs)
    calls = [call for call in fs.calls if call[0] != "pwrite"]
    unfinished = f"{PATH}/0000000000001234.{fs.read(FILE)[20:36].hex()}.snap.tmp"
    assert calls == [("create", unfinished), ("fsync", unfinished), ("rename", FILE), ("sync_directory", PATH)]
    assert [path for name, path in fs.calls if name == "pwrite"] == [unfinished] * 6


def test_a_long_snapshot_waits_for_the_disk_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the sync at its end does not hold up the syncs of the log for long."""
    monkeypatch.setattr(module, "SYNC_EVERY", 1000)
    fs = disk()
    write(fs, [("kv", bytes(400))] * 10)
    assert [name for name, _ in fs.calls].count("fdatasync") == 3
    assert len(read(fs)) == 10


def test_memory_holds_one_piece() -> None:
    """The writer asks for a piece when it has written the one before, and the reader reads one when it is asked."""
    fs = disk()

    def pieces() -> Iterator[tuple[str, bytes]]:
        for number in range(5):
            assert [name for name, _ in fs.calls].count("pwrite") == 1 + number
            yield "kv", b"%d" % number

    write_snapshot(fs, PATH, KEYRING, POINT, 77, pieces())
    with SnapshotReader(fs, FILE, KEYRING) as reader:
        before = len(fs.calls)
        next(reader.pieces())
        assert [name for name, _ in fs.calls[before:]] == ["pread", "pread"]


def test_each_byte_flipped_is_found_and_named() -> None:
    """That of the format's number too is damage, behind which an older snapshot is taken, and no newer format."""
    whole = disk()
    write(whole)
    data = whole.read(FILE)
    for at in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            whole.write(FILE, data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
            with pytest.raises(CorruptionError) as caught:
                read(whole)
            assert caught.value.file == FILE
            assert caught.value.offset <= at


def test_each_length_is_found() -> None:
    fs = disk()
    write(fs)
    data = fs.read(FILE)
    for length in range(len(data)):
        fs.write(FILE, data[:length])
        with pytest.raises(CorruptionError):
            read(fs)
    for more in (b"\0", b"x" * 100, data[96:]):
        fs.write(FILE, data + more)
        with pytest.raises(CorruptionError, match="the end of the file"):
            read(fs)


def chunks(data: bytes) -> list[bytes]:
    found, at = [], 96
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at:end])
        at = end
    return found


def test_chunks_cannot_be_left_out_doubled_moved_or_taken_from_another_snapshot() -> None:
    fs, other = disk(), disk()
    write(fs, [("kv", bytes(30))] * 4)
    write(other, [("kv", bytes(30))] * 4)
    data = fs.read(FILE)
    mine, theirs = chunks(data), chunks(other.read(FILE))
    for at in range(len(mine)):
        for changed in (
            mine[:at] + mine[at + 1 :],
            mine[: at + 1] + mine[at:],
            [*mine[:at], theirs[at], *mine[at + 1 :]],
            mine[:at] + mine[at : at + 2][::-1] + mine[at + 2 :],
        ):
            if changed != mine:
                fs.write(FILE, data[:96] + b"".join(changed))
                with pytest.raises(CorruptionError):
                    read(fs)


def forged(chunk_list: list[tuple[int, bytes, bytes]]) -> MemoryFileSystem:
    """A file with a valid key and chain, written by no version."""
    fs = disk()
    header = module.SnapshotHeader(NEW.id, b"i" * 16, POINT, 77)
    cipher = module._ChunkCipher(header, NEW)
    fs.write(FILE, header.encode() + b"".join(cipher.encrypt(*chunk) for chunk in chunk_list))
    return fs


@pytest.mark.parametrize(
    "chunk_list",
    [
        [(0, b"kv", b"a")],
        [(2, b"", b"")],
        [(2, b"", msgspec.msgpack.encode({"kv": [1, 1]}))],
        [(0, b"kv", b"a"), (2, b"", msgspec.msgpack.encode({"kv": [1, 2]}))],
        [(1, b"kv", b"a"), (2, b"", msgspec.msgpack.encode({}))],
        [(1, b"kv", b"a"), (0, b"other", b"a"), (2, b"", msgspec.msgpack.encode({"other": [1, 2]}))],
        [(4, b"kv", b"a"), (2, b"", msgspec.msgpack.encode({"kv": [1, 1]}))],
        [(0, b"\xff", b"a"), (2, b"", msgspec.msgpack.encode({"kv": [1, 1]}))],
    ],
)
def test_chunks_that_no_version_writes_are_refused(chunk_list: list[tuple[int, bytes, bytes]]) -> None:
    with pytest.raises(CorruptionError):
        read(forged(chunk_list))


def test_a_piece_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_SIZE_MAX", 1000)
    with pytest.raises(CorruptionError, match="the rest of a piece"):
        read(forged([(1, b"kv", bytes(400))] * 5))


def test_a_snapshot_is_read_with_the_key_that_it_names() -> None:
    fs = disk()
    write_snapshot(fs, PATH, Keyring([OLD]), POINT, 77, PIECES)
    assert read(fs) == PIECES
    with pytest.raises(WrongKey) as caught:
        read(fs, keyring=Keyring([NEW]))
    assert caught.value.file == FILE


def test_a_newer_format_is_named_as_such() -> None:
    fs = disk()
    write(fs)
    data = fs.read(FILE)
    header = data[:8] + b"\0\2" + data[10:92]
    crc: int = google_crc32c.value(header)
    fs.write(FILE, header + crc.to_bytes(4, "big") + data[96:])
    for attempt in (lambda: read(fs), lambda: find_snapshots(fs, PATH)):
        with pytest.raises(NewerFormat):
            attempt()


def test_a_header_with_bytes_that_the_format_does_not_know_is_damage() -> None:
    fs = disk()
    write(fs)
    data = fs.read(FILE)
    header = data[:10] + b"\0\1" + data[12:92]
    crc: int = google_crc32c.value(header)
    fs.write(FILE, header + crc.to_bytes(4, "big") + data[96:])
    with pytest.raises(CorruptionError, match="header of a snapshot"):
        read(fs)
    assert [file.point for file in find_snapshots(fs, PATH)] == [None]


def test_a_snapshot_under_another_index_is_refused() -> None:
    fs = disk()
    write(fs)
    fs.write(f"{PATH}/0000000000001235.snap", fs.read(FILE))
    with pytest.raises(CorruptionError, match="index in its name"):
        read(fs, f"{PATH}/0000000000001235.snap")
    assert [file.point for file in find_snapshots(fs, PATH)] == [None, POINT]


def test_snapshots_are_found_newest_first_and_other_files_are_none() -> None:
    fs = disk()
    points = [LogPoint(index, 1, 1, b"t" * 16, 2) for index in (5, 300, 20)]
    for point in points:
        write(fs, point=point)
    fs.write(f"{PATH}/notes.txt", b"mine")
    fs.write(f"{PATH}/0000000000000999.0f.snap.tmp", b"half")
    fs.write(f"{PATH}/0000000000000001.snap", b"damaged")
    assert [file.index for file in find_snapshots(fs, PATH)] == [300, 20, 5, 1]
    assert find_snapshots(fs, PATH)[-1] == SnapshotFile(f"{PATH}/0000000000000001.snap", 1, 7, None, None, None)


def test_two_makers_of_one_snapshot_leave_a_whole_one_at_any_moment() -> None:
    """A second process may outlive its node, where a disk or an inherited pipe holds it up, and the next node makes the
    same snapshot meanwhile.
    """
    fs = disk()
    begun, go_on = threading.Event(), threading.Event()

    def left_behind() -> Iterator[tuple[str, bytes]]:
        yield PIECES[0]
        begun.set()
        go_on.wait(10)
        yield from PIECES[1:]

    def of_the_next_node() -> Iterator[tuple[str, bytes]]:
        yield PIECES[0]
        go_on.set()
        older.join()
        assert read(fs) == PIECES, "the older maker was the first, and its snapshot is whole"
        yield from PIECES[1:]

    older = threading.Thread(target=write_snapshot, args=(fs, PATH, KEYRING, POINT, 77, left_behind()))
    older.start()
    begun.wait(10)
    write_snapshot(fs, PATH, KEYRING, POINT, 77, of_the_next_node())
    assert read(fs) == PIECES
    assert fs.listdir(PATH) == [FILE.rpartition("/")[2]], "nothing unfinished is left"


def test_unfinished_snapshots_are_removed_and_nothing_else() -> None:
    fs = disk()
    write(fs)
    for name in ("notes.txt", "notes.tmp", "0000000000000999.0f.snap.tmp", "0000000000001234.0f.snap.tmp"):
        fs.write(f"{PATH}/{name}", b"x")
    remove_unfinished_snapshots(fs, PATH)
    assert sorted(fs.listdir(PATH)) == ["0000000000001234.snap", "notes.tmp", "notes.txt"]


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EIO, DiskFailed)])
def test_a_snapshot_that_fails_at_any_call_leaves_none_or_a_whole_one(number: int, kind: type[Exception]) -> None:
    whole = disk()
    before = len(whole.calls)
    write(whole)
    for at in range(before + 1, len(whole.calls) + 1):
        fs = disk()
        fs.fail_at, fs.fail_with = at, number
        with pytest.raises(kind):
            write(fs)
        assert FILE + ".tmp" not in fs.listdir(PATH)
        for found in find_snapshots(fs, PATH):
            assert read(fs, found.path) == PIECES
        write(fs)
        assert read(fs.power_failure("drop")) == PIECES


def test_pieces_that_fail_leave_nothing() -> None:
    fs = disk()

    def pieces() -> Iterator[tuple[str, bytes]]:
        yield PIECES[0]
        raise MemoryError

    with pytest.raises(MemoryError):
        write_snapshot(fs, PATH, KEYRING, POINT, 77, pieces())
    assert fs.listdir(PATH) == []


@pytest.mark.parametrize("loss", ["killed", "drop", "keep", "tear", "reorder"])
def test_a_crash_at_any_call_leaves_none_or_a_whole_one(loss: str) -> None:
    """The rename is the one step that makes a snapshot current, and it comes after all bytes are on the disk."""
    whole = disk()
    start = len(whole.calls)
    write(whole)
    for stop in range(start, len(whole.calls) + 1):
        for seed in range(8):
            fs = disk()
            fs.stop_after = stop
            try:
                write(fs)
            except Crashed:
                assert stop < len(whole.calls)
            fs.stop_after = None
            left = fs.restart() if loss == "killed" else fs.power_failure(loss, seed)  # type: ignore[arg-type]
            found = find_snapshots(left, PATH)
            assert all(read(left, file.path) == PIECES for file in found)
            assert found or stop < len(whole.calls), "it is durable when its writer returns"
