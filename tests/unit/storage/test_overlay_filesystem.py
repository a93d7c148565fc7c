"""A view of files whose changes stay in memory."""

from __future__ import annotations

import pytest

from haptera.storage import OverlayFileSystem
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.storage.stores import LOG_PATH, Store, entries, entry


def files() -> MemoryFileSystem:
    fs = MemoryFileSystem()
    fs.mkdir("d")
    fs.write("d/a", b"0123456789")
    return fs


def test_a_change_is_seen_in_the_view_and_nowhere_else() -> None:
    fs = files()
    view = OverlayFileSystem(fs)
    file = view.open("d/a", "r+")
    file.pwrite(b"xy", 2)
    file.pwrite(b"z", 12)
    assert view.open("d/a", "r").pread(20, 0) == b"01xy456789\0\0z"
    assert file.size() == 13
    file.truncate(3)
    file.allocate(6)
    assert file.pread(20, 1) == b"1x\0\0\0"
    assert fs.read("d/a") == b"0123456789"


def test_bytes_that_were_cut_off_do_not_come_back() -> None:
    view = OverlayFileSystem(files())
    file = view.open("d/a", "r+")
    file.pwrite(b"xxxx", 3)
    file.truncate(4)
    file.truncate(10)
    assert file.pread(10, 0) == b"012x\0\0\0\0\0\0"


def test_names_are_made_renamed_and_removed_in_the_view_alone() -> None:
    fs = files()
    view = OverlayFileSystem(fs)
    view.mkdir("d/e")
    view.open("d/e/new", "x").pwrite(b"1", 0)
    view.rename("d/e/new", "d/e/b")
    view.rename("d/a", "d/c")
    assert view.listdir("d") == ["c", "e"]
    assert view.listdir("d/e") == ["b"]
    assert view.open("d/c", "r").pread(3, 0) == b"012"
    view.unlink("d/c")
    assert view.listdir("d") == ["e"]
    for path in ("d/a", "d/c", "d/none"):
        with pytest.raises(FileNotFoundError):
            view.open(path, "r")
    with pytest.raises(FileExistsError):
        view.open("d/e/b", "x")
    with pytest.raises(FileExistsError):
        view.mkdir("d/e")
    assert fs.listdir("d") == ["a"]


def test_a_log_is_repaired_and_appended_to_without_a_change_of_the_disk() -> None:
    fs = MemoryFileSystem()
    Store.open(fs).append(3)
    fs = fs.restart()
    before = {name: fs.read(f"{LOG_PATH}/{name}") for name in fs.listdir(LOG_PATH)}
    view = OverlayFileSystem(fs)
    store = Store.open(view)
    assert store.entries == entries(3)
    store.append(9)
    store.close()
    assert Store.open(view).entries == [*entries(3), *map(entry, range(4, 13))]
    assert {name: fs.read(f"{LOG_PATH}/{name}") for name in fs.listdir(LOG_PATH)} == before
    assert not {call for call, _ in fs.calls} - {"open", "listdir", "pread", "size", "drop_cache"}


def test_a_lock_that_a_process_holds_is_neither_needed_nor_taken() -> None:
    fs = MemoryFileSystem()
    holder = Store.open(fs)
    holder.append(1)
    view = OverlayFileSystem(fs)
    for _ in range(2):
        assert view.open("data/lock", "r+").try_lock()
    holder.append(1)
    assert not fs.open("data/lock", "r+").try_lock()


def test_a_file_that_a_node_makes_meanwhile_is_not_seen() -> None:
    fs = MemoryFileSystem()
    node = Store.open(fs)
    node.append(4)
    view = OverlayFileSystem(fs)
    names = view.listdir(LOG_PATH)
    node.append(9)
    assert len(fs.listdir(LOG_PATH)) > len(names)
    assert view.listdir(LOG_PATH) == names
    store = Store.open(view)
    store.append(9)
    assert OverlayFileSystem(fs).listdir(LOG_PATH) == sorted(fs.listdir(LOG_PATH))


def test_records_that_a_node_writes_meanwhile_are_not_seen_in_part() -> None:
    """The segment is read, then more records come, then its end is judged: none of them may be seen."""
    fs = MemoryFileSystem()
    node = Store.open(fs, segment_size=4096)
    node.append(4)
    view = OverlayFileSystem(fs)
    name = max(name for name in fs.listdir(LOG_PATH) if name.endswith(".seg"))
    file = view.open(f"{LOG_PATH}/{name}", "r+")
    before = file.pread(4096, 0)
    node.append(3)
    assert fs.read(f"{LOG_PATH}/{name}") != before
    assert file.pread(4096, 0) == before
    assert Store.open(view).entries == entries(4)
