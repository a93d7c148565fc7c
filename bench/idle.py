"""The cost of a client that has a connection and does nothing: its memory, and how often it wakes up.

The client is a process of its own beside a node of this machine. It gets a key, and then waits. Six seconds later, when
the timers of that call have passed, the kernel's count of its switches is read, and again at the end: a process that
sleeps is switched to by each wake-up, and by nothing else (`voluntary_ctxt_switches` of all its threads in `/proc`). A
bare event loop that sleeps is measured beside it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench import processes, report

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds until the timers of a client's last call have passed: its timeout is 5 s.
SETTLE_S: Final = 6.0

ASYNC: Final = """
import asyncio, sys
import haptera

async def main():
    async with haptera.connect(sys.argv[1]) as db:
        await db.get("k")
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
THREADS: Final = """
import sys, threading
import haptera.sync

with haptera.sync.connect(sys.argv[1]) as db:
    db.get("k")
    print("ready", flush=True)
    threading.Event().wait()
"""
BARE: Final = """
import asyncio

async def main():
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
CLIENTS: Final = {"haptera.connect": ASYNC, "haptera.sync.connect": THREADS, "a bare event loop": BARE}


@contextmanager
def client(program: str, url: str) -> Iterator[int]:
    """The number of a process that has made its call."""
    command = [sys.executable, "-I", "-c", program, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"the client ended with {process.wait()}")
            yield process.pid
        finally:
            process.kill()


def switches(pid: int) -> int:
    """How often the threads of a process have gone to sleep, all together."""
    return sum(
        int(line.split()[1])
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def resident_kib(pid: int) -> int:
    """The memory of a process, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (found,) = (int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return found


def measure(directory: Path, seconds: float, settle_s: float) -> list[dict[str, Any]]:
    """The memory of each client, and its wake-ups in that time."""
    results = []
    with processes.scratch(directory) as path, processes.node(path / "data") as node:
        for name, program in CLIENTS.items():
            with client(program, node.url) as pid:
                time.sleep(settle_s)
                before = switches(pid)
                time.sleep(seconds)
                wakings = switches(pid) - before
                results.append(
                    {"client": name, "resident_mib": resident_kib(pid) / 1024, "wakings": wakings, "seconds": seconds}
                )
    return results


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("What a client costs that has a connection and does nothing.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each is watched [60]")
    parser.add_argument("--settle", type=float, default=SETTLE_S, help=f"seconds before that [{SETTLE_S:.0f}]")
    options = parser.parse_args(argv)
    if not Path("/proc/self/task").exists():
        print("this system does not tell how often a process wakes up", file=sys.stderr)
        return 1
    found = report.environment(options.dir)
    results = measure(options.dir, options.seconds, options.settle)
    if options.json:
        report.emit({"environment": found, "results": results})
        return 0
    report.show_environment(found)
    rows = [[each["client"], f"{each['resident_mib']:.1f}", str(each["wakings"])] for each in results]
    head = ["client", "resident MiB", f"wake-ups in {options.seconds:.0f} s"]
    report.show("An idle client", head, rows, ["behind one call, whose timers have passed"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
