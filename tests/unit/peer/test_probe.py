"""A link that dies without a word is found by the calls that are not answered (spec/protocol.md, section 3).

Trap: a dead link is believed in, although calls on it are not answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import haptera
from haptera import ConnectionLost, DeadlineExceeded, Peer, dial
from haptera.connection.config import PROBE_TIMEOUT_S
from haptera.errors import ConfigurationError
from haptera.peer import link_of
from haptera.testing import connected_peers, node, proxy, virtual_clock
from haptera.wire.decoder import FrameDecoder
from haptera.wire.frame import FrameType
from tests.unit.peer.hosts import ANY_PORT, KIB, MIB, Echo, Gate, eventually, served


def now() -> float:
    return asyncio.get_running_loop().time()


def types(recording: Any, direction: str) -> list[int]:
    decoder = FrameDecoder(16 * MIB)
    data = b"".join(piece.data for piece in recording.pieces if piece.direction == direction)
    return [frame.type for frame in decoder.receive(data) + decoder.receive(b"")]


@virtual_clock
async def test_a_call_that_heard_nothing_has_the_link_probed_and_given_up() -> None:
    async with connected_peers([], [Echo()]) as connected:
        peer, _ = connected
        assert await peer.call("echo", "one", b"x") == b"x"
        connected.link.pause()
        start = now()
        with pytest.raises(DeadlineExceeded):
            await peer.call("echo", "one", b"x", timeout=5.0)
        with pytest.raises(ConnectionLost, match="1015"):
            await peer.call("echo", "one", b"x", timeout=5.0)
        assert now() == start + 5.0 + PROBE_TIMEOUT_S


@virtual_clock
async def test_a_call_that_is_slow_at_the_other_side_ends_no_connection() -> None:
    gate = Gate()
    async with connected_peers([], [gate], record=True) as connected:
        peer, _ = connected
        for _ in range(3):
            with pytest.raises(DeadlineExceeded):
                await peer.call("gate", "wait", b"", timeout=5.0)
        await asyncio.sleep(2 * PROBE_TIMEOUT_S)
        assert not peer.closed
        gate.open.set()
        assert await peer.call("gate", "wait", b"x") == b"x"


@virtual_clock
async def test_short_timeouts_make_a_ping_a_second_at_most() -> None:
    """The other side counts PINGs as frames without work: a caller in a hurry must not be taken for a flood."""
    gate = Gate()
    async with connected_peers([], [gate], record=True, dialer_config={"capabilities": ("pipelining",)}) as connected:
        peer, _ = connected
        start = now()
        while now() < start + 10.0:
            with pytest.raises(DeadlineExceeded):
                await peer.call("gate", "wait", b"", timeout=0.01)
        await asyncio.sleep(1.0)
        assert not peer.closed
        assert types(connected.link.recording, "to_acceptor").count(FrameType.PING) <= 11


@virtual_clock
async def test_a_probe_is_answered_by_whatever_is_heard() -> None:
    async with connected_peers([Echo()], [Echo()]) as connected:
        peer, other = connected
        await peer.ready()
        await asyncio.sleep(10.0)
        connected.link.pause("to_acceptor")  # the PING stays on its way
        peer.probe()
        await asyncio.sleep(PROBE_TIMEOUT_S / 2)
        call = other.request("echo", "one", b"x", timeout=None)
        await asyncio.sleep(PROBE_TIMEOUT_S)
        assert not peer.closed
        connected.link.resume()
        assert (await call).payload == b"x"


async def heard_dead(peer: Peer, link: Any) -> float:
    """How long a link that has died is believed in."""
    await peer.ready()
    link.pause()
    start = now()
    await eventually(lambda: link_of(peer).ending)
    return now() - start


@pytest.mark.parametrize(("own", "announced", "found"), [(2000, 30_000, 4.0), (None, 3000, 6.0), (8000, 0, 16.0)])
@virtual_clock
async def test_a_dialler_keeps_a_ping_interval_of_its_own(own: int | None, announced: int, found: float) -> None:
    async with connected_peers(
        dialer_config={"ping_interval_ms": own}, acceptor_config={"ping_interval_ms": announced}
    ) as connected:
        assert await heard_dead(connected.dialer, connected.link) == pytest.approx(found, abs=0.1)


@virtual_clock
async def test_a_ping_interval_is_an_option_of_the_url() -> None:
    async with served(ANY_PORT, Echo()) as server, proxy(server.url) as between:
        peer = await dial(f"{between.url}?ping_interval=2.5")
        assert await heard_dead(peer, between) == pytest.approx(5.0, abs=0.1)
        between.resume()
        with pytest.raises(ConfigurationError, match="in the URL and beside it"):
            await dial(f"{between.url}?ping_interval=2.5", ping_interval_ms=1000)
        for wrong in ("-1", "nan", "inf", "x", "1e9"):
            with pytest.raises(ConfigurationError, match="ping_interval is a number of seconds"):
                await dial(f"{between.url}?ping_interval={wrong}")


@virtual_clock
async def test_a_database_loses_one_call_to_a_link_that_dies_and_goes_on_with_another_host() -> None:
    async with (
        node(storage="memory", listen="tcp") as url,
        proxy(url) as first,
        proxy(url) as second,
        haptera.connect(f"{first.url},{second.url.removeprefix('haptera://')}") as db,
    ):
        await db.set("n", "0")
        first.pause()
        start, lost = now(), 0
        for _ in range(20):
            try:
                await db.increment("n")
            except (DeadlineExceeded, ConnectionLost):
                lost += 1
        assert lost <= 2
        assert now() - start < 5.0 + PROBE_TIMEOUT_S + 1.0  # the dead host is not tried first
        entry = await db.get("n")
        assert entry is not None
        assert 20 - lost <= int(entry.text) <= 20
        assert second.connections == 1
        first.resume()


CALLS: dict[str, Callable[[haptera.Database], Awaitable[object]]] = {
    "get": lambda db: db.get("k"),
    "set": lambda db: db.set("k", b"v"),
    "scan": lambda db: anext(db.scan()),
}


@pytest.mark.parametrize("call", CALLS)
@virtual_clock
async def test_every_kind_of_call_is_evidence(call: str) -> None:
    async with node(storage="memory", listen="tcp") as url, proxy(url) as between, haptera.connect(between.url) as db:
        await db.set("k", b"v")
        between.pause()
        with pytest.raises((DeadlineExceeded, ConnectionLost)):
            await CALLS[call](db)
        await asyncio.sleep(PROBE_TIMEOUT_S + 0.2)
        between.resume()
        await asyncio.sleep(1.0)
        assert await db.exists("k")
        assert between.connections == 2


@virtual_clock
async def test_a_slow_link_is_not_taken_for_a_dead_one() -> None:
    """The PING and the answers stand behind a large value, of which the other side still takes more and more."""
    async with node(storage="memory", listen="tcp") as url, proxy(url) as between, haptera.connect(between.url) as db:
        await db.set("k", b"v")
        between.limit(100 * KIB, "to_acceptor")
        large = asyncio.create_task(db.set("large", bytes(4 * MIB), timeout=120.0))
        unanswered = 0
        while not large.done():
            try:
                await db.get("k", timeout=1.0)
            except DeadlineExceeded:
                unanswered += 1
        assert (await large, between.connections) == (2, 1)
        assert unanswered > 10
        between.pause()
        with pytest.raises(DeadlineExceeded):
            await db.get("k")
        await asyncio.sleep(PROBE_TIMEOUT_S + 0.2)
        between.resume()
        assert await db.exists("k")
        assert between.connections == 2


@virtual_clock
async def test_a_ping_interval_of_a_database_notices_silence_without_a_call() -> None:
    async with node(storage="memory", listen="tcp") as url, proxy(url) as between:
        async with haptera.connect(f"{between.url}?ping_interval=100", ping_interval=1.0) as db:
            await db.set("k", b"v")
            between.pause()
            await asyncio.sleep(2.5)
            between.resume()
            await asyncio.sleep(1.0)
            assert await db.exists("k")
            assert between.connections == 2
        with pytest.raises(ConfigurationError, match="ping_interval"):
            repr(haptera.connect(between.url, ping_interval=-1.0))


@virtual_clock
async def test_a_host_that_accepts_and_says_nothing_is_passed_over() -> None:
    """Trap: one dead host uses up the time of the others. A frozen process still has a kernel that accepts."""
    async with node(storage="memory", listen="tcp") as url, proxy(url) as frozen, proxy(url) as good:
        frozen.pause()
        async with haptera.connect(f"{frozen.url},{good.url.removeprefix('haptera://')}") as db:
            await db.set("k", b"v")
            assert now() < 3.0
            assert (frozen.connections, good.connections) == (1, 1)
        frozen.resume()
