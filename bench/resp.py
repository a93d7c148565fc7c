"""A node that speaks the protocol of Redis, beside Redis: redis-benchmark drives both, in turns.

SET and GET of 64 bytes on 1,000 keys, from 50 connections, with 1 and with 16 commands in flight on each. Both servers
sync every change before they answer it (Haptera's default; Redis with `appendonly yes, appendfsync always`). Haptera
encrypts what it writes, Redis does not. The rounds alternate, so that whatever else the machine does meets both; the
figures are the medians, with the processor time of the server for one command, which other work disturbs less.
"""

from __future__ import annotations

import csv
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bench import processes, report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONNECTIONS: Final = 50
KEYS: Final = 1000
VALUE_SIZE: Final = 64
#: The commands that are in flight on one connection, and the ratio to Redis that is aimed at.
PIPELINES: Final = {1: 0.8, 16: 0.6}
OPERATIONS: Final = ("set", "get")


class Server(NamedTuple):
    """One of the two servers: its port, and the seconds of the processor that it has taken so far."""

    name: str
    port: int
    cpu_seconds: Callable[[], float]


class Round(NamedTuple):
    """The figures of one round."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def run_round(server: Server, operation: str, pipeline: int, commands: int) -> Round:
    """Have redis-benchmark make so many commands. Raises CalledProcessError if it fails."""
    before = server.cpu_seconds()
    program = ["redis-benchmark", "-p", str(server.port), "-c", str(CONNECTIONS), "-n", str(commands)]
    options = ["-P", str(pipeline), "-d", str(VALUE_SIZE), "-r", str(KEYS), "-t", operation, "--csv"]
    said = subprocess.run([*program, *options], capture_output=True, text=True, check=True).stdout
    [row] = [row for row in csv.DictReader(said.splitlines()) if row["test"].lower() == operation]
    cpu_us = (server.cpu_seconds() - before) / commands * 1e6
    return Round(float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"]), cpu_us)


def redis_cpu_seconds(port: int) -> float:
    """The seconds of the processor that a Redis has taken, as it says itself."""
    said = subprocess.run(["redis-cli", "-p", str(port), "info", "cpu"], capture_output=True, text=True, check=True)
    fields = dict(line.split(":", 1) for line in said.stdout.split() if ":" in line)
    return float(fields["used_cpu_sys"]) + float(fields["used_cpu_user"])


def measure(servers: list[Server], rounds: int, commands: int) -> list[dict[str, Any]]:
    """The medians of each load for both servers, after one round that does not count."""
    results = []
    for pipeline in PIPELINES:
        for operation in OPERATIONS:
            measured: dict[str, list[Round]] = {server.name: [] for server in servers}
            for number in range(rounds + 1):
                for server in servers:
                    share = commands * (4 if pipeline > 1 else 1) // (1 if number else 4)
                    measured[server.name].append(run_round(server, operation, pipeline, share))
            medians = {
                name: Round(*(statistics.median(column) for column in zip(*rows[1:], strict=True)))._asdict()
                for name, rows in measured.items()
            }
            results.append(
                {
                    "operation": operation,
                    "pipeline": pipeline,
                    "medians": medians,
                    "ratio": medians["haptera"]["per_second"] / medians["redis"]["per_second"],
                    "aim": PIPELINES[pipeline],
                }
            )
    return results


def run_memtier(program: str, server: Server, protocol: str, requests: int) -> dict[str, float]:
    """Have memtier_benchmark mix SET and GET as 1 to 10; its figures. Raises CalledProcessError if it fails."""
    before = server.cpu_seconds()
    clients = ["-p", str(server.port), "-t", "2", "-c", str(CONNECTIONS // 2), "-n", str(requests // CONNECTIONS)]
    load = ["--ratio=1:10", "-d", str(VALUE_SIZE), f"--key-maximum={KEYS}", f"--protocol={protocol}"]
    with tempfile.NamedTemporaryFile() as told:
        quiet = ["--hide-histogram", f"--json-out-file={told.name}"]
        subprocess.run([program, *clients, *load, *quiet], capture_output=True, check=True)
        totals = json.load(told)["ALL STATS"]["Totals"]
    percentiles = totals["Percentile Latencies"]
    return {
        "per_second": totals["Ops/sec"],
        "p50_ms": percentiles["p50.00"],
        "p99_ms": percentiles["p99.00"],
        "cpu_us": (server.cpu_seconds() - before) / totals["Count"] * 1e6,
    }


def measure_memtier(program: str, servers: list[Server], rounds: int, requests: int) -> list[dict[str, Any]]:
    """The medians of the mix for both servers, in each version of the protocol that the Redis speaks."""
    results = []
    for protocol in ("resp2", "resp3"):
        measured: dict[str, list[dict[str, float]]] = {server.name: [] for server in servers}
        for _ in range(rounds):
            for server in servers:
                measured[server.name].append(run_memtier(program, server, protocol, requests))
        medians = {
            name: {field: statistics.median(row[field] for row in rows) for field in rows[0]}
            for name, rows in measured.items()
        }
        ratio = medians["haptera"]["per_second"] / medians["redis"]["per_second"]
        results.append({"operation": f"memtier 1:10 in {protocol}", "pipeline": 1, "medians": medians, "ratio": ratio})
    return results


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    report.show_environment(result["environment"])
    rows = []
    for load in result["loads"]:
        for name, figures in load["medians"].items():
            ratio = f"{load['ratio']:.2f}" if name == "haptera" else ""
            if ratio and "aim" in load:
                ratio += f" (aim {load['aim']})"
            rows.append(
                [
                    f"{load['operation'].upper()}, pipeline {load['pipeline']}",
                    name,
                    f"{figures['per_second']:,.0f}",
                    f"{figures['p50_ms']:.2f}",
                    f"{figures['p99_ms']:.2f}",
                    f"{figures['cpu_us']:.1f}",
                    ratio,
                ]
            )
    head = ["load", "server", "commands/s", "p50 ms", "p99 ms", "CPU us/command", "haptera is × as fast"]
    report.show("Clients of Redis against a node and against Redis", head, rows)


def run(directory: Path, rounds: int, commands: int, memtier: str | None = None) -> dict[str, Any]:
    """Start both servers, and measure: with redis-benchmark, or with the program ``memtier``."""
    environment = report.environment(directory)
    with (
        processes.scratch(directory) as scratch,
        processes.node(scratch / "node", listen="resp://127.0.0.1:0") as node,
        processes.redis_server(scratch / "redis") as port,
    ):
        pid, own_port = node.pid, int(node.url.rpartition(":")[2])
        servers = [
            Server("haptera", own_port, lambda: processes.cpu_seconds(pid)),
            Server("redis", port, lambda: redis_cpu_seconds(port)),
        ]
        if memtier is not None:
            return {"environment": environment, "loads": measure_memtier(memtier, servers, rounds, commands)}
        return {"environment": environment, "loads": measure(servers, rounds, commands)}


def main(argv: list[str] | None = None) -> int:
    """Run the measurement; return the exit status."""
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each load [5]")
    parser.add_argument("--commands", type=int, default=50_000, help="commands of a round without a pipeline [50000]")
    parser.add_argument(
        "--memtier",
        metavar="PROGRAM",
        help="measure the mix of this memtier_benchmark (github.com/RedisLabs/memtier_benchmark) instead",
    )
    options = parser.parse_args(argv)
    if shutil.which("redis-benchmark") is None or processes.redis_version() is None:
        sys.stderr.write("redis-benchmark or redis-server is not there: apt-get install redis-server redis-tools\n")
        return 2
    result = run(options.dir, options.rounds, options.commands, options.memtier)
    (report.emit if options.json else show)(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
