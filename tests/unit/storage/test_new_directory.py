"""A data directory that is made of something else opens when it is finished, and not before."""

from __future__ import annotations

import pytest

from haptera.errors import CorruptionError, DirectoryInUse, StorageError
from haptera.storage import (
    DataDirectory,
    Log,
    LogEntry,
    LogPoint,
    NewDirectory,
    OverlayFileSystem,
    open_keyring,
    write_snapshot,
)
from haptera.storage.errors import DiskFailed
from haptera.testing.filesystem import MemoryFileSystem

PATH = "made"


def test_it_opens_when_it_is_finished_and_not_before() -> None:
    fs = MemoryFileSystem()
    new = NewDirectory.make(fs, PATH)
    keyring = open_keyring(new.directory)
    left = fs.restart()
    for create in (True, False):
        with pytest.raises((CorruptionError, StorageError)):
            DataDirectory.open(left, PATH, create=create)
    new.finish(fs)
    directory = DataDirectory.open(fs.restart(), PATH)
    assert directory.node_id == new.directory.node_id
    assert open_keyring(directory).keys == keyring.keys


def test_it_is_tried_in_a_view_before() -> None:
    fs = MemoryFileSystem()
    new = NewDirectory.make(fs, PATH)
    open_keyring(new.directory)
    view = OverlayFileSystem(fs)
    new.finish(view)
    assert DataDirectory.open(view, PATH).node_id == new.directory.node_id
    assert "node.toml" not in fs.listdir(PATH)


def test_it_is_complete_with_a_segment_and_made_complete_by_its_first_opening_otherwise() -> None:
    fs = MemoryFileSystem()
    new = NewDirectory.make(fs, PATH)
    keyring = open_keyring(new.directory)
    point = LogPoint(7, 1, 5, b"t" * 16, 3)
    write_snapshot(fs, new.directory.snapshots_path, keyring, point, 4, [])
    new.finish(fs)
    for complete in (False, True):
        fs = fs.power_failure("drop")
        directory = DataDirectory.open(fs, PATH)
        assert directory.complete is complete
        log = Log.open(fs, directory, open_keyring(directory), start=point)
        assert list(log.replay()) == []
        assert (log.last_index, log.point) == (7, point)
        if complete:
            log.append(LogEntry(1, 8, 5, b"eight"))


def test_its_name_and_its_content_are_durable_when_it_is_finished() -> None:
    fs = MemoryFileSystem()
    new = NewDirectory.make(fs, PATH)
    open_keyring(new.directory)
    new.finish(fs)
    assert DataDirectory.open(fs.power_failure("drop"), PATH).node_id == new.directory.node_id


def test_it_is_locked_while_it_is_made() -> None:
    fs = MemoryFileSystem()
    new = NewDirectory.make(fs, PATH)
    with pytest.raises(DirectoryInUse):
        DataDirectory.open(fs, PATH)
    new.close()
    DataDirectory.unidentified(fs, PATH).close()


def filled(fs: MemoryFileSystem) -> NewDirectory:
    """A directory that has all that it may have before it is finished."""
    new = NewDirectory.make(fs, PATH)
    keyring = open_keyring(new.directory)
    point = LogPoint(7, 1, 5, b"t" * 16, 3)
    write_snapshot(fs, new.directory.snapshots_path, keyring, point, 4, [])
    new.begin_log(keyring, point)
    fs.write(f"{new.directory.snapshots_path}/{8:016x}.snap.tmp", b"half")
    return new


def fail(new: NewDirectory) -> None:
    """Fail after all but the end."""
    with new:
        raise ValueError("the cause")


def test_without_an_end_all_of_it_is_removed() -> None:
    fs = MemoryFileSystem()
    fs.mkdir("other")
    with pytest.raises(ValueError, match="the cause"):
        fail(filled(fs))
    assert fs.listdir("") == ["other"]
    with filled(fs) as new:
        new.finish(OverlayFileSystem(fs))
    assert fs.listdir("") == ["other"], "it was tried in a view, and no more"


def test_a_directory_that_was_there_stays_and_is_empty_again() -> None:
    fs = MemoryFileSystem()
    fs.mkdir(PATH)
    with pytest.raises(ValueError, match="the cause"):
        fail(filled(fs))
    assert fs.listdir(PATH) == []


def test_a_finished_one_stays() -> None:
    fs = MemoryFileSystem()
    new = filled(fs)
    new.finish(fs)
    with pytest.raises(ValueError, match="the cause"):
        fail(new)
    assert DataDirectory.open(fs, PATH).node_id == new.directory.node_id


def test_where_its_end_fails_the_file_that_lets_it_open_is_removed_first() -> None:
    fs = MemoryFileSystem()
    new = filled(fs)
    fs.failing = frozenset({"sync_directory"})  # behind the rename of that file
    with pytest.raises(DiskFailed), new:
        new.finish(fs)
    assert fs.listdir("") == []
    assert next(path for name, path in fs.calls if name == "unlink") == f"{PATH}/node.toml"


def test_one_that_cannot_be_removed_is_named_and_does_not_open() -> None:
    fs = MemoryFileSystem()
    new = filled(fs)
    fs.failing = frozenset({"unlink"})
    with pytest.raises(ValueError, match="the cause") as raised:
        fail(new)
    (note,) = raised.value.__notes__
    assert note.startswith(f"remove what is left of {PATH}")
    fs.failing = frozenset()
    with pytest.raises(CorruptionError):
        DataDirectory.open(fs, PATH)


def test_a_directory_that_holds_something_is_refused_and_left_alone() -> None:
    fs = MemoryFileSystem()
    fs.mkdir(PATH)
    fs.write(f"{PATH}/file", b"x")
    with pytest.raises(StorageError, match="made: it is not empty"):
        NewDirectory.make(fs, PATH)
    assert fs.listdir(PATH) == ["file"]


def test_a_directory_that_holds_a_store_is_called_that_and_is_not_to_be_removed() -> None:
    fs = MemoryFileSystem()
    new = NewDirectory.make(fs, PATH)
    open_keyring(new.directory)
    new.finish(fs)
    with pytest.raises(StorageError, match="it holds a store; name a directory that does not exist") as raised:
        NewDirectory.make(fs.restart(), PATH)
    assert "remove" not in str(raised.value)


def test_a_parent_that_is_missing_is_named() -> None:
    with pytest.raises(DiskFailed, match=r"above/made: cannot make the data directory: No such file.*: above has"):
        NewDirectory.make(MemoryFileSystem(), f"above/{PATH}")


def test_an_empty_directory_is_taken() -> None:
    fs = MemoryFileSystem()
    fs.mkdir(PATH)
    NewDirectory.make(fs, PATH).close()
    NewDirectory.make(fs.restart(), "other").close()
