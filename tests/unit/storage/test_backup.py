"""The stream of a backup: what goes in comes out, and every change of it is found."""

from __future__ import annotations

import io
import itertools
import struct
from typing import TYPE_CHECKING

import google_crc32c
import pytest

from haptera.errors import CorruptionError, DamagedBackup, NewerFormat
from haptera.storage import BackupImage, BackupReader
from haptera.storage.backup import format as bytes_of
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.storage.backups import backup_of, read, small
from tests.unit.storage.stores import PATH, Store

if TYPE_CHECKING:
    from haptera.storage import Keyring


def chunks_of(data: bytes, keyring: Keyring) -> list[tuple[int, int]]:
    """(offset, size) of every chunk, the last included."""
    reader = BackupReader("b", io.BytesIO(data).read, lambda *_: keyring)
    places, offset = [], reader.header.size
    while offset < len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        places.append((offset, 16 + length))
        offset += 16 + length
    return places


def test_the_files_of_a_backup_are_those_of_the_store() -> None:
    data, keyring, fs = small()
    files = read(data, keyring)
    assert len(files) > 3
    for file, content in files.items():
        path = f"{PATH}/log/{file.number:016x}.seg"
        assert content == fs.read(path)[: file.size]
        assert fs.read(path)[file.size :].strip(b"\0") == b""


def test_an_active_segment_is_in_a_backup_up_to_its_last_record() -> None:
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=4096)
    store.append(3)
    (file,) = read(backup_of(store), store.keyring)
    assert file.size == store.log.segments[0].size_bytes < 4096 == len(fs.read(store.log.segments[0].path))


def test_a_backup_of_an_empty_store_has_no_file() -> None:
    store = Store.open(MemoryFileSystem())
    assert read(backup_of(store), store.keyring) == {}


def test_a_large_file_is_in_chunks_of_a_quarter_mebibyte_with_their_headers() -> None:
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=1 << 20)
    store.append(9, 100_000)
    data = backup_of(store)
    (content,) = read(data, store.keyring).values()
    assert content == fs.read(store.log.segments[0].path)[: len(content)]
    assert [size for _, size in chunks_of(data, store.keyring)] == [
        262_144,
        262_144,
        262_144,
        len(content) % 262_128 + 16,
        48,
    ]


def test_every_flipped_byte_is_found() -> None:
    data, keyring, _ = small()
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 1 << at % 8
        with pytest.raises((DamagedBackup, NewerFormat)) as caught:
            read(bytes(broken), keyring)
        if isinstance(caught.value, DamagedBackup):
            assert caught.value.file == "b"
            assert caught.value.offset <= at


def test_damage_is_named_with_the_offset_of_its_chunk() -> None:
    data, keyring, _ = small()
    offset, size = chunks_of(data, keyring)[2]
    broken = bytearray(data)
    broken[offset + size - 1] ^= 0x80
    with pytest.raises(DamagedBackup, match="b is damaged at byte") as caught:
        read(bytes(broken), keyring)
    assert caught.value.offset == offset
    assert caught.value.expected == f"chunk 2 of {size - 16} bytes and its CRC-32C"


def test_every_cut_is_found_at_its_place() -> None:
    data, keyring, _ = small()
    for size in range(len(data)):
        with pytest.raises(DamagedBackup) as caught:
            read(data[:size], keyring)
        assert (caught.value.offset, caught.value.actual) == (size, "the end of the backup")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "b is damaged at byte 0: expected the header of a backup, found the end of the backup"),
        (b"key\tvalue\n", "b is no backup, but a file that begins with b'key\\tvalue\\n'"),
        (b"\x1f\x8b\x08" + bytes(100), "b is no backup, but a gzip file, which has to be unpacked first"),
        (b"HAPTERAL" + bytes(200), "b is no backup, but a segment of a log"),
        (b"HAPTERAS" + bytes(200), "b is no backup, but a snapshot in a data directory"),
        (b"HAPTERAB" + bytes(200), "b is damaged at byte 0: expected the header of a backup and its CRC-32C, found "),
        (b"HAPTERAB", "b is damaged at byte 8: expected the header of a backup, found the end of the backup"),
    ],
)
def test_a_file_that_is_no_backup_is_called_what_it_is(content: bytes, said: str) -> None:
    _, keyring, _ = small()
    with pytest.raises(DamagedBackup) as raised:
        BackupReader("b", io.BytesIO(content).read, lambda *_: keyring)
    assert str(raised.value).startswith(said)


def test_bytes_behind_the_end_are_found() -> None:
    data, keyring, _ = small()
    with pytest.raises(DamagedBackup) as caught:
        read(data + b"\0", keyring)
    assert caught.value.offset == len(data)


