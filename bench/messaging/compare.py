"""The whole comparison: alternating rounds, medians, ratios, tables, and the figures for the plot.

Each library has a server process and a client process, connected over TCP on the loopback address; one pair works at a
time, with the same code around the library. The rounds alternate, so that whatever else the machine does meets all.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench import codec, report
from bench.messaging import ping
from bench.messaging.clients import Remote, remote
from bench.messaging.over_haptera import HapteraBatch
from bench.messaging.servers import CONTENDERS, loop_factory, running

PAYLOADS: Final = (64, 256)
#: Calls under way at once, and the calls of a round.
IN_FLIGHT: Final = {1: 3_000, 50: 15_000, 1000: 20_000}

STREAM_SIZE: Final = 128 * 1024 * 1024
STREAM: Final = "stream of 64 KiB items"
WIRE_SIZE: Final = 64
WIRE_CALLS: Final = 2_000
PING_SECONDS: Final = 20.0
FRAME_SECONDS: Final = 0.2
CONNECTIONS: Final = 1_000
OURS: Final = CONTENDERS[0].name


def _compare(clients: list[Remote], count: int, scale: float) -> dict[str, Any]:
    """The medians of ``count`` rounds, by workload and contender."""
    measured: dict[str, dict[str, list[dict[str, float]]]] = {}
    for number in range(count + 1):  # the first round warms up
        for size, (in_flight, calls) in itertools.product(PAYLOADS, IN_FLIGHT.items()):
            for client in clients if number % 2 else reversed(clients):
                made = max(2 * in_flight, int(calls * scale))
                found = client.do("calls", size=size, in_flight=in_flight, calls=made)
                measured.setdefault(f"echo {size} B, {in_flight} in flight", {}).setdefault(client.name, []).append(
                    found
                )
        for client in clients if number % 2 else reversed(clients):
            found = client.do("stream", size=int(STREAM_SIZE * scale))
            measured.setdefault(STREAM, {}).setdefault(client.name, []).append(found)
    return {
        workload: {
            client.name: {
                figure: statistics.median(one[figure] for one in by_name[client.name][1:])
                for figure in by_name[client.name][0]
            }
            for client in clients
        }
        for workload, by_name in measured.items()
    }


def measure(
    directory: Path, *, only: Sequence[str], count: int, scale: float, loop: str | None, idle_seconds: float
) -> dict[str, Any]:
    """Run everything that can be run here; ``loop`` None is each library's own. ``only`` names libraries, or none."""
    environment = report.environment(directory)
    load_before = os.getloadavg()[0]
    connections = int(CONNECTIONS * min(scale, 1.0))
    chosen = [each for each in CONTENDERS if not only or each.name in {OURS, *only}]
    present = [contender for contender in chosen if contender.missing() is None]
    wire_calls = max(100, int(WIRE_CALLS * scale))
    with contextlib.ExitStack() as stack:
        clients = []
        for contender in present:
            server = stack.enter_context(running(contender, loop or contender.loop))
            clients.append(stack.enter_context(remote(server, loop or contender.loop)))
        results = _compare(clients, count, scale)
        single = [client for client in clients if client.name != HapteraBatch.name]
        wire = {
            client.name: {
                str(in_flight): client.do("wire", size=WIRE_SIZE, in_flight=in_flight, calls=wire_calls)
                for in_flight in (1, 50)
            }
            for client in single
        }
    idle = {}
    for contender in present:
        if contender.name != HapteraBatch.name:  # its connections are the same
            with running(contender, loop or contender.loop) as server, remote(server, loop or contender.loop) as client:
                idle[contender.name] = client.do("idle", connections=connections, seconds=idle_seconds)
    with asyncio.Runner(loop_factory=loop_factory(loop or CONTENDERS[0].loop)) as runner:
        pinged = ping.measure(directory, runner, PING_SECONDS * scale)
    return {
        "environment": environment,
        "ended_at_s": round(time.time()),
        "load_average": [round(load_before, 2), round(os.getloadavg()[0], 2)],
        "rounds": count,
        "libraries": {each.name: f"{each.version()} on {loop or each.loop}" for each in present},
        "skipped": {each.name: each.missing() for each in chosen if each.missing() is not None},
        "results": results,
        "wire_bytes_per_call": wire,
        "idle": {"connections": connections, "seconds": idle_seconds, "of": idle},
        "ping": pinged,
        "frames": [codec.measure(size, count, FRAME_SECONDS * scale) for size in codec.VALUE_SIZES],
    }


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    report.show_environment(result["environment"])
    before, after = result["load_average"]
    notes = [
        f"medians of {result['rounds']} alternating rounds; one connection each",
        f"load average {before} before, {after} after",
        "; ".join(f"{name}: {version}" for name, version in result["libraries"].items()),
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
    streams = result["results"][STREAM]
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
    codec.show(result["frames"], result["rounds"])


def main(argv: list[str] | None = None) -> int:
    """Run the comparison and print it; return the exit status."""
    parser = report.arguments("Haptera's messaging beside gRPC, ZeroMQ and NATS, in the same run.")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this library beside ours; repeat")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each workload [7]")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies calls, bytes, connections, seconds [1]")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), help="of all [for each the faster one]")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw what was found into FILE (.svg, .png)")
    parser.add_argument("--idle-seconds", type=float, default=10.0, help="how long idle connections are watched [10]")
    options = parser.parse_args(argv)
    result = measure(
        options.dir,
        only=options.only,
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
