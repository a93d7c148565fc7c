"""How many may connect, how long they may be silent, and what they cost (spec/protocol.md, section 8)."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import tracemalloc
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

import haptera
from haptera import ConnectionLost, dial, listen
from haptera.connection import Budget
from haptera.peer import limits, link_of
from haptera.testing import connected_peers, virtual_clock
from haptera.transport import CONNECTIONS_MAX, HALF_OPEN_MAX
from haptera.wire.frame import FrameType, encode_frame
from haptera.wire.payload import Goaway, decode_failure, decode_payload
from tests.unit.peer.hosts import (
    ANY_PORT,
    KIB,
    MIB,
    Batches,
    Echo,
    Gate,
    eventually,
    other_side,
    served,
    transport_of,
    turns,
)
from tests.unit.peer.raw import RawPeer, hello

if TYPE_CHECKING:
    from pathlib import Path


async def refusal(raw: RawPeer) -> haptera.Failure:
    """What a connection was told before it was closed."""
    (frame,) = await raw.read_to_end()
    assert (frame.type, frame.stream) == (FrameType.ERROR, 0)
    return decode_failure(frame.payload)


# -- how many -----------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_specification() -> None:
    assert (CONNECTIONS_MAX, HALF_OPEN_MAX) == (10_000, 4096)


@virtual_clock
async def test_accepting_is_not_blocked_by_idle_half_open_connections() -> None:
    """Trap: accept blocked by idle half-open connections.

    The oldest makes room, and is told why.
    """
    async with served(ANY_PORT, Echo(), max_half_open=8) as server:
        silent = []
        for number in range(30):
            silent.append(await RawPeer.open(server.url))
            await eventually(lambda: server.accepted == number + 1)  # noqa: B023
            await turns(3)
            assert server.half_open <= 8
        peer = await dial(server.url)
        assert await peer.call("echo", "one", b"x") == b"x"
        for raw in silent[:23]:
            said = await refusal(raw)
            assert (said.code, said.outcome, said.details) == (1013, "not_applied", {"limit": 8})
        assert (server.half_open, server.refused) == (7, 23)
        # Those that shake hands now are served: they were never out.
        last = silent[-1]
        await last.hello()
        await last.request(1, "echo", "one", b"late")
        assert await last.answer(1) == b"late"
        assert server.half_open == 6
        await peer.aclose()
        for raw in silent:
            await raw.close()


@virtual_clock
async def test_silent_connections_drop_none_that_has_sent_a_part_of_its_hello() -> None:
    async with served(ANY_PORT, Echo(), max_half_open=8) as server:
        slow, first = await RawPeer.open(server.url), hello()
        slow.writer.write(first[:10])
        silent = []
        for number in range(30):
            silent.append(await RawPeer.open(server.url))
            await eventually(lambda: server.accepted == number + 2)  # noqa: B023
            await turns(3)
        assert (server.half_open, server.refused) == (8, 23)
        slow.writer.write(first[10:])
        await slow.request(1, "echo", "one", b"late")
        assert await slow.answer(1) == b"late"
        for raw in (slow, *silent):
            await raw.close()


@virtual_clock
async def test_silent_connections_do_not_fill_a_small_listener() -> None:
    """Trap: accept blocked by idle half-open connections. Half of the connections stay for clients that speak."""
    async with served(ANY_PORT, Echo(), max_connections=8) as server:
        silent = []
        for number in range(30):
            silent.append(await RawPeer.open(server.url))
            await eventually(lambda: server.accepted + server.refused > number)  # noqa: B023
            await turns(3)
        async with dial(server.url) as peer:
            assert await peer.call("echo", "one", b"x") == b"x"
        assert server.half_open <= 4
        for raw in silent:
            await raw.close()


@pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_clients_are_told_why_they_are_refused_however_many_they_are(
    short_path: Path, loops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: a bound against silent strangers that hits an honest burst.

    A client that is closed without a word cannot know whether its first change was applied.
    """
    monkeypatch.setattr("haptera.transport.limits.LEAVING_MAX", 0)

    async def main(url: str) -> None:
        async with served(url, Echo(), max_connections=1) as server, dial(server.url) as only:
            await only.ready()
            for _ in range(20):
                async with dial(server.url) as late:
                    with pytest.raises(haptera.errors.TooManyConnections) as refused:
                        await late.call("echo", "one", b"x")
                    assert (refused.value.outcome, refused.value.details) == ("not_applied", {"limit": 1})

    for url in (f"haptera+unix://{short_path}/s", ANY_PORT):
        with asyncio.Runner(loop_factory=loops) as runner:
            runner.run(main(url))


@pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_burst_of_clients_that_have_spoken_is_let_in(short_path: Path, loops: Any) -> None:
    """Trap: a bound against silent strangers that hits an honest burst.

    All of them have said HELLO before the listener's loop turns: it accepts many before it hears the first.
    """

    async def main() -> None:
        async with served(f"haptera+unix://{short_path}/s", Echo(), max_half_open=2) as server:
            with ExitStack() as stack:
                for _ in range(200):
                    client = stack.enter_context(socket.socket(socket.AF_UNIX))
                    client.connect(f"{short_path}/s")
                    client.sendall(hello())
                await eventually(lambda: server.accepted == 200 and not server.half_open)
                assert (server.refused, len(server.peers)) == (0, 200)

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(main())


@virtual_clock
async def test_connections_that_are_done_with_their_handshake_are_not_half_open() -> None:
    async with served(ANY_PORT, Echo(), max_half_open=2) as server:
        peers = [await dial(server.url) for _ in range(20)]
        await asyncio.gather(*(peer.ready() for peer in peers[:2]))
        for peer in peers:
            await peer.aclose()
        await eventually(lambda: not server.peers)
        peers = []
        for _ in range(20):
            peer = await dial(server.url)
            await peer.ready()
            peers.append(peer)
        assert (len(server.peers), server.half_open) == (20, 0)
        assert [await peer.call("echo", "one", b"x") for peer in peers] == [b"x"] * 20
        for peer in peers:
            await peer.aclose()


@virtual_clock
async def test_one_connection_too_many_is_refused_and_told_why(caplog: pytest.LogCaptureFixture) -> None:
    async with served(ANY_PORT, Echo(), max_connections=3) as server:
        peers = [await dial(server.url) for _ in range(3)]
        for peer in peers:
            await peer.ready()
        for _ in range(5):
            late = await dial(server.url)
            with pytest.raises(ConnectionLost, match="TOO_MANY_CONNECTIONS") as caught:
                await late.call("echo", "one", b"x")
            assert caught.value.outcome == "not_applied"
            assert caught.value.failure is not None
            assert caught.value.failure.code == 1013
        assert [await peer.call("echo", "one", b"x") for peer in peers] == [b"x"] * 3
        assert (len(server.peers), server.accepted, server.refused) == (3, 3, 5)
        await peers[0].aclose()
        await eventually(lambda: len(server.peers) == 2)
        peer = await dial(server.url)
        assert await peer.call("echo", "one", b"x") == b"x"
        for each in (*peers, peer):
            await each.aclose()
    refusals = [record for record in caplog.records if record.getMessage() == "connection_refused"]
    assert [(vars(record)["connections"], vars(record)["half_open"]) for record in refusals] == [(3, 0)] * 5


@virtual_clock
async def test_a_flood_of_connections_leaves_nothing_behind() -> None:
    async with served(ANY_PORT, Echo(), max_connections=4, max_half_open=2) as server:
        raws = [await RawPeer.open(server.url) for _ in range(200)]
        await eventually(lambda: server.accepted + server.refused >= 200)
        for raw in raws:
            await raw.close()
        await eventually(lambda: not server.peers and not server._pool.leaving)
        assert server.half_open == 0
        peer = await dial(server.url)
        assert await peer.call("echo", "one", b"x") == b"x"
        await peer.aclose()


# -- what they cost -----------------------------------------------------------------------------------------------