def test_chunks_that_have_changed_places_are_found() -> None:
    data, keyring, _ = small()
    places = chunks_of(data, keyring)[:-1]
    assert len({size for _, size in places[:-1]}) < len(places[:-1]), "some are of one size"
    for (first, size), (second, other) in itertools.pairwise(places):
        swapped = data[:first] + data[second : second + other] + data[first : first + size] + data[second + other :]
        with pytest.raises(DamagedBackup) as caught:
            read(swapped, keyring)
        assert caught.value.offset == first


def test_a_chunk_of_another_backup_of_the_same_store_is_found() -> None:
    fs = MemoryFileSystem()
    store = Store.open(fs)
    store.append(13)
    one, two = backup_of(store), backup_of(store)
    assert len(one) == len(two)
    for offset, size in chunks_of(one, store.keyring):
        with pytest.raises(DamagedBackup):
            read(one[:offset] + two[offset : offset + size] + one[offset + size :], store.keyring)


def forged(data: bytes, keyring: Keyring, number: int, payload: bytes) -> bytes:
    """A backup with a chunk that was replaced by one with a right checksum, which needs no key."""
    offset, size = chunks_of(data, keyring)[number]
    header = bytes_of.chunk_header(data[20:36], number, payload)
    return data[:offset] + header + payload + data[offset + size :]


def test_a_chunk_that_was_replaced_with_a_right_checksum_is_found_by_the_digest() -> None:
    data, keyring, _ = small()
    offset, size = chunks_of(data, keyring)[1]
    same = data[offset + 16 : offset + size]
    assert forged(data, keyring, 1, same) == data
    with pytest.raises(DamagedBackup) as caught:
        read(forged(data, keyring, 1, same[:-1] + bytes([same[-1] ^ 1])), keyring)
    assert caught.value.expected == "the digest of all that stands before"


def test_no_digest_stands_for_another() -> None:
    data, keyring, _ = small()
    last = len(chunks_of(data, keyring)) - 1
    with pytest.raises(DamagedBackup, match="the digest of all that stands before"):
        read(forged(data, keyring, last, bytes(32)), keyring)


def checked(fields: bytes) -> bytes:
    crc: int = google_crc32c.value(fields)
    return fields + crc.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("at", "fields"),
    [(36, b"\xff\xff\xff\xff"), (44, b"\xff\xff\xff\xff"), (44, bytes(4)), (44, b"\0\0\0\x0f"), (36, b"\0\x10\0\1")],
    ids=["keyring", "manifest", "no manifest", "no tag", "just above"],
)
def test_a_size_in_a_header_is_bounded_before_anything_of_it_is_read(at: int, fields: bytes) -> None:
    data, keyring, _ = small()
    header = checked(data[:at] + fields + data[at + 4 : 48])
    asked = []
    source = io.BytesIO(header + data[52:])

    def reading(size: int) -> bytes:
        asked.append(size)
        return source.read(size)

    with pytest.raises(DamagedBackup):
        BackupReader("b", reading, lambda *_: keyring)
    assert asked == [52]


def test_a_header_with_bytes_that_the_format_does_not_know_is_damage() -> None:
    data, keyring, _ = small()
    with pytest.raises(DamagedBackup) as caught:
        read(checked(data[:10] + b"\0\1" + data[12:48]) + data[52:], keyring)
    assert caught.value.offset == 0


def test_a_newer_format_is_told_from_damage() -> None:
    data, keyring, _ = small()
    with pytest.raises(NewerFormat) as caught:
        read(checked(data[:8] + b"\0\2" + data[10:48]) + data[52:], keyring)
    assert (caught.value.file, caught.value.found, caught.value.supported) == ("b", 2, 1)


@pytest.mark.parametrize(
    ("found", "put"),
    [(b"\xa51.2.3", b"\xa51.2\xff3"), (b"\xa51.2.3", b"\xa51.2"), (b"\xa51.2.3", b"\x91" * 6)],
    ids=["text that is not UTF-8", "cut short", "another type"],
)
def test_a_manifest_that_decrypts_to_something_else_is_damage(found: bytes, put: bytes) -> None:
    store = Store.open(MemoryFileSystem())
    store.append(3)
    data, key = backup_of(store), store.keyring.newest
    header = bytes_of.BackupHeader.decode(data[:52])
    assert header is not None
    keyring_data = data[52 : header.manifest_offset]
    cipher = bytes_of._manifest_cipher(header.id, key)
    sealed = data[header.manifest_offset : header.size]
    text = cipher.decrypt(bytes(12), sealed, data[:52] + keyring_data)
    assert text.count(found) == 1
    text = text.replace(found, put)
    other = bytes_of.BackupHeader(
        header.key_id, header.id, header.keyring_size, header.keyring_check, len(text) + 16
    ).encode()
    forgery = other + keyring_data + cipher.encrypt(bytes(12), text, other + keyring_data)
    with pytest.raises(DamagedBackup) as caught:
        read(forgery, store.keyring)
    assert caught.value.offset == header.manifest_offset


