"""What the end of very many keys costs the others: 1,000,000 keys whose time is over in the same second.

The node is a process of its own. While the keys end, a client gets another key again and again, and its longest wait is
measured; from the node's metrics follows how long it takes until all of them are removed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import haptera
from bench import attacks, processes, report

if TYPE_CHECKING:
    from pathlib import Path

    from haptera import Database

#: Seconds before the end of the keys in which gets are measured for comparison.
BEFORE_S: Final = 5.0
#: Seconds that writing the keys may take.
WRITING_S: Final = 60.0


async def fill(db: Database, keys: int) -> float:
    """Write the keys so that all of them end in one second; the Unix time at which the first does."""
    end = time.time() + WRITING_S * keys / 1_000_000 + BEFORE_S
    for first in range(0, keys, attacks.PART):
        items = {attacks.key(number): attacks.VALUE for number in range(first, min(keys, first + attacks.PART))}
        # The parts end one after the other within the second.
        await db.set_many(items, ttl=end + first / keys - time.time(), timeout=120)
    await db.set("innocent", attacks.VALUE)
    return end


async def measure(url: str, keys: int) -> dict[str, Any]:
    """The waits of gets before the keys end and meanwhile, and the time that their removal takes."""
    async with haptera.connect(url) as db:
        end = await fill(db, keys)
        await asyncio.sleep(max(0.0, end - BEFORE_S - time.time()))
        before = await attacks.probe(db, lambda: time.time() >= end - 0.1)
        removed = asyncio.ensure_future(_removed(db))
        during = await attacks.probe(db, removed.done)
        seconds = removed.result() - end
        assert await db.count(prefix="attack/") == 0
    return {
        "keys": keys,
        "seconds": seconds,
        "keys_per_second": keys / seconds,
        "before": attacks.waits_of("before", before),
        "during": attacks.waits_of("during", during),
    }


async def _removed(db: Database) -> float:
    """The Unix time at which the store has one key left."""
    while (await db.status(timeout=60))["keys"] > 1:
        await asyncio.sleep(0.01)
    return time.time()


async def run(directory: Path, keys: int) -> dict[str, Any]:
    """Measure it on a new store."""
    with processes.scratch(directory) as path, processes.node(path / "data") as node:
        return await measure(node.url, keys)


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("What the end of very many keys costs the others.")
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys that end in the same second [1,000,000]")
    options = parser.parse_args(argv)
    found = report.environment(options.dir)
    result = asyncio.run(run(options.dir, options.keys))
    if options.json:
        report.emit({"environment": found, "results": result})
        return 0
    report.show_environment(found)
    rows = [
        [
            name,
            f"{waits['gets']:,}",
            f"{waits['p50_ms']:.2f}",
            f"{waits['p99_ms']:.2f}",
            f"{waits['longest_ms']:.1f}",
        ]
        for name, waits in (("before", result["before"]), ("while keys end", result["during"]))
    ]
    title = f"{result['keys']:,} keys that end in the same second: removed in {result['seconds']:.1f} s"
    rate = f"{result['keys_per_second']:,.0f} keys a second, of which the first second is their own"
    report.show(title, ["a get", "gets", "p50 ms", "p99 ms", "longest ms"], rows, [rate])
    return 0


if __name__ == "__main__":
    sys.exit(main())
