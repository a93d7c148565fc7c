"""A full disk: reads go on, what frees space goes on from the reserve, and writes come back when there is room."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from haptera.errors import Failure
from haptera.node.health import health
from haptera.state.operations import Clear, Compare, Delete, DeleteMany, Get, Increment, Set, Transact
from haptera.storage import DataDirectory, DiskFull, Log, open_keyring
from haptera.testing.filesystem import Crashed, MemoryFileSystem
from tests.unit.node.nodes import Asked, ManualWriter, fill_segment, opened, turn
from tests.unit.storage.stores import LOG_PATH, PATH, SEGMENT_SIZE, entry

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.storage import LogEntry

RESERVE_SIZE = 300


class Store:
    """An open log that keeps a reserve; `entries` are those that were replayed."""

    def __init__(self, fs: MemoryFileSystem) -> None:
        self.fs = fs
        self.directory = DataDirectory.open(fs, PATH)
        self.log = Log.open(
            fs, self.directory, open_keyring(self.directory), segment_size=SEGMENT_SIZE, reserve_size=RESERVE_SIZE
        )
        self.entries = list(self.log.replay())

    def append(self, frees: bool = False) -> LogEntry:
        written = entry(self.log.last_index + 1)
        self.log.append(written, frees)
        return written

    def close(self) -> None:
        self.log.close()
        self.directory.close()

    def fill(self) -> None:
        """Fill the segment that is appended to, and the disk."""
        self.append()
        while self.log._active is not None and self.log._active.has_room(72):
            self.append()
        self.full(True)

    def full(self, full: bool) -> None:
        self.fs.failing = frozenset({"allocate"}) if full else frozenset()
        self.fs.fail_with = errno.ENOSPC


def reserve(fs: MemoryFileSystem) -> bool:
    return "reserve" in fs.listdir(LOG_PATH)


def test_what_frees_is_written_to_the_reserve_and_nothing_else_is() -> None:
    store = Store(MemoryFileSystem())
    store.fill()
    with pytest.raises(DiskFull):
        store.append()
    assert reserve(store.fs)
    store.append(frees=True)
    assert not reserve(store.fs)
    with pytest.raises(DiskFull):
        store.append()
    store.append(frees=True)
    assert [segment.number for segment in store.log.segments] == [1, 2], "both are in the reserve"


def test_no_record_is_prepared_for_the_reserve() -> None:
    """It is for what frees space, and for that alone."""
    store = Store(MemoryFileSystem())
    store.fill()
    store.append(frees=True)
    assert store.log.prepare(entry(store.log.last_index + 1)) is None
    store.append(frees=True)
    store.close()


def test_a_reserve_that_is_used_up_refuses_everything_and_is_made_again_when_there_is_room() -> None:
    store = Store(MemoryFileSystem())
    store.fill()
    before = store.log.last_index
    with suppress(DiskFull):
        while store.log.last_index < before + 100:
            store.append(frees=True)
    assert before < store.log.last_index < before + 100
    with pytest.raises(DiskFull):
        store.append()
    store.full(False)
    store.append()
    assert reserve(store.fs), "it is there for the next time"
    store.fill()
    store.append(frees=True)
    count = store.log.last_index
    store.full(False)
    store.close()
    assert Store(store.fs).entries == [entry(index) for index in range(1, count + 1)]


def test_a_disk_without_room_for_a_reserve_is_opened_all_the_same() -> None:
    fs = MemoryFileSystem()
    store = Store(fs)
    store.append()
    store.close()
    fs.unlink(f"{LOG_PATH}/reserve")
    fs.failing, fs.fail_with = frozenset({"allocate"}), errno.ENOSPC
    store = Store(fs)
    assert store.entries == [entry(1)]
    assert not reserve(fs)
    with pytest.raises(DiskFull):
        store.append(frees=True)


def test_a_reserve_that_a_crash_has_cut_is_made_again() -> None:
    fs = MemoryFileSystem()
    Store(fs).close()
    file = fs.open(f"{LOG_PATH}/reserve", "r+")
    file.truncate(10)
    store = Store(fs)
    assert len(fs.read(f"{LOG_PATH}/reserve")) == RESERVE_SIZE
    store.fill()
    store.append(frees=True)


def test_an_entry_that_is_larger_than_the_reserve_is_refused() -> None:
    store = Store(MemoryFileSystem())
    store.fill()
    with pytest.raises(DiskFull):
        store.log.append(entry(store.log.last_index + 1, RESERVE_SIZE), frees=True)
    store.append(frees=True)


def work(fs: MemoryFileSystem, acknowledged: list[int]) -> None:
    """A life with a full disk, twice, and one that is killed on its reserve."""
    for _ in range(2):
        store = Store(fs)
        store.fill()
        acknowledged[0] = store.log.last_index
        for frees in (True, False, True):
            with suppress(DiskFull):
                store.append(frees)
                acknowledged[0] = store.log.last_index
        store.full(False)
        for _ in range(3):
            store.append()
            acknowledged[0] = store.log.last_index
        store.fill()
        store.append(frees=True)
        acknowledged[0] = store.log.last_index
        store.full(False)
        store.directory.close()


@pytest.mark.parametrize(
    ("loss", "seed"),
    [("killed", 0), ("drop", 0), ("keep", 0), *(("tear", s) for s in range(3)), *(("reorder", s) for s in range(6))],
)
def test_a_crash_on_a_full_disk_loses_nothing(loss: str, seed: int) -> None:
    whole = MemoryFileSystem()
    work(whole, [0])
    for after in (0, *whole.changes()):
        fs, acknowledged = MemoryFileSystem(), [0]
        fs.stop_after = after
        with suppress(Crashed):
            work(fs, acknowledged)
        fs.stop_after, fs.failing = None, frozenset()
        left = fs.restart() if loss == "killed" else fs.power_failure(loss, seed)  # type: ignore[arg-type]
        store = Store(left)
        assert len(store.entries) >= acknowledged[0]
        assert store.entries == [entry(index) for index in range(1, len(store.entries) + 1)]
        store.fill()
        store.append(frees=True)
        count = store.log.last_index
        store.full(False)
        store.close()
        assert len(Store(left).entries) == count


async def test_deletes_go_on_though_they_share_a_batch_with_what_is_refused() -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    async with opened(fs, writer=writer) as node:
        Asked(node, *(Set(key, b"1") for key in "abcdef"))
        await writer.write_all()
        fill_segment(node)
        await writer.write_all()
        large = Asked(node, Set("large", bytes(70_000)))
        mixed = Asked(node, Delete("a"), Set("n", b"2"), DeleteMany(["b", "c"]), Increment("x"), Clear("d"))
        fs.failing, fs.fail_with = frozenset({"allocate"}), errno.ENOSPC
        await writer.write_all()
        assert large.failures == [(5002, "not_applied")]
        refused = [result.code for result in mixed.results if isinstance(result, Failure)]
        assert refused == [5002, 5002]
        assert [result for result in mixed.results if not isinstance(result, Failure)] == [
            (True, 8, None),
            (2, 9),
            (1, 10),
        ]
        assert Asked(node, Get("e")).result == (b"1", 5, None), "reads go on"
        assert health(node)[0] == "full"
        again = Asked(node, Delete("e"), Set("e", b"3"))
        await writer.write_all()
        assert again.results[0] == (True, 11, None)
        assert isinstance(again.results[1], Failure)
        fs.failing = frozenset()
        back = Asked(node, Set("f", b"4"))
        await writer.write_all()
        assert back.result == (12, None)
        assert health(node)[0] == "ok"


async def test_a_transact_that_only_frees_goes_on_though_another_is_refused() -> None:
    fs, writer = MemoryFileSystem(), ManualWriter()
    async with opened(fs, writer=writer) as node:
        Asked(node, *(Set(key, b"1") for key in "ab"))
        await writer.write_all()
        fill_segment(node)
        await writer.write_all()
        large = Asked(node, Set("large", bytes(70_000)))
        holds = [Compare("a", "exists", "=", True)]
        freeing = Asked(node, Transact(holds, [Get("a"), Delete("a"), Delete("b")], [Get("b")]))
        growing = Asked(node, Transact(holds, [Delete("a")], [Set("a", b"2")]))
        fs.failing, fs.fail_with = frozenset({"allocate"}), errno.ENOSPC
        await writer.write_all()
        assert large.failures == growing.failures == [(5002, "not_applied")]
        value, first, second = (b"1", 1, None), (True, 4, None), (True, 4, None)
        assert freeing.result == (True, 4, (value, first, second))


async def test_a_full_disk_is_told_once_when_it_begins_and_once_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "haptera.node.commit")
    fs, writer = MemoryFileSystem(), ManualWriter()
    async with opened(fs, writer=writer) as node:
        Asked(node, *(Set(f"k{number}", b"1") for number in range(100)))
        await writer.write_all()
        fill_segment(node)
        await writer.write_all()
        fs.failing, fs.fail_with = frozenset({"allocate"}), errno.ENOSPC
        for number in range(50):
            Asked(node, Set("large", bytes(70_000)), Delete(f"k{number}"))
            await writer.write_all()
        assert node.keys == 51
        fs.failing = frozenset()
        Asked(node, Set("a", b""))
        await writer.write_all()
        await turn()
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("storage_")]
    assert told == ["storage_full", "storage_has_room"]


#: Fills a disk of 12 MiB, of which a file takes 7, and goes on when that is gone.
ON_A_FULL_DISK = """
import asyncio, os, sys
from haptera.errors import Failure
from haptera.node import Node, NodeConfig
from haptera.node.commands import ANONYMOUS, Envelope
from haptera.node.health import health
from haptera.state.operations import Delete, Get, Set

