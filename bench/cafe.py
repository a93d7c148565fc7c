"""Calls a second by CAFE beside Haptera's own protocol, with one call in flight and with 50, on one node."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import haptera
from bench import processes, report
from haptera.cafe import MultiplexedClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

#: Keys, and the bytes of each value.
KEYS: Final = 1000
VALUE: Final = b"v" * 64
IN_FLIGHT: Final = (1, 50)
#: The ways in which the calls are made; all others are compared with the first.
WAYS: Final = ("haptera", "cafe", "cafe, encrypted")


async def rate(call: Callable[[int], Awaitable[object]], in_flight: int, calls: int) -> float:
    """Calls a second, made by so many coroutines, each one after the other."""
    numbers = iter(range(calls))

    async def work() -> None:
        for number in numbers:
            await call(number % KEYS)

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return calls / (time.perf_counter() - begun)


async def measure(native_url: str, cafe_url: str, key: bytes, rounds: int, calls: int) -> list[dict[str, Any]]:
    """The medians of rounds that alternate between the ways, after one round that does not count."""
    async with (
        haptera.connect(native_url) as db,
        MultiplexedClient.connect(cafe_url, key=key) as plain,
        MultiplexedClient.connect(cafe_url, key=key, encrypt=True) as encrypted,
    ):
        names = [f"key/{number}" for number in range(KEYS)]
        await db.set_many(dict.fromkeys(names, VALUE))
        gets: tuple[Callable[[int], Awaitable[object]], ...] = (
            lambda number: db.get(names[number]),
            lambda number: plain.get(names[number]),
            lambda number: encrypted.get(names[number]),
        )
        sets: tuple[Callable[[int], Awaitable[object]], ...] = (
            lambda number: db.set(names[number], VALUE),
            lambda number: plain.set(names[number], VALUE),
            lambda number: encrypted.set(names[number], VALUE),
        )
        results = []
        for name, each_way in (("get", gets), ("set", sets)):
            for in_flight in IN_FLIGHT:
                rates: list[list[float]] = [[] for _ in WAYS]
                for number in range(rounds + 1):
                    for found, call in zip(rates, each_way, strict=True):
                        measured = await rate(call, in_flight, calls if in_flight > 1 else max(1, calls // 10))
                        if number:
                            found.append(measured)
                medians = list(map(statistics.median, rates))
                results += [
                    {"call": name, "in_flight": in_flight, "way": way, "rate": median, "ratio": median / medians[0]}
                    for way, median in zip(WAYS, medians, strict=True)
                ]
    return results


async def run(directory: Path, rounds: int, calls: int) -> list[dict[str, Any]]:
    """Measure it on a new store."""
    with processes.scratch(directory) as path:
        key = os.urandom(32)
        key_file = path / "cafe.key"
        key_file.touch(0o600)
        key_file.write_bytes(key)
        cafe_url = f"cafe://127.0.0.1:{processes.free_port()}"
        with processes.node(path / "data", "--listen", f"{cafe_url}?key_file={key_file}") as node:
            return await measure(node.url, cafe_url, key, rounds, calls)


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("Calls a second by CAFE beside Haptera's own protocol.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each [5]")
    parser.add_argument("--calls", type=int, default=20_000, help="calls of a round with 50 in flight [20,000]")
    options = parser.parse_args(argv)
    found = report.environment(options.dir)
    results = asyncio.run(run(options.dir, options.rounds, options.calls))
    if options.json:
        report.emit({"environment": found, "results": results})
        return 0
    report.show_environment(found)
    rows = [
        [f"{each['call']}, {each['in_flight']} in flight", each["way"], f"{each['rate']:,.0f}", f"{each['ratio']:.2f}"]
        for each in results
    ]
    report.show("CAFE", ["calls", "by", "calls/s", "times the native protocol"], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
