"""Opening and closing a node: what it finds, what it says, and what it gives back."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import msgspec
import pytest

from haptera.errors import CorruptionError
from haptera.node import recovery
from haptera.node.garbage_collection import MIDDLE_COLLECTIONS, YOUNG_COLLECTIONS
from haptera.node.node import Node
from haptera.state import UnknownPart
from haptera.state.operations import Count, Delete, Get, Increment, Set
from haptera.storage import DataDirectory, Log, LogEntry, open_keyring
from haptera.storage.errors import DirectoryInUse, DiskFailed, MissingKey
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.nodes import CONFIG, Asked, ImmediateWriter, opened, turn


def fields(caplog: pytest.LogCaptureFixture, event: str) -> dict[str, Any]:
    (record,) = [record for record in caplog.records if record.message == event]
    return vars(record)


async def test_what_was_written_is_there_again_after_a_restart() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        node_id = node.node_id
        for _ in range(10):
            Asked(node, Increment("n", 1), Set("a", b"x"))
            await turn()
    async with opened(fs.restart()) as node:
        assert node.node_id == node_id
        assert (node.revision, node.index, node.keys) == (20, 10, 2)
        assert Asked(node, Get("n")).result == (b"10", 19, None)


async def test_trap_a_version_that_starts_again_when_a_key_is_recreated() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        asked = Asked(node, Set("a", b"1"))
        await turn()
        assert asked.result == (1, None)
    async with opened(fs) as node:
        asked = Asked(node, Delete("a"), Set("a", b"2"))
        await turn()
        assert asked.results[1] == (3, None)


async def test_recovery_says_how_much_and_how_fast(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "PROGRESS_INTERVAL_S", 0.0)
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        for number in range(20):
            Asked(node, Set(f"k{number}", bytes(100)))
            await turn()
    caplog.clear()
    with caplog.at_level("INFO", "haptera"):
        async with opened(fs):
            pass
    progress = [vars(record) for record in caplog.records if record.message == "recovering"]
    assert progress
    assert {"entries", "bytes", "bytes_total", "entries_per_second"} <= set(progress[-1])
    assert progress[-1]["entries"] == 20
    end = fields(caplog, "recovered")
    assert (end["entries"], end["keys"], end["revision"], end["index"]) == (20, 20, 20, 20)


async def test_a_torn_tail_is_reported_and_does_not_keep_the_node_from_starting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Trap: a torn last record blocks the start."""
    fs = MemoryFileSystem()
    node = await Node.open(CONFIG, filesystem=fs, writer=ImmediateWriter())
    Asked(node, Set("a", b"1"))
    await turn()
    fs.fail_at = len(fs.calls) + 1  # the next record is written in part
    Asked(node, Set("b", b"2"))
    await turn()
    await node.aclose()
    caplog.clear()
    async with opened(fs.restart()) as node:
        assert Asked(node, Get("a")).result == (b"1", 1, None)
        assert Asked(node, Get("b")).failures == [(4001, "not_applied")]
    torn = fields(caplog, "torn_tail_cut_off")
    assert torn["bytes"] > 0
    assert str(torn["file"]).startswith("/data/log/")


async def test_the_key_beside_the_data_and_durability_os_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async with opened():
        assert fields(caplog, "key_file_beside_data")["file"] == "/data/master.key"
        assert "durability_os" not in caplog.text
    async with opened(config=msgspec.structs.replace(CONFIG, durability="os")):
        assert "power failure" in str(fields(caplog, "durability_os")["meaning"])


async def test_a_directory_in_use_is_refused_and_stays_as_it_is() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        with pytest.raises(DirectoryInUse):
            await Node.open(CONFIG, filesystem=fs)
        asked = Asked(node, Set("a", b""))
        await turn()
        assert asked.result == (1, None)


