"""Backups of a node: one revision each, while writes go on, for callers that are fast, slow or gone."""

from __future__ import annotations

import asyncio
import io
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.errors import ServerError, StorageFailed
from haptera.node.backups import BACKUPS_MAX
from haptera.node.commands import ANONYMOUS, Envelope
from haptera.node.services.backup_stream import STALLED_S
from haptera.node.snapshots.keeper import Current
from haptera.peer import dial
from haptera.replication import ThreadWriter
from haptera.state import operations
from haptera.storage import BackupReader, Manifest
from haptera.storage.backup.names import file_path
from haptera.storage.directory import node_text
from haptera.testing import node, virtual_clock
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.nodes import CONFIG, Asked, ManualWriter, opened, turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haptera.node.node import Node
    from haptera.peer import Peer

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


async def backup_of(node: Node) -> bytes:
    async with node.backups.begin() as backup:
        data = b"".join([piece async for piece in backup.pieces()])
        assert len(data) == backup.size
    return data


def manifest_of(node: Node, data: bytes) -> Manifest:
    """The manifest of a backup, all of which is checked."""
    reader = BackupReader("b", io.BytesIO(data).read, lambda *_: node._storage.keyring)
    for _ in reader.chunks():
        pass
    return reader.manifest


@asynccontextmanager
async def restored(node: Node, fs: MemoryFileSystem, data: bytes) -> AsyncIterator[Node]:
    """A node over the files of a backup, put together by hand."""
    reader = BackupReader("b", io.BytesIO(data).read, lambda *_: node._storage.keyring)
    other = MemoryFileSystem()
    for directory in ("/data", "/data/log", "/data/snapshots"):
        other.mkdir(directory)
    manifest = reader.manifest
    segments = any(file.kind == "segment" for file in manifest.files)
    other.write("/data/node.toml", node_text(manifest.node_id, manifest.directory_format, segments))
    other.write("/data/keys", reader.keyring_data)
    other.write("/data/master.key", fs.read("/data/master.key"))
    files: dict[str, bytes] = {}
    for file, piece in reader.chunks():
        path = file_path("/data", file)
        files[path] = files.get(path, b"") + piece
    for path, content in files.items():
        other.write(path, content)
    async with opened(other) as again:
        yield again


def set_(node: Node, key: str, value: bytes = b"v") -> Asked:
    return Asked(node, operations.Set(key, value))


def state(node: Node) -> dict[str, tuple[bytes, int]]:
    return {key: (entry[0], entry[1]) for key, entry in node._storage.machine.kv.entries.items()}


async def test_a_backup_made_under_writes_is_one_revision_with_all_that_was_there_and_no_more() -> None:
    """Compared with an independent record: the answer to each write says which revision it made."""
    fs, record, stop = MemoryFileSystem(), dict[int, tuple[str, bytes]](), False

    async def write(node: Node, name: int) -> None:
        count = 0
        while not stop:
            count += 1
            key, value = f"{name}/{count % 7}", b"%d" % count * 40
            done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            node.commands.submit(ANONYMOUS, [Envelope(operations.Set(key, value))], done.set_result)
            ((version, *_),) = await done
            record[version] = (key, value)

    async with opened(fs, writer=ThreadWriter()) as node:
        writers = [asyncio.create_task(write(node, name)) for name in range(16)]
        backups = []
        for _ in range(5):
            await asyncio.sleep(0.02)
            before = node.revision
            backups.append((before, await backup_of(node)))
        stop = True
        await asyncio.gather(*writers)
        for before, data in backups:
            manifest = manifest_of(node, data)
            assert before <= manifest.revision < node.revision
            expected = {}
            for version in range(1, manifest.revision + 1):
                key, value = record[version]
                expected[key] = (value, version)
            async with restored(node, fs, data) as again:
                assert state(again) == expected
                assert (again.revision, again.index) == (manifest.revision, manifest.index)
                assert again._storage.machine.time_ms == manifest.entry_time_ms


async def test_a_backup_of_an_empty_store_is_one() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        data = await backup_of(node)
        manifest = manifest_of(node, data)
        assert (manifest.index, manifest.revision, manifest.files) == (0, 0, [])
        async with restored(node, fs, data) as again:
            assert again.keys == 0
            first = set_(again, "a")
            await turn()
            assert first.answered


