"""The in-memory file system that the crash tests rest on: it loses what a disk may lose, and no more."""

from __future__ import annotations

import errno
import re
import sys
from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING

import pytest

from haptera.storage import filesystem
from haptera.storage.filesystem import File, FileSystem, OsFileSystem, write_file_atomically
from haptera.testing.filesystem import Crashed, MemoryFileSystem
from tests.support.stops import image, left_by, stops

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(params=["memory", "os"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], tuple[FileSystem, str]]:
    """Both file systems, to be held to the same behaviour, each with a directory to work in."""

    def memory() -> tuple[FileSystem, str]:
        fs = MemoryFileSystem()
        fs.mkdir("base")
        return fs, "base"

    return memory if request.param == "memory" else lambda: (OsFileSystem(), str(tmp_path))


def test_both_read_what_was_written(make: Callable[[], tuple[FileSystem, str]]) -> None:
    fs, base = make()
    file = fs.open(f"{base}/a", "x")
    file.pwrite(b"hello", 3)
    assert file.pread(100, 0) == b"\0\0\0hello"
    assert file.pread(2, 4) == b"el"
    assert file.pread(1, 8) == b""
    file.allocate(20)
    assert (file.size(), file.pread(100, 6)) == (20, b"lo" + bytes(12))
    file.allocate(4)
    assert file.size() == 20
    file.truncate(4)
    assert file.pread(100, 0) == b"\0\0\0h"
    file.fdatasync()
    file.fsync()
    file.drop_cache()
    file.close()
    file.close()
    reading = fs.open(f"{base}/a", "r")
    assert reading.pread(9, 0) == b"\0\0\0h"
    with pytest.raises(OSError, match="Bad file") as caught:
        reading.pwrite(b"x", 0)
    assert caught.value.errno == errno.EBADF


def test_both_name_the_boot_in_which_they_are(make: Callable[[], tuple[FileSystem, str]]) -> None:
    first, _ = make()
    name = first.boot_id()
    assert make()[0].boot_id() == name
    if isinstance(first, MemoryFileSystem):
        assert first.restart().boot_id() == name
        assert len({name, first.power_failure("keep").boot_id(), ""}) == 3
    elif sys.platform == "linux":
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", name)


def test_a_system_that_names_no_boot_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(filesystem, "_BOOT_ID", str(tmp_path / "none"))
    assert OsFileSystem().boot_id() == ""
    (tmp_path / "none").write_bytes(b"\xff")
    assert OsFileSystem().boot_id() == ""


def test_both_keep_names(make: Callable[[], tuple[FileSystem, str]]) -> None:
    fs, base = make()
    fs.mkdir(f"{base}/d")
    for again in (lambda: fs.mkdir(f"{base}/d"), lambda: fs.open(f"{base}/d", "x")):
        with pytest.raises(FileExistsError):
            again()
    for missing in (
        lambda: fs.open(f"{base}/none", "r"),
        lambda: fs.open(f"{base}/none", "r+"),
        lambda: fs.unlink(f"{base}/none"),
        lambda: fs.listdir(f"{base}/none"),
        lambda: fs.rename(f"{base}/none", f"{base}/other"),
        lambda: fs.open(f"{base}/none/file", "x"),
    ):
        with pytest.raises(FileNotFoundError):
            missing()
    write_file_atomically(fs, base, "a", b"one")
    write_file_atomically(fs, base, "a", b"two")
    assert fs.open(f"{base}/a", "r").pread(9, 0) == b"two"
    assert sorted(fs.listdir(base)) == ["a", "d"]
    fs.unlink(f"{base}/a")
    fs.sync_directory(base)
    assert fs.listdir(base) == ["d"]


def test_both_lock_once(make: Callable[[], tuple[FileSystem, str]]) -> None:
    fs, base = make()
    first = fs.open(f"{base}/lock", "x")
    second = fs.open(f"{base}/lock", "r+")
    assert first.try_lock()
    assert not second.try_lock()
    second.close()
    first.close()
    assert fs.open(f"{base}/lock", "r+").try_lock()


def written(fs: MemoryFileSystem, path: str, *, synced: bool, named: bool) -> File:
    file = fs.open(path, "x")
    file.pwrite(b"x" * 1000, 0)
    if synced:
        file.fsync()
    if named:
        fs.sync_directory("")
    return file


def test_a_power_failure_takes_data_that_was_not_synced() -> None:
    fs = MemoryFileSystem()
    written(fs, "a", synced=False, named=True)
    written(fs, "b", synced=True, named=True)
    after = fs.power_failure("drop")
    assert (after.read("a"), after.read("b")) == (b"", b"x" * 1000)
    assert fs.power_failure("keep").read("a") == b"x" * 1000


