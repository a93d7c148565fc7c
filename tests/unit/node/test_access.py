"""Users, roles and tokens go through a node's log like any change, and the kv service does not reach them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from haptera.errors import Failure, UnknownMethod
from haptera.node.services.kv_methods import METHODS
from haptera.node.snapshots.keeper import Current
from haptera.peer import dial
from haptera.state import OPERATIONS, method_of
from haptera.state.access_operations import AddGrant, AddRole, AddToken, AddUser, RemoveUser, StoredVerifier
from haptera.storage import BackupReader
from haptera.storage.backup.names import file_path
from haptera.storage.directory import node_text
from haptera.testing import MemoryFileSystem, node
from tests.unit.node.nodes import done, opened

if TYPE_CHECKING:
    from haptera.node.node import Node

MARK = b"the key of nobody, 32 bytes long"
VERIFIER = StoredVerifier(b"s" * 16, 600_000, MARK, MARK)
CHANGES = (
    AddUser("root", VERIFIER, ["admin"]),
    AddRole("app", []),
    AddGrant("app", ["read", "write"], "a/*"),
    AddUser("ann", None, ["app"]),
    AddToken("token:1", VERIFIER, ["app"], 2**50),
)


async def filled(store: Node) -> bytes:
    """Make the changes; the digest of the part."""
    assert await done(store, *CHANGES) == [(True,)] * len(CHANGES)
    return digest(store)


def digest(store: Node) -> bytes:
    store._machine.check()
    return store._machine.access.digest()


async def test_users_are_there_after_a_power_failure() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as store:
        before = await filled(store)
        after = fs.power_failure("drop", seed=0)
    async with opened(after) as again:
        assert digest(again) == before
        assert again._machine.access.permits("ann", 1).may("write", "a/1")
        [refused] = await done(again, RemoveUser("root"))
        assert isinstance(refused, Failure)
        assert refused.code == 2012


async def test_users_are_in_a_snapshot_and_in_a_backup() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as store:
        before = await filled(store)
        assert isinstance(await store.snapshots.request(), Current)
        assert await done(store, AddRole("later", [])) == [(True,)]
        later = digest(store)
        async with store.backups.begin() as backup:
            data = b"".join([piece async for piece in backup.pieces()])
        reader = BackupReader("b", io.BytesIO(data).read, lambda *_: store._storage.keyring)
        assert [file.kind for file in reader.manifest.files][:1] == ["snapshot"]
        other = MemoryFileSystem()
        for directory in ("/data", "/data/log", "/data/snapshots"):
            other.mkdir(directory)
        files: dict[str, bytes] = {}
        for file, piece in reader.chunks():
            path = file_path("/data", file)
            files[path] = files.get(path, b"") + piece
        files["/data/node.toml"] = node_text(reader.manifest.node_id, reader.manifest.directory_format, True)
        files["/data/keys"], files["/data/master.key"] = reader.keyring_data, fs.read("/data/master.key")
        for path, content in files.items():
            other.write(path, content)
    async with opened(other) as again:
        assert digest(again) == later != before
        assert again._machine.access.login("token:1", 1) == (VERIFIER, True)


async def test_a_verifier_is_nowhere_in_the_clear() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as store:
        await filled(store)
        assert isinstance(await store.snapshots.request(), Current)
    folders = ("/data", "/data/log", "/data/snapshots")
    paths = [f"{folder}/{name}" for folder in folders for name in fs.listdir(folder)]
    written = [fs.read(path) for path in paths if path not in folders]
    assert len(written) > 4
    assert not any(MARK in content for content in written)


async def test_the_kv_service_does_not_reach_the_users() -> None:
    names = {method_of(op)[1] for op in OPERATIONS if method_of(op)[0] == "access"}
    assert len(names) == 22
    assert names.isdisjoint(METHODS)
    async with node(storage="memory") as url, dial(url) as peer:
        for name in sorted(names):
            with pytest.raises(UnknownMethod):
                await peer.call("kv", name, b"\x90")