def memory_of(count: int, sends: bytes, path: Path, *, established: bool) -> float:
    """KiB that ``count`` connections cost the side that accepted them, each having sent these bytes."""

    async def measure() -> float:
        sockets = []
        keywords: dict[str, Any] = {"handshake_timeout_s": 3600.0, "frame_timeout_s": 3600.0}
        async with served(f"haptera+unix://{path}/s", Echo(), Gate(), **keywords) as server:
            warm = await dial(server.url)  # what the first one loads is not its own
            await warm.ready()
            gc.collect()
            tracemalloc.start()
            loop = asyncio.get_running_loop()
            for _ in range(count):
                sock = socket.socket(socket.AF_UNIX)
                sock.setblocking(False)
                await loop.sock_connect(sock, f"{path}/s")
                await loop.sock_sendall(sock, sends)
                sockets.append(sock)
            await eventually(lambda: server.accepted == count + 1)
            received = len(sends) * count
            await eventually(
                lambda: (
                    sum(peer.bytes_received for peer in server.peers if not peer.established) >= received
                    if not established
                    else server.half_open == 0
                )
            )
            gc.collect()
            size, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            await warm.aclose()
            for sock in sockets:
                sock.close()
        return size / count / KIB

    return asyncio.run(measure())


def test_half_open_connections_cost_at_most_64_kib_each(short_path: Path) -> None:
    """Each has sent all of the largest HELLO but its last byte: more is not kept of it (section 8)."""
    largest = hello(services=["x" * 16_000])
    assert 15 * KIB < len(largest) < 16 * KIB + 28
    each = memory_of(256, largest[:-1], short_path, established=False)
    assert each < 48  # it is some 30, 16 of which are the HELLO


def test_an_idle_connection_costs_some_kib(short_path: Path) -> None:
    each = memory_of(200, hello(), short_path, established=True)
    assert each < 20  # it is some 12


@virtual_clock
async def test_listeners_that_share_a_budget_hold_no_more_than_that_together() -> None:
    gate = Gate()
    budget = Budget(150 * KIB)
    large = bytes(60 * KIB)
    async with (
        served(ANY_PORT, gate, process_budget=budget) as first,
        served(ANY_PORT, gate, process_budget=budget) as second,
        served(ANY_PORT, gate) as other,
    ):
        peers = [await dial(server.url) for server in (first, second, other)]
        held = [peers[0].request("gate", "wait", large, timeout=None) for _ in range(2)]
        await eventually(lambda: len(gate.started) == 2)
        # A little is left for every connection, whatever the others hold.
        held.append(peers[1].request("gate", "wait", large, timeout=None))
        await eventually(lambda: len(gate.started) == 3)
        refused = (await peers[1].request("gate", "wait", large, timeout=None)).failure
        assert refused is not None
        assert (refused.code, refused.outcome) == (3007, "not_applied")
        beside = peers[2].request("gate", "wait", large, timeout=None)
        await eventually(lambda: len(gate.started) == 4)
        # What is answered is given back.
        gate.open.set()
        assert [(await call).failure for call in (*held, beside)] == [None] * 4
        assert (await peers[1].request("gate", "wait", large, timeout=None)).failure is None
        for peer in peers:
            await peer.aclose()


# -- silence ------------------------------------------------------------------------------------------------------


@virtual_clock
async def test_a_connection_without_open_streams_is_drained_when_asked_for() -> None:
    loop = asyncio.get_running_loop()
    server = await listen("haptera://127.0.0.1:0", services=[Echo(), Gate()], idle_timeout_s=60.0)
    peer = await dial(server.url)
    await peer.call("echo", "one", b"x")
    await asyncio.sleep(50.0)
    assert await peer.call("echo", "one", b"x") == b"x"
    start = loop.time()
    await asyncio.wait_for(link_of(peer).gone, None)
    assert 60.0 <= loop.time() - start <= 77.0
    with pytest.raises(ConnectionLost) as caught:
        await peer.call("echo", "one", b"x")
    assert caught.value.outcome == "not_applied"
    await server.aclose()