def test_a_power_failure_takes_names_that_were_not_synced() -> None:
    fs = MemoryFileSystem()
    written(fs, "a", synced=True, named=False)
    assert fs.power_failure("drop").listdir("") == []
    assert fs.power_failure("keep").listdir("") == ["a"]
    fs.sync_directory("")
    fs.rename("a", "b")
    assert fs.power_failure("drop").listdir("") == ["a"]
    fs.sync_directory("")
    fs.unlink("b")
    assert fs.power_failure("drop").listdir("") == ["b"]


def test_a_torn_write_is_a_first_part_of_it() -> None:
    fs = MemoryFileSystem()
    written(fs, "a", synced=False, named=True)
    lengths = {len(fs.power_failure("tear", seed).read("a")) for seed in range(30)}
    assert len(lengths) > 20


def test_reordering_keeps_some_changes_without_those_before() -> None:
    fs = MemoryFileSystem()
    file = written(fs, "a", synced=True, named=True)
    file.pwrite(b"1", 0)
    file.pwrite(b"2", 900)
    seen = {(data[0:1], data[900:901]) for data in (fs.power_failure("reorder", seed).read("a") for seed in range(60))}
    assert seen == {(b"x", b"x"), (b"1", b"x"), (b"x", b"2"), (b"1", b"2")}


def test_a_restart_keeps_what_was_seen_and_its_risk() -> None:
    fs = MemoryFileSystem()
    written(fs, "a", synced=False, named=False).try_lock()
    after = fs.restart()
    assert after.read("a") == b"x" * 1000
    assert after.open("a", "r+").try_lock()
    assert after.power_failure("drop").listdir("") == []


def test_a_failed_sync_loses_for_good_what_it_should_have_synced() -> None:
    fs = MemoryFileSystem()
    file = written(fs, "a", synced=True, named=True)
    file.pwrite(b"1", 0)
    fs.failing = frozenset({"fdatasync"})
    with pytest.raises(OSError, match="Input/output"):
        file.fdatasync()
    fs.failing = frozenset()
    file.fdatasync()
    assert file.pread(1, 0) == b"1"
    assert fs.power_failure("keep").read("a")[:1] == b"x"
    file.drop_cache()
    assert file.pread(1, 0) == b"x"


def test_the_program_stops_for_good() -> None:
    fs = MemoryFileSystem()
    fs.stop_after = 1
    fs.mkdir("a")
    for _ in range(2):
        with pytest.raises(Crashed):
            fs.mkdir("b")
    assert fs.calls == [("mkdir", "a")]
    assert fs.changes() == [1]


def test_a_copy_has_the_same_unsynced_changes_and_goes_its_own_way() -> None:
    fs = MemoryFileSystem()
    fs.mkdir("d")
    fs.sync_directory("")
    file = fs.open("d/a", "x")
    file.pwrite(b"synced", 0)
    file.fsync()
    fs.sync_directory("d")
    file.pwrite(b"unsynced", 0)
    fs.rename("d/a", "d/b")
    other = deepcopy(fs)
    assert other.calls == fs.calls
    assert image(other) == image(fs)
    renamed = other.open("d/b", "r+")
    renamed.fsync()
    assert other.power_failure("drop").read("d/a") == b"unsynced", "the name on the disk and the one seen are one file"
    assert fs.power_failure("drop").read("d/a") == b"synced"
    assert len(other.calls) == len(fs.calls) + 2
    other.unlink("d/b")
    assert fs.read("d/b") == b"unsynced"
    other.unreachable["d"] = errno.EIO
    assert fs.listdir("d") == ["b"]


def test_a_program_is_kept_as_each_change_leaves_it() -> None:
    """As it is found after a stop at that place, which each of these runs anew."""
    told = [0]

    def program(fs: FileSystem) -> None:
        told[0] = 0
        fs.mkdir("d")
        file = fs.open("d/a", "x")
        file.pwrite(b"12", 0)
        file.size()
        file.fdatasync()
        told[0] = 2
        file.pwrite(b"34", 2)
        file.size()
        fs.rename("d/a", "d/b")
        fs.sync_directory("d")
        told[0] = 4

    whole = MemoryFileSystem()
    program(whole)
    kept = stops(program, lambda: told[0])
    assert [stop.after for stop in kept] == [0, *whole.changes()]
    assert [stop.told for stop in kept] == [0, 0, 0, 0, 2, 2, 2, 4]
    for stop in kept:
        fs = MemoryFileSystem()
        fs.stop_after = stop.after
        with suppress(Crashed):
            program(fs)
        assert image(fs) == image(stop.fs)
    assert [(left.listdir("d"), told) for left, told in left_by(kept[1:], "killed", 0)][-2:] == [(["b"], 2), (["b"], 4)]
    dropped = list(left_by(kept, "drop", 0))
    assert [(left.listdir(""), told) for left, told in dropped] == [([], 0), ([], 2), ([], 4)]
