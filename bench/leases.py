"""Leases beside etcd's: the cost of renewals, of grants and revokes, and of the end of a lease with very many keys.

10,000 leases of 30 seconds are renewed each 10 seconds, evenly over that time: all in one call, in one call of each of
100 connections, and in a call for each lease over these. etcd has a stream of renewals on each of the connections, as
its own clients have. The processor time of the server is what counts. Grants and revokes are durable changes.

The end of leases is measured on a node that says how long the turns of its loop are (`bench.metered_node`).
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
import time
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import haptera
from bench import attacks, processes, report
from bench.metered_node import AIM_MS, MeteredNode, metered_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from haptera import Database

LEASES: Final = 10_000
TTL_S: Final = 30
#: Seconds in which each lease is renewed once.
INTERVAL_S: Final = TTL_S / 3
CONNECTIONS: Final = 100
#: Grants, and then revokes, that are measured; so many are in flight together.
CHANGES: Final = 5_000
IN_FLIGHT: Final = 50
#: Seconds that the leases go on which are to end.
ENDING_TTL_S: Final = 5
#: Leases that end together, and the keys of each.
ENDS: Final = ((1, 100_000), (10, 100_000), (10_000, 10))


class Way(NamedTuple):
    """A way to renew leases: how many connections there are, and how many leases one call renews."""

    name: str
    connections: int
    together: int


WAYS: Final = (
    Way("one call", 1, LEASES),
    Way("a call of each connection", CONNECTIONS, LEASES // CONNECTIONS),
    Way("a call for each lease", CONNECTIONS, 1),
)


class Contender(NamedTuple):
    """A client and its server. ``connect`` gives a grant, a revoke, and a renewal."""

    name: str
    pid: int
    connect: Callable[[AsyncExitStack], Awaitable[tuple[Any, Any, Any]]]


def haptera_contender(node: processes.Node) -> Contender:
    async def connect(stack: AsyncExitStack) -> tuple[Any, Any, Any]:
        db = await stack.enter_async_context(haptera.connect(node.url))

        async def grant() -> int:
            return await db.grant_lease(TTL_S)

        async def renew(ids: Sequence[int]) -> None:
            assert None not in await db.renew_leases(ids, timeout=60)

        return grant, db.revoke_lease, renew

    return Contender("haptera", node.pid, connect)


def etcd_contender(port: int, pid: int) -> Contender:
    aetcd = importlib.import_module("aetcd")
    rpc = importlib.import_module("aetcd.rpc")

    async def connect(stack: AsyncExitStack) -> tuple[Any, Any, Any]:
        client = await stack.enter_async_context(aetcd.Client("127.0.0.1", port, timeout=60))
        wanted: asyncio.Queue[int] = asyncio.Queue(LEASES)

        async def requests() -> AsyncIterator[Any]:
            while True:
                yield rpc.LeaseKeepAliveRequest(ID=await wanted.get())

        stream = client.leasestub.LeaseKeepAlive(requests())
        stack.callback(stream.cancel)

        async def grant() -> int:
            return int((await client.lease(TTL_S)).id)

        async def renew(ids: Sequence[int]) -> None:
            for each in ids:
                wanted.put_nowait(each)
            for _ in ids:
                assert (await stream.read()).TTL == TTL_S

        return grant, client.revoke_lease, renew

    return Contender("etcd, aetcd", pid, connect)


async def changes(contender: Contender) -> dict[str, Any]:
    """Grants and revokes in a second, with so many in flight on one connection."""

    async def rate(call: Callable[[], Awaitable[object]]) -> float:
        async def caller() -> None:
            for _ in range(CHANGES // IN_FLIGHT):
                await call()

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
        return CHANGES / (time.perf_counter() - started)

    async with AsyncExitStack() as stack:
        grant, revoke, _ = await contender.connect(stack)
        ids: list[int] = []

        async def one_grant() -> None:
            ids.append(await grant())

        granted = await rate(one_grant)
        revoked = await rate(lambda: revoke(ids.pop()))
    return {"client": contender.name, "grants_per_second": granted, "revokes_per_second": revoked}


async def renewals(contender: Contender, way: Way, leases: int, seconds: float) -> dict[str, Any]:
    """The cost of renewing all leases once in each interval, for so long."""
    async with AsyncExitStack() as stack:
        connections = [await contender.connect(stack) for _ in range(way.connections)]
        grant, revoke, _ = connections[0]
        ids: list[int] = []
        while len(ids) < leases:
            ids += await asyncio.gather(*(grant() for _ in range(min(IN_FLIGHT, leases - len(ids)))))
        parts = [ids[start : start + way.together] for start in range(0, leases, way.together)]
        for number, part in enumerate(parts):
            await connections[number % way.connections][2](part)
        before, own, started = processes.cpu_seconds(contender.pid), processes.cpu_seconds(), time.perf_counter()
        rounds = int(seconds / INTERVAL_S) or 1
        waiting: set[asyncio.Task[None]] = set()
        late: list[float] = []

        async def renew(number: int, due: float) -> None:
            await connections[number % way.connections][2](parts[number])
            late.append(time.perf_counter() - due)

        for call in range(rounds * len(parts)):
            due = started + call * INTERVAL_S / len(parts)
            await asyncio.sleep(due - time.perf_counter())
            task = asyncio.ensure_future(renew(call % len(parts), due))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        await asyncio.sleep(started + rounds * INTERVAL_S - time.perf_counter())
        await asyncio.gather(*waiting)
        took = time.perf_counter() - started
        result = {
            "client": contender.name,
            "way": way.name,
            "leases": leases,
            "renewals": rounds * leases,
            "server_cores": (processes.cpu_seconds(contender.pid) - before) / took,
            "client_cores": (processes.cpu_seconds() - own) / took,
            "p99_ms": sorted(late)[len(late) * 99 // 100] * 1000,
        }
        for start in range(0, leases, IN_FLIGHT):
            await asyncio.gather(*map(revoke, ids[start : start + IN_FLIGHT]))
    return result


async def ends(node: MeteredNode, leases: int, keys: int, revoked: bool) -> dict[str, Any]:
    """The turns of the node, and the waits of a get, while leases end with all of their keys."""
    async with haptera.connect(node.url) as db, haptera.connect(node.url) as other:
        await other.set("innocent", attacks.VALUE)
        ids: list[int] = []
        renewing = asyncio.ensure_future(_keep(other, ids))

        async def grant(number: int) -> None:
            lease = await db.grant_lease(ENDING_TTL_S, timeout=60)
            ids.append(lease)
            items = {f"lease/{number}/{key:06}": attacks.VALUE for key in range(keys)}
            await db.set_many(items, lease=lease, timeout=120)

        for start in range(0, leases, IN_FLIGHT):
            await asyncio.gather(*map(grant, range(start, min(leases, start + IN_FLIGHT))))
        renewing.cancel()
        assert None not in await db.renew_leases(ids)
        node.begin()
        ended: asyncio.Future[Any]
        if revoked:
            ended = asyncio.gather(*(db.revoke_lease(lease, timeout=60) for lease in ids))
        else:
            ended = asyncio.ensure_future(_gone(db))
        waits = attacks.waits_of("get", await attacks.probe(other, ended.done))
        turns = node.turns()
        assert await db.count(prefix="lease/") == 0
    return {"leases": leases, "keys_each": keys, "revoked": revoked, "get": waits, "turns": turns}


async def _keep(db: Database, ids: list[int]) -> None:
    """Renew the leases until cancelled."""
    while True:
        assert None not in await db.renew_leases(list(ids), timeout=60)
        await asyncio.sleep(1)


async def _gone(db: Database) -> None:
    """Return when no lease has a key left, and what they have left was freed."""
    while await db.count(prefix="lease/", timeout=60):
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)


def measure(directory: Path, leases: int, seconds: float) -> dict[str, Any]:
    """Run all of it, with etcd where it and its client are installed."""
    renewed, ended = [], []
    with processes.scratch(directory) as path, ExitStack() as servers:
        contenders = [haptera_contender(servers.enter_context(processes.node(path / "node")))]
        if processes.etcd_version() is not None and importlib.util.find_spec("aetcd") is not None:
            etcd = servers.enter_context(processes.etcd_server(path / "etcd"))
            contenders.append(etcd_contender(etcd.port, etcd.pid))
        changed = [asyncio.run(changes(contender)) for contender in contenders]
        for way in WAYS:
            for contender in contenders:
                part = Way(way.name, way.connections, max(1, way.together * leases // LEASES))
                renewed.append(asyncio.run(renewals(contender, part, leases, seconds)))
    with processes.scratch(directory) as path, metered_node(path / "node") as node:
        for count, keys in ENDS:
            for revoked in (True, False):
                few = max(1, keys * leases // LEASES)
                ended.append(asyncio.run(ends(node, min(count, leases), few, revoked)))
    return {
        "environment": report.environment(directory),
        "etcd-server": processes.etcd_version(),
        "changes": changed,
        "renewals": renewed,
        "ends": ended,
    }


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    report.show_environment(result["environment"])
    report.show(
        f"Grants and revokes, {IN_FLIGHT} in flight",
        ["client", "grants/s", "revokes/s"],
        [
            [row["client"], f"{row['grants_per_second']:,.0f}", f"{row['revokes_per_second']:,.0f}"]
            for row in result["changes"]
        ],
    )
    report.show(
        f"Renewals of leases of {TTL_S} s, each every {INTERVAL_S:.0f} s",
        ["leases", "client", "renewed in", "server, % of a core", "client, % of a core", "p99 ms"],
        [
            [
                f"{row['leases']:,}",
                row["client"],
                row["way"],
                f"{row['server_cores']:.1%}",
                f"{row['client_cores']:.1%}",
                f"{row['p99_ms']:.1f}",
            ]
            for row in result["renewals"]
        ],
    )
    report.show(
        "The end of leases with their keys",
        [
            "leases",
            "keys of each",
            "ended by",
            "longest turn, CPU ms",
            f"above {AIM_MS:.0f} ms",
            "node, CPU s",
            "get p99 ms",
        ],
        [
            [
                f"{row['leases']:,}",
                f"{row['keys_each']:,}",
                "revokes" if row["revoked"] else "their time",
                f"{row['turns']['longest_ms']:.1f}",
                f"{row['turns']['above_aim']} of {row['turns']['turns']:,}",
                f"{row['turns']['cpu_s']:.2f}",
                f"{row['get']['p99_ms']:.1f}",
            ]
            for row in result["ends"]
        ],
    )


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("Leases beside etcd's: renewals, grants, revokes, and ends.")
    parser.add_argument("--leases", type=int, default=LEASES, help=f"leases that are renewed [{LEASES:,}]")
    parser.add_argument("--seconds", type=float, default=2 * INTERVAL_S, help="length of each round of renewals [20]")
    options = parser.parse_args(argv)
    result = measure(options.dir, options.leases, options.seconds)
    report.emit(result) if options.json else show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
