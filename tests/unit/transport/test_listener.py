"""Listeners and pools for a protocol that has no frames: lines of text."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import pytest

from haptera.errors import ConfigurationError
from haptera.testing import VirtualClockLoop, virtual_clock
from haptera.transport import Listener, Pool, connect_first, open_listener, parse, remove_socket

if TYPE_CHECKING:
    from pathlib import Path


class Lines(asyncio.Protocol):
    """One connection of the protocol: HELLO ends the handshake."""

    def __init__(self, pool: Pool[Lines]) -> None:
        self.pool = pool

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.pool.admit(self)

    def data_received(self, data: bytes) -> None:
        assert data == b"HELLO\n"
        self.pool.established(self)
        self.transport.write(b"WELCOME\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool.lost(self)


def refuse(connection: Lines, limit: int | None, /, *, linger: bool) -> None:
    connection.transport.write(b"CLOSED\n" if limit is None else f"FULL {limit} {linger}\n".encode())
    connection.transport.close()


async def listening(url: str, pool: Pool[Lines]) -> Listener:
    listener = await open_listener(parse(url), mode=0o600, group=None, accept=lambda: Lines(pool))
    await listener.start()
    return listener


class Client(asyncio.Protocol):
    """The other end of a connection, and what it was told until now."""

    def __init__(self) -> None:
        self.told = b""

    def data_received(self, data: bytes) -> None:
        self.told += data


async def dialled(url: str, says: bytes = b"") -> tuple[asyncio.Transport, Client]:
    """A connection over the simulated network, a second after it was made and has said this."""
    transport, client = await asyncio.get_running_loop().create_connection(Client, *parse(url).hosts[0])
    transport.write(says)
    await asyncio.sleep(1.0)
    return transport, client


async def told(url: str, says: bytes = b"") -> bytes:
    return (await dialled(url, says))[1].told


@virtual_clock
async def test_of_too_many_connections_the_newest_is_refused_in_the_words_of_its_protocol() -> None:
    pool: Pool[Lines] = Pool(refuse, max_connections=2)
    listener = await listening("haptera://127.0.0.1:0", pool)
    held, first = await dialled(listener.url, b"HELLO\n")
    assert first.told == await told(listener.url, b"HELLO\n") == b"WELCOME\n"
    assert await told(listener.url, b"HELLO\n") == b"FULL 2 True\n"
    assert (len(pool.connections), pool.accepted, pool.refused, pool.half_open) == (2, 2, 1, 0)
    held.close()
    await asyncio.sleep(1.0)
    assert await told(listener.url, b"HELLO\n") == b"WELCOME\n"
    assert not pool.leaving
    listener.close()


@virtual_clock
async def test_of_too_many_silent_connections_the_oldest_is_dropped() -> None:
    pool: Pool[Lines] = Pool(refuse, max_half_open=1)
    listener = await listening("haptera://127.0.0.1:0", pool)
    _, oldest = await dialled(listener.url)
    assert oldest.told == b""
    await dialled(listener.url)
    assert oldest.told == b"FULL 1 True\n"
    assert await told(listener.url, b"HELLO\n") == b"WELCOME\n"
    listener.close()


async def half_open_after(*names: str) -> list[str]:
    """The half-open connections of a pool of 4, in the order in which they came. Capitals send something."""
    dropped: list[str] = []
    pool: Pool[str] = Pool(lambda name, _, *, linger: dropped.append(name), max_half_open=4, has_spoken=str.isupper)
    for name in names:
        pool.admit(name)
        for _ in range(3):
            await asyncio.sleep(0)
    assert pool.half_open == 4
    for name in dropped:
        pool.lost(name)
    return list(pool.connections)


async def test_silent_connections_drop_none_that_has_sent_something() -> None:
    assert await half_open_after("A", "b", "c", "d", "e", "f", "g") == ["A", "e", "f", "g"]
    assert await half_open_after("a", "b", "C", "D", "e", "f", "g") == ["C", "D", "f", "g"]


async def test_connections_that_have_sent_a_part_of_a_handshake_drop_no_new_one_that_is_silent_yet() -> None:
    assert await half_open_after("A", "B", "C", "D", "e", "F") == ["C", "D", "e", "F"]


async def test_a_pool_for_one_half_open_connection_drops_the_older_of_two() -> None:
    dropped: list[str] = []
    pool: Pool[str] = Pool(lambda name, _, *, linger: dropped.append(name), max_half_open=1, has_spoken=str.isupper)
    for name in ("A", "b"):
        pool.admit(name)
    for _ in range(3):
        await asyncio.sleep(0)
    assert dropped == ["A"]
    pool.established("b")
    assert pool.half_open == 0


@virtual_clock
async def test_a_connection_that_came_before_the_listener_was_closed_is_told_so() -> None:
    pool: Pool[Lines] = Pool(refuse)
    listener = await listening("haptera://127.0.0.1:0", pool)
    pool.close()
    assert await told(listener.url) == b"CLOSED\n"
    listener.close()
    await listener.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await dialled(listener.url)
    assert pool.accepted == 0


@pytest.mark.parametrize("lingering", [0, 5])
async def test_refused_connections_that_may_read_why_are_bounded(lingering: int) -> None:
    lingers: list[bool] = []
    pool: Pool[object] = Pool(lambda _, __, *, linger: lingers.append(linger), max_connections=1)
    pool._max_leaving = lingering
    for _ in range(10):
        pool.admit(object())
    assert lingers == [True] * lingering + [False] * (9 - lingering)
    assert len(pool.leaving) == lingering


async def test_the_file_of_a_socket_goes_with_its_listener_unless_another_took_its_place(short_path: Path) -> None:
    path = short_path / "s"
    url = f"haptera+unix://{path}"
    first = await listening(url, Pool(refuse))
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    second = await listening(url, Pool(refuse))
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()
    assert (first.is_open, second.is_open) == (False, False)
    await second.wait_closed()


async def test_a_socket_that_a_process_left_is_removed_and_nothing_else_is(short_path: Path) -> None:
    path = short_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(path))
    listener = await listening(f"haptera+unix://{path}", Pool(refuse))
    with pytest.raises(ConfigurationError, match="listens on"):
        await listening(f"haptera+unix://{path}", Pool(refuse))
    remove_socket(os.fspath(path))  # its caller knows better
    remove_socket(os.fspath(path))
    assert not path.exists()
    path.write_bytes(b"content")
    remove_socket(os.fspath(path))
    with pytest.raises(ConfigurationError, match="is not a socket"):
        await listening(f"haptera+unix://{path}", Pool(refuse))
    assert path.read_bytes() == b"content"
    listener.close()
    await listener.wait_closed()


async def test_a_listener_that_cannot_start_leaves_nothing_behind(short_path: Path) -> None:
    path = short_path / "s"
    address = parse(f"haptera+unix://{path}")
    pool: Pool[Lines] = Pool(refuse)
    listener = await open_listener(address, mode=0o600, group=None, accept=lambda: Lines(pool))
    (server,) = listener._servers

    async def refused() -> None:
        raise OSError(98, "Address already in use")

    server.start_serving = refused  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match="Address already in use"):
        await listener.start()
    assert (listener.is_open, path.exists()) == (False, False)


@virtual_clock
async def test_a_connection_that_loses_a_race_is_given_back() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    loop.network.name("db", "10.0.0.1", "10.0.0.2")
    discarded: list[object] = []

    async def attempt(host: object, address: object) -> object:
        await asyncio.sleep(0.5 if address == ("10.0.0.1", 1) else 0.25)
        return address

    won = await connect_first([("db", 1)], attempt, None, discard=discarded.append)
    await asyncio.sleep(0)
    assert [won, *discarded] == [("10.0.0.1", 1), ("10.0.0.2", 1)]


async def test_connections_are_kept_in_the_order_in_which_they_came() -> None:
    """A simulation repeats by its seed alone where connections end in one order, and not in that of addresses."""
    pool: Pool[object] = Pool(lambda _, __, *, linger: None, max_connections=60)
    came = [object() for _ in range(60)]
    for connection in came:
        pool.admit(connection)
    pool.lost(came.pop(7))
    assert list(pool.connections) == came
    refused = [object() for _ in range(20)]
    pool._max_leaving = 20
    pool.admit(object())
    for connection in refused:
        pool.admit(connection)
    assert list(pool.leaving) == refused
