"""A data directory that is made of something else opens when it is finished, and not before."""

from __future__ import annotations

import pytest

from haptera.errors import CorruptionError, DirectoryInUse, StorageError
from haptera.storage import DataDirectory, NewDirectory, OverlayFileSystem, open_keyring
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
    assert directory.complete
    assert open_keyring(directory).keys == keyring.keys


def test_it_is_tried_in_a_view_before() -> None:
    fs = MemoryFileSystem()
    new = NewDirectory.make(fs, PATH)
    open_keyring(new.directory)
    view = OverlayFileSystem(fs)
    new.finish(view)
    assert DataDirectory.open(view, PATH).node_id == new.directory.node_id
    assert "node.toml" not in fs.listdir(PATH)


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


def test_an_empty_directory_is_taken() -> None:
    fs = MemoryFileSystem()
    fs.mkdir(PATH)
    NewDirectory.make(fs, PATH).close()
    NewDirectory.make(fs.restart(), "other").close()
