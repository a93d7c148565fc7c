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


def test_an_empty_directory_is_taken() -> None:
    fs = MemoryFileSystem()
    fs.mkdir(PATH)
    NewDirectory.make(fs, PATH).close()
    NewDirectory.make(fs.restart(), "other").close()
