"""Memory outside every budget: a node and its clients hold as much after any number of these as after a few.

Their own tables are counted (`tests.unit.node.holdings`) once everything has ended, and on one connection that stays.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest

import haptera
from haptera.testing import node, virtual_clock
from haptera.wire.frame import MORE, STREAMING, FrameType, encode_frame
from haptera.wire.metadata import encode_entry, encode_route
from haptera.wire.payload import Goaway, encode_payload
from tests.unit.node.holdings import holdings
from tests.unit.node.situations import MANY, PING, QUIET_S, Clients, encode, growth, refused
from tests.unit.peer.raw import RawPeer, hello, request

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path


async def streams_on_which_nothing_is_sent(at: Clients, number: int) -> None:
    streams = [at.stream() for _ in range(10)]
    for stream in streams:
        await at.raw.send(request(stream, "kv", "get", encode([f"{number}"]), flags=STREAMING))
    for stream in streams:
        await at.raw.cancel(stream)


async def handshakes_that_stop_in_the_middle(at: Clients, number: int) -> None:
    opened = []
    for size in range(0, 60, 6):
        raw = await RawPeer.open(at.url)
        with suppress(ConnectionError):
            await raw.send(hello(agent=f"stops/{number}")[:size])
        if size % 12:
            await raw.close()
        else:
            opened.append(raw)
    await asyncio.sleep(QUIET_S)  # the node gives them up
    await at.raw.send(PING)
    for raw in opened:
        await raw.close()


async def calls_that_are_cancelled_before_their_answers(at: Clients, number: int) -> None:
    calls: list[Awaitable[Any]] = [at.db.set(f"k{each}", b"%d" % number) for each in range(5)]
    calls += [at.db.count(glob=f"*{number}{each}*") for each in range(5)]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def requests_that_are_taken_back_at_once(at: Clients, number: int) -> None:
    """REQUEST and CANCEL in one read: the request was never started, and its payload is in no budget any more."""
    for each in range(5):
        stream = at.stream()
        metadata = encode_route("kv", "set") + encode_entry(2, (60_000).to_bytes(4, "big"))
        taken_back = encode_frame(FrameType.CANCEL, 0, stream)
        await at.raw.send(encode_frame(FrameType.REQUEST, 0, stream, metadata, bytes(20_000 + each)) + taken_back)
    del number


async def scans_whose_readers_are_slow(at: Clients, number: int) -> None:
    for each in range(10):
        await at.raw.request(at.stream(), "kv", "scan", encode([{"prefix": "k", "after": f"k{number}{each}"}]))


async def scans_that_their_readers_leave(at: Clients, number: int) -> None:
    for _ in range(5):
        scan = at.db.scan(prefix="k")
        async for _ in scan:
            break
        await scan.aclose()
    scan = at.db.scan(prefix=f"none-{number}")
    assert [entry async for entry in scan] == []


async def metadata_that_is_refused(at: Clients, number: int) -> None:
    for tag in (0x40, 0x41, 0xC0, 0xC1):  # unknown, and of two critical
        entries = encode_entry(tag, os.urandom(200)) + encode_entry(8, f"{number}/{tag}".encode())
        frame = encode_frame(FrameType.REQUEST, 0, at.stream(), encode_route("kv", "get") + entries, encode(["k0"]))
        await at.raw.send(frame)


async def sessions_that_are_short(at: Clients, number: int) -> None:
    for each in range(3):
        async with haptera.connect(at.url) as db:
            await db.set("short", f"{number}/{each}")
            await refused(db.set("short", b"", if_absent=True))


async def sessions_that_end_without_a_word(at: Clients, number: int) -> None:
    for each in range(3):
        raw = await RawPeer.open(at.url)
        await raw.send(hello(capabilities=["pipelining", "idempotency"], session=os.urandom(16)))
        route = encode_route("kv", "set") + encode_entry(1, os.urandom(16))
        await raw.send(encode_frame(FrameType.REQUEST, 0, 1, route, encode(["lost", f"{number}/{each}".encode()])))
        assert await raw.answer(1)
        raw.writer.transport.abort()


async def watchers_that_come_and_go(at: Clients, number: int) -> None:
    for each in range(20):  # more than one connection may have
        stream = at.stream()
        await at.raw.request(stream, "server", "watch_metrics", encode([{"interval_ms": 1000 + 20 * number + each}]))
    await asyncio.sleep(3)
    for stream in at.last_streams(20):
        await at.raw.cancel(stream)


async def words_of_strangers(at: Clients, number: int) -> None:
    """Words that a log line or a metric has: agents, reasons, codes, names of services and of methods."""
    for code in (1, 999, 70_000 + number):
        raw = await RawPeer.open(at.url)
        await raw.send(hello(agent=f"{number}-" + "a" * 100))
        await raw.send(request(1, f"service-{number}", f"method-{number}"))
        await raw.send(request(3, "kv", f"method-{number}-{code}"))
        error = encode([code, f"reason {number}", "unknown", {}])
        await raw.send(encode_frame(FrameType.ERROR, 0, 0, b"", error))
        with suppress(ConnectionError):
            await raw.read_to_end()
        await raw.close()


async def methods_that_are_not_there(at: Clients, number: int) -> None:
    for each in range(5):
        await refused(at.peer.call("kv", f"method-{number}-{each}"))
        await refused(at.peer.call(f"service-{number}-{each}", "get"))
        await refused(at.peer.call("server", "watch_metrics", encode([{"interval_ms": -number}])))


async def timeouts_of_their_own(at: Clients, number: int) -> None:
    for each in range(10):
        await at.db.get("k0", timeout=10 + number + each / 100)


async def messages_that_never_become_whole(at: Clients, number: int) -> None:
    fragment = encode_route("kv", "set"), os.urandom(2048)
    for _ in range(5):
        stream = at.stream()
        await at.raw.send(encode_frame(FrameType.REQUEST, MORE, stream, *fragment))
        await at.raw.cancel(stream)
    raw = await RawPeer.open(at.url)
    await raw.send(hello() + encode_frame(FrameType.REQUEST, MORE, 1, *fragment))
    await raw.close()
    del number


async def large_arguments_that_are_refused(at: Clients, number: int) -> None:
    await refused(at.peer.call("kv", "set_many", encode([[[f"{number}", number]] * 2000])))
    await refused(at.peer.call("kv", "get_many", encode([[f"{number}"] * 2000 + [b""]])))
    await refused(at.peer.call("kv", "set", b"\x92" + encode(f"{number}") + b"\xc5\xff\xff" + bytes(20_000)))


async def goaways_and_pings_of_a_peer(at: Clients, number: int) -> None:
    for each in range(3):
        raw = await RawPeer.open(at.url)
        await raw.send(hello())
        await raw.send(encode_frame(FrameType.PING, 0, 0, b"", os.urandom(8)))
        await raw.request(1, "kv", "scan", encode([]), streaming=False)
        goaway = encode_payload(Goaway(code=1, name="", message=f"leaves {number}/{each}", last_stream=0))
        await raw.send(encode_frame(FrameType.GOAWAY, 0, 0, b"", goaway))
        await raw.close()


SITUATIONS: Final = [
    streams_on_which_nothing_is_sent,
    handshakes_that_stop_in_the_middle,
    calls_that_are_cancelled_before_their_answers,
    requests_that_are_taken_back_at_once,
    scans_whose_readers_are_slow,
    scans_that_their_readers_leave,
    metadata_that_is_refused,
    sessions_that_are_short,
    sessions_that_end_without_a_word,
    watchers_that_come_and_go,
    words_of_strangers,
    methods_that_are_not_there,
    timeouts_of_their_own,
    messages_that_never_become_whole,
    large_arguments_that_are_refused,
    goaways_and_pings_of_a_peer,
]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
@virtual_clock
async def test_nothing_is_left_behind(situation: Any, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await growth(situation, short_path, monkeypatch) == {}


@virtual_clock
async def test_what_is_left_behind_is_seen() -> None:
    """The count sees an object that a table keeps, or there would be no proof in the tests above."""
    async with node(storage="memory") as url:
        before = holdings(url.node)
        url.node.metrics._codes["protocol_errors_total"].update({f"stranger-{each}": each for each in range(MANY)})
        grown = holdings(url.node) - before
    assert grown["elements of Metrics"] == MANY
    assert grown["bytes of Metrics"] >= 10 * MANY
