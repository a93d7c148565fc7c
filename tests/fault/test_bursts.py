"""Honest bursts and first connections over a Unix socket: every call succeeds that has the time for it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera.errors import ConnectionLost, DeadlineExceeded
from haptera.testing import node
from tests.unit.node.process import Serving, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

#: The time of a call that has all the time that it needs.
PLENTY_S = 60


@asynccontextmanager
async def clients(url: str, count: int, timeout: float = PLENTY_S) -> AsyncIterator[list[haptera.Database]]:
    """Clients that have sent nothing yet."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(haptera.connect(url, timeout=timeout)) for _ in range(count)]


async def counted(dbs: list[haptera.Database]) -> list[int]:
    """Have each client make its first call, an increment of one counter, at one instant."""
    return sorted(await asyncio.gather(*(db.increment("n") for db in dbs)))


def local(path: Path) -> str:
    return f"haptera+unix://{path / 'd' / 'haptera.sock'}"


async def test_hundreds_of_clients_that_start_at_one_instant() -> None:
    async with node(storage="memory") as url, clients(url, 400) as dbs:
        assert await counted(dbs) == list(range(1, 401))


async def test_more_clients_than_the_socket_takes_connections() -> None:
    """The local socket of a data directory has 1,000 connections at most; this one of the test has 20."""
    async with node(storage="memory", max_connections=20) as url, clients(url, 60) as dbs:

        async def come_and_go(db: haptera.Database) -> int:
            number = await db.increment("n")
            await db.aclose()
            return number

        assert sorted(await asyncio.gather(*map(come_and_go, dbs))) == list(range(1, 61))


async def test_first_calls_of_every_kind() -> None:
    async with node(storage="memory") as url, clients(url, 60) as dbs:
        first = dbs[:10]
        await asyncio.gather(
            *(db.set_many([(f"k{number}/{each}", b"v") for each in range(50)]) for number, db in enumerate(first))
        )

        async def scanned(db: haptera.Database, prefix: str) -> int:
            return len([entry async for entry in db.scan(prefix=prefix)])

        rest = iter(dbs[10:])
        found: list[Any] = await asyncio.gather(
            *(scanned(next(rest), f"k{number}/") for number in range(10)),
            *(next(rest).count(prefix=f"k{number}/") for number in range(10)),
            *(next(rest).get(f"k{number}/7") for number in range(10)),
            *(next(rest).get_many([f"k{number}/1", "missing"]) for number in range(10)),
            *(next(rest).delete(f"k{number}/0") for number in range(10)),
        )
        assert found[10:20] == [50] * 10
        assert all(50 - 1 <= each <= 50 for each in found[:10])
        assert [entry.value for entry in found[20:30]] == [b"v"] * 10
        assert found[40:] == [True] * 10


def test_calls_that_are_made_before_the_node_is_started(short_path: Path) -> None:
    async def scenario() -> list[int]:
        async with clients(local(short_path), 100) as dbs:
            calls = asyncio.ensure_future(counted(dbs))
            await asyncio.sleep(0.05)
            assert not (short_path / "d").exists()
            with serving(short_path / "d") as served:
                await asyncio.to_thread(served.ready)
                return await calls

    assert asyncio.run(scenario()) == list(range(1, 101))


def test_first_calls_to_a_frozen_node(short_path: Path) -> None:
    """The kernel takes the connections, and nothing reads them until the process goes on."""

    async def scenario(served: Serving) -> list[int]:
        served.signal(signal.SIGSTOP)
        async with clients(local(short_path), 150) as dbs:
            calls = asyncio.ensure_future(counted(dbs))
            await asyncio.sleep(0.2)
            assert not calls.done()
            served.signal(signal.SIGCONT)
            return await calls

    with serving(short_path / "d") as served:
        served.ready()
        assert asyncio.run(scenario(served)) == list(range(1, 151))


