"""The proxy cuts, swallows, delays, damages and counts what passes between two real ends."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.testing import Proxy, Recording, VirtualClockLoop, node, proxy, replay, virtual_clock
from tests.unit.testing.services import Echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


@pytest.fixture(params=["tcp", "unix"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[haptera.Server]:
    url = "haptera://127.0.0.1:0" if request.param == "tcp" else f"haptera+unix://{tmp_path}/s"
    async with await haptera.listen(url, services=[Echo()]) as server:
        yield server


async def connected(through: Proxy) -> haptera.Peer:
    peer = await haptera.dial(through.url)
    await peer.ready()
    return peer


async def emptied(through: Proxy) -> None:
    while through.open_connections:
        await asyncio.sleep(0.001)


@asynccontextmanager
async def proxied(
    accept: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[tuple[Proxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Streams through a proxy to a TCP server that answers with `accept`."""
    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with proxy(f"haptera://127.0.0.1:{port}") as through:
            host, _, port = through.url.removeprefix("haptera://").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            yield through, reader, writer
            writer.close()


async def test_what_passes_is_what_was_sent_and_is_counted(served: haptera.Server) -> None:
    async with proxy(served.url) as through:
        assert through.url.split(":", 1)[0] == served.url.split(":", 1)[0]
        assert through.url != served.url
        peer = await connected(through)
        payload = os.urandom(3_000_000)
        assert await peer.call("echo", "say", payload) == payload
        assert (through.connections, through.open_connections) == (1, 1)
        assert through.to_acceptor.delivered == through.to_acceptor.sent == peer.bytes_sent
        assert through.to_dialer.delivered == through.to_dialer.sent == peer.bytes_received
        assert through.to_acceptor.writes >= 1
        await peer.aclose()


async def test_an_orderly_end_passes_and_leaves_no_connection(served: haptera.Server) -> None:
    async with proxy(served.url) as through:
        peer = await connected(through)
        await peer.drain()
        await emptied(through)
        other = await connected(through)
        await asyncio.gather(*(each.drain() for each in list(served.peers)))
        await emptied(through)
        assert other.closed
        await other.aclose()


async def test_severing_fails_calls_under_way_and_lets_new_connections_pass(served: haptera.Server) -> None:
    async with proxy(served.url) as through:
        peer = await connected(through)
        before = through.to_acceptor.delivered
        call = asyncio.ensure_future(peer.call("echo", "wait", b"60", timeout=60.0))
        while through.to_acceptor.delivered == before:
            await asyncio.sleep(0)
        through.sever()
        assert through.open_connections == 0
        with pytest.raises(haptera.ConnectionLost):
            await call
        peer = await connected(through)
        assert await peer.call("echo", "say", b"again") == b"again"
        assert through.connections == 2
        await peer.aclose()


async def test_a_connection_is_cut_by_itself_with_an_answer_on_its_way(served: haptera.Server) -> None:
    async with proxy(served.url) as through:
        through.sever_after(2)
        for number in range(1, 4):
            peer = await connected(through)  # one piece
            assert await peer.call("echo", "say", b"1") == b"1"
            with pytest.raises(haptera.ConnectionLost) as error:
                await peer.call("echo", "say", b"2")
            assert error.value.outcome == "unknown"
            assert (through.severed, through.connections) == (number, number)
        through.sever_after(None)
        peer = await connected(through)
        for _ in range(5):
            await peer.call("echo", "say", b"3")
        through.sever_after(0, "to_acceptor")
        with pytest.raises(haptera.ConnectionLost):
            await peer.call("echo", "say", b"4")
        assert through.severed == 4


async def test_on_tcp_both_ends_are_reset() -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        done.set_result(None)

    done = asyncio.get_running_loop().create_future()
    async with proxied(accept) as (through, reader, _):
        assert await reader.readexactly(5) == b"hello"
        through.sever()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await done


