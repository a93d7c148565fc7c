"""Durable transactions beside Redis and etcd: two compares and two sets, one after the other and 50 in flight.

All servers sync every change before they answer it (`bench.storage`). Haptera and etcd are asked in one request whether
both keys exist, and to set them. Redis compares by WATCH: a transaction watches both keys, reads them, and sends MULTI,
both sets and EXEC. `Database.transaction` does what a program does with Redis: it reads both keys, and then compares
their versions. redis-py and aetcd are measured where they and their servers are installed.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any, Final

import haptera
from bench import processes, report
from bench.storage import KEYS, REDIS_CONNECTIONS, VALUE, Contender, median, run_round, versions

if TYPE_CHECKING:
    from pathlib import Path

    from bench.storage import Figures, Set

#: Transactions in flight together, on one connection.
IN_FLIGHT: Final = (1, 50)


def _pair(key: str) -> tuple[str, str]:
    return f"{key}/left", f"{key}/right"


def _all_keys() -> list[str]:
    return [each for number in range(KEYS) for each in _pair(f"bench/{number:06}")]


def transact_contender(url: str) -> Contender:
    async def connect(stack: AsyncExitStack, connections: int) -> list[Set]:
        db = await stack.enter_async_context(haptera.connect(url))
        await db.set_many(dict.fromkeys(_all_keys(), VALUE))

        async def transact(key: str) -> None:
            left, right = _pair(key)
            result = await db.transact(
                compare=[(left, "version", ">", 0), (right, "version", ">", 0)],
                then=[("set", [left, VALUE]), ("set", [right, VALUE])],
            )
            assert result.succeeded

        return [transact] * connections

    return Contender("haptera, transact", connect)


def transaction_contender(url: str) -> Contender:
    async def connect(stack: AsyncExitStack, connections: int) -> list[Set]:
        db = await stack.enter_async_context(haptera.connect(url))
        await db.set_many(dict.fromkeys(_all_keys(), VALUE))

        async def transaction(key: str) -> None:
            async with db.transaction() as tx:
                left, right = await tx.get_many(_pair(key))
                assert left is not None
                assert right is not None
                tx.set(left.key, VALUE)
                tx.set(right.key, VALUE)

        return [transaction] * connections

    return Contender("haptera, transaction", connect)


def redis_contender(port: int) -> Contender:
    redis = importlib.import_module("redis.asyncio")

    async def connect(stack: AsyncExitStack, connections: int) -> list[Set]:
        pool = redis.BlockingConnectionPool(port=port, max_connections=REDIS_CONNECTIONS, timeout=None)
        client = redis.Redis.from_pool(pool)
        stack.push_async_callback(client.aclose)
        await client.mset(dict.fromkeys(_all_keys(), VALUE))

        async def transaction(key: str) -> None:
            left, right = _pair(key)
            async with client.pipeline(transaction=True) as pipeline:
                await pipeline.watch(left, right)
                values = await pipeline.mget(left, right)
                assert None not in values
                pipeline.multi()
                pipeline.set(left, VALUE)
                pipeline.set(right, VALUE)
                await pipeline.execute()

        return [transaction] * connections

    return Contender("redis-py, WATCH and MULTI", connect)


def etcd_contender(port: int) -> Contender:
    aetcd = importlib.import_module("aetcd")

    async def connect(stack: AsyncExitStack, connections: int) -> list[Set]:
        client = await stack.enter_async_context(aetcd.Client("127.0.0.1", port))
        for key in _all_keys():
            await client.put(key.encode(), VALUE)

        async def transaction(key: str) -> None:
            left, right = (each.encode() for each in _pair(key))
            parts = client.transactions
            succeeded, _ = await client.transaction(
                compare=[parts.version(left) > 0, parts.version(right) > 0],
                success=[parts.put(left, VALUE), parts.put(right, VALUE)],
                failure=[],
            )
            assert succeeded

        return [transaction] * connections

    return Contender("etcd, aetcd", connect)


async def transactions(contenders: list[Contender], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """The closed loop with each load; the rounds of the contenders alternate."""
    rows: list[dict[str, Any]] = []
    for in_flight in IN_FLIGHT:
        measured: dict[str, list[Figures]] = {each.name: [] for each in contenders}
        for _ in range(rounds):
            for each in contenders:
                measured[each.name].append(await run_round(each, (in_flight, 1), seconds, None))
        for name, found in measured.items():
            figures = median(found)
            rows.append(
                {
                    "load": "serial" if in_flight == 1 else f"{in_flight} in flight",
                    "client": name,
                    "transactions_per_second": figures.rate,
                    "p50_ms": figures.p50,
                    "p99_ms": figures.p99,
                }
            )
    return rows


def measure(directory: Path, *, rounds: int, seconds: float, loop: str) -> dict[str, Any]:
    """Run all of it, with the rivals that are installed."""
    with (
        processes.scratch(directory) as path,
        processes.node(path / "haptera") as node,
        ExitStack() as servers,
        asyncio.Runner(loop_factory=report.loop_factory(loop)) as runner,
    ):
        contenders = [transact_contender(node.url), transaction_contender(node.url), *_rivals(servers, path)]
        found = runner.run(transactions(contenders, rounds, seconds))
    return {
        "environment": report.environment(directory),
        "versions": versions(),
        "loop": loop,
        "rounds": rounds,
        "seconds": seconds,
        "transactions": found,
    }


def _rivals(servers: ExitStack, path: Path) -> list[Contender]:
    rivals = []
    if processes.redis_version() is not None:
        rivals.append(redis_contender(servers.enter_context(processes.redis_server(path / "redis"))))
    if processes.etcd_version() is not None and importlib.util.find_spec("aetcd") is not None:
        rivals.append(etcd_contender(servers.enter_context(processes.etcd_server(path / "etcd")).port))
    return rivals


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    report.show_environment(result["environment"])
    rows = [
        [
            row["load"],
            row["client"],
            f"{row['transactions_per_second']:,.0f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
        ]
        for row in result["transactions"]
    ]
    report.show(
        "Durable transactions of two compares and two sets",
        ["load", "client", "transactions/s", "p50 ms", "p99 ms"],
        rows,
        [
            f"medians of {result['rounds']} alternating rounds of {result['seconds']:g} s; loop: {result['loop']}",
            f"256-byte values, {2 * KEYS} keys, one connection (redis-py: a pool of {REDIS_CONNECTIONS})",
            ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version),
        ],
    )


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("Durable transactions beside Redis and etcd, in the same run.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each load [3]")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round [2]")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop", help="the client's event loop")
    options = parser.parse_args(argv)
    result = measure(options.dir, rounds=options.rounds, seconds=options.seconds, loop=options.loop)
    if options.json:
        report.emit(result)
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
