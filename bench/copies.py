"""How fast a program reads a copy that it keeps (`db.cached`), with and without a bound of its age."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import haptera
from bench import processes, report

if TYPE_CHECKING:
    from pathlib import Path

#: Keys of the copy, each with a value of 100 bytes, and the largest staleness of one of the two, in seconds.
KEYS: Final = 10_000
VALUE: Final = b"v" * 100
STALENESS_S: Final = 60.0


async def measure(url: str, reads: int) -> list[dict[str, Any]]:
    """The reads in a second of processor time, of all keys in turn."""
    names = [f"copy/{number}" for number in range(KEYS)]
    results: list[dict[str, Any]] = []
    async with haptera.connect(url) as db:
        await db.set_many(dict.fromkeys(names, VALUE))
        for staleness in (None, STALENESS_S):
            async with db.cached(prefix="copy/", max_staleness=staleness) as cache:
                get = cache.get
                begun = time.process_time()
                for _ in range(max(1, reads // KEYS)):
                    for name in names:
                        get(name)
                seconds = time.process_time() - begun
            done = max(1, reads // KEYS) * KEYS
            results.append({"max_staleness": staleness, "reads": done, "reads_per_second": done / seconds})
    return results


async def run(directory: Path, reads: int) -> list[dict[str, Any]]:
    """Measure it on a new store."""
    with processes.scratch(directory) as path, processes.node(path / "data") as node:
        return await measure(node.url, reads)


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("How fast a program reads a copy that it keeps.")
    parser.add_argument("--reads", type=int, default=5_000_000, help="reads of each copy [5,000,000]")
    options = parser.parse_args(argv)
    found = report.environment(options.dir)
    results = asyncio.run(run(options.dir, options.reads))
    if options.json:
        report.emit({"environment": found, "results": results})
        return 0
    report.show_environment(found)
    rows = [[str(result["max_staleness"] or "none"), f"{result['reads_per_second']:,.0f}"] for result in results]
    report.show("Reads of a copy", ["max_staleness, s", "reads/s"], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
