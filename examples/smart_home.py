"""A house on one Unix socket: a hub and a panel, each with services that the other calls, at the same time.

    python examples/smart_home.py                     both, in this process
    python examples/smart_home.py hub   URL           the hub alone, until a panel has come and gone
    python examples/smart_home.py panel URL           a panel, in another process

It shows an error with a code of its own, many answers that are left early, many requests, a deadline, a call that is
cancelled, and calls in both directions at once, each inside the other.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import haptera

#: The application's own code of an error: those from 10,000 are free.
NO_SUCH_ROOM = 10_001


class Thermostat(haptera.Service):
    """How warm it is, how warm it was, and what the sensors say."""

    name = "thermostat"

    def __init__(self) -> None:
        self.readings = {"kitchen": [19.5, 20.0, 21.5], "attic": [12.0]}

    @haptera.method
    async def read(self, request: haptera.Request) -> bytes:
        """One answer, or an error that the panel understands."""
        room = request.payload.decode()
        if room not in self.readings:
            raise haptera.CallError(
                NO_SUCH_ROOM, "NO_SUCH_ROOM", "there is no such room", outcome="not_applied", details={"room": room}
            )
        return json.dumps(self.readings[room][-1]).encode()

    @haptera.method
    async def history(self, request: haptera.Request) -> AsyncIterator[bytes]:
        """Many answers, the newest first. They have no end, and are made only as far ahead as the panel's window."""
        try:
            for degrees in reversed(self.readings[request.payload.decode()]):
                yield json.dumps(degrees).encode()
            while True:
                yield b"20.0"
        finally:
            print("hub: the panel has seen enough")

    @haptera.method
    async def load(self, request: haptera.Request) -> bytes:
        """Many requests in one call: a sensor's readings, as they come."""
        readings = self.readings[request.payload.decode()]
        before = len(readings)
        async for item in request.items:
            readings.append(json.loads(item))
        return json.dumps(len(readings) - before).encode()


class Boiler(haptera.Service):
    """Burns for as long as somebody waits for it."""

    name = "boiler"

    def __init__(self) -> None:
        self.off = asyncio.Event()
        self.off.set()

    @haptera.method
    async def warm_up(self, request: haptera.Request) -> bytes:
        """Take an hour. Cancelling the call, here or by its deadline, cancels this coroutine: the boiler goes off."""
        self.off.clear()
        print("hub: boiler on")
        try:
            await request.peer.call("display", "show", b"warming up " + request.payload)
            await asyncio.sleep(3600)
        finally:
            print("hub: boiler off")
            self.off.set()
        return b""

    @haptera.method
    async def wait_until_off(self, _: haptera.Request) -> bytes:
        await self.off.wait()
        return b""


class Night(haptera.Service):
    """Asks the panel about each room, all at once, before it turns the heating down."""

    name = "night"

    @haptera.method
    async def begin(self, request: haptera.Request) -> bytes:
        rooms = json.loads(request.payload)
        answers = await asyncio.gather(*(request.peer.call("display", "confirm", room.encode()) for room in rooms))
        return b", ".join(answers)


class Display(haptera.Service):
    """The panel's own service: what the hub wants to show or to know."""

    name = "display"

    def __init__(self) -> None:
        self.shown = asyncio.Event()

    @haptera.method
    async def show(self, request: haptera.Request) -> bytes:
        print("panel: shows", request.payload.decode())
        self.shown.set()
        return b""

    @haptera.method
    async def confirm(self, request: haptera.Request) -> bytes:
        """Answer a call of the hub's, by a call to the hub, which waits for this answer meanwhile."""
        degrees = await request.peer.call("thermostat", "read", request.payload)
        return request.payload + b" at " + degrees


async def sensor() -> AsyncIterator[bytes]:
    for degrees in (22.0, 22.5, 23.0):
        yield json.dumps(degrees).encode()


async def use(hub: haptera.Peer, display: Display) -> None:
    """What a panel does with a hub."""
    kitchen, attic = await asyncio.gather(
        hub.call("thermostat", "read", b"kitchen", timeout=2.0),
        hub.call("thermostat", "read", b"attic", timeout=2.0),
    )
    print(f"panel: kitchen {kitchen.decode()}, attic {attic.decode()}")

    try:
        await hub.call("thermostat", "read", b"cellar")
    except haptera.CallError as error:
        print(f"panel: error {error.code} {error.name}, {error.outcome}: {error.details['room']}")

    async with hub.stream("thermostat", "history", b"kitchen") as history:
        newest = [(await anext(history)).decode() for _ in range(3)]
    print("panel: kitchen was", ", ".join(newest))

    loaded = await hub.call("thermostat", "load", b"kitchen", items=sensor())
    print("panel: loaded", loaded.decode())

    try:
        await hub.call("boiler", "warm_up", b"the attic", timeout=0.5)
    except haptera.DeadlineExceeded as error:
        print("panel: too slow,", error.name)
    await hub.call("boiler", "wait_until_off")

    display.shown.clear()
    warming = asyncio.create_task(hub.call("boiler", "warm_up", b"the kitchen", timeout=None))
    await display.shown.wait()
    warming.cancel()
    await hub.call("boiler", "wait_until_off")
    await asyncio.wait([warming])
    print("panel: cancelled" if warming.cancelled() else "panel: not cancelled")

    print("panel: good night,", (await hub.call("night", "begin", b'["kitchen", "attic"]')).decode())


async def panel(url: str) -> None:
    display = Display()
    async with haptera.dial(url, services=[display]) as hub:
        await use(hub, display)
        await hub.drain()


async def hub(url: str, listening: asyncio.Event | None = None) -> None:
    gone = asyncio.Event()
    services = [Thermostat(), Boiler(), Night()]
    async with haptera.listen(url, services=services, on_peer=lambda peer: peer.on_close(gone.set)):
        if listening is not None:
            listening.set()
        await gone.wait()


async def house() -> None:
    """Hub and panel in one process. They could as well be two: nothing but the socket is between them."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"haptera+unix://{Path(directory) / 'home.sock'}"
        listening = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hub(url, listening))
            await listening.wait()
            tasks.create_task(panel(url))


async def main(arguments: list[str]) -> None:
    match arguments:
        case []:
            await house()
        case ["hub", url]:
            await hub(url)
        case ["panel", url]:
            await panel(url)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except haptera.HapteraError as error:  # no hub there, or no such address
        sys.exit(str(error))
