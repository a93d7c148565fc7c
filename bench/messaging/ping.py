"""A small call beside large values: eight tasks write and read 8 MiB on the connection on which a ninth calls."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Final

import msgspec

import haptera
from bench import processes

if TYPE_CHECKING:
    from pathlib import Path

TASKS: Final = 8
VALUE_SIZE: Final = 8 * 1024 * 1024
PAUSE_SECONDS: Final = 0.002

_encode = msgspec.msgpack.Encoder().encode


async def _bulk(peer: haptera.Peer, key: str, moved: list[int]) -> None:
    argument = _encode((key, os.urandom(VALUE_SIZE)))
    while True:
        await peer.call("kv", "set", argument, timeout=None)
        moved[0] += VALUE_SIZE
        moved[0] += len(await peer.call("kv", "get", _encode((key,)), timeout=None))


async def _pings(peer: haptera.Peer, seconds: float) -> list[float]:
    argument = _encode(("no such key",))
    times = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        await peer.call("kv", "exists", argument, timeout=None)
        times.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(PAUSE_SECONDS)
    return sorted(times)


async def _measure(url: str, seconds: float) -> dict[str, float]:
    peer = await haptera.dial(url)
    await peer.ready()
    alone = await _pings(peer, seconds / 4)
    moved = [0]
    tasks = [asyncio.create_task(_bulk(peer, f"bulk/{number}", moved)) for number in range(TASKS)]
    await asyncio.sleep(0.5)
    moved[0] = 0
    started = time.perf_counter()
    times = await _pings(peer, seconds)
    rate = moved[0] / (time.perf_counter() - started) / 1e6
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await peer.aclose()
    return {
        "alone_p50_ms": alone[len(alone) // 2],
        "alone_p99_ms": alone[len(alone) * 99 // 100],
        "p50_ms": times[len(times) // 2],
        "p99_ms": times[len(times) * 99 // 100],
        "max_ms": times[-1],
        "pings": len(times),
        "bulk_mb_per_second": rate,
    }


def measure(directory: Path, runner: asyncio.Runner, seconds: float) -> dict[str, float]:
    """The percentiles of the small call, with and without the large values beside it."""
    with processes.scratch(directory) as path, processes.node(path / "data") as node:
        return runner.run(_measure(node.url, seconds))
