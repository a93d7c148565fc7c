"""The data directory, its lock and its two small files."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from haptera.errors import CorruptionError, StorageError
from haptera.storage import DataDirectory, OsFileSystem, open_keyring
from haptera.storage.data_key import DataKey
from haptera.storage.errors import (
    DirectoryInUse,
    DiskFailed,
    DiskFull,
    MissingKey,
    NewerFormat,
    WrongKey,
)
from haptera.storage.segment_format import EMPTY_CAPACITY
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.storage.stores import LOG_PATH, PATH, Store, entries, opened

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys
from haptera.storage import DataDirectory, OsFileSystem
directory = DataDirectory.open(OsFileSystem(), sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_directory_keeps_its_node_id() -> None:
    fs = MemoryFileSystem()
    first = DataDirectory.open(fs, PATH)
    first.close()
    second = DataDirectory.open(fs, PATH, create=False)
    assert second.node_id == first.node_id
    assert len(second.node_id) == 16
    assert sorted(fs.listdir(PATH)) == ["lock", "log", "node.toml", "snapshots"]


def test_a_second_opening_in_the_process_is_refused() -> None:
    fs = MemoryFileSystem()
    first = DataDirectory.open(fs, PATH)
    with pytest.raises(DirectoryInUse) as caught:
        DataDirectory.open(fs, PATH)
    assert caught.value.pid == os.getpid()
    first.close()
    DataDirectory.open(fs, PATH).close()


def test_a_second_process_is_refused_and_told_which_holds_it(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DirectoryInUse) as caught:
            DataDirectory.open(OsFileSystem(), path)
        assert caught.value.pid == holder.pid
        assert str(holder.pid) in str(caught.value)
        holder.kill()
    DataDirectory.open(OsFileSystem(), path).close()


def test_a_directory_that_is_not_there_is_made_only_when_asked() -> None:
    fs = MemoryFileSystem()
    with pytest.raises(StorageError, match="no data directory"):
        DataDirectory.open(fs, PATH, create=False)
    assert fs.listdir("") == []


def test_a_trailing_slash_names_the_same_directory(tmp_path: Path) -> None:
    DataDirectory.open(OsFileSystem(), f"{tmp_path}/data/").close()
    assert (tmp_path / "data" / "node.toml").exists()


def test_a_missing_parent_is_said(tmp_path: Path) -> None:
    with pytest.raises(DiskFailed, match="No such file"):
        DataDirectory.open(OsFileSystem(), f"{tmp_path}/a/b")


def test_only_the_owner_can_read_what_is_made(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    with opened(OsFileSystem(), path) as store:
        store.append(3)
    for folder, _, names in os.walk(path):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        for name in names:
            assert stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) == 0o600


@pytest.mark.parametrize("name", ["node.toml", "keys"])
def test_a_newer_format_is_named_as_such(name: str) -> None:
    fs = store_with_entries()
    path = f"{PATH}/{name}"
    fs.write(path, fs.read(path).replace(b"format = 2", b"format = 12"))
    with pytest.raises(NewerFormat) as caught:
        Store.open(fs)
    assert (caught.value.file, caught.value.found, caught.value.supported) == (path, 12, 2)


@pytest.mark.parametrize("name", ["node.toml", "keys"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"format = 1",
        b"format = 2",
        b"format = []",
        b"format = 0\nid = 3\nkey = 4\n",
        b"format = " + b"[" * 4000,
    ],
)
def test_a_damaged_small_file_is_refused(name: str, data: bytes) -> None:
    fs = store_with_entries()
    fs.write(f"{PATH}/{name}", data)
    with pytest.raises(CorruptionError) as caught:
        Store.open(fs)
    assert caught.value.file == f"{PATH}/{name}"


@pytest.mark.parametrize("mask", [1, 2, 4, 0x20])
def test_a_changed_byte_of_node_toml_never_gives_another_node_id(mask: int) -> None:
    whole = MemoryFileSystem()
    directory = DataDirectory.open(whole, PATH)
    path = f"{PATH}/node.toml"
    data = whole.read(path)
    refused = 0
    for at in range(len(data)):
        fs = whole.power_failure("keep")
        fs.write(path, data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
        try:
            assert DataDirectory.open(fs, PATH).node_id == directory.node_id, at
        except (CorruptionError, NewerFormat):
            refused += 1
    assert refused > len(directory.node_id.hex()) / 2


def test_a_log_without_its_key_file_is_refused_and_no_key_is_made() -> None:
    fs = store_with_entries()
    fs.unlink(f"{PATH}/keys")
    with pytest.raises(MissingKey):
        Store.open(fs)
    assert "keys" not in fs.listdir(PATH)


def test_a_log_without_node_toml_is_refused() -> None:
    fs = store_with_entries()
    fs.unlink(f"{PATH}/node.toml")
    with pytest.raises(CorruptionError, match=r"node\.toml"):
        Store.open(fs)


def test_keys_without_node_toml_are_refused_and_kept() -> None:
    """Before the first entry too: a directory that is made anew beside them would be another node's."""
    fs = MemoryFileSystem()
    opened(fs).__enter__().close()
    keys = fs.read(f"{PATH}/keys")
    fs.unlink(f"{PATH}/node.toml")
    [segment] = fs.listdir(LOG_PATH)
    assert len(fs.read(f"{LOG_PATH}/{segment}")) == EMPTY_CAPACITY
    fs.unlink(f"{LOG_PATH}/{segment}")  # the keys alone are enough
    for _ in range(2):
        with pytest.raises(CorruptionError, match=r"node\.toml"):
            Store.open(fs)
    assert fs.read(f"{PATH}/keys") == keys
    assert "node.toml" not in fs.listdir(PATH)


