"""Situations that are repeated against a node with lasting clients, and the count of all that is left of them."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

import haptera
from haptera.connection import decode_cache
from haptera.errors import HapteraError
from haptera.kv_groups import KV_GROUPS
from haptera.testing import node
from haptera.wire.frame import FrameType, encode_frame
from tests.unit.node.holdings import holdings
from tests.unit.peer.raw import RawPeer

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from haptera import Peer
    from haptera.client import Database

    Situation = Callable[["Clients", int], Awaitable[None]]

encode = msgspec.msgpack.encode

#: Repetitions before the tables are counted, and between the two counts.
FEW: Final = 4
MANY: Final = 4 * FEW
#: Virtual time until nothing is owed. Deadlines, idle scans and half-open connections are over within two minutes, and
#: answers that no client has read are remembered for ten, by entries that each move their clock by one at most.
QUIET_S: Final = 30.0
QUIET_TIMES: Final = 24
#: The growth that a table may have. One element for each repetition would be four times as many.
GROWTH_MAX: Final = MANY // 4
BYTES_GROWTH_MAX: Final = 20 * GROWTH_MAX
#: The last changes of the store are kept on purpose, within bounds of their own (`haptera.state.limits`).
KEPT: Final = ("elements of EventHistory", "bytes of EventHistory")
PING: Final = encode_frame(FrameType.PING, 0, 0, b"", bytes(8))


class Clients:
    """A node's lasting clients: a database, a peer, one that is nothing but a socket, and such a one whose changes have
    ids. ``signed`` is the URL of the listener whose connections sign.
    """

    def __init__(self, url: str, signed: str, db: Database, peer: Peer, raw: RawPeer, changing: RawPeer) -> None:
        self.url = url
        self.signed = signed
        self.db = db
        self.peer = peer
        self.raw = raw
        self.changing = changing
        self._stream = -1

    def stream(self) -> int:
        """A stream that no socket has used."""
        self._stream += 2
        return self._stream

    def last_streams(self, count: int) -> list[int]:
        """The last streams that were given."""
        return [self._stream - 2 * each for each in range(count)]


async def refused(call: Awaitable[Any]) -> None:
    """Make a call that is to fail."""
    with pytest.raises(HapteraError):
        await call


async def _read_on(raw: RawPeer) -> None:
    """Read all that comes, and keep nothing of it."""
    while await raw.read():
        raw.frames.clear()


async def growth(situation: Situation, directory: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """Repeat a situation a few times and then many, on a virtual clock. The numbers of all that has become more: the
    one after the few and the one after the many.
    """
    for name in ("ROUTES_MAX", "METADATA_KNOWN_MAX"):
        monkeypatch.setattr(decode_cache, name, 1)  # their bounds have tests of their own
    key_file = directory / "signing.key"
    key_file.write_bytes(os.urandom(32))
    key_file.chmod(0o600)
    listen = [f"haptera+unix://{directory}/plain", f"haptera+unix://{directory}/signed?signed=psk&key_file={key_file}"]
    async with AsyncExitStack() as stack:
        logging.disable(logging.CRITICAL)  # or pytest keeps each line
        stack.callback(logging.disable, logging.NOTSET)
        url = await stack.enter_async_context(node(storage="memory", listen=listen))
        db = await stack.enter_async_context(haptera.connect(url))
        peer = await haptera.dial(url)
        stack.push_async_callback(peer.aclose)
        raw, changing = await RawPeer.open(url), await RawPeer.open(url)
        await raw.hello(capabilities=["pipelining", "request_deadline"])
        await changing.hello(capabilities=["pipelining", "idempotency", *KV_GROUPS])
        readers = []
        for each in (raw, changing):
            stack.push_async_callback(each.close)
            readers.append(asyncio.ensure_future(_read_on(each)))
            stack.callback(readers[-1].cancel)
        await db.set_many([(f"k{number:03}", os.urandom(8)) for number in range(300)])
        at = Clients(url, url.server.urls[1], db, peer, raw, changing)

        async def repeat(first: int, count: int) -> Counter[str]:
            for number in range(first, first + count):
                await situation(at, number)
                await raw.send(PING)  # or the node ends a connection that is silent
                await changing.send(PING)
            writing = await RawPeer.open(url)
            await writing.hello()
            for each in range(QUIET_TIMES):
                await asyncio.sleep(QUIET_S)
                await raw.send(PING)  # a request might sweep a table
                await changing.send(PING)
                await writing.request(2 * each + 1, "kv", "set", encode(["k000", b"12345678"]))
            await writing.close()
            await asyncio.sleep(1)
            return holdings(url.node, url.server, db, peer)

        before = await repeat(0, FEW)
        after = await repeat(FEW, MANY)
        assert not any(reader.done() for reader in readers)
    return {
        name: (before[name], count)
        for name, count in after.items()
        if name not in KEPT
        and count - before[name] > (BYTES_GROWTH_MAX if name.startswith("bytes of ") else GROWTH_MAX)
    }
