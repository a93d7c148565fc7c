"""What `haptera get` costs before it does anything: the time its imports take, and the whole command's.

The imports are counted by the interpreter (`-X importtime`, whose own cost is in them) while the command gets a key
from a node on this machine, less what a bare interpreter imports. The whole command is timed without that, from the
start of the process to its end, beside a bare interpreter.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from bench import processes, report

if TYPE_CHECKING:
    from pathlib import Path

GET: Final = ("-m", "haptera", "get", "bench/key")
NOTHING: Final = ("-c", "pass")
SHOWN: Final = 8


def import_times(arguments: tuple[str, ...], environment: dict[str, str]) -> dict[str, float]:
    """The milliseconds that each module's own import took, without those that it imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    times: dict[str, float] = {}
    for line in process.stderr.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        if own.strip().isdigit():
            times[rest.partition("|")[2].strip()] = int(own) / 1000
    return times


def wall_ms(arguments: tuple[str, ...], environment: dict[str, str]) -> float:
    """The milliseconds from the start of the process to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - started) * 1000


def measure(directory: Path, rounds: int) -> dict[str, Any]:
    """The medians, and the modules that cost most."""
    with processes.scratch(directory) as path, processes.node(path / "data") as node:
        environment = {**os.environ, "HAPTERA_URL": node.url}
        set_key = (*GET[:2], "set", GET[3], "value")
        subprocess.run([sys.executable, *set_key], env=environment, stdout=subprocess.DEVNULL, check=True)
        bare = import_times(NOTHING, environment)
        runs = [import_times(GET, environment) for _ in range(rounds)]
        times = {name: statistics.median(run.get(name, 0.0) for run in runs) for name in runs[0] if name not in bare}
        return {
            "imports_ms": statistics.median(sum(run.values()) - sum(bare.values()) for run in runs),
            "modules": len(times),
            "slowest_ms": dict(sorted(times.items(), key=lambda item: -item[1])[:SHOWN]),
            "get_ms": statistics.median(wall_ms(GET, environment) for _ in range(rounds)),
            "interpreter_ms": statistics.median(wall_ms(NOTHING, environment) for _ in range(rounds)),
        }


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("What `haptera get` costs before it does anything.")
    parser.add_argument("--rounds", type=int, default=15, help="times that each is run [15]")
    options = parser.parse_args(argv)
    found = report.environment(options.dir)
    result = measure(options.dir, options.rounds)
    if options.json:
        report.emit({"environment": found, "result": result})
        return 0
    report.show_environment(found)
    rows = [
        ["imports of `haptera get`", f"{result['imports_ms']:.0f}"],
        ["`haptera get`, from start to end", f"{result['get_ms']:.0f}"],
        ["a bare interpreter, from start to end", f"{result['interpreter_ms']:.0f}"],
    ]
    slowest = ", ".join(f"{name} {ms:.1f}" for name, ms in result["slowest_ms"].items())
    notes = [f"medians of {options.rounds}; {result['modules']} modules; slowest, in ms: {slowest}"]
    report.show("Start of the command line", ["what", "ms"], rows, notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