async def test_a_backup_ends_between_two_entries_and_waits_for_the_one_with_the_disk() -> None:
    disk = ManualWriter()
    async with opened(writer=disk) as node:
        first = set_(node, "first")
        await turn()
        second = set_(node, "second")
        backup = asyncio.create_task(backup_of(node))
        await turn()
        assert not backup.done()
        await disk.write()
        assert first.answered
        await disk.write()
        data = await backup
        assert manifest_of(node, data).index == 1
        await disk.write_all()
        assert second.answered


async def test_backups_are_bounded_and_an_ended_one_makes_room() -> None:
    async with opened() as node:
        contexts = [node.backups.begin() for _ in range(BACKUPS_MAX)]
        for context in contexts:
            await context.__aenter__()
        with pytest.raises(ServerError) as caught:
            await backup_of(node)
        assert (caught.value.code, caught.value.outcome, caught.value.details) == (
            3007,
            "not_applied",
            {"backups_max": 4},
        )
        for context in contexts:
            await context.__aexit__(None, None, None)
        assert len(node.backups) == 0
        await backup_of(node)


async def test_a_disk_that_cannot_be_read_ends_the_backup_and_not_the_node() -> None:
    fs = MemoryFileSystem()
    async with node(storage=fs) as url:
        peer = await dial(url)
        await peer.call("kv", "set", encode(["k", b"v"]))
        fs.failing = frozenset({"pread"})
        with pytest.raises(StorageFailed) as caught:
            await received(peer)
        assert caught.value.outcome == "not_applied"
        fs.failing = frozenset()
        await received(peer)
        assert decode(await peer.call("server", "health", encode([])))[0] == "ok"
        await peer.aclose()


async def received(peer: Peer) -> tuple[bytes, dict[str, Any]]:
    stream = peer.stream("server", "backup", encode([]))
    pieces = [piece async for piece in stream]
    assert stream.answer is not None
    assert all(len(piece) <= 256 * 1024 for piece in pieces)
    return b"".join(pieces), decode(stream.answer.payload)


async def fill(peer: Peer, count: int) -> None:
    for number in range(count):
        await peer.call("kv", "set", encode([f"k{number}", bytes(900_000)]))


async def test_the_items_of_the_method_are_the_backup_and_its_answer_says_which() -> None:
    async with node(storage="memory", segment_size=4 << 20) as url:
        peer = await dial(url)
        await fill(peer, 12)
        data, answer = await received(peer)
        manifest = manifest_of(url.node, data)
        assert answer == {"index": 12, "revision": 12, "size": len(data), "master_key": "generated"}
        assert (manifest.index, manifest.revision, manifest.node_id) == (12, 12, url.node.node_id)
        assert decode(await peer.call("server", "metrics", encode([])))['requests_total{method="server.backup"}'] == 1
        await peer.aclose()


async def test_the_method_takes_no_argument() -> None:
    async with node(storage="memory") as url:
        peer = await dial(url)
        with pytest.raises(ServerError) as caught:
            await anext(peer.stream("server", "backup", encode([{"all": True}])))
        assert caught.value.code == 3003
        await peer.aclose()


@virtual_clock
async def test_a_slow_reader_hurts_nobody_and_ends_when_it_takes_nothing() -> None:
    async with node(storage="memory", segment_size=4 << 20) as url:
        slow, other = await dial(url, ping_interval_ms=0), await dial(url)
        await fill(other, 12)
        stream = slow.stream("server", "backup", encode([]))
        await anext(stream)
        await asyncio.sleep(STALLED_S - 10)
        assert len(url.node.backups) == 1
        await other.call("kv", "set", encode(["more", b"v"]), timeout=1.0)
        await asyncio.sleep(20)
        assert len(url.node.backups) == 0
        with pytest.raises(ServerError) as caught:
            async for _ in stream:
                pass
        assert (caught.value.code, caught.value.outcome) == (3005, "not_applied")
        for each in (slow, other):
            await each.aclose()


