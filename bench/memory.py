"""Bytes of memory that a key takes in a node, and in Redis: a million keys of several shapes.

Each server is filled by commands of 1,000 keys in a process of its own. The growth of its resident memory is divided by
the number of keys. The node is started again and looked at once more. Keys that one command wrote share a version, so
that each takes 32 bytes less than a key that was written by itself. `counted` is the number that the node gives
(`memory` of its status), which `--memory-max` bounds.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import redis.asyncio

import haptera
from bench import processes, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PAGE_SIZE: Final = 4096
KEYS_PER_COMMAND: Final = 1000
#: Letters of the names and of the texts.
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz-_."

Items = list[tuple[str, bytes]]


def names_and_texts(count: int, file: Path | None) -> Iterator[tuple[str, bytes]]:
    """Names of packages with their descriptions, from a file of lines with tabs; or invented ones of such lengths."""
    if file is not None:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows = [line.rstrip("\n").partition("\t") for line in lines]
        for number in range(count):
            name, _, text = rows[number % len(rows)]
            yield (name if number < len(rows) else f"{name}/{number // len(rows)}"), text.encode()
        return
    chance = random.Random(1)
    for number in range(count):
        name = "".join(chance.choices(LETTERS, k=min(4 + int(chance.expovariate(0.2)), 60)))
        yield f"{name}/{number:x}", chance.randbytes(min(20 + int(chance.expovariate(0.02)), 500))


def fixed(key_size: int, value_size: int) -> Callable[[int, Path | None], Iterator[tuple[str, bytes]]]:
    """Keys and values of one size each."""

    def items(count: int, _: Path | None) -> Iterator[tuple[str, bytes]]:
        chance = random.Random(1)
        for number in range(count):
            yield f"{number:0{key_size}}", chance.randbytes(value_size)

    return items


SHAPES: Final[dict[str, Callable[[int, Path | None], Iterator[tuple[str, bytes]]]]] = {
    "names and texts": names_and_texts,
    "16 and 16 bytes": fixed(16, 16),
    "40 and 256 bytes": fixed(40, 256),
}


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_SIZE


def pieces(items: Iterable[tuple[str, bytes]]) -> Iterator[Items]:
    """The items, as many at a time as one command has."""
    rest = iter(items)
    while piece := list(islice(rest, KEYS_PER_COMMAND)):
        yield piece


async def fill_node(url: str, items: Iterable[tuple[str, bytes]]) -> None:
    """Write all items to a node."""
    async with haptera.connect(url, timeout=60) as db:
        for piece in pieces(items):
            await db.set_many(piece)


async def counted(url: str) -> tuple[int, int]:
    """The keys of a node, and the bytes that it says they take."""
    async with haptera.connect(url, timeout=60) as db:
        status = await db.status()
        return status["keys"], status["memory"]


async def fill_redis(port: int, items: Iterable[tuple[str, bytes]]) -> tuple[int, int]:
    """Write all items to Redis; its process, and the bytes that it says all of it takes."""
    async with redis.asyncio.Redis(port=port) as client:
        for piece in pieces(items):
            await client.mset(dict(piece))
        return (await client.info("server"))["process_id"], (await client.info("memory"))["used_memory"]


async def process_of(port: int) -> tuple[int, int]:
    """The process of an empty Redis, and the bytes that it says it takes."""
    return await fill_redis(port, [])


def measure(directory: Path, shape: str, keys: int, file: Path | None) -> dict[str, Any]:
    """Fill both servers with one shape."""
    make = SHAPES[shape]
    with processes.scratch(directory) as path:
        with processes.node(path / "data", "--durability", "os") as node:
            empty = resident(node.pid)
            asyncio.run(fill_node(node.url, make(keys, file)))
            written = resident(node.pid) - empty
        with processes.node(path / "data", "--durability", "os") as node:
            started = resident(node.pid) - empty
            count, size = asyncio.run(counted(node.url))
        with processes.redis_server(path / "redis") as port:
            pid, used_before = asyncio.run(process_of(port))
            before = resident(pid)
            _, used = asyncio.run(fill_redis(port, make(keys, file)))
            of_redis = resident(pid) - before
    of_keys = of_values = 0
    for key, value in make(keys, file):
        of_keys += len(key.encode())
        of_values += len(value)
    return {
        "shape": shape,
        "keys": count,
        "key_bytes": of_keys / count,
        "value_bytes": of_values / count,
        "haptera_written": written / count,
        "haptera_started": started / count,
        "haptera_counted": size / count,
        "redis_resident": of_redis / count,
        "redis_used": (used - used_before) / count,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("Bytes of memory that a key takes, beside Redis.")
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys of each shape [1,000,000]")
    parser.add_argument("--only", choices=SHAPES, help="one shape alone")
    parser.add_argument("--file", type=Path, help="a gzipped file of names and texts, separated by a tab")
    options = parser.parse_args(argv)
    if processes.redis_version() is None:
        print("redis-server is not on PATH (Debian, Ubuntu: apt-get install redis-server)", file=sys.stderr)
        return 1
    found = report.environment(options.dir)
    shapes = [options.only] if options.only else list(SHAPES)
    results = [measure(options.dir, shape, options.keys, options.file) for shape in shapes]
    if options.json:
        report.emit({"environment": found, "results": results})
        return 0
    report.show_environment(found)
    columns = [name for name in results[0] if name not in {"shape", "keys"}]
    rows = [[result["shape"], *(f"{result[name]:,.0f}" for name in columns)] for result in results]
    head = [
        "shape",
        "key",
        "value",
        "haptera, written",
        "haptera, started",
        "counted",
        "Redis, resident",
        "Redis, used",
    ]
    report.show(f"Bytes of memory per key, {results[0]['keys']:,} keys", head, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
