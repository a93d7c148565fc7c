"""How long a get waits while another client gives the node long work: the longest wait, for each kind of work.

The node, the client with the work and the client whose gets are measured are three processes. The work is asked for
again and again for some seconds. For the embedded store the work and the gets share the process and its event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import haptera
from bench import processes, report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haptera import Database

VALUE: Final = b"v" * 16
#: Keys of one set_many by which the store is filled.
PART: Final = 50_000
#: Seconds between two gets that are measured.
PAUSE_S: Final = 0.002


def key(number: int) -> str:
    """The keys of the store: their order is that of the numbers."""
    return f"attack/{number:08}"


async def fill(db: Database, keys: int) -> None:
    """Write the keys, and the one that is read."""
    for first in range(0, keys, PART):
        await db.set_many({key(number): VALUE for number in range(first, min(keys, first + PART))}, timeout=120)
    await db.set("innocent", VALUE)


async def scan(db: Database, _: int) -> None:
    """256 scans of everything."""

    async def one() -> None:
        async for _ in db.scan(timeout=600):
            pass

    await asyncio.gather(*(one() for _ in range(256)))


async def count(db: Database, _: int) -> None:
    """256 counts that look at each key."""
    await asyncio.gather(*(db.count(glob="*7*7*", timeout=600) for _ in range(256)))


async def glob(db: Database, _: int) -> None:
    """Counts of nothing, each with another glob of 4,096 bytes."""
    globs = [
        "innocent" + f"[{chr(97 + number % 26)}{number}]?" * (4088 // (4 + len(str(number)))) for number in range(256)
    ]
    await asyncio.gather(*(db.count(glob=text, timeout=600) for text in globs))


async def get_many(db: Database, keys: int) -> None:
    """16 get_many of the most keys that one may have."""
    wanted = [key(number % keys) for number in range(131_072)]
    await asyncio.gather(*(db.get_many(wanted, timeout=600) for _ in range(16)))


async def get_some(db: Database, keys: int) -> None:
    """256 get_many of some keys, none of which is a large request."""
    wanted = [key(number % keys) for number in range(100)]
    await asyncio.gather(*(db.get_many(wanted, timeout=600) for _ in range(256)))


async def change_many(db: Database, _: int) -> None:
    """set_many of 100,000 new keys, set_many of the same, delete_many of them."""
    items = {f"change/{number:08}": VALUE for number in range(100_000)}
    await db.set_many(items, timeout=600)
    await db.set_many(items, timeout=600)
    await db.delete_many(list(items), timeout=600)


async def clear(db: Database, keys: int) -> None:
    """Clear of everything while a scan is open, then of a prefix; between the two the store is filled again."""
    scanning = aiter(db.scan(timeout=600))
    await anext(scanning)
    await db.clear(prefix="", timeout=600)
    await scanning.aclose()
    await fill(db, keys)
    await db.clear(prefix="attack/", timeout=600)
    await fill(db, keys)


ATTACKS: Final[dict[str, Callable[[Database, int], Awaitable[None]]]] = {
    "256 scans": scan,
    "256 counts with a glob": count,
    "256 globs of 4,096 bytes": glob,
    "256 get_many of 100 keys": get_some,
    "16 get_many of 131,072 keys": get_many,
    "set_many and delete_many of 100,000 keys": change_many,
    "clear of all keys": clear,
}
EMBEDDED: Final = ("256 counts with a glob", "set_many and delete_many of 100,000 keys", "clear of all keys")


async def attack(name: str, url: str, connections: int, keys: int) -> None:
    """Ask for the work until the process is ended, or once for a clear."""
    clients = [haptera.connect(url) for _ in range(connections)]
    await asyncio.gather(*(client.get("innocent", timeout=60) for client in clients))
    print("begun", flush=True)
    while True:
        await asyncio.gather(*(ATTACKS[name](client, keys) for client in clients))
        print("done", flush=True)


async def get_innocent(db: Database) -> None:
    """Get the key that no work touches."""
    await db.get("innocent", timeout=120)


async def set_innocent(db: Database) -> None:
    """Set a key that no work touches."""
    await db.set("innocent", VALUE, timeout=120)


async def probe(
    db: Database, until: Callable[[], bool], call: Callable[[Database], Awaitable[None]] = get_innocent
) -> list[float]:
    """Call again and again; the seconds that each call took."""
    waits = []
    while not until():
        started = time.perf_counter()
        await call(db)
        waits.append(time.perf_counter() - started)
        await asyncio.sleep(PAUSE_S)
    return waits


async def measure(url: str, name: str, connections: int, keys: int, seconds: float) -> dict[str, Any]:
    """The waits of gets while another process attacks the node."""
    command = [sys.executable, "-m", "bench.attacks", "--attack", name, url, str(connections), str(keys)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said)
        try:
            path = Path(f"/proc/self/fd/{said.fileno()}")
            async with haptera.connect(url) as db:
                await probe(db, lambda: "begun" in path.read_text())
                end = time.perf_counter() + seconds
                whole = ATTACKS[name] is clear  # a single one, to its end
                waits = await probe(db, lambda: ("done" in path.read_text()) if whole else time.perf_counter() > end)
        finally:
            process.terminate()
            process.wait()
    return waits_of(name if connections == 1 else f"{name}, of each of {connections} connections", waits)


async def measure_embedded(directory: Path, name: str, keys: int) -> dict[str, Any]:
    """The waits of gets in the process that has the store, and does the work."""
    with processes.scratch(directory) as path:
        async with haptera.open(path / "data") as db:
            await fill(db, keys)
            work = asyncio.ensure_future(ATTACKS[name](db, keys))
            waits = await probe(db, work.done)
            await work
    return waits_of(f"embedded: {name}", waits)


def waits_of(name: str, waits: list[float]) -> dict[str, Any]:
    """What there is to say about the waits of gets."""
    waits.sort()
    return {
        "work": name,
        "gets": len(waits),
        "p50_ms": waits[len(waits) // 2] * 1000,
        "p99_ms": waits[len(waits) * 99 // 100] * 1000,
        "longest_ms": waits[-1] * 1000,
    }


async def run(directory: Path, keys: int, seconds: float, only: str) -> list[dict[str, Any]]:
    """The measurements whose name holds ``only``, each on the same store."""
    results = []
    with processes.scratch(directory) as path, processes.node(path / "data") as node:
        async with haptera.connect(node.url) as db:
            await fill(db, keys)
            end = time.perf_counter() + min(seconds, 2)
            results.append(waits_of("nothing else", await probe(db, lambda: time.perf_counter() > end)))
        attacks = [(name, number) for name in ATTACKS for number in (1, 16) if number == 1 or name.startswith("256")]
        attacks = [(name, number) for name, number in attacks if only in name]
        results += [await measure(node.url, name, number, keys, seconds) for name, number in attacks]
    results += [await measure_embedded(directory, name, min(keys, 100_000)) for name in EMBEDDED if only in name]
    return results


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("How long a get waits while another client gives the node long work.")
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys in the store [1,000,000]")
    parser.add_argument("--seconds", type=float, default=5, help="time for each kind of work [5]")
    parser.add_argument("--only", default="", help="only the kinds of work whose name holds this text")
    parser.add_argument("--attack", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.attack:
        name, url, connections, keys = options.attack
        asyncio.run(attack(name, url, int(connections), int(keys)))
        return 0
    found = report.environment(options.dir)
    results = asyncio.run(run(options.dir, options.keys, options.seconds, options.only))
    if options.json:
        report.emit({"environment": found, "results": results})
        return 0
    report.show_environment(found)
    rows = [
        [
            result["work"],
            f"{result['gets']:,}",
            f"{result['p50_ms']:.2f}",
            f"{result['p99_ms']:.2f}",
            f"{result['longest_ms']:.1f}",
        ]
        for result in results
    ]
    head = ["work of another client", "gets", "p50 ms", "p99 ms", "longest ms"]
    report.show("The wait of a get beside long work", head, rows, [f"{options.keys:,} keys of {len(VALUE)} bytes"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
