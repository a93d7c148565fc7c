"""The socket of one connection."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from haptera.transport import gathers

if TYPE_CHECKING:
    from collections.abc import Callable

uvloop = pytest.importorskip("uvloop")


@pytest.mark.parametrize(("loop", "wanted"), [(asyncio.new_event_loop, False), (uvloop.new_event_loop, True)])
def test_pieces_are_written_together_where_the_loop_does_that_without_a_copy(
    loop: Callable[[], asyncio.AbstractEventLoop], wanted: bool
) -> None:
    async def scenario() -> bool:
        here, there = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=here)
        found = gathers(transport)
        transport.close()
        there.close()
        await asyncio.sleep(0)
        return found

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(scenario()) is wanted
