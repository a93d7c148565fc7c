"""The network of a virtual loop: haptera.listen, haptera.dial and asyncio's streams run on it as they are."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

import haptera
import haptera.testing
from haptera.testing import NotSimulated, run, virtual_clock
from tests.support.virtual import network
from tests.unit.testing.services import Echo

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path


class Named(haptera.Service):
    """Says which world it is in."""

    name = "named"

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    @haptera.method
    async def say(self, _: haptera.Request) -> bytes:
        return self._answer


@pytest.fixture(params=["tcp", "unix"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "haptera://127.0.0.1:0" if request.param == "tcp" else f"haptera+unix://{tmp_path}/s"


@virtual_clock
async def test_listen_and_dial_run_unchanged(url: str) -> None:
    async with await haptera.listen(url, services=[Echo()]) as server:
        peer = await haptera.dial(server.url)
        assert await peer.call("echo", "say", b"hello") == b"hello"
        assert len(network().links) == 1
        await peer.aclose()
    with pytest.raises(haptera.ConnectionLost, match="nothing listens on"):
        await haptera.dial(server.url)
    await asyncio.sleep(1.0)
    assert network().links == []


@virtual_clock
async def test_connecting_takes_a_round_trip_and_for_ever_into_a_black_hole(url: str) -> None:
    loop = asyncio.get_running_loop()
    async with await haptera.listen(url) as server:
        network().delay(0.5)
        peer = await haptera.dial(server.url)
        assert loop.time() == 1.0
        await peer.aclose()
        network().pause()
        with pytest.raises(haptera.ConnectionLost, match="too long"):
            await haptera.dial(server.url, timeout=30.0)
        assert loop.time() == 31.0
        network().resume()
        await (await haptera.dial(server.url)).aclose()


@virtual_clock
async def test_severing_the_network_cuts_what_is_open_and_nothing_later() -> None:
    async with await haptera.listen("haptera://127.0.0.1:0", services=[Echo()]) as server:
        peers = [await haptera.dial(server.url) for _ in range(3)]
        await asyncio.gather(*(peer.ready() for peer in peers))
        network().sever()
        for peer in peers:
            with pytest.raises(haptera.ConnectionLost):
                await peer.call("echo", "say", b"")
        peer = await haptera.dial(server.url)
        assert await peer.call("echo", "say", b"again") == b"again"
        await peer.aclose()


@virtual_clock
async def test_asyncio_streams_find_each_other_by_any_name_of_this_host() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.close()

    server = await asyncio.start_server(serve, "localhost", 0)
    port = server.sockets[0].getsockname()[1]
    for host in ("127.0.0.1", "localhost", "::1"):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"hello\n")
        assert await reader.read() == b"HELLO\n"
        writer.close()
    anywhere = await asyncio.start_server(serve, None, 99)
    reader, writer = await asyncio.open_connection("some.other.host", 99)
    writer.write(b"x\n")
    assert await reader.read() == b"X\n"
    writer.close()
    with pytest.raises(OSError, match="in use"):
        await asyncio.start_server(serve, "127.0.0.1", port)
    anywhere.close()
    await anywhere.wait_closed()
    assert not anywhere.is_serving()
    server.close()
    with pytest.raises(ConnectionRefusedError, match="nothing listens"):
        await asyncio.open_connection("127.0.0.1", port)


# -- the kernel is not touched --------------------------------------------------------------------------------------


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have whatever binds a socket or resolves a name fail."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a real socket was reached for")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_sockets")
@pytest.mark.parametrize("place", ["10.0.0.5:7457", "node-a.example:7457", "[2001:db8::5]:7457", "0.0.0.0:80"])
def test_any_address_can_be_listened_on_without_a_socket(place: str) -> None:
    @virtual_clock
    async def test() -> None:
        url = f"haptera://{place}"
        async with haptera.listen(url, services=[Echo()]) as server:
            assert server.url == url
            async with haptera.dial(url) as peer:
                assert await peer.call("echo", "say", b"hello") == b"hello"
            with pytest.raises(haptera.errors.ConfigurationError, match="in use"):
                await haptera.listen(url)
            async with haptera.listen(url.rpartition(":")[0] + ":81"):
                pass

    test()


@pytest.mark.usefixtures("no_sockets")
def test_a_unix_socket_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "there is no such directory" / "s"

    @virtual_clock
    async def test() -> None:
        url = f"haptera+unix://{quote(str(path))}"
        async with haptera.listen(url, services=[Echo()]) as server, haptera.dial(server.url) as peer:
            assert await peer.call("echo", "say", b"hello") == b"hello"
            with pytest.raises(haptera.errors.ConfigurationError, match="in use"):
                await haptera.listen(url)
        async with haptera.listen(url):
            pass

    test()
    assert list(tmp_path.iterdir()) == []


def test_two_worlds_have_a_port_each_and_the_kernel_has_its_own(tmp_path: Path) -> None:
    """At once: they are as little in each other's way as two test processes are."""

    async def world(name: bytes, urls: list[str], others: list[Coroutine[Any, Any, None]]) -> None:
        async with AsyncExitStack() as stack:
            for url in urls:
                await stack.enter_async_context(haptera.listen(url, services=[Named(name)]))
            if others:
                other = others.pop()
                thread = threading.Thread(target=lambda: run_threaded(other))
                thread.start()
                thread.join()
            for url in urls:
                peer = await stack.enter_async_context(haptera.dial(url))
                assert await peer.call("named", "say") == name

    def run_threaded(other: Coroutine[Any, Any, None]) -> None:
        run(other)
        ended.append(True)

    ended: list[bool] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        urls = [f"haptera://127.0.0.1:{taken.getsockname()[1]}", f"haptera+unix://{tmp_path}/s"]
        run(world(b"first", urls, [world(b"second", urls, [])]))
    assert ended == [True]


@virtual_clock
async def test_a_port_that_is_chosen_is_a_free_one() -> None:
    async with haptera.listen("haptera://127.0.0.1:49152"), haptera.listen("haptera://127.0.0.1:0") as server:
        assert server.url == "haptera://127.0.0.1:49153"


@virtual_clock
async def test_a_socket_of_the_kernel_is_not_listened_on() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        with pytest.raises(NotSimulated):
            await loop.create_server(asyncio.Protocol, sock=sock)
        with pytest.raises(NotSimulated):
            await loop.create_unix_server(asyncio.Protocol, sock=sock)


@virtual_clock
async def test_a_node_listens_in_its_own_network(no_sockets: None) -> None:
    async with (
        haptera.testing.node(storage="memory", listen="haptera://10.1.2.3:7457") as url,
        haptera.connect(url) as db,
    ):
        assert url == "haptera://10.1.2.3:7457"
        assert await db.set("k", b"v") == 1
        assert url.server.local_socket is not None
        async with haptera.connect(f"haptera+unix://{quote(url.server.local_socket)}") as local:
            assert await local.exists("k")
