"""What every measurement says beside its figures: where it ran, and the table."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SYNCS = 200


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that every measurement has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument(
        "--dir", type=Path, default=Path.cwd(), help="where the data is written for the time of the measurement [.]"
    )
    return parser


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of an event loop: `asyncio` or `uvloop`."""
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop  # noqa: PLC0415 - only where it is asked for

    return uvloop.new_event_loop


def environment(directory: Path) -> dict[str, Any]:
    """The machine, its disk as measured now, and the Python that measures."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sync_ms": round(sync_ms(directory), 3),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def sync_ms(directory: Path) -> float:
    """The median time of one small write and its fdatasync in a preallocated file: what no durable write can beat."""
    path = directory / f".sync-{os.getpid()}"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        os.pwrite(descriptor, bytes(4096 * SYNCS), 0)
        os.fsync(descriptor)
        sync = getattr(os, "fdatasync", os.fsync)
        times = []
        for number in range(SYNCS):
            started = time.perf_counter()
            os.pwrite(descriptor, b"x" * 512, number * 4096)
            sync(descriptor)
            times.append(time.perf_counter() - started)
        return statistics.median(times) * 1000
    finally:
        os.close(descriptor)
        path.unlink()


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Print a Markdown table, as bench/README.md has it."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    print(f"\n## {title}\n")
    for line in [head, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
    if notes:
        print()
    for note in notes:
        print(f"- {note}")


def show_environment(found: dict[str, Any]) -> None:
    """Print where the figures come from."""
    print(
        f"{found['cpu']}, {found['cores']} cores, {found['system']}, Python {found['python']}; "
        f"one write and fdatasync: {found['sync_ms']:.3f} ms"
    )


def emit(result: dict[str, Any]) -> None:
    """Print one JSON object on one line."""
    json.dump(result, sys.stdout)
    print()
