"""`haptera.sync` against a node, beside the synchronous clients of Redis and etcd: one thread, 16 threads, pipelines.

All servers sync every change before they answer it, as in `bench.redis_compare`, and Haptera encrypts what it writes.
One process drives them over TCP on the loopback address. The threads of a round make one call after the other, all on
one client: Haptera's and etcd's (etcd-sdk-python) have one connection, and redis-py's its pool, which opens one for
each thread. The rounds alternate; the figures are the medians. A pipeline has 50 calls; etcd's client has none. Where
etcd or its client is not installed the others are measured.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from importlib.metadata import version
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import redis

import haptera.sync
from bench import processes, report
from bench.redis_compare import KEYS, VALUE, WARM_UP_SHARE, key, versions

if TYPE_CHECKING:
    from pathlib import Path

THREADS: Final = 16
PIPELINED: Final = 50

Call = Callable[[int], object]


class Contender(NamedTuple):
    """One client: what it does for a call of each kind."""

    name: str
    calls: dict[str, Call]


class Workload(NamedTuple):
    """``calls`` of a kind in a round, made by ``threads`` threads. A pipeline counts for all of its calls."""

    name: str
    kind: str
    threads: int
    calls: int
    each: int = 1


class Round(NamedTuple):
    """The measures of one round: calls in a second, and the processor time that this process took for one."""

    rate: float
    cpu_us: float


def haptera_contender(db: haptera.sync.Database) -> Contender:
    def get(number: int) -> None:
        entry = db.get(key(number))
        assert entry is not None
        assert entry.value == VALUE

    def pipeline(number: int) -> None:
        with db.pipeline() as p:
            found = [p.get(key(number * PIPELINED + place)) for place in range(PIPELINED)]
        assert all((entry := each.result()) is not None and entry.value == VALUE for each in found)

    return Contender(
        "haptera.sync", {"get": get, "set": lambda number: db.set(key(number), VALUE), "pipeline": pipeline}
    )


def redis_contender(client: redis.Redis) -> Contender:
    def get(number: int) -> None:
        assert client.get(key(number)) == VALUE

    def set_(number: int) -> None:
        assert client.set(key(number), VALUE)

    def pipeline(number: int) -> None:
        with client.pipeline(transaction=False) as p:
            for place in range(PIPELINED):
                p.get(key(number * PIPELINED + place))
            assert all(value == VALUE for value in p.execute())

    return Contender("redis-py", {"get": get, "set": set_, "pipeline": pipeline})


def etcd_contender(client: Any) -> Contender:
    def get(number: int) -> None:
        value, _ = client.get(key(number))
        assert value == VALUE

    return Contender("etcd-sdk-python", {"get": get, "set": lambda number: client.put(key(number), VALUE)})


def run_round(call: Call, calls: int, threads: int) -> Round:
    """Make the calls in that many threads. Raises the first error of a call."""
    numbers, errors = count(), list[Exception]()
    together = threading.Barrier(threads + 1)

    def work() -> None:
        together.wait()
        try:
            while (number := next(numbers)) < calls:
                call(number)
        except Exception as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    gc.collect()
    together.wait()
    started, cpu = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.join()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    if errors:
        raise errors[0]
    return Round(calls / seconds, cpu_seconds / calls * 1e6)


def measure(contenders: list[Contender], workloads: list[Workload], rounds: int) -> list[dict[str, Any]]:
    """The medians of each workload for each contender."""
    results = []
    for contender in contenders:
        run_round(contender.calls["set"], KEYS, THREADS)  # every key is there, every connection open
    for workload in workloads:
        taking_part = [contender for contender in contenders if workload.kind in contender.calls]
        measured: dict[str, list[Round]] = {contender.name: [] for contender in taking_part}
        for number in range(rounds + 1):
            for contender in taking_part:
                calls = workload.calls if number else max(1, workload.calls // WARM_UP_SHARE)
                measured[contender.name].append(run_round(contender.calls[workload.kind], calls, workload.threads))
        medians = {
            name: {
                "calls_per_second": statistics.median(each.rate for each in found[1:]) * workload.each,
                "cpu_us": statistics.median(each.cpu_us for each in found[1:]) / workload.each,
            }
            for name, found in measured.items()
        }
        ours = medians[contenders[0].name]["calls_per_second"]
        ratios = {rival.name: ours / medians[rival.name]["calls_per_second"] for rival in taking_part[1:]}
        results.append({"workload": workload.name, "medians": medians, "ratios": ratios})
    return results


def compare(directory: Path, *, rounds: int, scale: float) -> dict[str, Any]:
    """Run the whole comparison; `scale` multiplies the number of calls.

    Raises FileNotFoundError where there is no redis-server.
    """
    if processes.redis_version() is None:
        raise FileNotFoundError("redis-server is not on PATH (Debian, Ubuntu: apt-get install redis-server)")

    def calls(usual: int) -> int:
        return max(1, int(usual * scale))

    workloads = [
        Workload("get, one thread", "get", 1, calls(4_000)),
        Workload("set, one thread", "set", 1, calls(2_000)),
        Workload(f"get, {THREADS} threads", "get", THREADS, calls(16_000)),
        Workload(f"set, {THREADS} threads", "set", THREADS, calls(8_000)),
        Workload(f"get, pipelines of {PIPELINED}", "pipeline", 1, calls(400), PIPELINED),
    ]
    with ExitStack() as stack:
        path = stack.enter_context(processes.scratch(directory))
        node = stack.enter_context(processes.node(path / "haptera"))
        port = stack.enter_context(processes.redis_server(path / "redis"))
        db = stack.enter_context(haptera.sync.connect(node.url))
        client = stack.enter_context(redis.Redis(port=port))
        contenders = [haptera_contender(db), redis_contender(client)]
        found: dict[str, str | None] = {}
        if processes.etcd_version() is not None and importlib.util.find_spec("pyetcd") is not None:
            etcd = stack.enter_context(processes.etcd_server(path / "etcd"))
            contenders.append(etcd_contender(stack.enter_context(closing(etcd_client(etcd.port)))))
            found = {"etcd": processes.etcd_version(), "etcd-sdk-python": version("etcd-sdk-python")}
        results = measure(contenders, workloads, rounds)
    return {
        "environment": report.environment(directory),
        "versions": {**versions(), **found},
        "rounds": rounds,
        "results": results,
    }


def etcd_client(port: int) -> Any:
    """A client of etcd, which is installed by hand: its requirements would bind those of the development tools."""
    return importlib.import_module("pyetcd").client(host="127.0.0.1", port=port, timeout=60)


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    report.show_environment(result["environment"])
    rows = [
        [
            one["workload"],
            name,
            f"{figures['calls_per_second']:,.0f}",
            f"{figures['cpu_us']:.0f}",
            f"{one['ratios'][name]:.2f}" if name in one["ratios"] else "",
        ]
        for one in result["results"]
        for name, figures in one["medians"].items()
    ]
    report.show(
        "Synchronous clients",
        ["workload", "client", "calls/s", "CPU µs of a call", "haptera is × as fast"],
        rows,
        [f"medians of {result['rounds']} alternating rounds; 256-byte values, {KEYS} keys; {result['versions']}"],
    )


def main(argv: list[str] | None = None) -> int:
    """Run the comparison and print it; return the exit status."""
    parser = report.arguments(
        "haptera.sync beside the synchronous clients of Redis and etcd, durable, in the same run."
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each workload [7]")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of calls [1]")
    options = parser.parse_args(argv)
    try:
        result = compare(options.dir, rounds=options.rounds, scale=options.scale)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        report.emit(result)
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
