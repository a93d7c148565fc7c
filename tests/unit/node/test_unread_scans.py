"""The end of a scan that its reader gives no credit (spec/protocol.md, sections 3 and 7)."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

import haptera
from haptera.node.scans import PROGRESS_TIMEOUT_S, SWEEP_INTERVAL_S
from haptera.testing import node, virtual_clock
from haptera.wire.frame import FrameType, encode_frame
from haptera.wire.metadata import Tag, encode_entry, encode_route
from tests.unit.peer.raw import RawPeer

ROWS, VALUE = 40, bytes(64 * 1024)


def scan(stream: int, timeout_ms: int | None) -> bytes:
    entries = b"" if timeout_ms is None else encode_entry(Tag.TIMEOUT_MS, timeout_ms.to_bytes(4, "big"))
    metadata = encode_route("kv", "scan") + entries
    return encode_frame(FrameType.REQUEST, 0, stream, metadata, msgspec.msgpack.encode([]))


@pytest.mark.parametrize(
    ("timeout_ms", "code", "earliest", "latest"),
    [(3000, 3005, 2.9, 3.1), (None, 4009, PROGRESS_TIMEOUT_S, PROGRESS_TIMEOUT_S + SWEEP_INTERVAL_S)],
    ids=["its deadline", "60 s without progress"],
)
@virtual_clock
async def test_the_end_of_an_unread_scan_is_told_at_once(
    timeout_ms: int | None, code: int, earliest: float, latest: float
) -> None:
    """Trap: waiting behind what waits. The reader reads its connection, and never gives credit."""
    async with node(storage="memory", listen="tcp", ping_interval=0) as url:
        async with haptera.connect(url) as db:
            for number in range(ROWS):
                await db.set(f"k{number:03}", VALUE)
        raw = await RawPeer.open(url)
        await raw.hello(capabilities=["pipelining", "request_deadline"])
        began = asyncio.get_running_loop().time()
        await raw.send(scan(1, timeout_ms))
        error = await raw.error(1)
        assert (error.code, error.outcome) == (code, "not_applied")
        assert earliest <= asyncio.get_running_loop().time() - began <= latest, "virtual seconds"
        assert url.node.metrics.values()["scans_open"] == 0
        await raw.close()
