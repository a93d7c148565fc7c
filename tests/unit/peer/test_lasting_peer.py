"""A peer that comes back: its calls, streams and services over connections that end, and its own end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera import Peer, Request, Service, dial, listen, method
from haptera.authentication import PasswordUsers, verifier_for
from haptera.errors import AuthenticationFailed, ConfigurationError, ConnectionLost, HandlerFailed, WrongLoop
from haptera.peer import LastingPeer, lasting_peer
from haptera.testing import virtual_clock
from tests.unit.peer.hosts import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from haptera import Server


class Echo(Service):
    name = "echo"

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.release = asyncio.Event()

    @method
    async def say(self, request: Request) -> bytes:
        self.seen.append(request.payload)
        return request.payload

    @method
    async def hold(self, request: Request) -> bytes:
        self.seen.append(request.payload)
        await self.release.wait()
        return request.payload

    @method
    async def breaks(self, request: Request) -> bytes:
        raise KeyError

    @method
    async def count(self, request: Request) -> AsyncIterator[bytes]:
        for number in range(3):
            yield str(number).encode()

    @method
    async def begin(self, request: Request) -> AsyncIterator[bytes]:
        yield b"first"
        await self.release.wait()

    @method
    async def total(self, request: Request) -> bytes:
        return str(sum([int(item) async for item in request.items])).encode()

    @method
    async def ask_back(self, request: Request) -> bytes:
        return await request.peer.call("display", "show")


class Display(Service):
    name = "display"

    @method
    async def show(self, request: Request) -> bytes:
        return b"shown"


async def restarted(server: Server, *services: Service) -> Server:
    """End a server at once, and listen in its place again."""
    url = server.url
    await server.aclose()
    return await listen(url, services=services)


async def until(peer: LastingPeer, *, connected: bool) -> None:
    await eventually(lambda: peer.connected is connected)


@virtual_clock
async def test_calls_go_on_after_the_server_was_restarted() -> None:
    server = await listen("haptera://127.0.0.1:0", services=[Echo()])
    async with dial(server.url, reconnect=True) as peer:
        assert type(peer) is LastingPeer
        assert await peer.call("echo", "say", b"1") == b"1"
        for number in range(3):
            server = await restarted(server, Echo())
            assert await peer.call("echo", "say", str(number).encode()) == str(number).encode()
        assert (peer.connected, peer.closed) == (True, False)
    assert (peer.connected, peer.closed) == (False, True)
    await server.aclose()


@virtual_clock
async def test_a_connection_is_dialled_again_without_a_call_and_hosts_the_services() -> None:
    server = await listen("haptera://127.0.0.1:0", services=[Echo()])
    async with dial(server.url, services=[Display()], reconnect=True) as peer:
        server = await restarted(server, Echo())
        await eventually(lambda: bool(server.peers))
        (accepted,) = server.peers
        assert await accepted.call("display", "show") == b"shown"
        assert await peer.call("echo", "ask_back") == b"shown"
    await server.aclose()


@virtual_clock
async def test_a_call_in_flight_is_lost_with_an_unknown_outcome_and_not_sent_again() -> None:
    first, second = Echo(), Echo()
    server = await listen("haptera://127.0.0.1:0", services=[first])
    async with dial(server.url, reconnect=True) as peer:
        call = asyncio.create_task(peer.call("echo", "hold", b"once"))
        await eventually(lambda: bool(first.seen))
        server = await restarted(server, second)
        with pytest.raises(ConnectionLost) as caught:
            await call
        assert caught.value.outcome == "unknown"
        assert await peer.call("echo", "say", b"next") == b"next"
        assert (first.seen, second.seen) == ([b"once"], [b"next"])
    await server.aclose()


@virtual_clock
async def test_a_call_waits_for_a_connection_as_long_as_it_has_time() -> None:
    server = await listen("haptera://127.0.0.1:0", services=[Echo()])
    async with dial(server.url, reconnect=True) as peer:
        await server.aclose()
        await until(peer, connected=False)
        begun = asyncio.get_running_loop().time()
        with pytest.raises(ConnectionLost) as caught:
            await peer.call("echo", "say", timeout=3.0)
        assert caught.value.outcome == "not_applied"
        assert asyncio.get_running_loop().time() - begun == pytest.approx(3.0, abs=0.1)
        waiting = asyncio.create_task(peer.call("echo", "say", b"late", timeout=60.0))
        await asyncio.sleep(10.0)
        server = await listen(server.url, services=[Echo()])
        assert await waiting == b"late"
    await server.aclose()


@virtual_clock
async def test_a_call_is_sent_again_where_the_server_that_goes_away_has_not_taken_it() -> None:
    first = Echo()
    server = await listen("haptera://127.0.0.1:0", services=[first])
    async with dial(server.url, reconnect=True) as peer:
        held = asyncio.create_task(peer.call("echo", "hold", b"held"))
        await eventually(lambda: bool(first.seen))
        draining = asyncio.create_task(server.drain())
        await eventually(lambda: not peer.connected)
        second = Echo()
        later = await listen(server.url, services=[second])
        assert await peer.call("echo", "say", b"elsewhere") == b"elsewhere"
        assert second.seen == [b"elsewhere"]
        first.release.set()
        assert await held == b"held"  # the old connection ends with its last answer
        await draining
    await later.aclose()


@virtual_clock
async def test_errors_of_handlers_are_those_of_calls_and_end_nothing() -> None:
    async with listen("haptera://127.0.0.1:0", services=[Echo()]) as server, dial(server.url, reconnect=True) as peer:
        with pytest.raises(HandlerFailed):
            await peer.call("echo", "breaks")
        with pytest.raises(haptera.DeadlineExceeded):
            await peer.call("echo", "hold", timeout=0.1)
        assert peer.connected


@virtual_clock
async def test_a_stream_begins_when_there_is_a_connection_and_ends_with_it_once_items_have_come() -> None:
    server = await listen("haptera://127.0.0.1:0", services=[Echo()])
    async with dial(server.url, reconnect=True) as peer:
        assert [item async for item in peer.stream("echo", "count")] == [b"0", b"1", b"2"]
        stream = peer.stream("echo", "begin")
        assert await anext(stream) == b"first"
        await server.aclose()
        with pytest.raises(ConnectionLost) as caught:
            await anext(stream)
        assert caught.value.outcome == "unknown"
        await until(peer, connected=False)
        waiting = peer.stream("echo", "count")
        first = asyncio.create_task(anext(waiting))
        await asyncio.sleep(5.0)
        server = await listen(server.url, services=[Echo()])
        assert await first == b"0"
        assert [item async for item in waiting] == [b"1", b"2"]
        assert waiting.answer is not None
        async with peer.stream("echo", "begin") as left:
            await anext(left)
        assert [item async for item in left] == []
    await server.aclose()


@virtual_clock
async def test_items_are_sent_and_never_sent_twice() -> None:
    made = []

    async def numbers() -> AsyncIterator[bytes]:
        for number in (1, 2, 3):
            made.append(number)
            yield str(number).encode()

    async with listen("haptera://127.0.0.1:0", services=[Echo()]) as server, dial(server.url, reconnect=True) as peer:
        assert await peer.call("echo", "total", items=numbers()) == b"6"
    assert made == [1, 2, 3]


@virtual_clock
async def test_each_connection_is_told_to_the_callbacks() -> None:
    server = await listen("haptera://127.0.0.1:0", services=[Echo()])
    async with dial(server.url, reconnect=True) as peer:
        told: list[Peer] = []
        peer.on_connect(told.append)
        await eventually(lambda: bool(told))
        later: list[Peer] = []
        peer.on_connect(later.append)
        await asyncio.sleep(1.0)
        assert told == later == [peer.peer]
        server = await restarted(server, Echo())
        await peer.ready(5.0)
        await eventually(lambda: len(told) == 2)
        assert told[0].closed
        assert told[1] is peer.peer
    await server.aclose()


@virtual_clock
async def test_a_listener_that_ends_each_connection_at_once_is_dialled_with_growing_pauses() -> None:
    met: list[float] = []
    time = asyncio.get_running_loop().time

    def end(accepted: Peer) -> None:
        met.append(time())
        accepted_ends.append(asyncio.create_task(later(accepted)))

    async def later(accepted: Peer) -> None:
        await accepted.ready()
        await accepted.aclose()

    accepted_ends: list[asyncio.Task[None]] = []
    async with (
        listen("haptera://127.0.0.1:0", services=[Echo()], on_peer=end) as server,
        dial(server.url, reconnect=True, timeout=None),
    ):
        await asyncio.sleep(60.0)
    assert 10 < len(met) < 200


@virtual_clock
async def test_the_first_connection_is_dialled_for_as_long_as_there_is_time() -> None:
    async with listen("haptera://127.0.0.1:0") as server:
        url = server.url
    with pytest.raises(ConnectionLost, match="in time"):
        await dial(url, reconnect=True, timeout=2.0)
    dialling = asyncio.create_task(dial(url, reconnect=True, timeout=30.0))
    await asyncio.sleep(5.0)
    async with listen(url, services=[Echo()]), await dialling as peer:
        assert await peer.call("echo", "say", b"x") == b"x"


@virtual_clock
async def test_a_mistake_in_the_url_or_a_keyword_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError):
        await dial("haptera://127.0.0.1:7457?unknown=1", reconnect=True)
    with pytest.raises(ConfigurationError):
        await dial("haptera://127.0.0.1:7457", reconnect=True, write_timeout_s=-1.0)
    with pytest.raises(ValueError, match="above 0"):
        await dial("haptera://127.0.0.1:7457", reconnect=True, timeout=0)


@virtual_clock
async def test_a_refused_user_ends_it_for_good() -> None:
    def users(password: str) -> PasswordUsers:
        return PasswordUsers({"ada": verifier_for(password)})

    server = await listen("haptera://127.0.0.1:0", services=[Echo()], authenticator=users("a long sentence"))
    with pytest.raises(AuthenticationFailed):
        await dial(server.url, reconnect=True, user="ada", password="a guess")
    async with dial(server.url, reconnect=True, user="ada", password="a long sentence") as peer:
        assert await peer.call("echo", "say", b"x") == b"x"
        await server.aclose()
        server = await listen(server.url, services=[Echo()], authenticator=users("another sentence"))
        await eventually(lambda: peer.closed)
        assert AuthenticationFailed in type(peer.error).__mro__
        for _ in range(2):
            with pytest.raises(AuthenticationFailed) as caught:
                await peer.call("echo", "say")
            assert caught.value.outcome == "not_applied"
            assert ConnectionLost in type(caught.value).__mro__
    await server.aclose()


@virtual_clock
async def test_another_host_is_used_where_the_first_is_gone() -> None:
    first, second = Echo(), Echo()
    one = await listen("haptera://127.0.0.1:0", services=[first])
    async with listen("haptera://127.0.0.1:0", services=[second]) as two:
        hosts = ",".join(server.url.removeprefix("haptera://") for server in (one, two))
        async with dial(f"haptera://{hosts}", reconnect=True) as peer:
            await peer.call("echo", "say", b"1")
            await one.aclose()
            await peer.call("echo", "say", b"2")
    assert (first.seen, second.seen) == ([b"1"], [b"2"])


@virtual_clock
async def test_closing_ends_calls_that_wait_and_is_harmless_twice() -> None:
    server = await listen("haptera://127.0.0.1:0", services=[Echo()])
    peer = await dial(server.url, reconnect=True)
    await server.aclose()
    await until(peer, connected=False)
    waiting = asyncio.create_task(peer.call("echo", "say", timeout=None))
    await asyncio.sleep(1.0)
    await peer.aclose()
    await peer.aclose()
    with pytest.raises(ConnectionLost, match="closed"):
        await waiting
    with pytest.raises(ConnectionLost, match="closed"):
        await peer.call("echo", "say")


@virtual_clock
async def test_a_drain_waits_for_calls_under_way_and_takes_no_more() -> None:
    service = Echo()
    async with listen("haptera://127.0.0.1:0", services=[service]) as server:
        peer = await dial(server.url, reconnect=True)
        call = asyncio.create_task(peer.call("echo", "hold", b"held"))
        await eventually(lambda: bool(service.seen))
        draining = asyncio.create_task(peer.drain())
        await asyncio.sleep(0.5)
        with pytest.raises(ConnectionLost) as caught:
            await peer.call("echo", "say")
        assert caught.value.outcome == "not_applied"
        service.release.set()
        assert await call == b"held"
        await draining
        assert peer.closed
        assert service.seen == [b"held"]


@virtual_clock
async def test_a_call_of_a_handler_waits_no_longer_than_its_request() -> None:
    class Relay(Service):
        name = "relay"

        @method
        async def on(self, request: Request) -> bytes:
            return await lasting.call("echo", "say", timeout=600.0)

    gone = await listen("haptera://127.0.0.1:0", services=[Echo()])
    lasting = await dial(gone.url, reconnect=True)
    await gone.aclose()
    async with listen("haptera://127.0.0.1:0", services=[Relay()]) as server, dial(server.url) as peer:
        begun = asyncio.get_running_loop().time()
        with pytest.raises(haptera.errors.ServerError):
            await peer.call("relay", "on", timeout=2.0)
        assert asyncio.get_running_loop().time() - begun < 3.0
    await lasting.aclose()


@virtual_clock
async def test_callbacks_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting_peer, "CALLBACKS_MAX", 2)
    async with listen("haptera://127.0.0.1:0") as server, dial(server.url, reconnect=True) as peer:
        peer.on_connect(lambda _: None)
        peer.on_connect(lambda _: None)
        with pytest.raises(ValueError, match="at most 2"):
            peer.on_connect(lambda _: None)


async def test_another_loop_is_refused() -> None:
    async with listen("haptera://127.0.0.1:0", services=[Echo()]) as server, dial(server.url, reconnect=True) as peer:

        async def elsewhere() -> None:
            with pytest.raises(WrongLoop):
                await peer.call("echo", "say")
            with pytest.raises(WrongLoop):
                peer.stream("echo", "count")
            with pytest.raises(WrongLoop):
                await peer.aclose()

        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
        assert await peer.call("echo", "say", b"x") == b"x"


async def test_one_that_is_dropped_open_is_told() -> None:
    async with listen("haptera://127.0.0.1:0", services=[Echo()]) as server:
        held = [await dial(server.url, reconnect=True)]
        connection = held[0].peer
        assert connection is not None
        with pytest.warns(ResourceWarning, match="unclosed haptera.LastingPeer"):
            held.clear()
        await connection.aclose()
        await asyncio.sleep(0)


def test_one_that_is_open_at_the_end_of_its_loop_is_told() -> None:
    """In a process of its own, because the transport that stays open would be told in another test."""
    program = """
import asyncio, haptera
from haptera.testing.nodes import node_in_thread
async def main(url):
    global peer
    peer = await haptera.dial(url, reconnect=True)
with node_in_thread(storage="memory", listen="tcp") as url:
    asyncio.run(main(url))
    del peer
"""
    command = [sys.executable, "-W", "default::ResourceWarning", "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert "ResourceWarning: unclosed haptera.LastingPeer haptera://127.0.0.1:" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
async def test_a_forked_child_leaves_it_to_its_parent(tmp_path: Path) -> None:
    async with listen("haptera://127.0.0.1:0", services=[Echo()]) as server, dial(server.url, reconnect=True) as peer:
        child = os.fork()
        if not child:
            found = "nothing"
            try:
                peer.stream("echo", "count")
            except WrongLoop as error:
                found = str(error)
            (tmp_path / "found").write_text(found)
            os._exit(0)
        os.waitpid(child, 0)
        assert "forked from it" in (tmp_path / "found").read_text()
        assert await peer.call("echo", "say", b"x") == b"x"
