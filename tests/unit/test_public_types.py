"""Mistakes in the use of the public surface that a type checker finds.

Each of them is ignored by its code, so that `make lint` fails where the type checker no longer finds it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec
import pytest

import haptera
from haptera import Limits, Peer, Request, Service, dial, listen, method

if TYPE_CHECKING:
    from haptera.peer import LastingPeer


class Sized(msgspec.Struct):
    parts: list[int]


class Sizes(Service, codec="json"):
    name = "sized"

    @haptera.typed.method
    async def length(self, request: Request, argument: Sized) -> int:
        return len(argument.parts)

    @haptera.typed.method
    async def each(self, request: Request, argument: list[int]) -> AsyncIterator[int]:
        for number in argument:
            yield number


@haptera.typed.method  # type: ignore[type-var]
async def two(service: Service, request: Request, argument: int, more: int) -> int:
    return argument + more


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
    await peer.call("typed", "one", answer.decode())  # type: ignore[call-overload]
    length: int = await peer.call("sized", "length", Sized([1]), codec="json", returning=int)
    async with peer.stream("sized", "each", [length], codec="json", returning=int) as items:
        _number: int = await anext(items)
    await peer.call("sized", "length", Sized([1]), returning=int)  # type: ignore[call-overload]
    peer.stream("sized", "each", [1], codec="json")  # type: ignore[call-overload]
    _text: str = await peer.call("sized", "length", Sized([1]), codec="json", returning=int)  # type: ignore[call-overload]
    sizes = haptera.connect(url).typed(Sized)
    await sizes.set("k", b"bytes")  # type: ignore[arg-type]
    await sizes.set("k", Sized([1]), if_versoin=1)  # type: ignore[call-arg]
    haptera.connect(url).typed(Sized, codec="xml")  # type: ignore[arg-type]
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


def test_a_typed_handler_of_two_arguments_is_a_mistake_at_run_time_too() -> None:
    with pytest.raises(TypeError, match=r"two takes a request and at most one argument"):
        type("Sums", (Service,), {"name": "sums", "two": two}, codec="json")
