"""`kill -9` of a serving node that records every request: the chain is whole, and so it is after the next start."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import msgspec
import pytest

from haptera.errors import ConnectionLost
from haptera.node.offline.audit import verify_audit
from haptera.peer import dial
from haptera.storage import OsFileSystem
from tests.unit.node.process import serving

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.node.audit.chain import Head
    from haptera.peer import Peer

OPTIONS = ("--audit-data", "all", "--audit-file-size", "65536")
WRITERS = 16
encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


async def write(peer: Peer, name: str, answered: list[int]) -> None:
    """Write until the connection is lost, and count the answers."""
    try:
        while True:
            await peer.call("kv", "increment", encode([name, 1]), timeout=None)
            answered[0] += 1
    except ConnectionLost:
        pass


async def loaded(url: str, kill: asyncio.Event, changes: int) -> int:
    """Write from many tasks until the node is killed. Returns the number of answers."""
    answered = [0]
    async with await dial(url) as peer:
        writers = [asyncio.ensure_future(write(peer, f"k{number}", answered)) for number in range(WRITERS)]
        await decoded_key_rotation(peer)
        while answered[0] < changes:
            await asyncio.sleep(0.01)
        kill.set()
        await asyncio.gather(*writers)
    return answered[0]


async def decoded_key_rotation(peer: Peer) -> None:
    """Administration, whose lines are on the disk before its answer."""
    assert decode(await peer.call("server", "rotate_key", encode([{}]), timeout=None))["origin"]


@pytest.mark.parametrize("kills", [1, pytest.param(40, marks=pytest.mark.long)])
async def test_the_chain_is_whole_after_each_kill_and_has_all_administration(tmp_path: Path, kills: int) -> None:
    data = tmp_path / "data"
    heads: list[Head] = []
    for number in range(1, kills + 1):
        with serving(data, *OPTIONS) as node:
            node.ready()
            kill = asyncio.Event()
            load = asyncio.ensure_future(loaded(node.url, kill, changes=300))
            await kill.wait()
            node.signal(signal.SIGKILL)
            assert await load >= 300
            node.end()
        found = verify_audit(OsFileSystem(), str(data), heads)
        assert found.sound, found.faults
        assert found.head is not None
        heads.append(found.head)
        lines = [
            msgspec.json.decode(line)
            for path in sorted((data / "audit").iterdir())
            for line in path.read_bytes().splitlines()[: None if found.torn is None else -1]
        ]
        rotations = [line["outcome"] for line in lines if line["method"] == "server.rotate_key"]
        assert rotations == ["begun", "done"] * number
    with serving(data, *OPTIONS) as node:
        node.ready()
        node.signal(signal.SIGTERM)
        assert node.end() == 0
    found = verify_audit(OsFileSystem(), str(data), heads)
    assert (found.sound, found.torn) == (True, None)
