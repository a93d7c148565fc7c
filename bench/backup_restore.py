"""How fast a backup is made, verified and restored, and how long a get waits while one is made.

A store is written without syncs, which changes nothing of what is read. Then a node serves it, and the command line
makes a backup over its local socket, verifies it and restores it, each in a process of its own. Gets go on meanwhile
from this process, one after the other, and once more without a backup.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from bench import processes, report
from haptera import connect
from haptera.state.command_encoding import Logged, encode_commands
from haptera.state.operations import Set
from haptera.storage import DataDirectory, Log, LogEntry, OsFileSystem, open_keyring

if TYPE_CHECKING:
    from pathlib import Path

VALUE_SIZE: Final = 256
COMMANDS_PER_ENTRY: Final = 100


def write_store(data_dir: Path, keys: int) -> None:
    """Make a data directory with so many keys."""
    fs = OsFileSystem()
    directory = DataDirectory.open(fs, str(data_dir))
    try:
        log = Log.open(fs, directory, open_keyring(directory), durability="os")
        for _ in log.replay():
            raise AssertionError("the directory is new")
        for index in range(1, keys // COMMANDS_PER_ENTRY + 1):
            first = (index - 1) * COMMANDS_PER_ENTRY
            numbers = range(first, first + COMMANDS_PER_ENTRY)
            commands = [Logged(Set(f"bench/{number:08}", os.urandom(VALUE_SIZE))) for number in numbers]
            log.append(LogEntry(1, index, 1_700_000_000_000 + index, encode_commands(commands)))
        log.close()
    finally:
        directory.close()


def command(*args: str | Path) -> tuple[float, dict[str, Any]]:
    """Run a command; how many seconds it took, and its result."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "haptera", *map(str, args), "--json"], check=True, capture_output=True, text=True
    )
    return time.perf_counter() - started, json.loads(done.stdout)


async def waits(url: str, until: asyncio.Future[Any]) -> list[float]:
    """The seconds of gets, one after the other, until something is done."""
    found = []
    async with connect(url) as db:
        while not until.done():
            started = time.perf_counter()
            await db.get("bench/00000001")
            found.append(time.perf_counter() - started)
    return found


async def beside(url: str, work: Any) -> tuple[Any, list[float]]:
    """Do some work in a thread, and measure gets meanwhile."""
    doing = asyncio.ensure_future(asyncio.to_thread(work))
    found = await waits(url, doing)
    return await doing, found


def percentile(values: list[float], part: float) -> float:
    """In milliseconds."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)] * 1000


def measure(directory: Path, keys: int) -> dict[str, Any]:
    """Make the store, and measure."""
    with processes.scratch(directory) as path:
        data, file, restored = path / "data", path / "store.backup", path / "restored"
        write_store(data, keys)
        key = data / "master.key"
        with processes.node(data) as node:
            _, alone = asyncio.run(beside(node.url, lambda: time.sleep(3)))
            create: list[str | Path] = ["backup", "create", file, "--url", node.url]
            (create_seconds, made), meanwhile = asyncio.run(beside(node.url, lambda: command(*create)))
        verify_seconds, _ = command("backup", "verify", file, "--master-key-file", key)
        restore_seconds, _ = command("restore", file, "--data-dir", restored, "--master-key-file", key)
        size = file.stat().st_size
    return {
        "keys": keys,
        "value_size": VALUE_SIZE,
        "backup_bytes": size,
        "create_seconds": create_seconds,
        "create_mb_per_second": size / made["seconds"] / 1e6,
        "verify_seconds": verify_seconds,
        "restore_seconds": restore_seconds,
        "get_ms_alone": {
            "p50": statistics.median(alone) * 1000,
            "p99": percentile(alone, 0.99),
            "max": max(alone) * 1000,
        },
        "get_ms_meanwhile": {
            "p50": statistics.median(meanwhile) * 1000,
            "p99": percentile(meanwhile, 0.99),
            "max": max(meanwhile) * 1000,
        },
    }


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("How fast a backup is made, verified and restored.")
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys in the store [1,000,000]")
    options = parser.parse_args(argv)
    found = report.environment(options.dir)
    result = measure(options.dir, options.keys)
    if options.json:
        report.emit({"environment": found, "results": [result]})
        return 0
    report.show_environment(found)
    alone, meanwhile = result["get_ms_alone"], result["get_ms_meanwhile"]
    head = ["keys", "backup MB", "MB/s", "verify s", "restore s", "get p50, p99, longest ms", "while it is made"]
    row = [
        f"{result['keys']:,}",
        f"{result['backup_bytes'] / 1e6:,.0f}",
        f"{result['create_mb_per_second']:,.0f}",
        f"{result['verify_seconds']:.1f}",
        f"{result['restore_seconds']:.1f}",
        *(f"{times['p50']:.2f}, {times['p99']:.2f}, {times['max']:.1f}" for times in (alone, meanwhile)),
    ]
    report.show("Backup and restore", head, [row], [f"values of {VALUE_SIZE} bytes"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
