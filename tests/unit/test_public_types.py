"""Mistakes in the use of the public surface that a type checker finds.

Each of them is ignored by its code, so that `make lint` fails where the type checker no longer finds it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import haptera
from haptera import Limits, Peer, Request, Service, dial, listen, method

if TYPE_CHECKING:
    from haptera.peer import LastingPeer


class Typed(Service):
    name = "typed"

    @method
    async def one(self, request: Request) -> bytes:
        return request.payload

    @method
    async def nothing(self, request: Request) -> None:
        """An answer without bytes."""

    @method
    async def many(self, request: Request) -> AsyncIterator[bytes]:
        yield request.payload

    @method  # type: ignore[type-var]
    async def text(self, request: Request) -> str:
        return request.service

    @method  # type: ignore[type-var]
    async def numbers(self, request: Request) -> AsyncIterator[int]:
        yield len(request.payload)

    @method  # type: ignore[type-var]
    async def without_a_request(self) -> bytes:
        return b""

    @method  # type: ignore[type-var]
    async def with_more(self, request: Request, more: int) -> bytes:
        return request.payload * more

    @method  # type: ignore[type-var]
    async def of_another(self, request: Peer) -> bytes:
        return request.session


async def opened(url: str) -> None:
    async with listen(url, services=[Typed()], limits=Limits(), frame_timeout_s=1.0) as server:
        _: str = server.url
    await listen(url, max_conections=1)  # type: ignore[call-arg]
    await listen(url, ping_interval_s=1)  # type: ignore[call-arg]
    await listen(url, ping_interval_ms="1000")  # type: ignore[arg-type]
    await listen(url, services=[Typed])  # type: ignore[list-item]
    await dial(url, on_peer=print)  # type: ignore[call-overload]
    await dial(url, limits=64)  # type: ignore[call-overload]
    lasting: LastingPeer = await dial(url, reconnect=True)
    present: Peer | None = lasting.peer
    assert present is None
    peer: Peer = await dial(url, budget=1 << 20)
    answer: bytes = await peer.call("typed", "one")
    await peer.call("typed", "one", answer.decode())  # type: ignore[arg-type]
    async with haptera.connect(url, ping_intervall=1):  # type: ignore[call-arg]
        pass
    try:
        await haptera.connect(url).set("k", 1)  # type: ignore[arg-type]
    except haptera.HapteraError as error:
        _ = error.name + error.outcome + repr((error.code, error.details["key"]))
    except haptera.errors.TooManyConnections:
        pass


def test_the_mistakes_of_handlers_are_no_mistakes_at_run_time() -> None:
    """The decorator looks at no annotation, so that the type checker is the one to find them."""
    assert len(Typed().methods()) == 8
