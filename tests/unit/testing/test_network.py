"""The network of a virtual loop: haptera.listen, haptera.dial and asyncio's streams run on it as they are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.testing import VirtualClockLoop, virtual_clock
from tests.unit.testing.services import Echo

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.testing import Network


def network() -> Network:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    return loop.network


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
