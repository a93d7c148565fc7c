"""A node in a test is a whole one, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera.testing import MemoryFileSystem, NodeUrl, node, node_in_thread, run, virtual_clock

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the temporary directories of the test's nodes are, to be looked at."""
    path = tmp_path / "t"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.mark.parametrize("storage", ["disk", "memory"])
@pytest.mark.parametrize("listen", ["unix", "tcp"])
async def test_it_serves_the_store_under_its_url(storage: Any, listen: str) -> None:
    async with node(storage=storage, listen=listen) as url, haptera.connect(url) as db:
        version = await db.set("k", b"v")
        entry = await db.get("k")
        assert entry is not None
        assert (entry.value, entry.version) == (b"v", version)
        assert url.startswith("haptera://127.0.0.1:" if listen == "tcp" else "haptera+unix://")
        assert url.node.revision == version
        assert url.node.connections == 1
        assert (url.filesystem is None) == (storage == "disk")


def test_nothing_is_left_of_it(own_temporary_directory: Path) -> None:
    threads = set(threading.enumerate())

    def log_threads() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "haptera-log" and each not in threads]

    async def main(storage: Any) -> NodeUrl:
        async with node(storage=storage) as url:
            db = haptera.connect(url)
            await db.set("k", b"v")
            assert any(own_temporary_directory.iterdir())
            assert log_threads()
        assert not log_threads()
        await db.aclose()
        return url

    for storage in ("disk", "memory"):
        url = asyncio.run(main(storage))
        assert not os.path.exists(url.removeprefix("haptera+unix://"))
    assert list(own_temporary_directory.iterdir()) == []
    assert set(threading.enumerate()) == threads


async def test_nothing_is_left_of_it_when_the_test_fails_or_it_cannot_open(own_temporary_directory: Path) -> None:
    with pytest.raises(KeyError):
        async with node():
            raise KeyError
    with pytest.raises(haptera.errors.ConfigurationError):
        async with node(listen="haptera://256.256.256.256:1"):
            pass
    assert list(own_temporary_directory.iterdir()) == []


async def test_a_data_directory_of_the_tests_own_is_kept(tmp_path: Path) -> None:
    async with node(data_dir=tmp_path / "data") as url, haptera.connect(url) as db:
        version = await db.set("k", b"v")
    async with node(data_dir=tmp_path / "data", durability="os") as url, haptera.connect(url) as db:
        entry = await db.get("k")
        assert entry is not None
        assert entry.version == version
        assert (await db.status())["durability"] == "os"


async def test_a_node_on_files_in_memory_survives_a_power_failure_with_what_it_answered() -> None:
    fs = MemoryFileSystem()
    async with node(storage=fs) as url, haptera.connect(url) as db:
        assert url.filesystem is fs
        await db.set("k", b"answered")
        assert fs.listdir("/data/log")
        after = fs.power_failure("drop")
    async with node(storage=after) as url, haptera.connect(url) as db:
        entry = await db.get("k")
        assert entry is not None
        assert entry.value == b"answered"


async def test_a_disk_that_fails_fails_the_write_and_not_the_end_of_the_test() -> None:
    fs = MemoryFileSystem()
    async with node(storage=fs) as url, haptera.connect(url) as db:
        await db.set("k", b"1")
        fs.failing = frozenset({"pwrite", "fdatasync"})
        with pytest.raises(haptera.errors.StorageFailed):
            await db.set("k", b"2", timeout=10.0)
        assert url.node.failed.done()
        entry = await db.get("k")
        assert entry is not None
        assert entry.value == b"1"


async def test_options_are_those_of_a_node_and_are_checked() -> None:
    with pytest.raises(TypeError, match="no option 'segmentsize'"):
        async with node(segmentsize=1):
            pass
    mistakes: list[dict[str, Any]] = [
        {"segment_size": 1},
        {"durability": "maybe"},
        {"storage": "tape"},
        {"storage": "memory", "data_dir": "d"},
        {"listen": "smoke signals"},
        {"write_delay": 1.0},
    ]
    for options in mistakes:
        with pytest.raises(haptera.errors.ConfigurationError):
            async with node(**options):
                pass


def test_a_node_in_a_thread_serves_who_runs_a_loop_of_its_own(own_temporary_directory: Path) -> None:
    threads = set(threading.enumerate())

    async def main(url: str) -> None:
        async with haptera.connect(url) as db:
            await db.set("k", b"v")

    with node_in_thread(listen="tcp") as url:
        assert type(url) is str
        asyncio.run(main(url))
    assert set(threading.enumerate()) == threads
    assert list(own_temporary_directory.iterdir()) == []


def test_a_node_in_a_thread_that_cannot_open_says_why() -> None:
    with pytest.raises(haptera.errors.ConfigurationError, match="durability"), node_in_thread(durability="maybe"):
        pass


@virtual_clock
async def test_on_a_virtual_clock_it_needs_no_thread_and_writes_take_the_time_that_is_said() -> None:
    loop = asyncio.get_running_loop()
    threads = threading.active_count()
    async with node(storage="memory", write_delay=2.0) as url, haptera.connect(url) as db:
        await db.set("k", b"v", timeout=5.0)
        assert loop.time() == 2.0
        await asyncio.gather(*(db.set(f"k{n}", b"v") for n in range(100)))
        assert loop.time() == 4.0
        with pytest.raises(haptera.DeadlineExceeded) as error:
            await db.set("k", b"w", timeout=1.0)
        assert error.value.outcome == "unknown"
        assert loop.time() == 5.0
        assert threading.active_count() == threads


def test_a_seed_repeats_a_node_and_its_client_down_to_the_bytes_on_the_disk() -> None:
    async def main() -> tuple[float, list[bytes]]:
        fs = MemoryFileSystem()
        async with node(storage=fs) as url, haptera.connect(url) as db:
            await asyncio.gather(*(db.set(f"k{n}", b"%d" % n) for n in range(20)))
            await db.increment("n", 5)
        return asyncio.get_running_loop().time(), [fs.read(f"/data/log/{name}") for name in fs.listdir("/data/log")]

    first = run(main(), seed=11)
    assert first == run(main(), seed=11)
    assert first[1] != run(main(), seed=12)[1]