@virtual_clock
async def test_a_reader_that_takes_its_time_has_the_whole_backup_of_the_moment_at_which_it_began() -> None:
    async with node(storage="memory", segment_size=4 << 20) as url:
        slow, other = await dial(url), await dial(url)
        await fill(other, 12)
        stream = slow.stream("server", "backup", encode([]))
        pieces = []
        async for piece in stream:
            pieces.append(piece)
            await other.call("kv", "set", encode(["later", b"v"]))
            await asyncio.sleep(100)
        assert manifest_of(url.node, b"".join(pieces)).index == 12
        for each in (slow, other):
            await each.aclose()


async def test_a_reader_that_cancels_or_vanishes_leaves_nothing_behind() -> None:
    async with node(storage="memory", segment_size=4 << 20) as url:
        other = await dial(url)
        await fill(other, 12)
        for leave in ("cancel", "vanish"):
            peer = await dial(url)
            stream = peer.stream("server", "backup", encode([]))
            await anext(stream)
            assert len(url.node.backups) == 1
            await (stream.aclose() if leave == "cancel" else peer.aclose())
            while len(url.node.backups):
                await asyncio.sleep(0.001)
            await peer.aclose()
        await other.aclose()


async def test_a_node_that_stops_ends_its_backups() -> None:
    async with node(storage="memory", segment_size=4 << 20) as url:
        peer = await dial(url)
        await fill(peer, 12)
        stream = peer.stream("server", "backup", encode([]))
        await anext(stream)
        await url.server.drain(1.0)
        with pytest.raises(ServerError) as caught:
            async for _ in stream:
                pass
        assert (caught.value.code, caught.value.outcome) == (5005, "not_applied")
        assert len(url.node.backups) == 0
        await peer.aclose()


async def test_a_backup_begins_while_large_changes_are_applied_one_after_the_other() -> None:
    """Each is applied in slices while the next is with the disk, so applied state is never at the end of the log."""
    fs = MemoryFileSystem()
    large = operations.SetMany([(f"k{number}", b"%d" % number) for number in range(3000)])
    async with opened(fs, config=msgspec.structs.replace(CONFIG, segment_size=1 << 20)) as node:
        asked = [Asked(node, large) for _ in range(40)]
        await turn()
        backups = [asyncio.create_task(backup_of(node)) for _ in range(BACKUPS_MAX)]
        for data in await asyncio.gather(*backups):
            manifest = manifest_of(node, data)
            assert manifest.index < 40
            async with restored(node, fs, data) as again:
                assert (again.revision, again.index) == (manifest.revision, manifest.index)
        while not all(each.answered for each in asked):
            await asyncio.sleep(0.001)


async def test_retention_spares_the_files_of_a_backup_until_it_ends() -> None:
    """The bound is four segments; meanwhile the store writes twenty, and makes snapshots of them."""
    fs = MemoryFileSystem()
    config = msgspec.structs.replace(CONFIG, retain_bytes=4 * CONFIG.segment_size, retain_for=0.0)

    async def fill(node: Node, count: int, value: int) -> None:
        for number in range(count):
            written = set_(node, f"k{number % 9}", b"%d" % (value + number) * 8000)
            while not written.answered:
                await asyncio.sleep(0)

    async with opened(fs, config=config) as node:
        await fill(node, 8, 1000)
        assert isinstance(await node.snapshots.request(), Current)
        await fill(node, 3, 2000)
        async with node.backups.begin() as backup:
            pieces = backup.pieces()
            data = await anext(pieces)
            before = state(node)
            manifest = BackupReader("b", io.BytesIO(data).read, lambda *_: node._storage.keyring).manifest
            assert [file.kind for file in manifest.files][:2] == ["snapshot", "segment"]
            await fill(node, 20, 3000)
            assert isinstance(await node.snapshots.request(), Current)
            await node.snapshots.retention.run()
            assert all(file_path("/data", file) in every_path(fs) for file in manifest.files)
            data += b"".join([piece async for piece in pieces])
        async with restored(node, fs, data) as again:
            assert state(again) == before
        await node.snapshots.retention.run()
        assert not all(file_path("/data", file) in every_path(fs) for file in manifest.files)


def every_path(fs: MemoryFileSystem) -> set[str]:
    return {f"{folder}/{name}" for folder in ("/data/log", "/data/snapshots") for name in fs.listdir(folder)}
