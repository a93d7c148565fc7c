"""A scan of a large store: how fast it streams, in how much memory, and what it costs other clients.

The node, the client that scans and the client whose calls are measured are three processes. The scans go on, one behind
the other, while another client gets a key again and again and a third one sets one. The node says how long the turns of
its loop are, and its memory is looked at meanwhile, as is that of the client that scans.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import haptera
from bench import attacks, processes, report
from bench.memory import resident
from bench.metered_node import AIM_MS, MeteredNode, metered_node

if TYPE_CHECKING:
    from pathlib import Path

#: Scans that go on together, each on a connection of its own, in one process.
TOGETHER: Final = (1, 4)
#: Seconds between two looks at a process's memory.
LOOK_S: Final = 0.05
MIB: Final = 1024 * 1024


async def scan(url: str, together: int, seconds: float) -> None:
    """Scan everything again and again, for so long; print the keys, the seconds, and the growth of this process."""

    async def one() -> int:
        keys = 0
        async with haptera.connect(url) as db:
            while time.perf_counter() < end or not keys:
                async for _ in db.scan(timeout=600):
                    keys += 1
                    if keys % 10_000 == 0:
                        looked.append(resident(os.getpid()))
        return keys

    looked = [resident(os.getpid())]
    began = time.perf_counter()
    end = began + seconds
    counts = await asyncio.gather(*(one() for _ in range(together)))
    took = time.perf_counter() - began
    print(json.dumps({"keys": sum(counts), "seconds": took, "grown": max(looked) - looked[0]}))


async def measure(node: MeteredNode, keys: int, seconds: float) -> list[dict[str, Any]]:
    """The waits of gets and sets, the turns and the memory, without a scan and beside so many."""
    results = []
    async with haptera.connect(node.url) as db, haptera.connect(node.url) as other:
        await attacks.fill(db, keys)
        for together in (0, *TOGETHER):
            command = [sys.executable, "-m", "bench.scans", "--scan", node.url, str(together), str(seconds)]
            node.begin()
            memory = [resident(node.pid)]
            scanning = subprocess.Popen(command, stdout=subprocess.PIPE, text=True) if together else None
            ended = asyncio.ensure_future(
                asyncio.to_thread(scanning.communicate) if scanning else asyncio.sleep(seconds)
            )
            looking = asyncio.ensure_future(_look(node.pid, memory))
            gets, sets = await asyncio.gather(
                attacks.probe(db, ended.done), attacks.probe(other, ended.done, attacks.set_innocent)
            )
            looking.cancel()
            result: dict[str, Any] = {
                "scans": together,
                "get": attacks.waits_of("get", gets),
                "set": attacks.waits_of("set", sets),
                "turns": node.turns(),
                "node_grown": max(memory) - memory[0],
            }
            if scanning is not None:
                found = ended.result()
                assert isinstance(found, tuple)
                result["scanned"] = json.loads(found[0])
            results.append(result)
    return results


async def _look(pid: int, memory: list[int]) -> None:
    """Note the memory of a process until cancelled."""
    while True:
        memory.append(resident(pid))
        await asyncio.sleep(LOOK_S)


def run(directory: Path, keys: int, seconds: float) -> list[dict[str, Any]]:
    """Measure it on a new store."""
    with processes.scratch(directory) as path, metered_node(path / "data") as node:
        return asyncio.run(measure(node, keys, seconds))


def show(results: list[dict[str, Any]], keys: int) -> None:
    """Print the tables."""
    rows = []
    for result in results:
        for call in ("get", "set"):
            waits, turns = result[call], result["turns"]
            rows.append(
                [
                    f"{result['scans']} scans",
                    call,
                    f"{waits['p50_ms']:.2f}",
                    f"{waits['p99_ms']:.2f}",
                    f"{waits['longest_ms']:.1f}",
                    f"{turns['longest_ms']:.1f}",
                    f"{turns['above_aim']} of {turns['turns']:,}",
                ]
            )
    head = ["beside", "call", "p50 ms", "p99 ms", "longest ms", "longest turn, CPU ms", f"above {AIM_MS:.0f} ms"]
    report.show(f"Scans of {keys:,} keys", head, rows)
    report.show(
        "The scans",
        ["together", "keys/s of all", "node grows by, MiB", "client grows by, MiB", "node, CPU µs a key"],
        [
            [
                str(result["scans"]),
                f"{scanned['keys'] / scanned['seconds']:,.0f}",
                f"{result['node_grown'] / MIB:.1f}",
                f"{scanned['grown'] / MIB:.1f}",
                f"{result['turns']['cpu_s'] / scanned['keys'] * 1e6:.2f}",
            ]
            for result in results
            if (scanned := result.get("scanned")) is not None
        ],
    )


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("Scans of a large store: their rate, their memory, and what they cost others.")
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys in the store [1,000,000]")
    parser.add_argument("--seconds", type=float, default=15, help="time for each number of scans [15]")
    parser.add_argument("--scan", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.scan:
        url, together, seconds = options.scan
        asyncio.run(scan(url, int(together), float(seconds)))
        return 0
    found = report.environment(options.dir)
    results = run(options.dir, options.keys, options.seconds)
    if options.json:
        report.emit({"environment": found, "keys": options.keys, "results": results})
        return 0
    report.show_environment(found)
    show(results, options.keys)
    return 0


if __name__ == "__main__":
    sys.exit(main())