def test_something_else_is_no_backup() -> None:
    with pytest.raises(DamagedBackup) as caught:
        read(b"key\tvalue\n" * 100, small()[1])
    assert caught.value.offset == 0


@pytest.mark.parametrize(
    "files", [[("segment", 2)], [("segment", 1), ("segment", 3)], [("snapshot", 7), ("snapshot", 9)]]
)
def test_a_manifest_with_files_that_do_not_follow_each_other_is_none(files: list[tuple[str, int]]) -> None:
    manifest = bytes_of.Manifest(
        directory_format=1,
        version="1",
        node_id=bytes(16),
        time_ms=0,
        index=0,
        revision=0,
        entry_time_ms=0,
        first_segment=1,
        keys=[],
        files=[bytes_of.BackupFile(kind, number, 1) for kind, number in files],  # type: ignore[arg-type]
    )
    assert not manifest.in_order


def test_a_file_that_has_lost_its_end_ends_the_backup() -> None:
    fs = MemoryFileSystem()
    store = Store.open(fs)
    store.append(13)
    path = store.log.segments[1].path
    fs.write(path, fs.read(path)[:-1])
    with pytest.raises(CorruptionError) as caught:
        backup_of(store)
    assert caught.value.file == path


def test_nothing_of_the_values_can_be_read_in_a_backup() -> None:
    data = small()[0]
    assert b"13 13 13" not in data
    assert data.startswith(b"HAPTERAB\0\1")


class TestImage:
    """A backup whose files are read where they are."""

    def image(self, segment_size: int = 400, count: int = 13, size: int = 24) -> tuple[BackupImage, MemoryFileSystem]:
        fs = MemoryFileSystem()
        store = Store.open(fs, segment_size=segment_size)
        store.append(count, size)
        fs.write("b", backup_of(store))
        file = fs.open("b", "r")
        at = 0

        def reading(size: int) -> bytes:
            nonlocal at
            at += size
            return file.pread(size, at - size)

        return BackupImage("b", BackupReader("b", reading, lambda *_: store.keyring), file), fs

    def test_its_names_are_those_of_a_data_directory(self) -> None:
        image, fs = self.image()
        assert sorted(image.listdir("b/log")) == sorted(fs.listdir(f"{PATH}/log"))
        assert image.listdir("b/snapshots") == []
        assert sorted(image.listdir("b")) == ["keys", "log", "node.toml", "snapshots"]

    def test_any_part_of_a_file_can_be_read(self) -> None:
        image, fs = self.image(1 << 20, 9, 100_000)
        whole = fs.read(f"{PATH}/log/0000000000000001.seg")
        file = image.open("b/log/0000000000000001.seg", "r")
        size = file.size()
        assert file.pread(size + 10, 0) == whole[:size]
        for offset, length in [
            (0, 80),
            (262_120, 16),
            (262_127, 300_000),
            (600_000, 1),
            (size - 1, 5),
            (size, 5),
            (7, 0),
        ]:
            assert file.pread(length, offset) == whole[offset : min(offset + length, size)]

    def test_a_chunk_that_changes_meanwhile_is_found(self) -> None:
        image, fs = self.image()
        file = image.open("b/log/0000000000000002.seg", "r")
        broken = bytearray(fs.read("b"))
        at = len(broken) - 500
        broken[200:at] = bytes(at - 200)
        fs._file("b").seen[:] = broken
        with pytest.raises(DamagedBackup):
            file.pread(100, 0)

    def test_nothing_of_it_can_be_written(self) -> None:
        image, _ = self.image()
        for change in (
            lambda: image.open("b/log/x", "x"),
            lambda: image.open("b/log/0000000000000001.seg", "r+"),
            lambda: image.mkdir("b/x"),
            lambda: image.rename("b/log", "b/x"),
            lambda: image.unlink("b/log/0000000000000001.seg"),
            lambda: image.sync_directory("b"),
        ):
            with pytest.raises(OSError, match="Read-only"):
                change()
        with pytest.raises(FileNotFoundError):
            image.open("b/log/../../etc/passwd", "r")
