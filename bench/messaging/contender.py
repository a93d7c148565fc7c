"""What each library is measured through: a client with one connection, and a server that another process runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Protocol

#: Every library that has a timeout for a call is given one, as a program would.
CALL_SECONDS_MAX: Final = 30.0

HOST: Final = "127.0.0.1"


class Client(Protocol):
    """One connection to a server of the same library."""

    def echo(self, payload: bytes) -> Awaitable[bytes]:
        """Call, and give what comes back."""
        ...

    def stream(self, count: int, size: int) -> AsyncIterator[bytes]:
        """Ask for ``count`` items of ``size`` bytes, and give them as they come."""
        ...

    async def aclose(self) -> None: ...


class Contender(Protocol):
    """A library. ``connect`` makes a client of ``HOST`` and a port; ``serve`` answers until it is cancelled.

    ``serve`` calls ``announce`` with its port as soon as it listens. ``broker`` is the port of a program between
    client and server, for a library that needs one. ``loop`` is the event loop on which it makes more calls a second,
    50 in flight: ``asyncio`` or ``uvloop``.
    """

    name: str
    loop: str

    def missing(self) -> str | None:
        """Why it cannot be measured here, or None."""
        ...

    def version(self) -> str: ...

    async def connect(self, port: int) -> Client: ...

    async def serve(self, announce: Callable[[int], None], broker: int) -> None: ...
