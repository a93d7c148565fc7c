"""How fast a node has its state at start: from its log, and from a snapshot.

The log has a million entries of one small change each, the worst case for its size. It is written without syncs, which
does not change what is read. The snapshot has a million keys. Then a node opens the directory in a process of its own,
and what it logs about its recovery is what is shown.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

from bench import processes, report
from haptera.state import StateMachine, dump_pieces
from haptera.state.command_encoding import Logged, encode_commands
from haptera.state.operations import Set, SetMany
from haptera.storage import DataDirectory, Log, LogEntry, OsFileSystem, open_keyring, write_snapshot

if TYPE_CHECKING:
    from pathlib import Path

KEYS: Final = 100_000
VALUE: Final = b"v" * 16
#: Keys that one entry of the snapshot's log sets.
KEYS_PER_ENTRY: Final = 10_000


def write_log(data_dir: Path, entries: int, commands_per_entry: int) -> int:
    """Make a data directory with that many entries; return the log's size in bytes."""
    fs = OsFileSystem()
    directory = DataDirectory.open(fs, str(data_dir))
    try:
        log = Log.open(fs, directory, open_keyring(directory), durability="os")
        for _ in log.replay():
            raise AssertionError("the directory is new")
        for index in range(1, entries + 1):
            first = index * commands_per_entry
            commands = [
                Logged(Set(f"bench/{number % KEYS:06}", VALUE)) for number in range(first, first + commands_per_entry)
            ]
            log.append(LogEntry(1, index, 1_700_000_000_000 + index, encode_commands(commands)))
        log.close()
        return log.size_bytes
    finally:
        directory.close()


def measure(directory: Path, entries: int, commands_per_entry: int) -> dict[str, Any]:
    """Write the log, replay it, and return what the node said of it."""
    with processes.scratch(directory) as path:
        size = write_log(path / "data", entries, commands_per_entry)
        started = time.perf_counter()
        with processes.node(path / "data") as node:
            seconds_to_listening = time.perf_counter() - started
            recovered = node.event("recovered")
    assert recovered["entries"] == entries, recovered
    return {
        "entries": entries,
        "commands_per_entry": commands_per_entry,
        "log_bytes": size,
        "replay_seconds": recovered["seconds"],
        "entries_per_second": recovered["entries_per_second"],
        "seconds_to_listening": seconds_to_listening,
    }


def write_snapshot_of(data_dir: Path, keys: int) -> tuple[int, float]:
    """Make a data directory with a snapshot of that many keys; return its size in bytes and the seconds it took."""
    fs = OsFileSystem()
    directory = DataDirectory.open(fs, str(data_dir))
    try:
        keyring = open_keyring(directory)
        log = Log.open(fs, directory, keyring, durability="os")
        for _ in log.replay():
            raise AssertionError("the directory is new")
        machine = StateMachine()
        for first in range(0, keys, KEYS_PER_ENTRY):
            numbers = range(first, min(first + KEYS_PER_ENTRY, keys))
            commands = [Logged(SetMany([(f"bench/{number:07}", VALUE) for number in numbers]))]
            entry = LogEntry(1, machine.index + 1, 1_700_000_000_000 + first, encode_commands(commands))
            log.append(entry)
            machine.apply(entry.index, entry.time_ms, commands)
        point = log.roll()
        started = time.perf_counter()
        made = write_snapshot(fs, directory.snapshots_path, keyring, point, machine.revision, dump_pieces(machine))
        seconds = time.perf_counter() - started
        log.close()
        return made.size_bytes, seconds
    finally:
        directory.close()


def measure_snapshot(directory: Path, keys: int) -> dict[str, Any]:
    """Make a snapshot, start from it, and return what the node said of it."""
    with processes.scratch(directory) as path:
        size, seconds_to_make = write_snapshot_of(path / "data", keys)
        started = time.perf_counter()
        with processes.node(path / "data") as node:
            seconds_to_listening = time.perf_counter() - started
            recovered = node.event("recovered")
    assert (recovered["keys"], recovered["entries"]) == (keys, 0), recovered
    return {
        "keys": keys,
        "snapshot_bytes": size,
        "write_seconds": seconds_to_make,
        "load_seconds": recovered["snapshot_seconds"],
        "keys_per_second": round(keys / recovered["snapshot_seconds"]),
        "seconds_to_listening": seconds_to_listening,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("How fast a node has its state at start.")
    parser.add_argument("--entries", type=int, default=1_000_000, help="entries in the log [1,000,000]")
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys in the snapshot [1,000,000]")
    options = parser.parse_args(argv)
    found = report.environment(options.dir)
    results = [
        measure(options.dir, options.entries, 1),
        measure(options.dir, max(1, options.entries // 50), 50),
    ]
    of_snapshot = measure_snapshot(options.dir, options.keys)
    if options.json:
        report.emit({"environment": found, "results": results, "snapshot": of_snapshot})
        return 0
    report.show_environment(found)
    rows = [
        [
            f"{result['entries']:,}",
            str(result["commands_per_entry"]),
            f"{result['log_bytes'] / 1e6:,.0f}",
            f"{result['replay_seconds']:.1f}",
            f"{result['entries_per_second']:,.0f}",
            f"{result['entries_per_second'] * result['commands_per_entry']:,.0f}",
            f"{result['seconds_to_listening']:.1f}",
        ]
        for result in results
    ]
    head = ["entries", "changes in each", "log MB", "replay s", "entries/s", "changes/s", "start to listening s"]
    report.show("Replay at start", head, rows, [f"values of {len(VALUE)} bytes, {KEYS:,} keys"])
    row = [
        f"{of_snapshot['keys']:,}",
        f"{of_snapshot['snapshot_bytes'] / 1e6:,.0f}",
        f"{of_snapshot['write_seconds']:.1f}",
        f"{of_snapshot['load_seconds']:.1f}",
        f"{of_snapshot['keys_per_second']:,.0f}",
        f"{of_snapshot['seconds_to_listening']:.1f}",
    ]
    head = ["keys", "snapshot MB", "write s", "load s", "keys/s", "start to listening s"]
    report.show("Start from a snapshot", head, [row], [f"values of {len(VALUE)} bytes"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