def test_first_calls_where_a_killed_node_has_left_its_socket(short_path: Path) -> None:
    with serving(short_path / "d") as served:
        served.ready()
        served.signal(signal.SIGKILL)
        served.process.wait()
    assert (short_path / "d" / "haptera.sock").exists()

    async def scenario() -> list[int]:
        async with clients(local(short_path), 100) as dbs:
            calls = asyncio.ensure_future(counted(dbs))
            await asyncio.sleep(0.05)
            with serving(short_path / "d") as again:
                await asyncio.to_thread(again.ready)
                return await calls

    assert asyncio.run(scenario()) == list(range(1, 101))


def test_a_burst_of_calls_on_a_first_connection_that_is_killed_meanwhile(short_path: Path) -> None:
    """500 calls wait for the first connection of a client; the node that takes it is killed, and another is started."""

    async def scenario() -> tuple[int, int]:
        async with haptera.connect(local(short_path), timeout=PLENTY_S) as db:
            with serving(short_path / "d") as served:
                await asyncio.to_thread(served.ready)
                served.signal(signal.SIGSTOP)
                calls = [asyncio.ensure_future(db.increment("n")) for _ in range(500)]
                await asyncio.sleep(0.05)
                served.signal(signal.SIGKILL)
                await asyncio.to_thread(served.process.wait)
            with serving(short_path / "d") as again:
                await asyncio.to_thread(again.ready)
                results = await asyncio.gather(*calls)
                entry = await db.get("n")
                assert entry is not None
                return max(results), int(entry.value)

    assert asyncio.run(scenario()) == (500, 500)


def test_a_burst_of_processes(short_path: Path) -> None:
    with serving(short_path / "d") as served:
        served.ready()
        command = [sys.executable, "-m", "haptera", "incr", "n", "--timeout", str(PLENTY_S), "--url", local(short_path)]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(8)]
        numbers = sorted(int(process.communicate()[0]) for process in processes)
        assert numbers == list(range(1, 9))
        assert [process.returncode for process in processes] == [0] * 8


async def test_a_first_call_without_time_takes_nothing_from_the_others(short_path: Path) -> None:
    """Of a client's first calls some are over, and some are cancelled, before there is a server."""
    url = f"haptera+unix://{short_path / 's'}"
    async with haptera.connect(url, timeout=PLENTY_S) as db:
        short = [asyncio.ensure_future(db.increment("n", timeout=0.05)) for _ in range(20)]
        cancelled = [asyncio.ensure_future(db.increment("n")) for _ in range(20)]
        long = [asyncio.ensure_future(db.increment("n")) for _ in range(20)]
        await asyncio.sleep(0)
        for call in cancelled:
            call.cancel()
        ended = await asyncio.gather(*short, return_exceptions=True)
        assert all(isinstance(each, (ConnectionLost, DeadlineExceeded)) for each in ended)
        assert {each.outcome for each in ended if isinstance(each, haptera.HapteraError)} == {"not_applied"}
        async with node(storage="memory", listen=[url]):
            assert sorted(await asyncio.gather(*long)) == list(range(1, 21))
            assert all(call.cancelled() for call in cancelled)


async def test_a_first_connection_that_is_refused_for_a_reason_that_passes(short_path: Path) -> None:
    """A file that is no socket, then nothing, then a socket without a listener stand in the place of the node."""
    place = short_path / "s"
    place.write_bytes(b"")
    url = f"haptera+unix://{place}"
    async with clients(url, 30) as dbs:
        calls = asyncio.ensure_future(counted(dbs))
        await asyncio.sleep(0.05)
        os.unlink(place)
        await asyncio.sleep(0.05)
        async with node(storage="memory", listen=[url]):
            assert await calls == list(range(1, 31))


@pytest.mark.parametrize("half_open", [1, 4])
async def test_a_burst_beside_silent_strangers(half_open: int, short_path: Path) -> None:
    """Strangers hold all places of half-open connections; clients that speak get in."""
    url = f"haptera+unix://{short_path / 's'}"
    async with node(storage="memory", listen=[url], max_half_open=half_open, max_connections=200):
        strangers = [await asyncio.open_unix_connection(short_path / "s") for _ in range(2 * half_open)]
        async with clients(url, 80) as dbs:
            assert await counted(dbs) == list(range(1, 81))
        for _, writer in strangers:
            writer.close()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])
