"""A side that closes its own direction ends the connection (spec/protocol.md, section 3, "Ending")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import haptera
from haptera.wire.frame import FrameType
from tests.unit.peer.hosts import Gate
from tests.unit.peer.raw import RawPeer

if TYPE_CHECKING:
    from pathlib import Path


async def test_open_requests_are_not_answered_and_their_handlers_are_cancelled(tmp_path: Path) -> None:
    gate = Gate()
    url = f"haptera+unix://{tmp_path}/socket"
    async with haptera.listen(url, services=[gate], grease=False):
        peer = await RawPeer.open(url)
        await peer.hello()
        await peer.request(1, "gate", "wait", b"one")
        while not gate.started:
            assert await peer.read()
        peer.writer.write_eof()
        assert [frame.type for frame in await peer.read_to_end()] == [FrameType.WELCOME]
        assert gate.cancelled == [b"one"]
        await peer.close()
