"""Memory outside every budget: nothing stays of calls that are refused, given up, or never read to their end.

As `tests.unit.node.test_nothing_left_behind`, for changes with ids, transactions, watches, leases, signed connections,
the past, large answers, copies and recipes.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest

import haptera
from haptera.errors import ConnectionLost, HapteraError
from haptera.testing import virtual_clock
from haptera.wire.frame import MORE, STREAMING, FrameType, encode_frame
from haptera.wire.metadata import encode_entry, encode_route
from tests.unit.node.situations import Clients, encode, growth, refused
from tests.unit.peer.raw import RawPeer, hello, request

if TYPE_CHECKING:
    from pathlib import Path

REQUEST_ID: Final = 1
KIB: Final = 1024


def change(at: Clients, method: str, *argument: Any) -> bytes:
    """A change with an id of its own, on the connection that has them."""
    metadata = encode_route("kv", method) + encode_entry(REQUEST_ID, os.urandom(16))
    return encode_frame(FrameType.REQUEST, 0, at.stream(), metadata, encode(argument))


async def changes_with_ids_that_are_refused(at: Clients, number: int) -> None:
    for each in range(5):
        await at.changing.send(change(at, "set", f"bad\0{number}/{each}", b""))
        await at.changing.send(change(at, "set", f"k{each:03}", b"", {"unknown": number}))
        await at.changing.send(change(at, "set", f"k{each:03}", b"", {"lease": 1_000_000 + number}))
        await at.changing.send(change(at, "set", f"k{each:03}", b"", {"fence": 1_000_000 + number}))
        await at.changing.send(change(at, "increment", f"k{each:03}", f"{number}"))


async def conditions_that_fail(at: Clients, number: int) -> None:
    for each in range(5):
        await at.changing.send(change(at, "set", f"k{each:03}", b"", {"if": "absent"}))
        await at.changing.send(change(at, "delete", f"none-{number}/{each}"))
        await refused(at.db.set(f"k{each:03}", b"", if_version=1_000_000 + number))
        await refused(at.db.set(f"none-{number}/{each}", b"", if_present=True))
        await refused(at.db.rename(f"none-{number}/{each}", "k"))


async def transactions_that_are_refused(at: Clients, number: int) -> None:
    for each in range(3):
        key = f"k{each:03}"
        await at.db.transact(compare=[(key, "version", "=", 1_000_000 + number)], then=[("set", [key, b""])])
        await refused(at.db.transact(then=[("set", [f"t-{number}", b"1"]), ("increment", [f"t-{number}", 2**63 - 1])]))
        await refused(at.db.transact(then=[("delete", [f"{number}"])] * 129))
        await at.changing.send(change(at, "transact", [[key, "value", "=", f"{number}".encode()]], []))
        await at.changing.send(change(at, "transact", [], [["no-such-operation", [f"{number}"]]]))
        transaction = at.db.transaction()
        with suppress(RuntimeError):
            async with transaction as tx:
                await tx.get(f"none-{number}/{each}")
                tx.set(f"none-{number}/{each}", b"")
                raise RuntimeError


async def watches_that_come_and_go(at: Clients, number: int) -> None:
    for each in range(5):
        watch = at.db.watch(prefix=f"w-{number}-{each}")
        told = asyncio.ensure_future(anext(watch.__aiter__()))
        await asyncio.sleep(0.01)
        await at.db.set(f"w-{number}-{each}/k", b"1", ttl=5)
        await told
        await watch.aclose()
        stream = at.stream()
        argument = encode([{"prefix": f"{number}-{each}", "previous": True}])
        await at.changing.request(stream, "kv", "watch", argument, streaming=True)
        await at.changing.cancel(stream)
        await at.changing.request(at.stream(), "kv", "watch", encode([{"from_revision": -number}]), streaming=True)
    lost = await RawPeer.open(at.url)
    await lost.send(hello(capabilities=["pipelining", "kv_watch"]))
    for each in range(5):
        argument = encode([{"prefix": f"lost-{number}-{each}"}])
        await lost.send(request(2 * each + 1, "kv", "watch", argument, flags=STREAMING))
    await asyncio.sleep(0.01)
    lost.writer.transport.abort()


async def leases_that_end(at: Clients, number: int) -> None:
    for each in range(3):
        lease = await at.db.grant_lease(1)
        await at.db.set(f"leased-{number}-{each}", b"", lease=lease)
    await asyncio.sleep(5)
    assert await at.db.get(f"leased-{number}-0") is None
    assert await at.db.renew_leases([10**9 + number]) == [None]
    with suppress(HapteraError):
        await at.db.revoke_lease(10**9 + number)
    kept = await at.db.lease(1)
    await asyncio.sleep(3)
    await kept.close()


async def signed_sessions_that_are_refused(at: Clients, number: int) -> None:
    for key in (None, number.to_bytes(32, "big")):
        peer = await haptera.dial(at.signed.partition("?")[0], signing_key=key)
        with pytest.raises(ConnectionLost):
            await peer.call("kv", "get", encode([f"{number}"]))
        await peer.aclose()
    raw = await RawPeer.open(at.signed)
    await raw.send(hello(capabilities=["pipelining", "hmac_sha256"], mechanisms=["PSK", f"M-{number}"]))
    with suppress(ConnectionError):
        await raw.send(request(1, "kv", "get", encode([f"{number}"])))
        await raw.reader.read()  # the frames of the node are signed
    await raw.close()


async def errors_with_long_details(at: Clients, number: int) -> None:
    long = f"{number:05}" * 50
    for _ in range(3):
        await refused(at.peer.call("kv", long))
        await refused(at.peer.call(long, long))
        await refused(at.peer.call("kv", "get", encode(["k" * 5000 + long])))
        await refused(at.peer.call("kv", "scan", encode([{"glob": "[" + long}])))
        await refused(at.peer.call("kv", "set", encode(["k", b"", {long: 1}])))
        await refused(at.peer.call("server", "snapshot", encode([long])))


async def large_answers_that_no_peer_reads(at: Clients, number: int) -> None:
    if await at.db.get("large") is None:
        await at.db.set("large", os.urandom(300 * KIB))
    lost = await RawPeer.open(at.url)
    await lost.send(hello(capabilities=["pipelining"]))
    for each in range(8):
        await lost.send(request(2 * each + 1, "kv", "get", encode(["large"])))
        await lost.send(request(2 * each + 101, "kv", "get_many", encode([["large"] * 3 + [f"none-{number}"]])))
    await asyncio.sleep(0.1)
    lost.writer.transport.abort()


async def scans_that_are_lost_with_their_connection(at: Clients, number: int) -> None:
    if await at.db.get("s000") is None:
        await at.db.set_many([(f"s{each:03}", bytes(KIB)) for each in range(200)])
    lost = await RawPeer.open(at.url)
    await lost.send(hello(capabilities=["pipelining"], stream_window=64 * KIB))
    for each in range(8):
        await lost.send(request(2 * each + 1, "kv", "scan", encode([{"end": f"t{number}"}]), flags=STREAMING))
        await lost.send(request(2 * each + 101, "kv", "count", encode([{"glob": f"*{number}*"}])))
    await asyncio.sleep(0.1)
    lost.writer.transport.abort()


async def uploads_that_are_taken_back(at: Clients, number: int) -> None:
    route = encode_route("kv", "set") + encode_entry(REQUEST_ID, number.to_bytes(16, "big"))
    for each in range(3):
        stream = at.stream()
        await at.changing.send(encode_frame(FrameType.REQUEST, MORE, stream, route, bytes(32 * KIB)))
        await at.changing.send(encode_frame(FrameType.CANCEL, 0, stream))
        stream = at.stream()
        many = encode([[[f"up-{number}-{each}-{key}", b""] for key in range(3000)]])
        await at.changing.send(encode_frame(FrameType.REQUEST, 0, stream, encode_route("kv", "set_many"), many))
        await at.changing.send(encode_frame(FrameType.CANCEL, 0, stream))
    await asyncio.sleep(1)
    await at.db.clear(prefix="up-")


async def reads_of_a_past_that_is_not_kept(at: Clients, number: int) -> None:
    for each in range(3):
        await refused(at.db.get("k000", at_revision=10**9 + number))
        assert await at.db.get_many(["k000", f"{number}"], at_time=0.001 * each) == [None, None]
        scan = at.db.scan(prefix="k", at_revision=10**9 + number)
        await refused(anext(scan.__aiter__()))
        assert [event async for event in at.db.history(f"none-{number}-{each}")] == []


async def copies_that_are_left(at: Clients, number: int) -> None:
    async with at.db.cached(prefix=f"c-{number}") as copy:
        await at.db.set(f"c-{number}", b"", ttl=5)
        assert copy.get(f"c-{number}-none") is None


async def places_in_lines_that_are_given_up(at: Clients, number: int) -> None:
    async with at.db.lock(f"lock-{number}"):
        with suppress(HapteraError, TimeoutError):
            async with at.db.lock(f"lock-{number}", wait=0.1):
                raise AssertionError
    with suppress(HapteraError):
        async with at.db.semaphore(f"semaphore-{number}", limit=2, wait=1):
            pass


async def databases_whose_server_is_away(at: Clients, number: int) -> None:
    async with haptera.connect(at.url + "-none", wait=False, timeout=0.1) as away:
        for each in range(5):
            await refused(away.get(f"{number}-{each}"))
            await refused(away.set(f"{number}-{each}", b""))


SITUATIONS: Final = [
    changes_with_ids_that_are_refused,
    conditions_that_fail,
    transactions_that_are_refused,
    watches_that_come_and_go,
    leases_that_end,
    signed_sessions_that_are_refused,
    errors_with_long_details,
    large_answers_that_no_peer_reads,
    scans_that_are_lost_with_their_connection,
    uploads_that_are_taken_back,
    reads_of_a_past_that_is_not_kept,
    copies_that_are_left,
    places_in_lines_that_are_given_up,
    databases_whose_server_is_away,
]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
@virtual_clock
async def test_nothing_is_left_of_refusals(situation: Any, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await growth(situation, short_path, monkeypatch) == {}