@virtual_clock
async def test_a_connection_with_a_call_under_way_is_not_idle() -> None:
    gate = Gate()
    server = await listen("haptera://127.0.0.1:0", services=[gate], idle_timeout_s=60.0)
    peer = await dial(server.url)
    call = peer.request("gate", "wait", b"x", timeout=None)
    await asyncio.sleep(3600.0)
    assert not peer.going_away
    gate.open.set()
    assert (await call).payload == b"x"
    await asyncio.sleep(80.0)
    assert peer.closed
    await server.aclose()


@virtual_clock
async def test_a_dialer_may_end_idle_connections_as_well_and_its_handlers_count() -> None:
    gate = Gate()
    server = await listen("haptera://127.0.0.1:0")
    peer = await dial(server.url, services=[gate], idle_timeout_s=60.0)
    await peer.ready()
    call = other_side(server).request("gate", "wait", b"x", timeout=None)
    await asyncio.sleep(300.0)
    assert not peer.going_away
    gate.open.set()
    await call
    await asyncio.sleep(80.0)
    assert peer.closed
    assert not server.peers
    await server.aclose()


@virtual_clock
async def test_the_interval_of_pings_is_the_listeners_to_say() -> None:
    loop = asyncio.get_running_loop()
    async with connected_peers(acceptor_config={"ping_interval_ms": 2000}) as connected:
        peer, acceptor = connected
        await peer.ready()
        await asyncio.sleep(3600.0)
        assert link_of(peer).ending is None
        connected.link.pause()
        start = loop.time()
        await asyncio.gather(link_of(peer).gone, link_of(acceptor).gone)
        assert 2.0 <= loop.time() - start <= 6.5  # silence, a PING, silence again, and what lingers


@virtual_clock
@pytest.mark.parametrize("interval_ms", [300, 1000, 4000])
async def test_silence_right_behind_the_handshake_is_noticed_in_two_intervals(interval_ms: int) -> None:
    """Though the handshake itself had longer."""
    loop = asyncio.get_running_loop()
    async with connected_peers(acceptor_config={"ping_interval_ms": interval_ms}) as connected:
        dialer, acceptor = connected
        await dialer.ready()
        connected.link.pause()
        start = loop.time()
        ends = []
        for peer in connected:
            peer.on_close(lambda: ends.append(loop.time() - start))
        await asyncio.gather(link_of(dialer).gone, link_of(acceptor).gone)
        assert max(ends) <= 2 * interval_ms / 1000 + limits.LINGER_S + 0.001
        for peer in connected:
            assert peer.error is not None
            assert peer.error.code == 1015


@virtual_clock
async def test_no_pings_no_end() -> None:
    async with connected_peers(acceptor_config={"ping_interval_ms": 0}) as connected:
        await connected.dialer.ready()
        written = connected.link.to_dialer.writes
        connected.link.pause()
        await asyncio.sleep(86_400.0)
        assert link_of(connected.dialer).ending is None
        connected.link.resume()
        assert connected.link.to_dialer.writes == written


# -- what waits in the kernel -------------------------------------------------------------------------------------