data = os.path.join(sys.argv[1], "d")
config = NodeConfig(data_dir=data, listen=(), segment_size=256 * 1024)

async def ask(node, op):
    done = asyncio.get_running_loop().create_future()
    node.commands.submit(ANONYMOUS, [Envelope(op)], lambda results: done.set_result(results[0]))
    result = await done
    return result.code if isinstance(result, Failure) else result

async def main():
    with open(os.path.join(sys.argv[1], "fill"), "wb") as file:
        file.write(bytes(7 << 20))
    node = await Node.open(config)
    count = 0
    while isinstance(await ask(node, Set(f"key/{count}", os.urandom(4000))), tuple):
        count += 1
    assert count > 500, count
    assert await ask(node, Set("more", bytes(4000))) == 5002
    assert health(node)[0] == "full"
    assert isinstance(await ask(node, Get("key/0")), tuple)
    for number in range(100):
        assert isinstance(await ask(node, Delete(f"key/{number}")), tuple), number
    assert await ask(node, Set("more", bytes(200_000))) == 5002
    snapshot = await node.snapshots.request()
    assert isinstance(snapshot, Failure) and snapshot.code in (5002, 5008), snapshot
    assert os.listdir(os.path.join(data, "snapshots")) == []
    os.unlink(os.path.join(sys.argv[1], "fill"))
    assert isinstance(await ask(node, Set("more", b"1")), tuple)
    assert (await node.snapshots.request()).index == node.index
    await node.aclose()
    node = await Node.open(config)
    assert node.keys == count - 100 + 1, (node.keys, count)
    await node.aclose()
    print("done")

asyncio.run(main())
"""


def test_a_real_disk_that_is_full_takes_deletes_and_comes_back(tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=12m none {tmp_path} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this user may not mount file systems")
    ended = subprocess.run(
        [*command, sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
