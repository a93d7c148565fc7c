"""An end waits for calls under way and for nothing else: each of these would take ten minutes if it did."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import haptera
from haptera import Request, Service, method
from haptera.errors import HapteraError
from haptera.testing import connected_peers, node, virtual_clock
from tests.unit.node.process import Serving, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


#: Longer than a test may take.
FOREVER_S = 600


class Work(Service):
    """Answers when it is told to."""

    name = "work"

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()

    @method
    async def do(self, request: Request) -> bytes:
        """Wait, then answer."""
        self.begun.set()
        await self.may_end.wait()
        return request.payload


async def last(samples: AsyncIterator[bytes]) -> None:
    """Read a stream to its end."""
    async for _ in samples:
        pass


def ended(served: Serving) -> int:
    served.signal()
    return served.end()


@pytest.fixture
def serving_long(short_path: Path) -> Any:
    """A node in a process that gives calls under way more time than a test has."""
    with serving(short_path / "d", "--drain-timeout", str(FOREVER_S)) as served:
        yield served.ready()


def connected(path: Path) -> socket.socket:
    """A connection of a stranger to the node's local socket."""
    stranger = socket.socket(socket.AF_UNIX)
    stranger.connect(str(path / "d" / "haptera.sock"))
    return stranger


def test_a_node_with_strangers_that_never_spoke(serving_long: Serving, short_path: Path) -> None:
    strangers = [connected(short_path) for _ in range(50)]
    assert ended(serving_long) == 0
    for stranger in strangers:
        stranger.close()


def test_a_node_with_half_a_handshake(serving_long: Serving, short_path: Path) -> None:
    strangers = [connected(short_path) for _ in range(10)]
    for number, stranger in enumerate(strangers):
        stranger.send(b"\xfa\x57\x01\x01"[: 1 + number % 4])
    assert ended(serving_long) == 0
    for stranger in strangers:
        stranger.close()


def test_a_node_with_idle_clients_that_were_busy(serving_long: Serving) -> None:
    async def scenario() -> int:
        async with haptera.connect(serving_long.url) as db, haptera.connect(serving_long.url) as other:
            await asyncio.gather(*(db.increment("n") for _ in range(100)))
            assert await other.get("n") is not None
            return await asyncio.to_thread(ended, serving_long)

    assert asyncio.run(scenario()) == 0


def test_a_node_whose_client_has_gone_without_a_word(serving_long: Serving) -> None:
    """The client's process is killed in the middle of a scan of which it has taken the first row."""
    program = (
        "import asyncio, haptera, os, signal, sys\n"
        "async def main():\n"
        "    db = await haptera.connect(sys.argv[1])\n"
        "    await db.set_many([(f'k{n}', bytes(20_000)) for n in range(300)])\n"
        "    async for entry in db.scan():\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, serving_long.url], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert ended(serving_long) == 0


def test_a_node_with_a_watcher_of_its_metrics(serving_long: Serving) -> None:
    """A stream that has no end by itself is ended, because it owes no answer that its caller would miss."""

    async def scenario() -> int:
        peer = await haptera.dial(serving_long.url)
        watching = peer.stream("server", "watch_metrics", msgspec.msgpack.encode([{"interval_ms": 500}]), timeout=None)
        await anext(watching)
        code = await asyncio.to_thread(ended, serving_long)
        with pytest.raises(HapteraError):
            await last(watching)
        await peer.aclose()
        return code

    assert asyncio.run(scenario()) == 0


def test_a_node_that_clients_dial_again_and_again_while_it_ends(serving_long: Serving) -> None:
    async def scenario() -> int:
        async with haptera.connect(serving_long.url, timeout=1) as db:
            await db.set("k", b"v")
            end = asyncio.ensure_future(asyncio.to_thread(ended, serving_long))
            while not end.done():
                await asyncio.gather(db.get("k"), asyncio.sleep(0.001), return_exceptions=True)
            return await end

    assert asyncio.run(scenario()) == 0


@virtual_clock
async def test_both_sides_of_a_connection_at_once() -> None:
    async with connected_peers([Work()], [Work()]) as sides:
        await asyncio.gather(*(side.ready() for side in sides))
        async with asyncio.timeout(1):
            await asyncio.gather(*(side.drain(FOREVER_S) for side in sides))


@virtual_clock
async def test_a_call_that_is_cancelled_is_waited_for_no_more() -> None:
    work = Work()
    async with connected_peers([], [work]) as (peer, _):
        call = peer.request("work", "do", b"x", timeout=None)
        await work.begun.wait()
        drain = asyncio.ensure_future(peer.drain(FOREVER_S))
        await asyncio.sleep(0.1)
        assert not drain.done()
        call.cancel()
        async with asyncio.timeout(1):
            await drain


@virtual_clock
async def test_a_call_whose_time_is_over_is_waited_for_no_more() -> None:
    work = Work()
    async with connected_peers([], [work]) as (peer, _):
        call = peer.request("work", "do", b"x", timeout=2)
        await work.begun.wait()
        async with asyncio.timeout(3):
            await peer.drain(FOREVER_S)
        with pytest.raises(haptera.DeadlineExceeded):
            await call


@virtual_clock
async def test_a_call_under_way_is_waited_for_and_answered() -> None:
    work = Work()
    async with connected_peers([], [work]) as (peer, _):
        call = peer.request("work", "do", b"x", timeout=None)
        await work.begun.wait()
        drain = asyncio.ensure_future(peer.drain(FOREVER_S))
        await asyncio.sleep(FOREVER_S / 2)
        assert not drain.done()
        work.may_end.set()
        async with asyncio.timeout(1):
            await drain
        assert (await call).result() == b"x"


async def _drained(db: haptera.Database) -> None:
    async with asyncio.timeout(FOREVER_S / 2):
        await db.drain(timeout=FOREVER_S)


@virtual_clock
async def test_a_client_that_has_called_nothing() -> None:
    async with node(storage="memory") as url, haptera.connect(url) as db:
        await _drained(db)


@virtual_clock
async def test_a_client_whose_calls_were_all_answered_and_cancelled() -> None:
    async with node(storage="memory", write_delay=1.0) as url, haptera.connect(url) as db:
        calls = [asyncio.ensure_future(db.increment("n")) for _ in range(20)]
        await asyncio.sleep(0.1)
        for call in calls[::2]:
            call.cancel()
        await _drained(db)
        assert [call.cancelled() for call in calls] == [True, False] * 10
        assert [call.result() for call in calls[1::2]] == list(range(2, 21, 2)), "all were with the disk"