async def test_tcp_sockets_are_tuned_on_both_sides() -> None:
    async with served("haptera://127.0.0.1:0", Echo()) as server:
        peer = await dial(server.url)
        await peer.ready()
        for side in (peer, other_side(server)):
            sock = transport_of(side).get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            for name, value in (
                ("TCP_NOTSENT_LOWAT", 128 * KIB),
                ("TCP_KEEPIDLE", 60),
                ("TCP_KEEPINTVL", 15),
                ("TCP_KEEPCNT", 4),
                ("TCP_USER_TIMEOUT", 120_000),
            ):
                if hasattr(socket, name):
                    assert sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value
        await peer.aclose()


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this system has no such option")
async def test_a_heartbeat_is_not_queued_behind_bulk() -> None:
    """Trap: heartbeats queued behind bulk.

    24 MiB of answers are ready when a PING arrives. What its PONG stands behind is bounded: what the receiver's own
    window had let out, what the kernel may hold of the rest, and one write.
    """
    service = Batches()
    async with served("haptera://127.0.0.1:0", service, write_timeout_s=3600.0) as server:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
        sock.setblocking(False)
        host, _, port = server.url.rpartition("//")[2].rpartition(":")
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        raw = RawPeer(*await asyncio.open_connection(sock=sock, limit=16 * KIB))
        await raw.hello()
        for stream in (1, 3, 5):
            await raw.request(stream, "batches", "x", b"")
        await eventually(lambda: len(service.requests) == 3)
        for request in service.requests:
            request.respond(bytes(8 * MIB))
        await turns()  # as much as the kernel takes is in it now
        await raw.send(encode_frame(FrameType.PING, 0, 0, b"", b"heartbea"))
        before = 0
        pongs: list[Any] = []
        while not pongs:
            assert await raw.read()
            pongs = [frame for frame in raw.frames if frame.type == FrameType.PONG]
            before += sum(len(frame.payload) for frame in raw.frames[: raw.frames.index(pongs[0]) if pongs else None])
            raw.frames.clear()
        assert 0 < before < MIB
        await raw.close()


@virtual_clock
async def test_a_heartbeat_on_a_slow_link_stands_behind_one_write_at_most() -> None:
    service = Batches()
    async with connected_peers((), (service,), buffer=16 * KIB, latency=0.01) as connected:
        peer, acceptor = connected
        await peer.ready()
        calls = [peer.request("batches", "x", b"", timeout=None) for _ in range(3)]
        await asyncio.sleep(0.1)
        for request in service.requests:
            request.respond(bytes(8 * MIB))
        await asyncio.sleep(1.0)
        assert transport_of(acceptor).get_write_buffer_size() <= limits.WRITE_SIZE + limits.TRANSPORT_HIGH
        assert [len((await call).payload) for call in calls] == [8 * MIB] * 3


# -- an orderly end -----------------------------------------------------------------------------------------------


@virtual_clock
async def test_what_was_sent_behind_the_last_stream_of_a_goaway_is_not_applied() -> None:
    """The connection ends before the refusals have come: they would have said the same."""
    gone = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from haptera.connection import Config, Connection, Role
        from haptera.wire.payload import encode_payload

        connection = Connection(Role.ACCEPTOR, Config(entropy=os.urandom, grease=False), 0.0)
        connection.receive_data(await reader.read(65536), 0.0)
        goaway = Goaway(code=1014, name="GOING_AWAY", message="", last_stream=3)
        writer.write(connection.data_to_send(MIB))
        writer.write(encode_frame(FrameType.GOAWAY, 0, 0, b"", encode_payload(goaway)))
        await writer.drain()
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    peer = await dial(f"haptera://{host}:{port}", grease=False)
    calls = [peer.request("echo", "one", b"", timeout=None) for _ in range(4)]
    await eventually(lambda: peer.going_away)
    gone.set()
    lost = await asyncio.gather(*calls, return_exceptions=True)
    assert [each.outcome for each in lost if isinstance(each, ConnectionLost)] == ["unknown"] * 2 + ["not_applied"] * 2
    await peer.aclose()
    server.close()
    await server.wait_closed()


@virtual_clock
async def test_a_drained_server_says_which_streams_it_answers_and_answers_them() -> None:
    gate = Gate()
    async with served(ANY_PORT, gate) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        for stream in (1, 3, 5):
            await raw.request(stream, "gate", "wait", b"%d" % stream)
        await eventually(lambda: len(gate.started) == 3)
        draining = asyncio.create_task(server.drain())
        await eventually(lambda: not server.half_open and not server._listener.is_open)
        await turns()
        gate.open.set()
        await raw.read_to_end()
        (goaway,) = [frame for frame in raw.frames if frame.type == FrameType.GOAWAY]
        assert decode_payload(Goaway, goaway.payload).last_stream == 5
        assert [await raw.answer(stream) for stream in (1, 3, 5)] == [b"1", b"3", b"5"]
        await raw.close()
        await draining
