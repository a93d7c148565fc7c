"""What keeps a node from its data: for each a clear message, an exit code of its own, and nothing touched.

The exit codes are those of spec/storage.md. Damage itself is the subject of test_node_damage.py.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

import haptera
from haptera.errors import StorageError, StorageFull
from haptera.node.config import NodeConfig
from haptera.state.operations import Set
from haptera.storage import DiskFailed, DiskFull, OsFileSystem, filesystem
from haptera.storage.errors import translated
from haptera.testing.filesystem import MemoryFileSystem
from tests.integration.commands import run
from tests.unit.node.nodes import Asked, opened, turn
from tests.unit.node.process import ANY_PORT, serving
from tests.unit.node.stored_state import StoredState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.integration.commands import Ended


@contextmanager
def in_this_process() -> Iterator[None]:
    """Leave the logging, the limits and the signals of the process of the tests as they are, although `haptera serve`
    changes them: a node that is refused needs no process of its own.
    """
    root, ours = logging.getLogger(), logging.getLogger("haptera")
    before = root.handlers[:], root.level, ours.level
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    with patch("haptera.node.raise_limit"), patch("haptera.node.return_large_blocks"):
        try:
            yield
        finally:
            root.handlers[:], level, level_of_ours = before
            root.setLevel(level)
            ours.setLevel(level_of_ours)
            for number, handler in handlers.items():
                signal.signal(number, handler)


def refusal(data: Path, *options: str) -> Ended:
    """Serve a directory, and wait until that is refused. `err` are the lines of the log."""
    with in_this_process():
        return run("serve", "--data-dir", str(data), "--listen", ANY_PORT, "--log-format", "json", *options)


Tree = dict[str, tuple[int, int, bytes]]


def tree(path: Path) -> Tree:
    """Names, times, modes and bytes of everything below a path; `lock` holds the number of the last process."""
    found = {}
    for each in sorted(path.rglob("*")):
        status = each.lstat()
        known = each.is_file() and each.name != "lock"
        time = 0 if each.name == "lock" else status.st_mtime_ns
        found[str(each.relative_to(path))] = (status.st_mode, time, each.read_bytes() if known else b"")
    return found


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a snapshot, segments and keys."""
    path = tmp_path_factory.mktemp("filled") / "d"
    config = NodeConfig(data_dir=str(path), listen=(), segment_size=65536)
    state = StoredState(config, OsFileSystem())
    try:
        state.open()
        state.write(40)
        state.snapshot()
        state.write(10)
    finally:
        state.close()
    return path


@pytest.fixture
def data(filled: Path, tmp_path: Path) -> Path:
    shutil.copytree(filled, tmp_path / "d")
    return tmp_path / "d"


def another_key(path: Path) -> None:
    (path / "master.key").write_bytes(bytes(range(32)).hex().encode())


def no_key(path: Path) -> None:
    (path / "master.key").unlink()


def no_keyring(path: Path) -> None:
    (path / "keys").unlink()


def newer_format(path: Path) -> None:
    text = (path / "node.toml").read_text()
    assert "format = 2" in text
    (path / "node.toml").write_text(text.replace("format = 2", "format = 3"))


def older_copy(path: Path) -> None:
    """An older log beside a newer snapshot: what a restored part of a backup looks like."""
    for segment in sorted((path / "log").glob("*.seg"))[1:]:
        segment.unlink()


def no_log(path: Path) -> None:
    shutil.rmtree(path / "log")


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("not a directory")


def a_file_in_place_of_the_log(path: Path) -> None:
    no_log(path)
    (path / "log").write_text("not a directory")


REFUSED: dict[Callable[[Path], None], tuple[int, str]] = {
    another_key: (12, "key"),
    no_key: (12, "master.key"),
    no_keyring: (12, "keys"),
    newer_format: (13, "format 3"),
    older_copy: (17, "older"),
    no_log: (11, "log"),
    a_file: (14, "Not a directory"),
    a_file_in_place_of_the_log: (14, "Not a directory"),
}


@pytest.mark.parametrize("trouble", REFUSED, ids=lambda trouble: trouble.__name__)
def test_a_directory_that_cannot_be_served_is_named_and_left_as_it_was(
    data: Path, trouble: Callable[[Path], None]
) -> None:
    code, text = REFUSED[trouble]
    trouble(data)
    before = tree(data.parent)
    ended = refusal(data)
    assert ended.code == code
    event = json.loads(ended.err.splitlines()[-1])
    assert text in event["reason"]
    assert str(data) in event["reason"]
    assert event["exit_code"] == code
    assert tree(data.parent) == before


