"""`kill -9` of the programs that make, send and restore a backup, at random moments.

A backup has its name when it is whole. A restored directory opens when it is whole. The node whose store is backed up
goes on, or loses nothing that it acknowledged.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from haptera.errors import ConnectionLost, CorruptionError, StorageError
from haptera.node import NodeConfig
from haptera.node.recovery import DurableState
from haptera.peer import Peer, dial
from haptera.storage import OsFileSystem
from tests.support.processes import start
from tests.unit.node.process import Serving, serving

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
#: Large enough that a backup and a restore of it are under way for a while.
VALUES, VALUE_SIZE = 60, 200_000


def command(*args: str | Path) -> subprocess.Popen[str]:
    return start([sys.executable, "-m", "haptera", *map(str, args)])


async def fill(url: str) -> None:
    peer = await dial(url)
    for number in range(VALUES):
        await peer.call("kv", "set", encode([f"k{number}", random.randbytes(VALUE_SIZE)]))
    await peer.aclose()


class Killer:
    """Runs a program that takes about as long each time, and kills it somewhere in that time."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._seconds = 0.0

    def whole(self, args: Sequence[str | Path]) -> None:
        """Run it to its end, to learn how long it takes."""
        started = time.monotonic()
        process = command(*args)
        out, err = process.communicate()
        assert process.returncode == 0, (out, err)
        self._seconds = time.monotonic() - started

    def kill(self, args: Sequence[str | Path]) -> bool:
        """Kill it at a random moment; whether it had ended by then."""
        process = command(*args)
        time.sleep(self._chance.uniform(0.2, 1.05) * self._seconds)  # before that it loads its modules
        process.kill()
        process.communicate()
        return process.returncode == 0


def kill_creations(path: Path, node: Serving, kills: int, seed: int) -> None:
    """Kill programs that write a backup to a file, and look at what they leave."""
    file, killer = path / "store.backup", Killer(seed)
    args: list[str | Path] = ["backup", "create", "--force", file, "--url", node.url]
    verify: list[str | Path] = ["backup", "verify", file, "--master-key-file", path / "data" / "master.key"]
    killer.whole(args)
    file.unlink()
    for _ in range(kills):
        ended = killer.kill(args)
        assert file.exists() or not ended
        if file.exists():
            run_whole(verify)
            file.unlink()
    run_whole(args)


def run_whole(args: Sequence[str | Path]) -> None:
    process = command(*args)
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)


def kill_restores(path: Path, file: Path, kills: int, seed: int) -> None:
    """Kill programs that restore a backup, and look at what they leave."""
    target, key, killer = path / "restored", path / "data" / "master.key", Killer(seed)
    args: list[str | Path] = ["restore", file, "--data-dir", target, "--master-key-file", key]
    killer.whole(args)
    config = NodeConfig(data_dir=str(target), master_key_file=str(key))
    whole = opened_digest(config)
    assert whole is not None
    for _ in range(kills):
        shutil.rmtree(target)
        ended = killer.kill(args)
        digest = opened_digest(config)
        assert digest == whole or (digest is None and not ended)


def opened_digest(config: NodeConfig) -> bytes | None:
    """The state that a node would open with; None where it would open with none of the backup."""
    durable = DurableState(config, OsFileSystem())
    try:
        durable.open()
    except (CorruptionError, StorageError):
        return None
    else:
        return durable.machine.digest() if durable.machine.index else None
    finally:
        durable.close()


def campaign(path: Path, kills: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    with serving(path / "data", "--segment-size", "4194304") as node:
        asyncio.run(fill(node.ready().url))
        kill_creations(path, node, kills, seed)
        kill_restores(path, path / "store.backup", kills, seed)
        node.signal()
        assert node.end() == 0


def test_kill_9_of_a_backup_and_of_a_restore_leaves_the_whole_or_nothing(tmp_path: Path) -> None:
    campaign(tmp_path, 5)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_kill_9_of_a_backup_and_of_a_restore_a_hundred_times_each(tmp_path: Path) -> None:
    campaign(tmp_path, 100)


async def take_and_kill(node: Serving, chance: random.Random) -> int:
    """Kill a node that sends a backup under writes; how many of these it has acknowledged."""
    peer, reader = await dial(node.ready().url), await dial(node.url)
    answered = 0

    async def write(peer: Peer) -> None:
        nonlocal answered
        while True:
            await peer.call("kv", "set", encode([f"w{answered}", b"v"]), timeout=None)
            answered += 1

    async def take() -> None:
        async for _ in reader.stream("server", "backup", encode([])):
            pass

    writing, taking = asyncio.create_task(write(peer)), asyncio.create_task(take())
    await asyncio.sleep(chance.uniform(0, 0.1))
    node.signal(signal.SIGKILL)
    for task in (writing, taking):
        try:
            await task
        except ConnectionLost:
            pass
    for each in (peer, reader):
        await each.aclose()
    return answered


async def count(url: str) -> int:
    peer = await dial(url)
    found: int = decode(await peer.call("kv", "count", encode([{"prefix": "w"}])))[0]
    await peer.aclose()
    return found


def test_kill_9_of_a_node_that_sends_a_backup_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance, path, most = random.Random(seed), tmp_path / "data", 0
    for round_ in range(4):
        with serving(path, "--segment-size", "4194304") as node:
            if not round_:
                asyncio.run(fill(node.ready().url))
            else:
                node.ready()
                assert asyncio.run(count(node.url)) >= most
            most = max(most, asyncio.run(take_and_kill(node, chance)))
            assert node.end() == -signal.SIGKILL
