"""More connections than a listener takes, by those who mean it harm (spec/protocol.md, section 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from haptera import dial
from haptera.testing import virtual_clock
from tests.unit.node.process import serving
from tests.unit.peer.hosts import ANY_PORT, Echo, eventually, served
from tests.unit.peer.raw import RawPeer, hello

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


@virtual_clock
async def test_connections_that_are_told_why_they_are_refused_are_few_however_many_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is kept for a second, so that its ERROR arrives: without a bound that would be a pool of the flood's own."""
    monkeypatch.setattr("haptera.transport.limits.LEAVING_MAX", 4)
    async with served(ANY_PORT, Echo(), max_connections=1000, max_half_open=2) as server:
        good = await dial(server.url)
        await good.ready()
        raws = []
        for number in range(50):
            raws.append(await RawPeer.open(server.url))
            await eventually(lambda: server.accepted == number + 2)  # noqa: B023
            assert len(server._pool.leaving) <= 4
        await eventually(lambda: server.refused == 48)
        assert len(server._pool.leaving) <= 4
        assert await good.call("echo", "one", b"x") == b"x"
        for raw in raws:
            await raw.close()
        await good.aclose()


async def test_connections_cannot_take_the_descriptors_that_the_log_needs(tmp_path: Path) -> None:
    """The next segment could not be made, and who only connects would have ended the node."""
    with serving(tmp_path / "data", files=128) as process:
        url = process.ready().url
        assert "fewer_connections" in process.names()
        good = await dial(url)
        await good.call("kv", "set", msgspec.msgpack.encode(["before", b""]))
        raws = []
        for _ in range(200):
            raw = await RawPeer.open(url)
            raw.writer.write(hello())
            raws.append(raw)
        value = bytes(60_000)
        for number in range(3 * 1_048_576 // len(value)):  # through two ends of segments
            await good.call("kv", "set", msgspec.msgpack.encode([f"key:{number}", value]))
        for raw in raws:
            await raw.close()
        await good.aclose()
        process.signal()
        assert process.end() == 0