def test_snapshots_without_node_toml_are_refused() -> None:
    fs = store_with_entries()
    for name in fs.listdir(LOG_PATH):
        fs.unlink(f"{LOG_PATH}/{name}")
    for name in ("node.toml", "keys", "master.key"):
        fs.unlink(f"{PATH}/{name}")
    fs.write(f"{PATH}/snapshots/{1:016x}.snap", b"x")
    with pytest.raises(CorruptionError, match=r"node\.toml"):
        Store.open(fs)


def test_segments_without_keys_and_node_toml_are_refused() -> None:
    fs = store_with_entries()
    for name in ("node.toml", "keys", "master.key"):
        fs.unlink(f"{PATH}/{name}")
    with pytest.raises(CorruptionError, match=r"node\.toml"):
        Store.open(fs)
    assert not {"node.toml", "keys"} & set(fs.listdir(PATH))


def test_a_directory_without_its_log_is_refused(tmp_path: Path) -> None:
    with opened(OsFileSystem(), str(tmp_path / "data")) as store:
        store.append(1)
    shutil.rmtree(tmp_path / "data" / "log")
    with pytest.raises(CorruptionError, match="log"):
        Store.open(OsFileSystem(), str(tmp_path / "data"))


def test_another_directorys_key_is_the_wrong_key() -> None:
    fs = store_with_entries()
    fs.write(f"{PATH}/keys", store_with_entries().read(f"{PATH}/keys"))
    with pytest.raises(WrongKey) as caught:
        Store.open(fs)
    assert caught.value.expected != caught.value.actual


def test_the_secret_is_not_shown() -> None:
    secret = bytes(range(65, 97))
    assert secret.decode() not in repr(DataKey.of(secret))
    fs = store_with_entries()
    text = fs.read(f"{PATH}/master.key")
    fs.write(f"{PATH}/master.key", text + b"0")
    with pytest.raises(CorruptionError) as caught:
        Store.open(fs)
    assert len(text) == 65
    assert text.decode()[:8] not in str(caught.value)


def test_a_key_is_kept() -> None:
    fs = MemoryFileSystem()
    directory = DataDirectory.open(fs, PATH)
    assert open_keyring(directory).keys == open_keyring(directory).keys


@pytest.mark.parametrize("call", ["truncate", "pwrite"])
def test_the_process_id_cannot_be_written_on_a_full_disk_and_the_store_opens(call: str) -> None:
    fs = store_with_entries().power_failure("keep")
    opened_once = fs.power_failure("keep")
    Store.open(opened_once)
    fs.fail_at, fs.fail_with = opened_once.calls.index((call, f"{PATH}/lock")) + 1, errno.ENOSPC
    with opened(fs) as store:
        assert store.entries == entries(10)


def test_a_full_disk_at_creation_is_said_and_may_be_tried_again() -> None:
    fs = MemoryFileSystem()
    fs.fail_at, fs.fail_with = 1, errno.ENOSPC
    with pytest.raises(DiskFull):
        DataDirectory.open(fs, PATH)
    DataDirectory.open(fs, PATH).close()


def store_with_entries() -> MemoryFileSystem:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(10)
    return fs


def irregular(path: Path, kind: str) -> None:
    """Put something in a file's place that is none."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/tty")
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))


@pytest.mark.parametrize("kind", ["pipe", "directory", "device", "socket"])
@pytest.mark.parametrize("name", ["node.toml", "keys", "lock", "log/0000000000000001.seg"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(short_path: Path, name: str, kind: str) -> None:
    """Trap: a pipe in a file's place hangs the start, because opening it waits for its other end."""
    with opened(OsFileSystem(), str(short_path)) as store:
        store.append(3)
    irregular(short_path / name, kind)
    with pytest.raises(DiskFailed, match=f"{kind} and no regular file"):
        Store.open(OsFileSystem(), str(short_path))


def test_a_link_to_a_regular_file_is_one(tmp_path: Path) -> None:
    """The key may be kept on another disk."""
    data = tmp_path / "data"
    with opened(OsFileSystem(), str(data)) as store:
        store.append(3)
    (data / "keys").rename(tmp_path / "elsewhere")
    (data / "keys").symlink_to(tmp_path / "elsewhere")
    with opened(OsFileSystem(), str(data)) as store:
        assert store.entries == entries(3)
