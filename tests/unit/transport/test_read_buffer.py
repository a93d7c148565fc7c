"""Reading: on asyncio's own event loops all connections of a thread are read into one buffer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from haptera import dial
from haptera.peer import link_of
from haptera.peer.link import Link
from haptera.testing import virtual_clock
from haptera.transport import limits
from haptera.transport.read_buffer import PlacedReading
from tests.unit.peer.hosts import ANY_PORT, MIB, Echo, connected, pair, served, transport_of

if TYPE_CHECKING:
    from pathlib import Path


async def test_what_arrives_for_one_connection_never_shows_on_another(short_path: Path) -> None:
    async with served(f"haptera+unix://{short_path}/s", Echo()) as server:
        peers = [await dial(server.url) for _ in range(8)]
        sizes = (1, 1000, limits.READ_SIZE_MAX, 3 * MIB)
        payloads = [bytes((number,)) * size for number in range(len(peers)) for size in sizes]
        answers = await asyncio.gather(
            *(peers[payload[0]].call("echo", "one", payload, timeout=60.0) for payload in payloads)
        )
        assert answers == payloads
        for peer in peers:
            await peer.aclose()


async def test_asyncio_makes_no_buffer_for_a_read_and_uvloop_keeps_its_own(short_path: Path) -> None:
    async with connected(short_path, Echo()) as sides:
        for side in sides:
            protocol = transport_of(side).get_protocol()
            own = isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
            assert type(protocol) is (PlacedReading if own else Link)


@virtual_clock
async def test_the_buffer_is_one_for_all_and_what_was_read_is_a_copy() -> None:
    async with pair(Echo()) as (peer, acceptor):
        here, there = (PlacedReading(link_of(side)) for side in (peer, acceptor))
        assert here.get_buffer(-1) is there.get_buffer(1)
        seen: list[bytes] = []

        class Keeping:
            def data_received(self, data: bytes) -> None:
                seen.append(data)

        reading = PlacedReading(Keeping())  # type: ignore[arg-type]
        for piece in (b"first", b"second"):
            reading.get_buffer(-1)[: len(piece)] = piece
            reading.buffer_updated(len(piece))
        assert seen == [b"first", b"second"]


@pytest.mark.parametrize("size", [limits.READ_SIZE_MAX - 1, limits.READ_SIZE_MAX, limits.READ_SIZE_MAX + 1])
async def test_a_read_that_fills_the_buffer_loses_nothing(size: int) -> None:
    async with served(ANY_PORT, Echo()) as server, dial(server.url) as peer:
        assert await peer.call("echo", "one", bytes(size), timeout=60.0) == bytes(size)