async def test_a_reset_of_one_end_reaches_the_other() -> None:
    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with proxied(accept) as (_, reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_an_end_that_only_listens_still_gets_its_answer_after_a_half_close() -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    async with proxied(accept) as (_, reader, writer):
        writer.write(b"x" * 1_000_000)
        writer.write_eof()
        assert await reader.read() == b"X" * 1_000_000


async def test_a_black_hole_swallows_and_gives_back(served: haptera.Server) -> None:
    async with proxy(served.url) as through:
        peer = await connected(through)
        through.pause()
        with pytest.raises(haptera.DeadlineExceeded):
            await peer.call("echo", "say", b"1", timeout=0.02)
        silent = await haptera.dial(through.url)
        late = asyncio.ensure_future(peer.call("echo", "say", b"2"))
        through.resume()
        assert await late == b"2"
        assert await silent.call("echo", "say", b"3") == b"3"
        await peer.aclose()
        await silent.aclose()


async def test_a_paused_proxy_holds_up_a_sender_that_sends_too_much(served: haptera.Server) -> None:
    async with proxy(served.url) as through:
        peer = await connected(through)
        through.pause("to_acceptor")
        call = asyncio.ensure_future(peer.call("echo", "say", bytes(8_000_000), timeout=60.0))
        before = -1
        while through.to_acceptor.sent > before:
            before = through.to_acceptor.sent
            await asyncio.sleep(0.01)
        assert before < 1_000_000
        through.resume()
        assert len(await call) == 8_000_000
        await peer.aclose()


async def test_a_flipped_bit_is_found_by_the_side_that_it_reaches(served: haptera.Server) -> None:
    async with proxy(served.url) as through:
        peer = await connected(through)
        through.corrupt("to_acceptor", at=through.to_acceptor.sent + 10, bit=6)
        with pytest.raises(haptera.ConnectionLost):
            await peer.call("echo", "say", b"damaged on its way")
        assert through.to_acceptor.corrupted == 1
        peer = await connected(through)
        assert await peer.call("echo", "say", b"whole") == b"whole"
        await peer.aclose()


async def test_a_client_of_a_node_that_is_cut_off_goes_on() -> None:
    async with node() as url, proxy(url) as through, haptera.connect(through.url) as db:
        version = await db.set("k", b"v")
        through.sever()
        entry = await db.get("k")
        assert entry is not None
        assert entry.version == version
        assert through.connections == 2


async def test_refused_connections_are_those_of_a_server_that_is_gone_until_they_are_accepted(
    served: haptera.Server,
) -> None:
    async with proxy(served.url) as through:
        url = through.url
        peer = await connected(through)
        through.refuse()
        with pytest.raises(haptera.ConnectionLost, match="cannot connect"):
            await haptera.dial(url)
        assert await peer.call("echo", "say", b"still") == b"still"
        await through.accept()
        assert through.url == url
        await (await connected(through)).aclose()
        await peer.aclose()


async def test_a_server_that_is_not_there_is_a_connection_that_is_cut() -> None:
    async with proxy("haptera+unix:///nowhere/at/all") as through:
        peer = await haptera.dial(through.url)
        with pytest.raises(haptera.ConnectionLost):
            await peer.ready()
        assert through.open_connections == 0


async def test_the_url_keeps_credential_and_options() -> None:
    async with proxy("haptera://app:p%40ss@127.0.0.1:1?timeout=3&name=x") as through:
        assert through.url.startswith("haptera://app:p%40ss@127.0.0.1:")
        assert through.url.endswith("?timeout=3&name=x")
    with pytest.raises(haptera.errors.ConfigurationError, match="several hosts"):
        async with proxy("haptera://a:1,b:2"):
            pass


async def test_nothing_is_left_of_a_proxy_in_use(served: haptera.Server) -> None:
    async with proxy(served.url) as through:
        peer = await connected(through)
        path = through.url.removeprefix("haptera+unix://")
    with pytest.raises(haptera.ConnectionLost):
        await peer.call("echo", "say", b"")
    assert not os.path.exists(path)
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if "_Tunnel" in repr(task)] == []


@virtual_clock
async def test_it_runs_on_a_virtual_clock_with_its_delays_and_rates() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    async with await haptera.listen("haptera://127.0.0.1:0", services=[Echo()]) as server, proxy(server.url) as through:
        peer = await connected(through)
        through.delay(10.0, "to_dialer")
        assert await peer.call("echo", "say", b"x", timeout=30.0) == b"x"
        assert loop.time() == 10.0
        through.delay(0.0)
        through.limit(1000.0, "to_acceptor")
        await peer.call("echo", "say", bytes(10_000), timeout=30.0)
        assert 20.0 <= loop.time() <= 20.2
        through.sever()
        with pytest.raises(haptera.ConnectionLost):
            await peer.call("echo", "say", b"x")


async def test_a_recording_holds_both_directions_and_can_be_sent_again(served: haptera.Server, tmp_path: Path) -> None:
    async with proxy(served.url, record=True) as through:
        peers = [await connected(through), await connected(through)]
        for number, peer in enumerate(peers):
            assert await peer.call("echo", "say", b"call %d" % number) == b"call %d" % number
            await peer.aclose()
        assert through.recording is not None
        through.recording.save(tmp_path / "recording")
    recording = Recording.load(tmp_path / "recording")
    assert recording == through.recording
    assert recording.complete
    assert [piece.time for piece in recording.pieces] == sorted(piece.time for piece in recording.pieces)
    for number in (1, 2):
        mark = b"call %d" % (number - 1)
        assert recording.sent("to_acceptor", number)[:2] == recording.sent("to_dialer", number)[:2] == b"\xfaW"
        assert mark in recording.sent("to_acceptor", number)
        assert mark in recording.sent("to_dialer", number)
        again = await replay(recording, served.url, connection=number, until=lambda got, mark=mark: mark in got)  # type: ignore[misc]
        assert again[:2] == b"\xfaW"


async def test_a_recording_keeps_no_more_than_its_bound(
    served: haptera.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haptera.testing.recording.RECORDING_SIZE_MAX", 1000)
    async with proxy(served.url, record=True) as through:
        peer = await connected(through)
        assert len(await peer.call("echo", "say", bytes(5000))) == 5000
        assert through.recording is not None
        assert not through.recording.complete
        assert sum(len(piece.data) for piece in through.recording.pieces) <= 1000
        await peer.aclose()


async def test_an_end_that_is_passed_on_to_a_socket_that_was_just_reset_is_no_error() -> None:
    """What a paused proxy delivers when it goes on may come to a peer that has gone meanwhile."""
    loop = asyncio.get_running_loop()
    errors: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with proxy(f"haptera://127.0.0.1:{listener.getsockname()[1]}") as through:
            host, _, port = through.url.removeprefix("haptera://").partition(":")
            _, writer = await asyncio.open_connection(host, int(port))
            accepted, _ = await loop.sock_accept(listener)
            through.pause("to_acceptor")
            writer.write_eof()
            (lane,) = through.to_acceptor._lanes
            while lane._held or not lane._queue:
                await asyncio.sleep(0)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()  # with a reset, of which the proxy's loop has not heard
            through.resume("to_acceptor")
            await emptied(through)
            writer.close()
    assert errors == []
