"""A node whose keys are overwritten at full speed keeps its directory within the bound, and starts at once."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.peer import Peer, dial
from tests.unit.node.process import serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.node.process import Serving

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode

MIB = 1 << 20
SEGMENT_SIZE = 256 * 1024
KEYS = 1000
IN_FLIGHT = 50


def size_of(path: Path) -> int:
    """Bytes of all files of a data directory. A file that goes meanwhile has none."""
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.stat(os.path.join(folder, name)).st_size
    return size


class Load:
    """Clients that overwrite 1,000 keys, and what they know: `written` is the last value of each key."""

    def __init__(self, peer: Peer, path: Path) -> None:
        self.written: dict[str, int] = {}
        self.bytes = 0
        self.largest = 0
        self._peer = peer
        self._path = path
        self._going = True

    async def write(self, bytes_: int) -> None:
        """Write so much, at full speed, and look at the directory all the time."""
        until = self.bytes + bytes_
        looking = asyncio.ensure_future(self._look())
        await asyncio.gather(*(self._overwrite(number, until) for number in range(IN_FLIGHT)))
        looking.cancel()

    async def _overwrite(self, number: int, until: int) -> None:
        """Write the keys of one client, over and over."""
        while self.bytes < until:
            for key in range(number, KEYS, IN_FLIGHT):
                count = self.written.get(f"key/{key}", 0) + 1
                await self._peer.call("kv", "set", encode([f"key/{key}", (b"%d " % count * 256)[:512]]), timeout=None)
                self.written[f"key/{key}"] = count
                self.bytes += 512

    async def _look(self) -> None:
        while True:
            self.largest = max(self.largest, size_of(self._path))
            await asyncio.sleep(0.02)


async def run(node: Serving, path: Path, bursts: int, burst: int, pause: bool) -> tuple[Load, dict[str, Any]]:
    """Write bursts, each followed by a snapshot with ``pause``: what was written, and the metrics at the end."""
    peer = await dial(node.ready().url)
    load = Load(peer, path)
    for _ in range(bursts):
        await load.write(burst)
        if pause:
            await peer.call("server", "snapshot", encode([]), timeout=60.0)
    metrics = decode(await peer.call("server", "metrics", encode([])))
    await peer.aclose()
    return load, metrics


async def values(url: str) -> dict[str, int]:
    peer = await dial(url)
    keys = [f"key/{number}" for number in range(KEYS)]
    found = decode(await peer.call("kv", "get_many", encode([keys])))[0]
    await peer.aclose()
    return {key: int(entry[0].split()[0]) for key, entry in zip(keys, found, strict=True)}


def keeps_its_bound(path: Path, retained: int, bursts: int, *, pause: bool) -> None:
    options = (
        *("--segment-size", str(SEGMENT_SIZE)),
        *("--snapshot-after", str(retained // 8)),
        *("--retain-bytes", str(retained)),
    )
    with serving(path, *options) as node:
        load, metrics = asyncio.run(run(node, path, bursts, retained // 4, pause))
        node.signal()
        assert node.end() == 0
    print(f"{load.bytes} bytes of values, {metrics['snapshots_total']:.0f} snapshots, at most {load.largest} bytes")
    assert metrics["snapshots_total"] >= bursts / 2
    assert metrics["snapshots_failed_total"] == 0
    assert load.bytes > 2 * retained
    assert load.largest <= retained + SEGMENT_SIZE, "never more than the bound and one segment"
    with serving(path, *options) as node:
        found = asyncio.run(values(node.ready().url))
        node.signal()
        assert node.end() == 0
    assert found == load.written
    (recovered,) = [event for event in node.events if event["event"] == "recovered"]
    print(f"recovered in {recovered['seconds']} s")
    assert recovered["bytes"] < retained / 2, "a start reads the log behind the newest snapshot, and no more"


def test_a_node_that_is_overwritten_keeps_its_directory_within_the_bound(tmp_path: Path) -> None:
    """Each burst is followed by a snapshot, so that the bound can be kept on a machine that has other work."""
    keeps_its_bound(tmp_path / "d", 4 * MIB, bursts=6, pause=True)


@pytest.mark.long
def test_a_node_that_is_overwritten_for_minutes_keeps_its_directory_within_the_bound(tmp_path: Path) -> None:
    keeps_its_bound(tmp_path / "d", 96 * MIB, bursts=32, pause=False)
