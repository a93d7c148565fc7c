"""Request rates: of a connection and of a user, each batch judged at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.errors import RateLimited
from haptera.node import request_rates
from haptera.node.commands import Submitter
from haptera.node.listening import rated
from haptera.node.metrics import Metrics
from haptera.node.request_rates import RequestRates, TokenBucket
from haptera.node.services.rated_service import RatedService
from haptera.peer import Request, Service
from haptera.peer.identity import Identity
from haptera.testing import node as served
from tests.unit.node.doubles import FakePeer, FakeRequest
from tests.unit.node.nodes import opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.peer import Peer


class Echo(Service):
    """Answers each request, and notes the sizes of its batches."""

    name = "echo"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.below = 0

    def methods(self) -> Sequence[str]:
        return ("echo",)

    def handle(self, requests: list[Request]) -> None:
        self.batches.append(len(requests))
        for request in requests:
            request.respond(request.payload)

    def answers_read(self, peer: Peer, below: int) -> None:
        self.below = below


class Rated:
    """The service with rates, on a clock of the test."""

    def __init__(self, session_rate: float = 0.0, user_rate: float = 0.0, burst_s: float = 2.0) -> None:
        self.now = 100.0
        self.echo, self.metrics = Echo(), Metrics()
        rates = RequestRates(session_rate, user_rate, burst_s)
        self.service = RatedService(self.echo, rates, self.metrics, lambda: self.now)

    def send(self, peer: FakePeer, count: int) -> list[FakeRequest]:
        requests = [peer.request("echo", service="echo") for _ in range(count)]
        self.service.handle([each.request for each in requests])
        return requests

    def refused(self, peer: FakePeer, count: int) -> list[int]:
        """The waits of the requests of a batch that are refused; the first ones are admitted."""
        requests = self.send(peer, count)
        waits: list[int] = []
        for request in requests:
            failure = request.failure
            if failure is None:
                assert not waits, "the first ones are admitted"
                continue
            assert (failure.code, failure.outcome) == (3008, "not_applied")
            waits.append(failure.details["retry_after_ms"])
        return waits


def of_user(name: str) -> FakePeer:
    peer = FakePeer()
    peer.identity = Identity(name, "PLAIN")
    peer.submits_as(Submitter(name))
    return peer


def test_a_connection_makes_a_burst_and_then_its_rate() -> None:
    rated = Rated(session_rate=10)
    peer = FakePeer()
    assert rated.refused(peer, 25) == [100] * 5
    assert rated.refused(peer, 1) == [100]
    rated.now += 0.0625
    assert rated.refused(peer, 1) == [38]
    rated.now += 0.25
    assert rated.refused(peer, 4) == [88]
    rated.now += 1000
    assert len(rated.refused(peer, 21)) == 1
    assert rated.metrics.requests_rate_limited_total == 9


def test_each_connection_has_its_own_rate_for_all_its_services() -> None:
    rated = Rated(session_rate=10)
    one, other = FakePeer(), FakePeer()
    second = RatedService(Echo(), rated.service._rates, rated.metrics, lambda: rated.now)
    assert rated.refused(one, 20) == []
    assert rated.refused(other, 20) == []
    request = one.request("echo", service="echo")
    second.handle([request.request])
    assert request.failure is not None


def test_the_connections_of_one_user_share_a_rate_and_another_user_has_its_own() -> None:
    rated = Rated(user_rate=10)
    assert rated.refused(of_user("ann"), 15) == []
    assert len(rated.refused(of_user("ann"), 15)) == 10
    assert rated.refused(of_user("bob"), 20) == []


def test_a_request_that_one_rate_refuses_takes_nothing_of_the_other() -> None:
    rated = Rated(session_rate=1, user_rate=10)
    peer = of_user("ann")
    assert rated.refused(peer, 20) == [1000] * 18
    assert rated.refused(of_user("ann"), 3) == [1000]
    rated.now += 1
    assert rated.refused(peer, 1) == []


def test_a_rate_below_one_admits_one_request_at_a_time() -> None:
    rated = Rated(session_rate=0.25)
    peer = FakePeer()
    assert rated.refused(peer, 2) == [4000]
    rated.now += 4
    assert rated.refused(peer, 2) == [4000]


def test_a_batch_is_handed_on_whole_and_one_without_tokens_not_at_all() -> None:
    rated = Rated(session_rate=10)
    peer = FakePeer()
    rated.send(peer, 20)
    rated.send(peer, 5)
    assert rated.echo.batches == [20]
    assert (rated.service.name, rated.service.methods()) == ("echo", ("echo",))
    rated.service.answers_read(peer, 7)  # type: ignore[arg-type]
    assert rated.echo.below == 7


def test_a_clock_that_stands_gives_nothing_back() -> None:
    bucket = TokenBucket(10, 20, 5.0)
    bucket.take(20, 5.0)
    assert (bucket.left(4.0), bucket.full(4.0)) == (0, False)


def test_the_buckets_of_users_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_rates, "USERS_MAX", 10)
    rates = RequestRates(0, 10, 1)
    for number in range(9):
        assert rates.admits(None, f"user{number}", 1, float(number)) == (1, 0)
    assert rates.admits(None, "busy", 10, 9.0) == (10, 0)
    assert rates.admits(None, "other", 1, 9.0) == (1, 0)
    assert len(rates._users) == 2
    assert rates.admits(None, "busy", 1, 9.0) == (0, 100)


async def test_a_node_without_rates_serves_as_if_there_were_none() -> None:
    async with opened() as node:
        services = [Echo()]
        assert rated(services, RequestRates(0.0, 0.0, 2.0), node.metrics) is services
        [service] = rated(services, RequestRates(0.0, 5.0, 2.0), node.metrics)
        assert isinstance(service, RatedService)


async def test_the_rate_of_a_node_holds_for_all_services_but_the_session() -> None:
    async with served(storage="memory", session_rate=0.0625, rate_burst=0.1) as url:
        async with haptera.dial(url) as peer:
            await peer.call("kv", "count", b"\x90")
            for service, method in (("kv", "count"), ("server", "health")):
                with pytest.raises(RateLimited) as refused:
                    await peer.call(service, method, b"\x90")
                assert refused.value.details["retry_after_ms"] > 0
            await peer.call("session", "whoami", b"\x90")
        async with haptera.dial(url) as other:
            await other.call("kv", "count", b"\x90")
