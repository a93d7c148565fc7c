"""The cost of the library's imports, and of `haptera get` before it does anything: its imports, and the whole command.

A program that imports the library and uses its first name is timed inside its process, around that alone: the start of
the interpreter is not in it. Its modules are counted less the ones that the interpreter has loaded before.

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
#: The first lines of programs. The first of them is the floor, which each of the others needs.
IMPORTS: Final = (
    "import asyncio",
    "import haptera",
    "import haptera; haptera.dial",
    "import haptera; haptera.connect",
    "import haptera.sync; haptera.sync.connect",
)
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


def library_ms(statements: str) -> tuple[float, int]:
    """The milliseconds that some imports take in a fresh interpreter, and how many modules they load."""
    timed = "import sys, time; loaded = len(sys.modules); before = time.perf_counter()"
    told = "print((time.perf_counter() - before) * 1000, len(sys.modules) - loaded)"
    command = [sys.executable, "-I", "-c", f"{timed}; {statements}; {told}"]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    milliseconds, modules = process.stdout.split()
    return float(milliseconds), int(modules)


def measure_imports(rounds: int) -> list[dict[str, Any]]:
    """The median and the least time of each, in turns, so that other work of the machine falls on all of them."""
    found: dict[str, list[tuple[float, int]]] = {statements: [] for statements in IMPORTS}
    for _ in range(rounds):
        for statements, results in found.items():
            results.append(library_ms(statements))
    return [
        {
            "statements": statements,
            "median_ms": statistics.median(ms for ms, _ in results),
            "least_ms": min(ms for ms, _ in results),
            "modules": results[0][1],
        }
        for statements, results in found.items()
    ]


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
    parser = report.arguments("What imports of the library cost, and `haptera get` before it does anything.")
    parser.add_argument("--rounds", type=int, default=15, help="times that each is run [15]")
    options = parser.parse_args(argv)
    found = report.environment(options.dir)
    imports = measure_imports(options.rounds)
    result = measure(options.dir, options.rounds)
    if options.json:
        report.emit({"environment": found, "imports": imports, "result": result})
        return 0
    report.show_environment(found)
    report.show(
        "Imports of the library",
        ["program", "median ms", "least ms", "modules"],
        [
            [f"`{each['statements']}`", f"{each['median_ms']:.0f}", f"{each['least_ms']:.0f}", str(each["modules"])]
            for each in imports
        ],
        [f"beyond the start of the interpreter; {options.rounds} times each, in turns"],
    )
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
