"""Two peers on one Unix socket, each with a service that the other calls, at the same time.

Here both run in one process; they could as well be two programs.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import haptera

ROOMS = {b"kitchen": [b"19.5", b"20.0", b"21.5"], b"attic": [b"12.0"]}


class Thermostat(haptera.Service):
    """Says how warm it is, and how warm it was."""

    name = "thermostat"

    @haptera.method
    async def read(self, request: haptera.Request) -> bytes:
        if request.payload not in ROOMS:
            raise haptera.CallError(10_001, "NO_SUCH_ROOM", "there is no such room")
        return ROOMS[request.payload][-1]

    @haptera.method
    async def history(self, request: haptera.Request) -> AsyncIterator[bytes]:
        for degrees in ROOMS[request.payload]:
            yield degrees

    @haptera.method
    async def load(self, request: haptera.Request) -> bytes:
        """Take many readings in one call, and calls back to the display of whoever sends them."""
        readings = [item async for item in request.items]
        ROOMS[b"kitchen"].extend(readings)
        await request.peer.call("display", "show", b"kitchen is at " + readings[-1])
        return str(len(readings)).encode()


class Display(haptera.Service):
    """Shows a text."""

    name = "display"

    @haptera.method
    async def show(self, request: haptera.Request) -> bytes:
        print("display:", request.payload.decode())
        return b""


async def readings() -> AsyncIterator[bytes]:
    for degrees in (22.0, 22.5, 23.0):
        yield str(degrees).encode()


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        url = f"haptera+unix://{Path(directory) / 'home.sock'}"
        async with haptera.listen(url, services=[Thermostat()]), haptera.dial(url, services=[Display()]) as peer:
            print("kitchen:", (await peer.call("thermostat", "read", b"kitchen", timeout=2.0)).decode())
            async for degrees in peer.stream("thermostat", "history", b"kitchen"):
                print("kitchen was:", degrees.decode())
            print("loaded:", (await peer.call("thermostat", "load", items=readings())).decode())
            try:
                await peer.call("thermostat", "read", b"cellar")
            except haptera.CallError as error:
                print(error.code, error.name)
            await peer.drain()


if __name__ == "__main__":
    asyncio.run(main())
