"""The same under both loops: asyncio's own, and uvloop's, which reads several times before it runs what is due."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import haptera
from haptera import ConnectionLost, DeadlineExceeded, Peer, dial
from haptera.peer import link_of
from haptera.wire.payload import decode_failure
from tests.unit.peer.hosts import (
    KIB,
    MIB,
    Batches,
    Echo,
    Gate,
    connected,
    connection_of,
    eventually,
    items_of,
    other_side,
    served,
    transport_of,
)
from tests.unit.peer.raw import RawPeer, hello, request

Scenario = Callable[[Path], Awaitable[None]]


def loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    try:
        import uvloop
    except ImportError:
        return {"asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


async def calls_of_every_kind(path: Path) -> None:
    async with connected(path, Echo(), dialer_services=(Echo(),)) as sides:
        for side in sides:
            assert await side.call("echo", "one", b"x") == b"x"
            assert [item async for item in side.stream("echo", "many", b"3")] == [b"0", b"1", b"2"]
            assert await side.call("echo", "total", items=items_of(b"ab", b"c")) == b"3"
        calls = [side.call("echo", "later", b"%d" % number) for number in range(500) for side in sides]
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(500) for _ in sides]


async def large_items_both_ways_at_once(path: Path) -> None:
    async def duplex(peer: Peer) -> int:
        return sum([len(item) async for item in peer.stream("echo", "both", items=items_of(bytes(8 * MIB)))])

    async with connected(path, Echo(), dialer_services=(Echo(),)) as sides:
        assert await asyncio.gather(*(duplex(side) for side in sides)) == [8 * MIB] * 2


async def large_payloads_as_they_are_signed_or_compressed(path: Path) -> None:
    """Large payloads leave as pieces of their own, between heads and tags."""
    items = [os.urandom(64 * KIB), bytes(64 * KIB), b"small", os.urandom(17 * KIB), os.urandom(200 * KIB)] * 4
    key: dict[str, Any] = {"signing_key": bytes(range(32))}
    choices: list[dict[str, Any]] = [{}, key, {"compression": True}, {**key, "compression": True}]
    for number, options in enumerate(choices):
        place = path / str(number)
        place.mkdir()
        async with connected(place, Echo(), listen_with=options, **options) as (peer, other):
            assert [item async for item in peer.stream("echo", "both", items=items_of(*items))] == items
            assert await asyncio.gather(*(peer.call("echo", "one", item) for item in items)) == items
            assert link_of(peer).bytes_sent == link_of(other).bytes_received > MIB


async def cancelled_at_any_moment(path: Path) -> None:
    gate = Gate()
    async with connected(path, gate, Echo()) as (peer, acceptor):
        for pause in range(20):
            call = peer.request("gate", "wait", b"x", timeout=None)
            for _ in range(pause // 4):
                await asyncio.sleep(0)
            call.cancel()
        with pytest.raises(DeadlineExceeded):
            await peer.call("gate", "wait", b"x", timeout=0.01)
        await eventually(lambda: not connection_of(peer).open_streams and not connection_of(acceptor).open_streams)
        assert await peer.call("echo", "one", b"goes on") == b"goes on"
        assert gate.ended == []


async def drained_behind_a_slow_reader(path: Path) -> None:
    service = Batches()
    async with served(f"haptera+unix://{path}/s", service) as server:
        raw = await RawPeer.open(server.url)
        await raw.send(hello() + b"".join(request(1 + 2 * number, "batches", "x") for number in range(50)))
        await eventually(lambda: len(service.requests) == 50)
        for each in service.requests:
            each.respond(bytes(50 * KIB))
        drain = asyncio.create_task(server.drain())
        await asyncio.sleep(0.01)
        await raw.read_to_end()
        assert [len(await raw.answer(1 + 2 * number)) for number in range(50)] == [50 * KIB] * 50
        await raw.close()
        await drain


async def closed_and_killed(path: Path) -> None:
    gate = Gate()
    async with served(f"haptera+unix://{path}/s", gate) as server:
        for kill in (False, True):
            peer = await dial(server.url)
            call = peer.request("gate", "wait", b"x", timeout=None)
            await eventually(lambda: gate.started)
            acceptor = other_side(server)
            assert acceptor.credentials is not None or not hasattr(socket, "SO_PEERCRED")
            if kill:
                transport_of(acceptor).abort()
            else:
                await acceptor.aclose()
            with pytest.raises(ConnectionLost) as caught:
                await call
            assert caught.value.outcome == "unknown"
            await eventually(lambda: peer.closed and not server.peers)  # noqa: B023
            gate.started.clear()
        assert len(gate.cancelled) == 2


async def told_what_is_wrong(path: Path) -> None:
    async with served(f"haptera+unix://{path}/s", Echo()) as server:
        raw = await RawPeer.open(server.url)
        await raw.send(b"anything else" + bytes(MIB))
        (frame,) = await raw.read_to_end()
        assert decode_failure(frame.payload).code == 1002
        await raw.close()
        await eventually(lambda: not server.peers)


async def not_read_by_its_peer(path: Path) -> None:
    service = Batches()
    async with served(f"haptera+unix://{path}/s", service, write_timeout_s=0.1) as server:
        raw = await RawPeer.open(server.url)
        await raw.send(hello() + request(1, "batches", "x"))
        await eventually(lambda: service.requests)
        service.requests[0].respond(bytes(8 * MIB))
        await eventually(lambda: not server.peers)
        await raw.close()


async def over_tcp(path: Path) -> None:
    async with served("haptera://127.0.0.1:0", Echo()) as server:
        peer = await dial(server.url)
        assert await peer.call("echo", "one", bytes(MIB)) == bytes(MIB)
        await peer.drain()
        with pytest.raises(haptera.errors.ConfigurationError, match="in use"):
            await haptera.listen(server.url)


SCENARIOS: list[Scenario] = [
    calls_of_every_kind,
    large_items_both_ways_at_once,
    large_payloads_as_they_are_signed_or_compressed,
    cancelled_at_any_moment,
    drained_behind_a_slow_reader,
    closed_and_killed,
    told_what_is_wrong,
    not_read_by_its_peer,
    over_tcp,
]


@pytest.mark.parametrize("loop", loops().values(), ids=loops())
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_scenario_is_the_same_under_each_loop(
    short_path: Path, loop: Callable[[], Any], scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haptera.peer.closing.LINGER_S", 0.2)

    async def run() -> None:
        await scenario(short_path)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())