def test_a_parent_that_is_missing_is_not_made(tmp_path: Path) -> None:
    ended = refusal(tmp_path / "none" / "d")
    assert ended.code == 14
    assert "none" in json.loads(ended.err.splitlines()[-1])["reason"]
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_told_of_the_first_and_touches_nothing(data: Path) -> None:
    with serving(data) as first:
        first.ready()
        before = tree(data)
        with serving(data) as second:
            assert second.end() == 10
        assert f"process {first.process.pid}" in second.events[-1]["reason"]
        assert tree(data) == before
        assert (data / "lock").read_text().strip() == str(first.process.pid)


def _mounted(mount: str, command: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command where `mount` has changed the file systems for it alone."""
    script = f'{mount} && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=60,
    )


@pytest.fixture
def mounting(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or _mounted("mount -t tmpfs none .", ["true"], tmp_path).returncode:
        pytest.skip("this user may not mount file systems")


def _serve(data: Path, *options: str) -> list[str]:

    return [
        sys.executable,
        "-m",
        "haptera",
        "serve",
        "--data-dir",
        str(data),
        "--listen",
        "haptera://127.0.0.1:0",
        *options,
    ]


@pytest.mark.usefixtures("mounting")
def test_a_file_system_that_is_mounted_for_reading_alone_is_named(data: Path) -> None:
    before = tree(data)
    ended = _mounted(f"mount --bind {data} {data} && mount -o remount,ro,bind {data}", _serve(data), data.parent)
    assert (ended.returncode, "Read-only file system" in ended.stderr) == (14, True)
    assert str(data) in ended.stderr
    assert tree(data) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_is_named(data: Path) -> None:
    before = tree(data)
    for each in (data / "lock", data):
        each.chmod(0o500)
    try:
        with serving(data) as node:
            assert node.end() == 14
    finally:
        data.chmod(0o700)
        (data / "lock").chmod(0o600)
    assert "Permission denied" in node.events[-1]["reason"]
    assert tree(data) == before


@pytest.mark.usefixtures("mounting")
def test_a_disk_that_is_full_at_the_first_start_is_named_and_serves_when_it_has_room(tmp_path: Path) -> None:
    disk, data = tmp_path / "disk", tmp_path / "disk" / "d"
    disk.mkdir()
    full = f"mount -t tmpfs -o size=1m none {disk} && {{ dd if=/dev/zero of={disk}/fill bs=4k 2>/dev/null; true; }}"
    twice = (
        f'"$@"; echo "first $?" >&2; rm {disk}/fill; "$@" & node=$!; '
        f"until [ -S {data}/haptera.sock ] || ! kill -0 $node; do sleep 0.1; done; "
        'kill $node; wait $node; echo "then $?" >&2'
    )
    command = _serve(data, "--segment-size", "65536")
    ended = _mounted(full, ["sh", "-c", twice, "sh", *command], tmp_path)
    before, _, after = ended.stderr.partition("first 14")
    assert "No space left on device" in before, ended.stderr
    assert "then 0" in after, ended.stderr
    assert list(disk.iterdir()) == [], "all of it was on the other file system"


BAD_OPTIONS: list[tuple[str, ...]] = [
    ("--listen", "haptera://127.0.0.1:0?ping_interval=soon"),
    ("--listen", "haptera://127.0.0.1:0?ping_interval=-1"),
    ("--listen", "haptera://127.0.0.1:0?unknown=1"),
    ("--listen", "haptera://127.0.0.1:99999"),
    ("--listen", "haptera+unix:///" + "x" * 200),
    ("--listen", "haptera+unix:///nowhere/at/all.sock"),
    ("--memory-max", "-1"),
    ("--memory-max", "much"),
    ("--segment-size", "1"),
    ("--durability", "perhaps"),
    ("--log-level", "loud"),
    ("--socket-mode", "999"),
    ("--socket-group", "no such group"),
    ("--max-connections", "0"),
    ("--connection-budget", "1048576"),
    ("--signing-key-file", "/nowhere/at/all"),
    ("--master-key-file", "/nowhere/at/all"),
    ("--config", "/nowhere/at/all"),
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=" ".join)
def test_a_bad_option_is_refused_before_there_is_a_directory(tmp_path: Path, options: tuple[str, ...]) -> None:
    ended = refusal(tmp_path / "d", *options)
    assert ended.code == 15, ended.err
    assert list(tmp_path.iterdir()) == []


def test_too_few_open_files_are_refused_before_there_is_a_directory(tmp_path: Path) -> None:
    with serving(tmp_path / "d", files=64) as node:
        assert node.end() == 15
    assert "open files" in node.events[-1]["reason"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fdatasync", "fsync", "pwrite"])
async def test_trap_a_failed_write_or_sync_ends_the_node_and_is_not_tried_again(call: str) -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        Asked(node, Set("a", b"1"))
        await turn()
        fs.failing = frozenset({call})
        failed = Asked(node, Set("b", bytes(80_000)))
        await turn()
        assert failed.failures == [(5001, "unknown")]
        assert node.failed.done()
        calls = len(fs.calls)
        fs.failing = frozenset()
        assert Asked(node, Set("c", b"3")).failures == [(5001, "not_applied")]
        await turn()
        assert [name for name, _ in fs.calls[calls:] if name in {"pwrite", "fsync", "fdatasync"}] == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("call", ["listdir", "create"])
async def test_a_segment_for_which_there_is_no_descriptor_is_refused_and_comes_later(call: str, number: int) -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        Asked(node, Set("a", b"1"))
        await turn()
        names = [name for name in fs.listdir("/data/log") if not name.endswith(".tmp")]
        fs.failing, fs.fail_with = frozenset({call}), number
        for _ in range(2):
            refused = Asked(node, Set("b", bytes(80_000)))
            await turn()
            assert refused.failures == [(5002, "not_applied")]
            assert not node.failed.done()
        fs.failing = frozenset()
        assert set(names) <= set(fs.listdir("/data/log"))
        taken = Asked(node, Set("b", b"2"))
        await turn()
        assert isinstance(taken.result, tuple)
        index = node.index
    async with opened(fs.restart()) as node:
        assert node.index == index


def test_a_directory_can_be_synced_when_no_descriptor_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = OsFileSystem()
    fs.sync_directory(str(tmp_path))
    real = os.open

    def refused(*arguments: Any, **options: Any) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", refused)
    fs.sync_directory(str(tmp_path))
    with pytest.raises(OSError, match="Too many open files"):
        fs.sync_directory("/")
    monkeypatch.setattr(os, "open", real)
    fs.sync_directory("/")
    fs.close()


def test_a_directory_in_the_place_of_one_that_was_synced_is_synced_itself(tmp_path: Path) -> None:
    fs = OsFileSystem()
    path = tmp_path / "d"
    synced = []
    for _ in range(2):
        path.mkdir()
        fs.sync_directory(str(path))
        synced.append(os.fstat(fs._directories[str(path)]).st_ino == path.stat().st_ino)
        path.rename(tmp_path / f"old{len(synced)}")
    assert synced == [True, True]
    for number in range(2 * filesystem.DIRECTORIES_OPEN_MAX):
        (tmp_path / str(number)).mkdir()
        fs.sync_directory(str(tmp_path / str(number)))
    assert len(fs._directories) == filesystem.DIRECTORIES_OPEN_MAX
    fs.close()
    assert not fs._directories


def test_descriptors_that_run_out_are_told_from_a_broken_disk() -> None:
    for number, kind in ((errno.EMFILE, DiskFull), (errno.ENFILE, DiskFull), (errno.EIO, DiskFailed)):
        with pytest.raises(StorageError) as raised, translated("x", "create the segment"):
            raise OSError(number, os.strerror(number))
        assert type(raised.value) is kind


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limits of another process cannot be set")
def test_a_node_without_descriptors_refuses_a_new_segment_reads_and_takes_writes_again(tmp_path: Path) -> None:
    async def work(url: str, pid: int) -> None:
        async with haptera.connect(url, wait=False) as db:
            await db.set("first", b"1")
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
            with pytest.raises(StorageFull) as refused:
                await db.set("large", bytes(2_000_000))
            assert refused.value.outcome == "not_applied"
            assert await db.exists("first")
            with pytest.raises(StorageFull):
                await db.set("large", bytes(2_000_000))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            await db.set("last", bytes(2_000_000))

    with serving(tmp_path / "d", "--segment-size", "65536") as node:
        asyncio.run(work(node.ready().url, node.process.pid))
        node.signal(signal.SIGTERM)
        assert node.end() == 0
    assert {"storage_full", "storage_has_room"} <= set(node.names())
    with serving(tmp_path / "d") as node:
        node.ready()
        node.signal(signal.SIGTERM)
        assert node.end() == 0
