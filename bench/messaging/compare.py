"""The whole comparison: alternating rounds, medians, ratios, tables, and the figures for the plot.

Each library's server is a process of its own, and one process calls them all over TCP on the loopback address with the
same loop. The rounds alternate, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench import report
from bench.messaging import ping, rounds
from bench.messaging.over_haptera import HapteraBatch
from bench.messaging.servers import CONTENDERS, Running, loop_factory, running

if TYPE_CHECKING:
    from bench.messaging.contender import Contender

PAYLOADS: Final = (64, 256)
IN_FLIGHT: Final = {1: 3_000, 50: 15_000, 1000: 20_000}
"""Calls under way at once, and the calls of a round."""

STREAM_SIZE: Final = 128 * 1024 * 1024
WIRE_CALLS: Final = 2_000
CONNECTIONS: Final = 1_000
OURS: Final = CONTENDERS[0].name


async def _compare(servers: list[Running], count: int, scale: float) -> dict[str, Any]:
    """The medians of ``count`` rounds, by workload and contender."""
    clients = {server.contender.name: await server.contender.connect(server.port) for server in servers}
    measured: dict[str, dict[str, list[dict[str, float]]]] = {}
    try:
        for number in range(count + 1):
            names = list(clients) if number % 2 else list(reversed(clients))
            for payload in PAYLOADS:
                for in_flight, calls in IN_FLIGHT.items():
                    for name in names:
                        made = max(2 * in_flight, int(calls * scale))
                        found = await rounds.calls_per_second(clients[name], bytes(payload), in_flight, made)
                        if number:  # the first round warms up
                            workload = f"echo {payload} B, {in_flight} in flight"
                            measured.setdefault(workload, {}).setdefault(name, []).append(found)
            for name in names:
                found = await rounds.stream_rate(clients[name], int(STREAM_SIZE * scale))
                if number:
                    measured.setdefault("stream of 64 KiB items", {}).setdefault(name, []).append(found)
    finally:
        for client in clients.values():
            await client.aclose()
    return {
        workload: {
            name: {figure: statistics.median(one[figure] for one in found) for figure in found[0]}
            for name, found in by_name.items()
        }
        for workload, by_name in measured.items()
    }


async def _wire(servers: list[Running]) -> dict[str, Any]:
    return {
        server.contender.name: {
            str(in_flight): await rounds.bytes_per_call(server, bytes(64), in_flight, WIRE_CALLS)
            for in_flight in (1, 50)
        }
        for server in servers
    }


def _idle(contenders: list[Contender], loop: str, connections: int, seconds: float) -> dict[str, Any]:
    """Each in a new pair of processes: this one's memory remembers what was measured before."""
    found: dict[str, Any] = {}
    for contender in contenders:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            with running(contender, loop) as server, asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
                result = runner.run(rounds.idle_connections(server, connections, seconds))
                os.write(writing, json.dumps(result).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            data = pipe.read()
        os.waitpid(child, 0)
        if not data:
            raise RuntimeError(f"the idle connections of {contender.name} could not be measured")
        found[contender.name] = json.loads(data)
    return found


def measure(directory: Path, *, count: int, scale: float, loop: str, idle_seconds: float) -> dict[str, Any]:
    """Runs everything that can be run here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    environment = report.environment(directory)
    load_before = os.getloadavg()[0]
    present = [contender for contender in CONTENDERS if contender.missing() is None]
    connections = int(CONNECTIONS * min(scale, 1.0))
    single = [contender for contender in present if contender.name != HapteraBatch.name]
    idle = _idle(single, loop, connections, idle_seconds)
    with contextlib.ExitStack() as stack, asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        servers = [stack.enter_context(running(contender, loop)) for contender in present]
        results = runner.run(_compare(servers, count, scale))
        wire = runner.run(_wire([server for server in servers if server.contender in single]))
        pinged = ping.measure(directory, runner, 20 * scale)
    return {
        "environment": environment,
        "ended_at_s": round(time.time()),
        "load_average": [round(load_before, 2), round(os.getloadavg()[0], 2)],
        "loop": loop,
        "rounds": count,
        "versions": {contender.name: contender.version() for contender in present},
        "skipped": {each.name: each.missing() for each in CONTENDERS if each.missing() is not None},
        "results": results,
        "wire_bytes_per_call": wire,
        "idle": {"connections": connections, "seconds": idle_seconds, "of": idle},
        "ping": pinged,
    }


def show(result: dict[str, Any]) -> None:
    """Prints the tables."""
    report.show_environment(result["environment"])
    before, after = result["load_average"]
    notes = [
        f"medians of {result['rounds']} alternating rounds; one connection each; loop: {result['loop']}",
        f"load average {before} before, {after} after",
        "; ".join(f"{name}: {version}" for name, version in result["versions"].items() if "," not in name),
        *(f"{name} was left out: {reason}" for name, reason in result["skipped"].items()),
    ]
    rows = []
    for workload, by_name in result["results"].items():
        if "calls_per_second" not in by_name[OURS]:
            continue
        for name, found in by_name.items():
            ratio = by_name[OURS]["calls_per_second"] / found["calls_per_second"]
            times = [f"{found['p50_ms']:.2f}", f"{found['p99_ms']:.2f}"]
            rows.append([workload, name, f"{found['calls_per_second']:,.0f}", *times, f"{ratio:.2f}"])
    report.show("Calls", ["workload", "library", "calls/s", "p50 ms", "p99 ms", "haptera is × as fast"], rows, notes)
    streams = result["results"]["stream of 64 KiB items"]
    rows = [[name, f"{found['mb_per_second']:,.0f}"] for name, found in streams.items()]
    report.show("Streams", ["library", "MB/s, 64 KiB items"], rows)
    rows = [
        [name, *(f"{one[direction]:.1f}" for one in found.values() for direction in ("up", "down"))]
        for name, found in result["wire_bytes_per_call"].items()
    ]
    head = ["library", "serial, there", "back", "50 in flight, there", "back"]
    report.show("Bytes on the wire per call, beyond its 64 + 64", head, rows)
    idle = result["idle"]
    rows = [
        [
            name,
            f"{found['server_kib_per_connection']:.1f}",
            f"{found['client_kib_per_connection']:.1f}",
            f"{found['server_processor_percent']:.2f}",
            f"{found['client_processor_percent']:.2f}",
        ]
        for name, found in idle["of"].items()
    ]
    head = ["library", "server KiB each", "client KiB each", "server CPU %", "client CPU %"]
    report.show(f"{idle['connections']} idle connections, over {idle['seconds']:g} s", head, rows)
    found = result["ping"]
    rows = [
        ["alone", f"{found['alone_p50_ms']:.2f}", f"{found['alone_p99_ms']:.2f}", "", ""],
        [
            "beside eight tasks with 8 MiB values",
            *(f"{found[name]:.2f}" for name in ("p50_ms", "p99_ms", "max_ms")),
            f"{found['bulk_mb_per_second']:,.0f}",
        ],
    ]
    report.show("A small call on a busy connection", ["", "p50 ms", "p99 ms", "max ms", "beside it, MB/s"], rows)


def main(argv: list[str] | None = None) -> int:
    """Runs the comparison and prints it; returns the exit status."""
    parser = report.arguments("Haptera's messaging beside gRPC, ZeroMQ and NATS, in the same run.")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each workload [7]")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies calls, bytes, connections, seconds [1]")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop", help="of clients and servers")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the calls and streams into FILE (.svg, .png)")
    parser.add_argument("--idle-seconds", type=float, default=10.0, help="how long idle connections are watched [10]")
    options = parser.parse_args(argv)
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    result = measure(
        options.dir,
        count=options.rounds,
        scale=options.scale,
        loop=options.loop,
        idle_seconds=options.idle_seconds,
    )
    if options.json:
        report.emit(result)
    else:
        show(result)
    if options.plot is not None:
        from bench.messaging.plot import draw  # noqa: PLC0415 - it imports a large library

        draw(result, options.plot)
    return 0
