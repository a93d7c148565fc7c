"""What the end of very many keys costs the others: 1,000,000 keys whose time is over in the same second.

The node is a process of its own, and says how long the turns of its loop are. While the keys end, one client gets a key
again and again and another one sets one; in a second run a third client, in a process of its own, has a watch that is
told of each end. From the node's status follows how long it takes until all keys are removed.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import haptera
from bench import attacks, processes, report
from bench.metered_node import AIM_MS, MeteredNode, metered_node

if TYPE_CHECKING:
    from pathlib import Path

    from haptera import Database

#: Seconds before the end of the keys in which calls are measured for comparison.
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


async def measure(node: MeteredNode, keys: int, watched: bool) -> dict[str, Any]:
    """The waits of calls and the turns before the keys end and meanwhile, and the time that their removal takes."""
    async with haptera.connect(node.url) as db, haptera.connect(node.url) as other:
        watcher = _watcher(node.url, keys) if watched else None
        end = await fill(db, keys)
        await asyncio.sleep(max(0.0, end - BEFORE_S - time.time()))
        node.begin()
        before = await _waits(db, other, asyncio.ensure_future(asyncio.sleep(end - 0.1 - time.time())))
        before["turns"] = node.turns()
        removed = asyncio.ensure_future(_removed(db))
        during = await _waits(db, other, removed)
        during["turns"] = node.turns()
        told = None if watcher is None else await asyncio.to_thread(_told, watcher) - end
        assert await db.count(prefix="attack/") == 0
    seconds = removed.result() - end
    return {"watched": watched, "seconds": seconds, "told_after_s": told, "before": before, "during": during}


async def _waits(db: Database, other: Database, ended: asyncio.Future[Any]) -> dict[str, Any]:
    """The waits of gets and of sets until something has ended."""
    gets, sets = await asyncio.gather(
        attacks.probe(db, ended.done), attacks.probe(other, ended.done, attacks.set_innocent)
    )
    return {"get": attacks.waits_of("get", gets), "set": attacks.waits_of("set", sets)}


async def _removed(db: Database) -> float:
    """The Unix time at which the store has one key left."""
    while (await db.status(timeout=60))["keys"] > 1:
        await asyncio.sleep(0.01)
    return time.time()


def _watcher(url: str, keys: int) -> subprocess.Popen[str]:
    """A process with a watch, which has begun."""
    command = [sys.executable, "-m", "bench.expiry", "--watch", url, str(keys)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _told(watcher: subprocess.Popen[str]) -> float:
    """The Unix time at which the watch was told of the last end."""
    output, _ = watcher.communicate()
    return float(output)


async def watch(url: str, keys: int) -> None:
    """Count the ends of keys, and print the time of the last one."""
    async with haptera.connect(url) as db, db.watch(prefix="attack/") as events:
        print("begun", flush=True)
        ended = 0
        while ended < keys:
            ended += sum(event.kind == "expire" for event in await events.next_events())
    print(time.time(), flush=True)


def run(directory: Path, keys: int) -> list[dict[str, Any]]:
    """Measure it on a new store, without the watch and then, when its history is full, with it."""
    with processes.scratch(directory) as path, metered_node(path / "data") as node:
        return [asyncio.run(measure(node, keys, watched)) for watched in (False, True)]


def show(result: dict[str, Any], keys: int) -> None:
    """Print the table of one run."""
    rows = []
    for name, part in (("before", result["before"]), ("while keys end", result["during"])):
        turns = part["turns"]
        for call in ("get", "set"):
            waits = part[call]
            rows.append(
                [
                    name,
                    call,
                    f"{waits['gets']:,}",
                    f"{waits['p50_ms']:.2f}",
                    f"{waits['p99_ms']:.2f}",
                    f"{waits['longest_ms']:.1f}",
                    f"{turns['longest_ms']:.1f}",
                    f"{turns['above_aim']} of {turns['turns']:,}",
                ]
            )
    watched = ", told to a watch" if result["watched"] else ""
    title = f"{keys:,} keys that end in the same second{watched}: removed in {result['seconds']:.1f} s"
    notes = [f"the node took {result['during']['turns']['cpu_s']:.1f} s of processor time while they ended"]
    if result["told_after_s"] is not None:
        notes.append(f"the watch was told of the last end {result['told_after_s']:.1f} s after the first")
    head = ["when", "call", "calls", "p50 ms", "p99 ms", "longest ms", "longest turn, CPU ms", f"above {AIM_MS:.0f} ms"]
    report.show(title, head, rows, notes)


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("What the end of very many keys costs the others.")
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys that end in the same second [1,000,000]")
    parser.add_argument("--watch", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.watch:
        url, keys = options.watch
        asyncio.run(watch(url, int(keys)))
        return 0
    found = report.environment(options.dir)
    results = run(options.dir, options.keys)
    if options.json:
        report.emit({"environment": found, "keys": options.keys, "results": results})
        return 0
    report.show_environment(found)
    for result in results:
        show(result, options.keys)
    return 0


if __name__ == "__main__":
    sys.exit(main())
