"""``async with`` and ``await`` of what listens and dials."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera import ConnectionLost, dial, listen
from haptera.errors import ConfigurationError
from haptera.testing import virtual_clock
from tests.unit.peer.hosts import ANY_PORT, Echo, Gate, eventually, served

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.opening import Opening


@virtual_clock
async def test_a_listener_and_a_dialled_peer_are_closed_at_the_end_of_their_block() -> None:
    async with listen(ANY_PORT, services=[Echo()]) as server:
        async with dial(server.url) as peer:
            assert await peer.call("echo", "one", b"x") == b"x"
            assert isinstance(peer, haptera.Peer)
        assert peer.closed
        url = server.url
    assert isinstance(server, haptera.Server)
    with pytest.raises(ConnectionLost):
        await dial(url)


@virtual_clock
async def test_both_can_be_awaited_and_entered_then() -> None:
    async with await listen(ANY_PORT, services=[Echo()]) as server, await dial(server.url) as peer:
        assert await peer.call("echo", "one", b"x") == b"x"
    assert peer.closed


async def test_a_cancelled_listen_leaves_no_socket_behind(short_path: Path) -> None:
    path = short_path / "peer.sock"
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for turns in range(1, 12):
            listening = asyncio.ensure_future(_awaited(listen(f"haptera+unix://{path}", services=[Echo()])))
            for _ in range(turns):
                await asyncio.sleep(0)
            listening.cancel()
            await asyncio.wait([listening])
            if not listening.cancelled():
                break
            assert not path.exists(), turns
            gc.collect()
        else:
            pytest.fail("it never listened")
    await (await listening).aclose()


async def _awaited(opening: Opening[haptera.Server]) -> haptera.Server:
    return await opening


@virtual_clock
async def test_what_the_block_raises_is_raised_and_calls_under_way_are_lost() -> None:
    gate = Gate()
    calls: list[asyncio.Task[bytes]] = []

    async def fail(url: str) -> None:
        async with dial(url) as peer:
            calls.append(asyncio.create_task(peer.call("gate", "wait")))
            await eventually(lambda: gate.started)
            raise ZeroDivisionError

    async with served(ANY_PORT, gate) as server:
        with pytest.raises(ZeroDivisionError):
            await fail(server.url)
        with pytest.raises(ConnectionLost):
            await calls[0]
        await eventually(lambda: not server.peers)


@virtual_clock
async def test_a_block_is_not_entered_where_there_is_nobody() -> None:
    with pytest.raises(ConnectionLost):
        async with dial("haptera://127.0.0.1:1"):
            pytest.fail("there is nobody")
    with pytest.raises(ConfigurationError):
        async with dial("http://127.0.0.1:1"):
            pytest.fail("this is no address")


@virtual_clock
async def test_dialling_is_a_coroutine_for_whatever_takes_one() -> None:
    async with served(ANY_PORT, Echo()) as server:
        peers = [
            await asyncio.create_task(dial(server.url)),
            await asyncio.wait_for(dial(server.url), 5.0),
            *(await asyncio.gather(dial(server.url), dial(server.url))),
        ]
        for peer in peers:
            assert await peer.call("echo", "one", b"x") == b"x"
            await peer.aclose()


@virtual_clock
async def test_dialling_that_is_given_up_leaves_nothing_behind() -> None:
    loop = asyncio.get_running_loop()
    async with served(ANY_PORT, Echo()) as server:
        loop.network.pause()  # type: ignore[attr-defined]
        task = asyncio.create_task(dial(server.url, timeout=None))
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        loop.network.resume()  # type: ignore[attr-defined]
        await asyncio.sleep(1.0)
        assert not server.peers


def test_what_is_neither_awaited_nor_entered_is_told_of() -> None:
    with pytest.warns(RuntimeWarning, match=r"dial.* was never awaited"):
        dial("haptera://127.0.0.1:1")  # type: ignore[unused-awaitable]


def test_the_keywords_are_shown() -> None:
    assert "timeout" in inspect.signature(dial).parameters
    assert "max_half_open" in inspect.signature(listen).parameters
    assert dial.__name__ == "dial"
    assert "Connect to" in (dial.__doc__ or "")
