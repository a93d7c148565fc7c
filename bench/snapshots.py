"""The effect of a snapshot on a client: the latency of sets at half of the maximum rate, with and without one.

A node holds a store. `haptera bench write` finds the most sets a second with 50 in flight. Then it sends half of that
in an open loop, each set timed from its planned start: once while nothing else goes on, and once while snapshots are
made without a pause. Every round has both, in turn. Node, client and second process share the cores.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bench import processes, report
from haptera.peer import dial

if TYPE_CHECKING:
    from pathlib import Path

PERCENTILES: Final = ("p50", "p99", "p99_9", "max")


def haptera(node: processes.Node, *arguments: str) -> dict[str, Any]:
    """The result of a command of the client, as JSON."""
    command = [sys.executable, "-m", "haptera", *arguments, "--url", node.url, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def write(node: processes.Node, keys: int, seconds: float, *more: str) -> dict[str, Any]:
    """The result of sets of 256-byte values."""
    result: dict[str, Any] = haptera(node, "bench", "write", "--keys", str(keys), "--duration", str(seconds), *more)[
        "result"
    ]
    return result


class Snapshots:
    """Asks for one snapshot after the other until the block ends."""

    def __init__(self, node: processes.Node) -> None:
        self.made: list[dict[str, Any]] = []
        self._node = node
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Snapshots:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        asyncio.run(self._ask_all())

    async def _ask_all(self) -> None:
        peer = await dial(self._node.url)
        while not self._stop.is_set():
            answer = await peer.call("server", "snapshot", msgspec.msgpack.encode(()), timeout=None)
            self.made.append(msgspec.msgpack.decode(answer))
        await peer.aclose()


def measure(directory: Path, keys: int, rounds: int, seconds: float) -> dict[str, Any]:
    """The rate, and the milliseconds of each percentile with and without a snapshot: the median of the rounds."""
    with processes.scratch(directory) as path, processes.node(path / "data") as node:
        rows = path / "rows.tsv"
        rows.write_text("".join(f"kept/{number:08d}\t{'v' * 256}\n" for number in range(keys)))
        subprocess.run(
            [sys.executable, "-m", "haptera", "import", str(rows), "--url", node.url], check=True, capture_output=True
        )
        rate = write(node, keys, seconds)["operations_per_second"] / 2
        quiet, busy, made = [], [], []
        for _ in range(rounds):
            quiet.append(write(node, keys, seconds, "--rate", f"{rate:.0f}"))
            with Snapshots(node) as snapshots:
                busy.append(write(node, keys, seconds, "--rate", f"{rate:.0f}"))
            made += [each for each in snapshots.made if each["seconds"]]
        return {
            "keys": keys,
            "rate": rate,
            "quiet_ms": _percentiles(quiet),
            "snapshot_ms": _percentiles(busy),
            "snapshots": len(made),
            "snapshot_seconds": statistics.median(each["seconds"] for each in made),
            "snapshot_bytes": max(each["bytes"] for each in made),
        }


def _percentiles(results: list[dict[str, Any]]) -> dict[str, float]:
    return {
        name: statistics.median(result["durations"][f"{name}_us"] for result in results) / 1000 for name in PERCENTILES
    }


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("What a client feels of a snapshot.")
    parser.add_argument("--keys", type=int, default=100_000, help="keys of the store [100000]")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is run [3]")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of a run [5]")
    options = parser.parse_args(argv)
    found = report.environment(options.dir)
    result = measure(options.dir, options.keys, options.rounds, options.seconds)
    if options.json:
        report.emit({"environment": found, "result": result})
        return 0
    report.show_environment(found)
    rows = [
        [what, *(f"{result[name][each]:.2f}" for each in PERCENTILES)]
        for name, what in (("quiet_ms", "without a snapshot"), ("snapshot_ms", "while snapshots are made"))
    ]
    notes = [
        f"{result['keys']:,} keys; {result['rate']:,.0f} sets a second, half of the most",
        f"{result['snapshots']} snapshots of {result['snapshot_bytes']:,} bytes in {result['snapshot_seconds']:.1f} s",
        f"the p99 is {result['snapshot_ms']['p99'] / result['quiet_ms']['p99']:.2f} times as long",
    ]
    heads = [f"{name.replace('_', '.')} ms" for name in PERCENTILES]
    report.show("Sets at half of the maximum rate", ["sets", *heads], rows, notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
