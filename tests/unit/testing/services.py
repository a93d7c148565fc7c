"""Services for the tests of haptera.testing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import haptera

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Echo(haptera.Service):
    """Gives back what it is given, at once, late or in many items; `open` counts handlers that run."""

    name = "echo"

    def __init__(self) -> None:
        self.open = 0

    @haptera.method
    async def say(self, request: haptera.Request) -> bytes:
        return request.payload

    @haptera.method
    async def wait(self, request: haptera.Request) -> bytes:
        self.open += 1
        try:
            await asyncio.sleep(float(request.payload))
        finally:
            self.open -= 1
        return b"waited"

    @haptera.method
    async def items(self, request: haptera.Request) -> AsyncIterator[bytes]:
        for number in range(int(request.payload)):
            yield b"%d" % number * 1000

    @haptera.method
    async def total(self, request: haptera.Request) -> bytes:
        total = 0
        async for item in request.items:
            total += len(item)
        return b"%d" % total


class Lines(asyncio.Protocol):
    """A protocol that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.transport: asyncio.Transport

    @property
    def received(self) -> bytes:
        return b"".join(item for item in self.told if isinstance(item, bytes))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def eof_received(self) -> bool | None:
        self.told.append("eof")
        return None

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(exc or "lost")
