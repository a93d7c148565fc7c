"""The keys of a node are changed while it serves: another data key, another master key."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest

import haptera
from haptera.errors import ConfigurationError, Failure, InvalidArgument, ShuttingDown, StorageError, TooManyRequests
from haptera.node import Node, NodeConfig, master_key
from haptera.node.services.recorded_requests import RecordedRequests
from haptera.node.services.rotate_key import KeyRotations, RotateKey
from haptera.state.operations import Get, Set
from haptera.storage import MasterKey
from haptera.storage.errors import WrongKey
from haptera.testing import node as served
from haptera.testing.filesystem import Crashed, MemoryFileSystem
from tests.unit.node.doubles import FakePeer
from tests.unit.node.nodes import CONFIG, Asked, ImmediateWriter, opened, turn

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = MasterKey.of(b"o" * 32), MasterKey.of(b"n" * 32)

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


def key_ids(fs: MemoryFileSystem) -> list[bytes]:
    """The ids of the data keys of all segments, in their order."""
    names = sorted(name for name in fs.listdir("/data/log") if name.endswith(".seg"))
    return [fs.read(f"/data/log/{name}")[12:20] for name in names]


async def set_(node: Node, key: str, value: bytes = b"v") -> None:
    asked = Asked(node, Set(key, value))
    await turn()
    assert asked.answered


async def test_a_new_data_key_is_for_the_next_entry_and_ends_the_segment() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        await set_(node, "a")
        old = node._storage.keyring.newest
        keys = await node.key_rotation.rotate_data_key()
        assert (keys.data_key, keys.origin) == (node._storage.keyring.newest.id, "generated")
        await set_(node, "b")
        assert key_ids(fs) == [old.id, keys.data_key]
        await node.key_rotation.rotate_data_key()
        third = await node.key_rotation.rotate_data_key()
        await set_(node, "c")
        assert key_ids(fs) == [old.id, keys.data_key, third.data_key]
    async with opened(fs.restart()) as again:
        assert all(not isinstance(Asked(again, Get(key)).result, Failure) for key in "abc")


async def test_an_old_data_key_stays_while_a_file_is_under_it_and_is_dropped_behind_a_snapshot() -> None:
    """Retention keeps four segments: the first snapshot leaves files under the old key, a later one leaves none."""
    fs = MemoryFileSystem()
    config = msgspec.structs.replace(CONFIG, retain_bytes=4 * CONFIG.segment_size, snapshot_after=1 << 40)
    async with opened(fs, config=config) as node:
        keyring = node._storage.keyring
        old = keyring.newest
        await set_(node, "a")
        await node.key_rotation.rotate_data_key()
        await set_(node, "b")
        assert not isinstance(await node.snapshots.request(), Failure)
        assert old.id in key_ids(fs)
        assert old in keyring.keys
        for number in range(8):
            await set_(node, f"filler/{number % 2}", bytes(60_000))
            assert not isinstance(await node.snapshots.request(), Failure)
        assert old.id not in key_ids(fs)
        assert keyring.keys == (keyring.newest,)
    async with opened(fs.restart()) as again:
        assert again._storage.keyring.keys == (keyring.newest,)
        assert all(not isinstance(Asked(again, Get(key)).result, Failure) for key in "ab")


async def test_the_generated_master_key_is_made_again() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        await set_(node, "a")
        before = node._storage.keyring.master
        keys = await node.key_rotation.change_master_key()
        after = MasterKey.parse(fs.read("/data/master.key"))
        assert after is not None
        assert after.id == keys.master_key != before.id
        await set_(node, "b")
    async with opened(fs.restart()) as again:
        assert again.keys == 2


def given(path: Path, key: MasterKey) -> NodeConfig:
    path.write_bytes(key.format())
    path.chmod(0o600)
    return msgspec.structs.replace(CONFIG, master_key_file=str(path))


async def test_a_given_master_key_is_changed_for_the_one_that_its_source_gives_now(tmp_path: Path) -> None:
    fs, path = MemoryFileSystem(), tmp_path / "key"
    async with opened(fs, config=given(path, OLD)) as node:
        await set_(node, "a")
        given(path, NEW)
        keys = await node.key_rotation.change_master_key()
        assert (keys.master_key, keys.origin) == (NEW.id, "file")
        await set_(node, "b")
    async with opened(fs.restart(), config=given(path, NEW)) as again:
        assert again.keys == 2
    with pytest.raises(WrongKey):
        await Node.open(given(path, OLD), filesystem=fs.restart())


@pytest.mark.parametrize("content", [OLD.format(), b"no key"])
async def test_a_source_that_gives_no_new_key_changes_nothing(tmp_path: Path, content: bytes) -> None:
    fs, path = MemoryFileSystem(), tmp_path / "key"
    async with opened(fs, config=given(path, OLD)) as node:
        before = fs.read("/data/keys")
        path.write_bytes(content)
        with pytest.raises(ConfigurationError):
            await node.key_rotation.change_master_key()
        assert fs.read("/data/keys") == before
        assert not node.key_rotation.busy


async def test_a_full_disk_leaves_the_keys_as_they_were_and_the_node_goes_on() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        await set_(node, "a")
        before = node._storage.keyring.keys
        for change in (node.key_rotation.rotate_data_key, node.key_rotation.change_master_key):
            fs.fail_at, fs.fail_with = len(fs.calls) + 2, errno.ENOSPC
            with pytest.raises(Exception, match="No space"):
                await change()
            fs.fail_at = None
            assert node._storage.keyring.keys == before
        await set_(node, "b")
        await node.key_rotation.rotate_data_key()
        await set_(node, "c")
    async with opened(fs.restart()) as again:
        assert again.keys == 3


class Asker:
    """A request for another key: the failure that it is answered with."""

    stream = 1
    service, method = "server", "rotate_key"
    peer = FakePeer()
    failed: Failure | None = None

    def fail(self, reason: Failure, entries: bytes = b"") -> None:
        self.failed = reason


@pytest.mark.parametrize("master", [False, True])
@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ENOSPC, "the node's disk is full"),
        (errno.EMFILE, "the process has no free file descriptor"),
        (errno.ENFILE, "the machine has no free file descriptor"),
    ],
)
async def test_a_shortage_is_answered_with_its_cause(number: int, cause: str, master: bool) -> None:
    fs, request = MemoryFileSystem(), Asker()
    async with opened(fs) as node:
        rotations = KeyRotations(node.key_rotation, RecordedRequests(node.audit))
        fs.failing, fs.fail_with = frozenset({"create"}), number
        rotations.add(request, RotateKey(master))  # type: ignore[arg-type]
        while request.failed is None:
            await turn()
        fs.failing = frozenset()
    assert (request.failed.code, request.failed.outcome, request.failed.message) == (5002, "not_applied", cause)


async def life(fs: MemoryFileSystem) -> list[str]:
    """A node with changes of its keys between its writes, as far as it comes. Returns the keys whose writes were
    answered with success.
    """
    answered: list[str] = []
    node = await Node.open(CONFIG, filesystem=fs, writer=ImmediateWriter())
    rotation = node.key_rotation
    try:
        for key, change in zip("abcd", (*[rotation.rotate_data_key, rotation.change_master_key] * 2,), strict=True):
            asked = Asked(node, Set(key, b"v"))
            await turn()
            if not isinstance(asked.result, Failure):
                answered.append(key)
            with suppress(StorageError):
                await change()
    finally:
        with suppress(StorageError):
            await node.aclose()
    return answered


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_any_call_fails_and_nothing_that_was_answered_is_lost(number: int) -> None:
    """A log whose segment could not be ended takes no more, and the next start goes on with what there is."""
    whole = MemoryFileSystem()
    async with opened(whole):
        opening = len(whole.calls)
    whole = MemoryFileSystem()
    assert await life(whole) == list("abcd")
    for at in range(opening, len(whole.calls) + 1):
        fs = MemoryFileSystem()
        fs.fail_at, fs.fail_with = at, number
        answered: list[str] = []
        with suppress(StorageError):
            answered = await life(fs)
        fs.fail_at = None
        for left in (fs.power_failure("drop"), fs.power_failure("keep"), fs.restart()):
            async with opened(left) as node:
                assert [key for key in answered if isinstance(Asked(node, Get(key)).result, Failure)] == []


@pytest.mark.parametrize("loss", ["drop", "keep", "reorder"])
async def test_a_crash_after_any_call_loses_nothing_that_was_answered(loss: Literal["drop", "keep", "reorder"]) -> None:
    whole = MemoryFileSystem()
    answered_after: list[tuple[int, str]] = []
    node = await Node.open(CONFIG, filesystem=whole, writer=ImmediateWriter())
    begun = len(whole.calls)
    for key, change in zip(
        "abcd", [node.key_rotation.rotate_data_key, node.key_rotation.change_master_key] * 2, strict=True
    ):
        await set_(node, key)
        answered_after.append((len(whole.calls), key))
        await change()
    for stop in (at for at in whole.changes() if at > begun):
        fs = MemoryFileSystem()
        node = await Node.open(CONFIG, filesystem=fs, writer=ImmediateWriter())
        fs.stop_after = stop
        with suppress(Crashed, StorageError):
            for key, change in zip(
                "abcd", [node.key_rotation.rotate_data_key, node.key_rotation.change_master_key] * 2, strict=True
            ):
                Asked(node, Set(key, b"v"))
                await turn()
                await change()
        fs.stop_after = None
        left = fs.power_failure(loss, stop)
        async with opened(left) as again:
            for calls, key in answered_after:
                if calls <= stop:
                    assert not isinstance(Asked(again, Get(key)).result, Failure), (stop, key)
            await set_(again, "later")


async def call(url: str, argument: object) -> dict[str, Any]:
    peer = await haptera.dial(url)
    try:
        answer: dict[str, Any] = decode(await peer.call("server", "rotate_key", encode(argument)))
        return answer
    finally:
        await peer.aclose()


async def test_the_method_answers_with_the_ids_of_the_keys_in_use(tmp_path: Path) -> None:
    async with served(data_dir=tmp_path / "data") as url:
        first = await call(url, [])
        second = await call(url, [{"master": False}])
        assert len({first["data_key"], second["data_key"]}) == 2
        assert first["master_key"] == second["master_key"]
        third = await call(url, [{"master": True}])
        assert third["data_key"] == second["data_key"]
        assert third["master_key"] != second["master_key"]
        assert third["origin"] == "generated"


@pytest.mark.parametrize("argument", [[{"master": 1}], [{"file": "/etc/passwd"}], {}, [True]])
async def test_an_argument_that_is_not_known_changes_nothing(tmp_path: Path, argument: object) -> None:
    async with served(data_dir=tmp_path / "data") as url:
        before = (tmp_path / "data" / "keys").read_bytes()
        with pytest.raises(InvalidArgument):
            await call(url, argument)
        assert (tmp_path / "data" / "keys").read_bytes() == before


async def test_a_source_without_a_new_key_is_an_invalid_argument(tmp_path: Path) -> None:
    path = tmp_path / "key"
    given(path, OLD)
    async with served(data_dir=tmp_path / "data", master_key_file=str(path)) as url:
        with pytest.raises(InvalidArgument) as caught:
            await call(url, [{"master": True}])
        assert "still" in str(caught.value.details["reason"])
        assert OLD.secret.hex() not in str(caught.value.details)


async def test_one_change_at_a_time(tmp_path: Path) -> None:
    """The first waits for a command; the second is refused meanwhile, and writes go on."""
    path, gate = tmp_path / "key", tmp_path / "gate"
    given(path, OLD)
    command = f"sh -c 'cat {path}; if test -p {gate}; then read line < {gate}; fi'"
    async with served(data_dir=tmp_path / "data", master_key_command=command) as url, haptera.connect(url) as db:
        given(path, NEW)
        os.mkfifo(gate)
        changing = asyncio.create_task(call(url, [{"master": True}]))
        end = await asyncio.to_thread(os.open, gate, os.O_WRONLY)  # returns when the command waits
        with pytest.raises(TooManyRequests):
            await call(url, [])
        await db.set("a", b"1")
        os.write(end, b"go on\n")
        os.close(end)
        assert (await changing)["master_key"] == NEW.id


async def test_a_node_that_stops_waits_for_no_command_and_leaves_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command would take an hour, and is waited for as long."""
    path, gate = tmp_path / "key", tmp_path / "gate"
    given(path, OLD)
    command = f"sh -c 'cat {path}; if test -p {gate}; then exec sleep 3600 > {gate}; fi'"
    async with served(data_dir=tmp_path / "data", master_key_command=command) as url:
        monkeypatch.setattr(master_key, "COMMAND_TIMEOUT_S", 3600.0)
        os.mkfifo(gate)
        changing = asyncio.create_task(call(url, [{"master": True}]))
        end = await asyncio.to_thread(os.open, gate, os.O_RDONLY)  # returns when the command is at its sleep
        url.server._server_service.stop()
        with pytest.raises(ShuttingDown):
            await changing
        assert await asyncio.to_thread(os.read, end, 1) == b"", "the command has ended"
        os.close(end)


async def test_a_start_that_is_stopped_waits_for_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master_key, "COMMAND_TIMEOUT_S", 3600.0)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    command = f"sh -c 'exec sleep 3600 > {gate}'"
    config = NodeConfig(data_dir=str(tmp_path / "data"), listen=(), master_key_command=command)
    opening = asyncio.create_task(Node.open(config))
    end = await asyncio.to_thread(os.open, gate, os.O_RDONLY)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert os.read(end, 1) == b"", "the command has ended"
    os.close(end)
    assert not (tmp_path / "data").exists()
