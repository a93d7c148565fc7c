"""The archive: whole segments and keyrings of one node, and nothing of another."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from haptera.errors import CorruptionError, ForeignArchive, NewerFormat
from haptera.storage import Archive, sealed_segments
from haptera.storage.archive import COPY_SIZE, Stopped
from haptera.storage.errors import DiskFailed, DiskFull
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.storage.stores import LOG_PATH, PATH, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE, OTHER = bytes(range(16)), bytes(16)


def stored() -> tuple[MemoryFileSystem, dict[int, str]]:
    """A store of several segments, and its sealed ones."""
    fs = MemoryFileSystem()
    Store.open(fs).append(13)
    return fs, sealed_segments(fs, LOG_PATH)


def archive(fs: MemoryFileSystem, node: bytes = NODE) -> Archive:
    made = Archive(fs, "archive", node)
    made.create()
    return made


def test_the_segment_that_is_written_to_is_not_sealed() -> None:
    fs, sealed = stored()
    numbers = sorted(int(name[:16], 16) for name in fs.listdir(LOG_PATH))
    assert list(sealed) == numbers[:-1]
    assert sealed[2] == f"{PATH}/log/0000000000000002.seg"


def test_a_segment_is_copied_byte_for_byte_and_then_held() -> None:
    fs, sealed = stored()
    kept = archive(fs)
    for number, path in sealed.items():
        assert not kept.holds(number, path)
        kept.add(number, path)
        assert kept.holds(number, path)
    assert list(kept.segments()) == list(sealed)
    for number, path in kept.segments().items():
        assert fs.read(path) == fs.read(sealed[number])
    assert Archive.find(fs, "archive").node_id == NODE


def test_an_archive_is_of_one_node() -> None:
    fs, _ = stored()
    archive(fs)
    other = Archive(fs, "archive", OTHER)
    for call in (other.create, other.check):
        with pytest.raises(ForeignArchive, match=f"the archive of node {NODE.hex()}, and this is node {OTHER.hex()}"):
            call()
    assert Archive.find(fs, "archive").node_id == NODE


def test_another_segment_of_the_same_number_is_never_replaced() -> None:
    fs, sealed = stored()
    kept = archive(fs)
    kept.add(1, sealed[1])
    with pytest.raises(CorruptionError, match="another segment of its number"):
        kept.holds(1, sealed[2])
    assert fs.read(kept.segments()[1]) == fs.read(sealed[1])


def test_an_archive_whose_disk_is_not_mounted_is_not_made_in_its_place() -> None:
    fs, _ = stored()
    with pytest.raises(DiskFailed):
        Archive(fs, "mnt/archive", NODE).create()
    kept = archive(fs)
    fs.unlink("archive/archive.toml")
    with pytest.raises(DiskFailed):
        kept.check()


@pytest.mark.parametrize(
    ("text", "error"),
    [(b"", CorruptionError), (b"format = 2\n", NewerFormat), (b"format = 1\nnode_id = 5\n", CorruptionError)],
)
def test_an_identity_that_cannot_be_read_is_refused(text: bytes, error: type[Exception]) -> None:
    fs, _ = stored()
    kept = archive(fs)
    fs.write("archive/archive.toml", text)
    for call in (kept.create, kept.check, lambda: Archive.find(fs, "archive")):
        with pytest.raises(error):
            call()


def test_each_keyring_is_kept_once_in_order() -> None:
    fs, _ = stored()
    kept = archive(fs)
    for data in (b"one", b"one", b"two", b"two", b"one"):
        kept.add_keyring(data)
    assert kept.keyrings() == [
        (f"archive/keys/{number:016x}", data) for number, data in ((1, b"one"), (2, b"two"), (3, b"one"))
    ]


def test_a_copy_that_is_told_to_stop_leaves_no_segment_and_can_begin_again() -> None:
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=4 * COPY_SIZE)
    store.append(8, COPY_SIZE)
    sealed = sealed_segments(fs, LOG_PATH)
    kept = archive(fs)

    def after_two() -> Iterator[bool]:
        yield from (False, False)
        while True:
            yield True

    answers = after_two()
    with pytest.raises(Stopped):
        kept.add(1, sealed[1], lambda: next(answers))
    assert kept.segments() == {}
    kept.add(1, sealed[1])
    assert fs.read(kept.segments()[1]) == fs.read(sealed[1])


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, DiskFull), (errno.EIO, DiskFailed), (errno.EROFS, DiskFailed)]
)
def test_any_call_that_fails_leaves_no_segment_that_is_not_whole(number: int, error: type[Exception]) -> None:
    fs, sealed = stored()
    archive(fs)
    before = len(fs.calls)
    Archive(fs, "archive", NODE).add(1, sealed[1])
    calls = len(fs.calls) - before
    for call in range(1, calls + 1):
        fs, sealed = stored()
        kept = archive(fs)
        fs.fail_at, fs.fail_with = len(fs.calls) + call, number
        with pytest.raises(error):
            kept.add(1, sealed[1])
        fs.fail_at = None
        for found in kept.segments().values():
            assert fs.read(found) == fs.read(sealed[1])
        if not kept.holds(1, sealed[1]):
            kept.add(1, sealed[1])
        assert kept.holds(1, sealed[1])