async def test_after_a_failed_opening_the_directory_is_free_again() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        Asked(node, Set("a", b""))
        await turn()
    keys = fs.read("/data/keys")
    fs.unlink("/data/keys")
    for _ in range(2):
        with pytest.raises(MissingKey):
            await Node.open(CONFIG, filesystem=fs)
    fs.write("/data/keys", keys)
    async with opened(fs) as node:
        assert node.revision == 1


def append(fs: MemoryFileSystem, payload: bytes) -> None:
    """One more entry, of bytes that no node of this version writes."""
    directory = DataDirectory.open(fs, CONFIG.data_dir)
    log = Log.open(fs, directory, open_keyring(directory), segment_size=64 * 1024)
    entries = list(log.replay())
    log.append(LogEntry(1, len(entries) + 1, 0, payload))
    log.close()
    directory.close()


async def test_a_log_with_a_command_of_a_newer_version_is_refused() -> None:
    fs = MemoryFileSystem()
    append(fs, msgspec.msgpack.encode([[["kv.touch", "a", 5]]]))
    with pytest.raises(UnknownPart):
        await Node.open(CONFIG, filesystem=fs)


async def test_a_log_of_something_else_is_damage() -> None:
    fs = MemoryFileSystem()
    append(fs, b"\xc1 no commands")
    with pytest.raises(CorruptionError, match="index 1"):
        await Node.open(CONFIG, filesystem=fs)


async def test_an_opening_that_is_cancelled_gives_the_directory_back() -> None:
    class Slow(MemoryFileSystem):
        def __init__(self) -> None:
            super().__init__()
            self.reached, self.go_on = threading.Event(), threading.Event()

        def listdir(self, path: str) -> list[str]:
            self.reached.set()
            self.go_on.wait()
            return super().listdir(path)

    fs = Slow()
    opening = asyncio.ensure_future(Node.open(CONFIG, filesystem=fs))
    await asyncio.get_running_loop().run_in_executor(None, fs.reached.wait)
    opening.cancel()
    await turn()
    assert not opening.done(), "the thread is still at work with the directory"
    fs.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with opened(fs) as node:
        assert Asked(node, Count()).result == (0,)


async def test_a_node_that_cannot_seal_its_log_says_so_and_gives_the_directory_back() -> None:
    fs = MemoryFileSystem()
    node = await Node.open(CONFIG, filesystem=fs, writer=ImmediateWriter())
    Asked(node, Set("a", b"1"))
    await turn()
    fs.fail_at = len(fs.calls) + 1
    with pytest.raises(DiskFailed):
        await node.aclose()
    async with opened(fs) as node:
        assert Asked(node, Get("a")).result == (b"1", 1, None)


async def test_closing_twice_is_once() -> None:
    async with opened() as node:
        await asyncio.gather(node.aclose(), node.aclose())


async def test_metrics_and_uptime_go_on() -> None:
    async with opened() as node:
        assert node.uptime_ms >= 0
        assert node.metrics.values()["log_segments"] == 0
        Asked(node, Set("a", b""))
        await turn()
        assert node.metrics.values()["log_segments"] == 1
        assert node.metrics.values()["log_size_bytes"] > 0


async def test_a_frozen_store_is_out_of_the_collectors_sight_and_stays_there() -> None:
    fs = MemoryFileSystem()
    for keys in (0, 10):
        async with opened(fs) as node:
            thresholds = gc.get_threshold()
            try:
                before = node._machine.digest()
                node.freeze()
                assert gc.get_threshold() == (thresholds[0], YOUNG_COLLECTIONS, MIDDLE_COLLECTIONS)
                assert node._machine.digest() == before
                assert node.keys == keys
                entries = node._machine.kv.entries
                assert gc.is_tracked(entries), "what is not followed is followed again with its next change"
                Asked(node, *(Set(f"k{number}", b"") for number in range(10)))
                await turn()
                assert not any(followed is entries for followed in gc.get_objects())
            finally:
                gc.unfreeze()
                gc.set_threshold(*thresholds)
