"""The socket of one connection."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING, cast

import pytest

from haptera.transport import gathers, is_near

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


class Told:
    """A transport whose socket has been told a round trip, or fails."""

    family = socket.AF_INET

    def __init__(self, microseconds: int | None) -> None:
        self.microseconds = microseconds

    def get_extra_info(self, name: str) -> Told:
        return self

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        if self.microseconds is None:
            raise OSError
        return bytes(size - 4) + self.microseconds.to_bytes(4, sys.byteorder)


@pytest.mark.parametrize(
    ("microseconds", "near"), [(0, False), (1, True), (250, True), (251, False), (30_000, False), (None, False)]
)
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells the round trip")
def test_the_other_side_is_near_if_its_round_trip_is_short(microseconds: int | None, near: bool) -> None:
    assert is_near(cast("asyncio.Transport", Told(microseconds))) is near


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells the round trip")
def test_the_kernel_has_measured_the_round_trip_of_a_connection_that_is_open() -> None:
    async def scenario() -> bool:
        with socket.create_server(("127.0.0.1", 0)) as server:
            transport, _ = await asyncio.get_running_loop().create_connection(
                asyncio.Protocol, *server.getsockname()[:2]
            )
            told = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 72)
            transport.close()
            return 0 < int.from_bytes(told[68:], sys.byteorder) < 5_000_000

    assert asyncio.run(scenario())
