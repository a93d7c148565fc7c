"""Deep pipelines whose replies the socket takes at once: each connection has its turn all the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from haptera.node.frontend import FrontendConnection
from haptera.testing import virtual_clock
from tests.unit.dialects.resp.served import served
from tests.unit.dialects.resp.talks import command

if TYPE_CHECKING:
    import pytest

SIZE = 1024 * 1024
NUMBER = 64


class TakesAll:
    """The transport of a socket that takes all bytes at once. Large ones go nowhere; they are counted by turns."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.taken = [0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def write(self, data: bytes) -> None:
        if not self.taken[-1]:
            asyncio.get_running_loop().call_soon(self.taken.append, 0)
        self.taken[-1] += len(data)
        if len(data) < SIZE:
            self._real.write(data)


@virtual_clock
async def test_replies_that_the_socket_takes_at_once_leave_the_other_connections_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = FrontendConnection.connection_made
    transports: list[TakesAll] = []

    def connection_made(connection: FrontendConnection, transport: Any) -> None:
        transports.append(TakesAll(transport))
        made(connection, transports[-1])  # type: ignore[arg-type]

    monkeypatch.setattr(FrontendConnection, "connection_made", connection_made)
    async with served() as node:
        wire = await node.wire()
        assert await wire.do("SET", "large", bytes(SIZE)) == b"+OK\r\n"
        wire.send(command("GET", "large") * NUMBER)
        for _ in range(NUMBER):  # turns, and more than it takes
            await asyncio.sleep(0.001)
    assert max(transports[0].taken) < 4 * SIZE
    assert sum(transports[0].taken) > NUMBER * SIZE
