"""server.watch_metrics: samples at an interval, the newest for whoever was slow, and its end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from haptera.node.services import metrics_stream
from haptera.node.services.metrics_stream import WATCHERS_PER_CONNECTION_MAX
from haptera.node.services.server import ServerService
from haptera.testing import virtual_clock
from tests.unit.node.doubles import FakePeer, FakeRequest
from tests.unit.node.nodes import opened, turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haptera.node.node import Node

ASKED = frozenset({"server_metrics"})
EPOCH_MS = 1_700_000_000_000


class Watched:
    def __init__(self, node: Node) -> None:
        self.node = node
        self.service = ServerService(node)
        self.peer = FakePeer(capabilities=ASKED)

    def watch(self, *argument: Any, payload: bytes | None = None, by: FakePeer | None = None) -> FakeRequest:
        request = (by or self.peer).request("watch_metrics", *argument, payload=payload, service="server")
        self.service.handle([request.request])
        return request

    @property
    def timers(self) -> int:
        return len(self.service._watchers._feeds)


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    loop = asyncio.get_running_loop()
    async with opened(clock_ms=lambda: EPOCH_MS + round(loop.time() * 1000)) as node:
        yield Watched(node)


def times(request: FakeRequest) -> list[int]:
    return [time_ms - EPOCH_MS for time_ms, _ in request.items]


@virtual_clock
async def test_a_sample_comes_at_once_and_after_each_interval() -> None:
    async with watched() as node:
        request, every_second = node.watch({"interval_ms": 250}), node.watch()
        await asyncio.sleep(2.1)
        assert times(request) == [0, 250, 500, 750, 1000, 1250, 1500, 1750, 2000]
        assert times(every_second) == [0, 1000, 2000]
        assert request.items[0][1].keys() == node.node.metrics.values().keys()
        assert [items[1]["uptime_seconds"] for items in every_second.items] == [0, 1, 2]
        assert not request.answered
        node.service.stop()


@virtual_clock
async def test_one_timer_and_one_sample_serve_all_that_watch_at_one_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched() as node:
        watchers = node.service._watchers
        samples = 0

        def sample() -> dict[str, float]:
            nonlocal samples
            samples += 1
            return {"keys": samples}

        monkeypatch.setattr(watchers, "_sample", sample)
        intervals = [100] * 50 + list(range(101, 116))
        requests = [node.watch({"interval_ms": each}, by=FakePeer(capabilities=ASKED)) for each in intervals]
        await asyncio.sleep(0.12)
        assert node.timers == 16
        assert samples == 2, "timers that are due together share a sample"
        assert all([values for _, values in request.items] == [{"keys": 1}, {"keys": 2}] for request in requests)
        node.service.stop()


@virtual_clock
async def test_a_slow_watcher_gets_the_newest_sample_and_holds_up_nobody() -> None:
    async with watched() as node:
        slow, quick = node.watch({"interval_ms": 100}), node.watch({"interval_ms": 100})
        slow.blocked = asyncio.Event()
        await asyncio.sleep(1.05)
        assert times(slow) == [0]
        assert len(quick.items) == 11
        slow.blocked.set()
        await asyncio.sleep(0.1)
        assert times(slow) == [0, 1100]
        node.service.stop()


@virtual_clock
async def test_cancelling_ends_a_watch_and_the_last_ends_the_timer() -> None:
    async with watched() as node:
        requests = [node.watch({"interval_ms": 100}) for _ in range(2)]
        requests[0].blocked = asyncio.Event()
        await turn()
        for request, left in zip(requests, (1, 0), strict=True):
            request.cancel()
            assert request.failure is not None
            assert (request.code, request.failure.outcome) == (3006, "not_applied")
            assert node.timers == left
        await asyncio.sleep(1)
        assert [len(request.items) for request in requests] == [1, 1]
        assert len(node.service._watchers) == 0


@virtual_clock
async def test_a_stopping_node_ends_every_watch() -> None:
    async with watched() as node:
        requests = [node.watch({"interval_ms": interval_ms}) for interval_ms in (100, 100, 200)]
        await turn()
        node.service.stop()
        assert [request.code for request in requests] == [5005] * 3
        assert (node.timers, node.watch().code) == (0, 5005)


async def test_without_the_capability_there_is_no_such_method() -> None:
    async with watched() as node:
        node.peer.capabilities = frozenset({"pipelining"})
        request = node.watch()
        assert request.failure is not None
        assert (request.code, request.failure.details["capability"]) == (3002, "server_metrics")


@pytest.mark.parametrize(
    "options",
    [
        {"interval_ms": 99},
        {"interval_ms": 3_600_001},
        {"interval_ms": -1},
        {"interval_ms": "1000"},
        {"interval_ms": None},
        {"interval": 1000},
        1000,
    ],
)
async def test_another_interval_or_option_is_refused(options: Any) -> None:
    async with watched() as node:
        assert node.watch(options).code == 3003
        assert node.timers == 0


async def test_watchers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_stream, "WATCHERS_MAX", 2)
    async with watched() as node:
        kept = [node.watch() for _ in range(2)]
        assert node.watch().code == 3007
        kept[0].cancel()
        assert not node.watch().answered
        node.service.stop()


async def test_no_connection_has_more_than_its_share_of_the_watchers() -> None:
    async with watched() as node:
        kept = [node.watch({"interval_ms": 100 + number}) for number in range(WATCHERS_PER_CONNECTION_MAX)]
        for _ in range(100):
            refused = node.watch()
            assert refused.failure is not None
            assert (refused.code, refused.failure.outcome) == (3007, "not_applied")
        other = FakePeer(capabilities=ASKED)
        assert not node.watch(by=other).answered
        kept[0].cancel()
        assert not node.watch().answered
        assert node.watch().code == 3007
        for request in kept[1:]:
            request.cancel()
        for _ in range(WATCHERS_PER_CONNECTION_MAX - 1):
            assert not node.watch().answered
        assert node.watch().code == 3007
        node.service.stop()
