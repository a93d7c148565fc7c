"""How connections and servers begin and end (spec/protocol.md, sections 1 and 3, "Ending")."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import stat
import weakref
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera import ConnectionLost, Peer, Request, Service, dial, listen, method
from haptera.errors import ConfigurationError
from haptera.peer import limits, link_of
from haptera.testing import MemoryTransport, VirtualClockLoop, proxy, virtual_clock
from haptera.wire.frame import FrameType, encode_frame
from haptera.wire.payload import Goaway, decode_failure, decode_payload, encode_payload
from tests.unit.peer.hosts import (
    ANY_PORT,
    KIB,
    MIB,
    Batches,
    Echo,
    Gate,
    connection_of,
    dispatcher_of,
    eventually,
    items_of,
    other_side,
    pair,
    served,
    transport_of,
    turns,
)
from tests.unit.peer.raw import RawPeer, hello, request

if TYPE_CHECKING:
    from pathlib import Path


def now() -> float:
    return asyncio.get_running_loop().time()


# -- an orderly end ---------------------------------------------------------------------------------------------------


@virtual_clock
async def test_draining_answers_what_is_under_way_and_refuses_what_is_new() -> None:
    gate = Gate()
    async with pair(gate, Echo()) as (peer, acceptor):
        running = [peer.request("gate", "wait", b"%d" % number, timeout=None) for number in range(10)]
        await eventually(lambda: len(gate.started) == 10)
        drain = asyncio.create_task(acceptor.drain())
        await eventually(lambda: peer.going_away)
        answer = await peer.request("echo", "one", b"new", timeout=None)
        assert answer.failure is not None
        assert (answer.failure.code, answer.failure.outcome) == (1014, "not_applied")
        assert not drain.done()
        gate.open.set()
        assert [(await call).payload for call in running] == [b"%d" % number for number in range(10)]
        await drain
        await eventually(lambda: peer.closed and acceptor.closed)


@virtual_clock
async def test_a_request_that_crosses_goaway_is_1014() -> None:
    gate = Gate()
    async with served(ANY_PORT, gate) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        await raw.request(1, "gate", "wait", b"a")
        await eventually(lambda: gate.started)
        drain = asyncio.create_task(server.drain())
        while not any(frame.type == FrameType.GOAWAY for frame in raw.frames):
            assert await raw.read()
        (goaway,) = [frame for frame in raw.frames if frame.type == FrameType.GOAWAY]
        assert decode_payload(Goaway, goaway.payload).last_stream == 1
        await raw.request(3, "gate", "wait", b"b")
        error = await raw.error(3)
        assert (error.code, error.outcome) == (1014, "not_applied")
        gate.open.set()
        assert await raw.answer(1) == b"a"
        assert not await raw.read()
        await raw.close()
        await drain
        assert gate.started == [b"a"]


@virtual_clock
async def test_a_side_that_drains_opens_no_more_streams_but_waits_for_its_calls() -> None:
    gate = Gate()
    async with pair(gate) as (peer, _):
        running = peer.request("gate", "wait", b"a", timeout=None)
        await eventually(lambda: gate.started)
        drain = asyncio.create_task(peer.drain())
        await turns(3)
        answer = await peer.request("gate", "wait", b"b", timeout=None)
        assert answer.failure is not None
        assert answer.failure.code == 1014
        with pytest.raises(haptera.errors.GoingAway):
            await anext(peer.stream("gate", "items", b"0", items=items_of(b"x")))
        gate.open.set()
        assert (await running).payload == b"a"
        await drain
        assert gate.started == [b"a"]


@virtual_clock
async def test_calls_that_wait_to_be_sent_are_made_before_a_drain_ends() -> None:
    async with served(ANY_PORT, Echo()) as server:
        peer = await dial(server.url)
        calls = [peer.request("echo", "later", b"%d" % number, timeout=None) for number in range(300)]
        await peer.drain()
        assert [(await call).payload for call in calls] == [b"%d" % number for number in range(300)]


@virtual_clock
async def test_draining_loses_no_answer_that_waits_for_a_slow_reader() -> None:
    """Small answers count as given before they are written, and large ones leave in turns."""
    service = Batches()
    async with served(ANY_PORT, service) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        await raw.send(b"".join(request(1 + 2 * number, "batches", "x") for number in range(100)))
        await eventually(lambda: len(service.requests) == 100)
        for request_ in service.requests:
            request_.respond(bytes(30 * KIB if request_.stream % 4 == 1 else 200 * KIB))
        drain = asyncio.create_task(server.drain())
        await turns()
        await raw.read_to_end()
        sizes = [len(await raw.answer(1 + 2 * number)) for number in range(100)]
        assert sizes == [30 * KIB, 200 * KIB] * 50
        await raw.close()
        await drain


@virtual_clock
async def test_a_drain_that_takes_too_long_gives_up_what_is_left() -> None:
    gate = Gate()
    async with pair(gate) as (peer, acceptor):
        call = peer.request("gate", "wait", b"a", timeout=None)
        await eventually(lambda: gate.started)
        start = now()
        await acceptor.drain(timeout=30.0)
        assert now() - start == pytest.approx(30.0)
        with pytest.raises(ConnectionLost) as caught:
            await call
        assert caught.value.outcome == "unknown"
        assert gate.cancelled == [b"a"]


@virtual_clock
async def test_draining_and_closing_may_be_repeated_in_any_order() -> None:
    async with pair(Echo()) as (peer, acceptor):
        await asyncio.gather(peer.drain(), acceptor.drain(), peer.drain(), acceptor.aclose(), peer.aclose())
        await peer.aclose()
        await peer.drain()
        assert peer.closed
        assert acceptor.closed


@virtual_clock
async def test_a_server_drains_all_its_peers_and_takes_no_more() -> None:
    gate = Gate()
    server = await listen(ANY_PORT, services=[gate])
    peers = [await dial(server.url) for _ in range(5)]
    calls = [peer.request("gate", "wait", b"x", timeout=None) for peer in peers]
    await eventually(lambda: len(gate.started) == 5)
    drain = asyncio.create_task(server.drain())
    await eventually(lambda: all(peer.going_away for peer in peers))
    with pytest.raises(ConnectionLost):
        await dial(server.url)
    gate.open.set()
    assert [(await call).payload for call in calls] == [b"x"] * 5
    await drain
    await eventually(lambda: all(peer.closed for peer in peers))
    assert server.peers == set()
    await server.drain()
    await server.aclose()


@virtual_clock
async def test_draining_tells_a_connection_that_never_said_hello_to_go_elsewhere() -> None:
    server = await listen(ANY_PORT)
    raw = await RawPeer.open(server.url)
    await eventually(lambda: server.peers)
    draining = asyncio.create_task(server.drain())
    (frame,) = await raw.read_to_end()
    assert (frame.type, frame.stream) == (FrameType.ERROR, 0)
    said = decode_failure(frame.payload)
    assert (said.code, said.outcome) == (1014, "not_applied")
    await raw.close()
    await draining


async def test_a_first_flight_at_a_server_that_drains_is_not_applied(short_path: Path) -> None:
    """Though the connection had not even been accepted, but for the kernel."""
    server = await listen(f"haptera+unix://{short_path}/s", services=[Echo()])
    with socket.socket(socket.AF_UNIX) as dialler:
        dialler.connect(f"{short_path}/s")
        dialler.sendall(hello() + request(1, "echo", "one", b"x"))
        draining = asyncio.create_task(server.drain())
        dialler.setblocking(False)
        raw = RawPeer(*await asyncio.open_unix_connection(sock=dialler))
        (frame,) = await raw.read_to_end()
        assert (frame.type, frame.stream) == (FrameType.ERROR, 0)
        said = decode_failure(frame.payload)
        assert (said.code, said.outcome) == (1014, "not_applied")
        await raw.close()
        await draining


# -- closing ----------------------------------------------------------------------------------------------------------


@virtual_clock
async def test_closing_fails_calls_under_way_and_cancels_handlers() -> None:
    gate = Gate()
    async with pair(gate, dialer_services=(gate,)) as (peer, acceptor):
        calls = [side.request("gate", "wait", b"x", timeout=None) for side in (peer, acceptor)]
        await eventually(lambda: len(gate.started) == 2)
        await peer.aclose()
        await eventually(lambda: acceptor.closed)
        for call in calls:
            with pytest.raises(ConnectionLost) as caught:
                await call
            assert caught.value.outcome == "unknown"
        await eventually(lambda: len(gate.cancelled) == 2)


@virtual_clock
async def test_closing_does_not_wait_for_a_side_that_reads_nothing() -> None:
    service = Batches()
    async with served(ANY_PORT, service) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        await raw.request(1, "batches", "x", b"")
        await eventually(lambda: service.requests)
        service.requests[0].respond(bytes(8 * MIB))
        await turns()
        start = now()
        await server.aclose()
        assert now() - start == pytest.approx(limits.LINGER_S)
        assert server.peers == set()
        await raw.close()


@virtual_clock
async def test_a_handler_that_goes_on_though_it_is_cancelled_does_not_hold_up_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = asyncio.Event()

    class Stubborn(Service):
        name = "stubborn"

        @method
        async def go_on(self, request: Request) -> bytes:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    pass
            return b"too late"

    async with pair(Stubborn()) as (peer, acceptor):
        call = peer.request("stubborn", "go_on", b"", timeout=None)
        await eventually(lambda: acceptor._dispatcher.requests)
        await turns()
        start = now()
        await acceptor.aclose()
        assert now() - start == pytest.approx(limits.HANDLERS_END_S)
        assert [record.getMessage() for record in caplog.records] == ["handlers_go_on"]
        with pytest.raises(ConnectionLost):
            await call
        release.set()
        await eventually(lambda: not dispatcher_of(acceptor).handlers.tasks)


@virtual_clock
async def test_a_handler_may_swallow_its_cancellation_and_answer() -> None:
    class Calm(Service):
        name = "calm"

        @method
        async def answer(self, request: Request) -> bytes:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return b"anyway"
            return b""

    async with pair(Calm(), Echo()) as (peer, acceptor):
        call = peer.request("calm", "answer", b"", timeout=None)
        await eventually(lambda: acceptor._dispatcher.requests)
        await turns(3)
        call.cancel()
        await eventually(lambda: not connection_of(peer).open_streams)
        assert await peer.call("echo", "one", b"x") == b"x"


@virtual_clock
async def test_a_handler_may_close_its_own_connection() -> None:
    class Closing(Service):
        name = "closing"

        @method
        async def close(self, request: Request) -> bytes:
            await request.peer.aclose()
            return b"never"

    async with pair(Closing()) as (peer, acceptor):
        with pytest.raises(ConnectionLost):
            await peer.call("closing", "close")
        await eventually(lambda: acceptor.closed)


@virtual_clock
async def test_callbacks_at_the_end_are_called_once() -> None:
    seen: list[str] = []
    async with pair(Echo()) as (peer, acceptor):
        for side in (peer, acceptor):
            side.on_close(lambda: seen.append("closed"))
        await peer.aclose()
        await eventually(lambda: len(seen) == 2)
        peer.on_close(lambda: seen.append("at once"))
        peer.when_writable(lambda: seen.append("never"))
        await turns()
    assert seen == ["closed", "closed", "at once"]


# -- losing the connection --------------------------------------------------------------------------------------------


@virtual_clock
async def test_a_drain_ends_with_the_last_answer_to_its_own_calls_though_nothing_is_written_then() -> None:
    gate = Gate()
    async with pair(gate) as (peer, _):
        call = asyncio.create_task(peer.call("gate", "wait", b"x", timeout=None))
        await eventually(lambda: gate.started)
        draining = asyncio.create_task(peer.drain(3600.0))
        await asyncio.sleep(10.0)
        gate.open.set()
        begun = asyncio.get_running_loop().time()
        assert await call == b"x"
        await draining
        assert asyncio.get_running_loop().time() - begun < 2.0


@virtual_clock
async def test_calls_of_a_peer_that_is_killed_are_lost_sent_ones_unknown_unsent_ones_not_applied() -> None:
    gate = Gate()
    async with served(ANY_PORT, gate) as server:
        peer = await dial(server.url)
        calls = [peer.request("gate", "wait", b"x", timeout=None) for _ in range(1100)]
        await eventually(lambda: len(gate.started) == 1024)
        transport_of(other_side(server)).abort()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {ConnectionLost}
        outcomes = [result.outcome for result in results if isinstance(result, ConnectionLost)]
        assert outcomes == ["unknown"] * 1024 + ["not_applied"] * 76
        await eventually(lambda: peer.closed)


@virtual_clock
async def test_why_a_connection_was_lost_is_told() -> None:
    async with pair(Gate()) as (peer, _):
        call = peer.request("gate", "wait", b"x", timeout=None)
        await turns(3)
        link_of(peer).connection_lost(ConnectionResetError(104, "Connection reset by peer"))
        with pytest.raises(ConnectionLost, match="reset by peer") as caught:
            await call
        assert isinstance(caught.value, ConnectionError)
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        transport_of(peer).abort()


async def acceptor_that_sends(data: bytes) -> tuple[asyncio.Server, str]:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(data)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    return server, f"haptera://{host}:{port}"


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (haptera.errors.failure(1001, {"versions": [7]}), "not_applied"),
        (haptera.Failure(1999, "NEW_CODE", "a code of a later version", "not_applied", {}), "not_applied"),
        (None, "unknown"),
    ],
)
@virtual_clock
async def test_a_refused_handshake_applied_nothing_and_a_lost_one_may_have(
    failure: haptera.Failure | None, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = b"" if failure is None else encode_frame(FrameType.ERROR, 0, 0, b"", encode_payload(failure))
    server, url = await acceptor_that_sends(data)
    peer = await dial(url)
    with pytest.raises(ConnectionLost) as caught:
        await peer.call("echo", "one")
    assert caught.value.outcome == outcome
    assert caught.value.failure == failure
    if failure is not None:
        assert failure.name in str(caught.value)
        (record,) = caplog.records
        assert (record.getMessage(), vars(record)["code"]) == ("connection_ended_by_peer", failure.code)
        assert vars(record)["code_name"] == failure.name
    with pytest.raises(ConnectionLost):
        await peer.ready()
    await peer.aclose()
    server.close()
    await server.wait_closed()


@virtual_clock
async def test_the_reason_that_a_peer_gives_is_nothing_that_a_terminal_obeys() -> None:
    failure = haptera.Failure(1999, "N\x1b[2J", "gone\r\n\x1b]0;title\x07", "unknown", {})
    server, url = await acceptor_that_sends(encode_frame(FrameType.ERROR, 0, 0, b"", encode_payload(failure)))
    peer = await dial(url)
    with pytest.raises(ConnectionLost, match="gone") as caught:
        await peer.ready()
    assert str(caught.value).isprintable()
    assert caught.value.failure == failure
    await peer.aclose()
    server.close()
    await server.wait_closed()


class Keeps(asyncio.Protocol):
    """An other side that takes what comes, and never closes: one that is frozen."""

    def eof_received(self) -> bool:
        return True


@virtual_clock
async def test_closing_waits_no_longer_for_who_does_not_close() -> None:
    server = await asyncio.get_running_loop().create_server(Keeps, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    peer = await dial(f"haptera://{host}:{port}")
    await asyncio.wait_for(peer.aclose(), limits.LINGER_S + 0.001)
    assert peer.closed
    server.close()


@pytest.mark.parametrize("end", ["it is closed", "it reads"])
@virtual_clock
async def test_a_drain_waits_for_who_has_not_taken_an_answer_until_it_is_closed(end: str) -> None:
    service = Batches()
    async with served(ANY_PORT, service) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        await raw.request(1, "batches", "x", b"")
        await eventually(lambda: service.requests)
        acceptor = other_side(server)
        service.requests[0].respond(bytes(220 * KIB))  # more than is on its way, less than the transport takes
        await turns()
        draining = asyncio.create_task(acceptor.drain(30.0))
        await asyncio.sleep(10.0)
        assert server.peers == {acceptor}
        if end == "it reads":
            assert len(await raw.answer(1)) == 220 * KIB
            await raw.read_to_end()
            await draining
            assert now() < 12.0
        else:
            await asyncio.wait_for(acceptor.aclose(), limits.LINGER_S + 0.001)
            await draining
        assert server.peers == set()
        await raw.close()


@pytest.mark.parametrize("link", ["frozen", "dead"])
@virtual_clock
async def test_a_drain_ends_as_soon_as_nothing_is_owed(link: str) -> None:
    """Trap: a peer that owes nothing is waited for at shutdown, because it is frozen or gone."""
    async with served(ANY_PORT, Echo()) as server, proxy(server.url) as between:
        raw = await RawPeer.open(between.url if link == "dead" else server.url)
        await raw.hello()
        await raw.request(1, "echo", "one", b"x")
        assert await raw.answer(1) == b"x"
        if link == "dead":
            between.pause()
        start = now()
        await server.drain(30.0)
        assert now() - start <= 2 * limits.LINGER_S
        assert server.peers == set()
        between.resume()
        await raw.close()


@virtual_clock
async def test_a_dialler_drains_a_dead_link_as_fast() -> None:
    """Trap: a peer that owes nothing is waited for at shutdown, because it is frozen or gone."""
    async with served(ANY_PORT, Echo()) as server, proxy(server.url) as between:
        peer = await dial(between.url)
        assert await peer.call("echo", "one", b"x") == b"x"
        between.pause()
        start = now()
        await peer.drain(30.0)
        assert now() - start <= 2 * limits.LINGER_S
        between.resume()


@pytest.mark.parametrize("given_up", ["cancelled", "overdue", "cancelled meanwhile"])
@virtual_clock
async def test_a_drain_waits_for_no_answer_that_its_caller_has_given_up(given_up: str) -> None:
    """Trap: a peer that owes nothing is waited for at shutdown. It is frozen, and the call on it is over."""
    async with served(ANY_PORT, Echo()) as server, proxy(server.url) as between:
        peer = await dial(between.url)
        await peer.ready()
        between.pause()
        call = asyncio.create_task(peer.call("echo", "one", b"x", timeout=0.2 if given_up == "overdue" else 60.0))
        await asyncio.sleep(0.3)
        start = now()
        if given_up == "cancelled meanwhile":
            asyncio.get_running_loop().call_later(0.5, call.cancel)
        else:
            call.cancel()
        await peer.drain(30.0)
        assert now() - start <= 0.5 + 2 * limits.LINGER_S
        with pytest.raises((haptera.DeadlineExceeded, asyncio.CancelledError)):
            await call
        between.resume()


async def test_over_tcp_an_answer_that_the_kernel_still_has_is_waited_for() -> None:
    """And nothing else: it knows what a client has acknowledged that never closes."""
    service = Batches()
    async with served("haptera://127.0.0.1:0", service) as server:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
            sock.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
            sock.sendall(hello() + request(1, "batches", "x"))
            await eventually(lambda: service.requests)
            peer = other_side(server)
            service.requests[0].respond(bytes(60 * KIB))
            draining = asyncio.create_task(server.drain(3600.0))
            await eventually(lambda: link_of(peer).ending)
            assert transport_of(peer).get_write_buffer_size() == 0
            await asyncio.sleep(1.5 * limits.LINGER_S)
            assert not draining.done()
            sock.setblocking(False)
            while await asyncio.get_running_loop().sock_recv(sock, 64 * KIB):
                pass
            await draining


@virtual_clock
async def test_who_is_gone_before_it_is_refused_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def not_connected(_: MemoryTransport) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    async with await listen(ANY_PORT, max_connections=1) as server:
        first = await dial(server.url)
        await first.ready()
        monkeypatch.setattr(MemoryTransport, "write_eof", not_connected)
        raw = await RawPeer.open(server.url)
        await eventually(lambda: server.refused == 1)
        assert len(server._pool.leaving) == 1
        await asyncio.sleep(limits.LINGER_S)
        assert not server._pool.leaving
        await raw.close()
        await first.aclose()
    assert [record for record in caplog.records if record.exc_info] == []


async def test_one_thousand_connections_leave_nothing_behind(short_path: Path) -> None:
    """Objects, tasks and file descriptors."""
    async with served(f"haptera+unix://{short_path}/s", Echo(), Gate()) as server:
        alive: weakref.WeakSet[Peer] = weakref.WeakSet()
        descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

        async def visit(number: int) -> None:
            peer = await dial(server.url, timeout=60.0)  # fifty at once on a busy machine
            alive.add(peer)
            assert await peer.call("echo", "one", b"x", timeout=60.0) == b"x"
            left = peer.request("gate", "wait", b"x", timeout=60.0)
            if number % 2:
                left.cancel()
            alive.update(server.peers)
            await peer.aclose()
            assert left.done()
            assert left.cancelled() or left.exception()

        for start in range(0, 1000, 50):
            await asyncio.gather(*(visit(number) for number in range(start, start + 50)))
        await eventually(lambda: not server.peers)
        assert server.accepted == 1000
        await turns()
        gc.collect()
        assert len(alive) == 0
        assert len(asyncio.all_tasks()) == 1
        if descriptors:
            assert len(os.listdir("/proc/self/fd")) <= descriptors + 1


# -- dialling ---------------------------------------------------------------------------------------------------------


async def test_a_peer_that_is_not_there_is_lost_and_not_applied(short_path: Path, unused_port: int) -> None:
    for url, name in (
        (f"haptera://127.0.0.1:{unused_port}", f"127.0.0.1:{unused_port}"),
        (f"haptera+unix://{short_path}/none", f"{short_path}/none"),
        (f"haptera+unix:///{'x' * 200}", "xxx"),
    ):
        with pytest.raises(ConnectionLost, match=f"cannot connect to .*{name}") as caught:
            await dial(url)
        assert caught.value.outcome == "not_applied"


async def test_hosts_are_tried_in_turn(unused_port: int) -> None:
    async with served("haptera://127.0.0.1:0", Echo()) as server:
        port = server.url.rpartition(":")[2]
        peer = await dial(f"haptera://127.0.0.1:{unused_port},127.0.0.1:{port}")
        assert await peer.call("echo", "one", b"x") == b"x"
        assert peer.remote == f"127.0.0.1:{port}"
        assert peer.dialled == ("127.0.0.1", int(port))
        await peer.aclose()
    with pytest.raises(ConnectionLost) as caught:
        await dial(f"haptera://127.0.0.1:{unused_port},127.0.0.1:{port}")
    assert str(caught.value).count("cannot connect to") == 2


@virtual_clock
async def test_a_slow_connect_takes_nothing_from_the_time_for_the_handshake() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    loop.network.delay(2.0)
    async with served(ANY_PORT, Echo()) as server:
        peer = await dial(server.url, timeout=5.0, handshake_timeout_s=5.0)
        assert now() == 4.0
        assert await peer.call("echo", "one", b"x") == b"x"
        assert now() == 8.0
        await peer.aclose()


# -- listening --------------------------------------------------------------------------------------------------------


async def test_a_server_says_its_real_port() -> None:
    for url in ("haptera://127.0.0.1:0", "haptera://localhost:0"):
        async with served(url, Echo()) as server:
            assert not server.url.endswith(":0")
            peer = await dial(server.url)
            assert await peer.call("echo", "one", b"x") == b"x"
            await peer.aclose()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_ipv6_is_listened_on_and_dialled() -> None:
    try:
        server = await listen("haptera://[::1]:0", services=[Echo()])
    except ConfigurationError:
        pytest.skip("no IPv6 loopback here")
    assert server.url.startswith("haptera://[::1]:")
    peer = await dial(server.url)
    assert await peer.call("echo", "one", b"x") == b"x"
    assert other_side(server).remote.startswith("[::1]:")
    await peer.aclose()
    await server.aclose()


async def test_a_port_in_use_is_a_configuration_error() -> None:
    async with served("haptera://127.0.0.1:0") as server:
        with pytest.raises(
            ConfigurationError, match=r"cannot listen on haptera://127.0.0.1:\d+: Address already in use"
        ):
            await listen(server.url)


async def test_a_host_that_is_not_here_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="cannot listen on"):
        await listen("haptera://192.0.2.1:0")
    with pytest.raises(ConfigurationError, match="several hosts"):
        await listen("haptera://127.0.0.1:0,127.0.0.1:0")


@pytest.mark.parametrize("mode", [0o600, 0o660])
async def test_a_unix_socket_has_its_mode_and_is_removed_at_the_end(short_path: Path, mode: int) -> None:
    path = short_path / "a socket"
    keywords = {} if mode == 0o600 else {"mode": mode}
    async with served(f"haptera+unix://{short_path}/a%20socket", Echo(), **keywords) as server:
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        peer = await dial(server.url)
        assert await peer.call("echo", "one", b"x") == b"x"
        credentials = other_side(server).credentials
        assert credentials is None or (credentials.pid, credentials.uid) == (os.getpid(), os.getuid())
        await peer.aclose()
    assert not path.exists()


async def test_a_stale_socket_is_removed_a_live_one_and_a_file_are_not(short_path: Path) -> None:
    url = f"haptera+unix://{short_path}/s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{short_path}/s")
    async with served(url, Echo()):
        with pytest.raises(ConfigurationError, match="somebody listens"):
            await listen(url)
        peer = await dial(url)
        assert await peer.call("echo", "one", b"x") == b"x"
        await peer.aclose()
    (short_path / "s").write_text("precious")
    with pytest.raises(ConfigurationError, match="not a socket"):
        await listen(url)
    assert (short_path / "s").read_text() == "precious"


async def test_a_server_removes_no_socket_but_its_own(short_path: Path) -> None:
    first = await listen(f"haptera+unix://{short_path}/s")
    (short_path / "s").unlink()
    async with served(f"haptera+unix://{short_path}/s", Echo()) as second:
        await first.aclose()
        peer = await dial(second.url)
        assert await peer.call("echo", "one", b"x") == b"x"
        await peer.aclose()


@pytest.mark.parametrize("name", ["x" * 120, "x" * 300, "none/s", "%00"])
async def test_a_path_that_cannot_be_a_socket_is_a_configuration_error(short_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"too long|No such file|NUL"):
        await listen(f"haptera+unix://{short_path}/{name}")


async def test_a_connection_that_comes_as_the_listener_closes_is_told_to_go_elsewhere(short_path: Path) -> None:
    """The kernel has accepted it, and nobody else yet."""
    server = await listen(f"haptera+unix://{short_path}/s", services=[Echo()])
    raw = await RawPeer.open(server.url)
    server.close()
    assert [(frame.type, frame.stream) for frame in await raw.read_to_end()] == [(FrameType.ERROR, 0)]
    await raw.close()
    await server.aclose()
    assert server.peers == set()
