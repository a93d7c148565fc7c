"""A node behind real connections: changes that nobody waits for, watchers of its metrics, and how it stops."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import msgspec
import pytest

from haptera.errors import DeadlineExceeded, ServerError
from haptera.peer import dial
from haptera.testing import node, virtual_clock
from tests.unit.node.process import serving

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.peer import Peer

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
MINUTE = 60.0


def set_(peer: Peer, key: str, timeout: float | None = None) -> asyncio.Future[object]:
    return peer.request("kv", "set", encode([key, b""]), timeout=timeout)  # type: ignore[return-value]


async def keys(peer: Peer) -> list[str]:
    rows = [decode(page) async for page in peer.stream("kv", "scan", encode([{"keys_only": True}]))]
    return [row[0] for page in rows for row in page]


@virtual_clock
async def test_a_change_is_dropped_by_cancel_and_deadline_until_the_disk_has_it() -> None:
    async with node(storage="memory", write_delay=MINUTE) as url:
        peer = await dial(url)
        await peer.ready()
        handed = set_(peer, "handed")
        handed_in_time = set_(peer, "handed too", timeout=1.0)
        await asyncio.sleep(0.1)
        waits, cancelled, overdue = set_(peer, "waits"), set_(peer, "cancelled"), set_(peer, "overdue", timeout=1.0)
        await asyncio.sleep(0.1)
        handed.cancel()
        cancelled.cancel()
        for late in (handed_in_time, overdue):
            with pytest.raises(DeadlineExceeded):
                await late
        await asyncio.sleep(1.0)
        metrics = decode(await peer.call("server", "metrics", encode([])))
        assert (metrics["pending_writes"], metrics["writes_dropped_total"]) == (3, 2)
        await waits
        assert await keys(peer) == ["handed", "handed too", "waits"], "what was with the disk is there"
        await peer.aclose()


@virtual_clock
async def test_what_a_lost_connection_had_waiting_is_dropped() -> None:
    async with node(storage="memory", write_delay=MINUTE) as url:
        peer, other = await dial(url), await dial(url)
        await peer.ready()
        changes = [set_(peer, "handed")]
        await asyncio.sleep(0.1)
        changes.append(set_(peer, "waiting"))
        await asyncio.sleep(0.1)
        await peer.aclose()
        await asyncio.gather(*changes, return_exceptions=True)
        await set_(other, "other")
        assert await keys(other) == ["handed", "other"]
        await other.aclose()


@virtual_clock
async def test_watchers_of_the_metrics() -> None:
    async with node(storage="memory") as url:
        peer = await dial(url)
        start = asyncio.get_running_loop().time()
        watch = peer.stream("server", "watch_metrics", encode([{"interval_ms": 500}]))
        samples = [decode(await anext(watch)) for _ in range(4)]
        assert asyncio.get_running_loop().time() - start == pytest.approx(1.5, abs=0.1)
        times = [time_ms for time_ms, _ in samples]
        assert [later - times[0] for later in times] == [0, 500, 1000, 1500]
        assert samples[-1][1]['requests_total{method="server.watch_metrics"}'] == 1
        assert samples[-1][1]["connections"] == 1
        await watch.aclose()
        plain = await dial(url, capabilities=("pipelining",))
        with pytest.raises(ServerError, match="UNKNOWN_METHOD"):
            await anext(plain.stream("server", "watch_metrics", encode([])))
        for each in (peer, plain):
            await each.aclose()


@virtual_clock
async def test_a_watcher_that_does_not_read_costs_nothing_and_sees_the_newest_when_it_does() -> None:
    async with node(storage="memory") as url:
        slow, other = await dial(url), await dial(url)
        watch = slow.stream("server", "watch_metrics", encode([{"interval_ms": 100}]))
        await anext(watch)
        await asyncio.sleep(10 * MINUTE)
        metrics = decode(await other.call("server", "metrics", encode([])))
        assert metrics["uptime_seconds"] >= 10 * MINUTE
        sent = metrics["wire_sent_bytes_total"]
        assert sent < 512 * 1024, "a window of samples, and no more for 6,000 intervals"
        latest = 0.0
        for _ in range(500):
            latest = decode(await anext(watch))[1]["uptime_seconds"]
            if latest >= 10 * MINUTE:
                break
        assert latest >= 10 * MINUTE
        for each in (slow, other):
            await each.aclose()


def test_a_stopping_node_ends_watches_at_once_and_waits_for_a_scan_no_longer_than_it_is_told(tmp_path: Path) -> None:
    async def watch_and_scan(url: str) -> int:
        peer, held = await dial(url), await dial(url)
        for number in range(3):
            await held.call("kv", "set", encode([f"k{number}", bytes(1 << 20)]))
        scan = held.stream("kv", "scan", encode([]))
        await anext(aiter(scan))
        watch = peer.stream("server", "watch_metrics", encode([{"interval_ms": 3_600_000}]))
        await anext(watch)
        process.signal(signal.SIGTERM)
        with pytest.raises(ServerError) as error:
            await anext(watch)
        assert await asyncio.to_thread(process.end) == 0
        for each in (peer, held):
            await each.aclose()
        return error.value.code

    with serving(tmp_path / "d", "--drain-timeout", "0.2") as process:
        assert asyncio.run(watch_and_scan(process.ready().url)) == 5005
        assert process.names()[-2:] == ["stopping", "stopped"]
