"""Services for threads whose methods take and give values of a program's types."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import haptera
import haptera.sync
from haptera.errors import HandlerFailed, InvalidArgument

if TYPE_CHECKING:
    from haptera.sync import Request


class Room(msgspec.Struct):
    name: str


@dataclass
class Reading:
    room: str
    celsius: float


class Thermostat(haptera.sync.Service, codec="json"):
    name = "thermostat"

    def __init__(self) -> None:
        self.called: list[str] = []
        self.threads: set[str] = set()
        self.closed = threading.Event()

    @haptera.sync.typed_method
    def read(self, request: Request, room: Room) -> Reading:
        self.called.append(room.name)
        self.threads.add(threading.current_thread().name)
        return Reading(room.name, 21.5)

    @haptera.sync.typed_method
    def history(self, request: Request, room: Room) -> Iterator[Reading]:
        try:
            for celsius in (1.0, 2.0, 3.0):
                yield Reading(room.name, celsius)
        finally:
            self.closed.set()

    @haptera.sync.typed_method
    def reset(self, request: Request) -> None:
        self.called.append("reset")

    @haptera.sync.typed_method
    def wrong(self, request: Request) -> Reading:
        celsius: Any = "warm"
        return Reading("a", celsius)

    @haptera.sync.typed_method
    def wrong_item(self, request: Request) -> Iterator[Reading]:
        yield Reading("a", 1.0)
        celsius: Any = "warm"
        yield Reading("a", celsius)

    @haptera.sync.method
    def raw(self, request: Request) -> bytes:
        return request.payload


class Inherited(Thermostat):
    name = "inherited"


class Packed(haptera.sync.Service, codec="msgpack"):
    name = "packed"

    @haptera.sync.typed_method
    def turn(self, request: Request, values: list[int]) -> list[int]:
        return values[::-1]


@contextmanager
def dialled(*services: haptera.sync.Service) -> Iterator[haptera.sync.Peer]:
    with (
        haptera.sync.listen("haptera://127.0.0.1:0", services=services) as server,
        haptera.sync.dial(server.url) as peer,
    ):
        yield peer


def test_a_call_takes_and_gives_values_of_the_types() -> None:
    service = Thermostat()
    with dialled(service, Packed(), Inherited()) as peer:
        for name in ("thermostat", "inherited"):
            found = peer.call(name, "read", Room("hall"), codec="json", returning=Reading)
            assert found == Reading("hall", 21.5)
        assert peer.call("packed", "turn", [1, 2, 3], codec="msgpack", returning=list[int]) == [3, 2, 1]
        assert peer.call("thermostat", "reset") == b""
        assert peer.call("thermostat", "raw", b"as it is") == b"as it is"
    assert service.called == ["hall", "reset"]
    assert all(name.startswith("haptera-handler") for name in service.threads)


def test_a_stream_gives_values_and_its_generator_is_closed() -> None:
    service = Thermostat()
    with dialled(service) as peer:
        items = peer.stream("thermostat", "history", Room("hall"), codec="json", returning=Reading)
        assert [item.celsius for item in items] == [1.0, 2.0, 3.0]
        assert service.closed.wait(10)


@pytest.mark.parametrize("payload", [b"{}", b"rubbish", b'{"name": 7}', b""])
def test_an_argument_that_does_not_fit_is_refused_before_the_method(payload: bytes) -> None:
    service = Thermostat()
    with dialled(service) as peer:
        with pytest.raises(InvalidArgument):
            peer.call("thermostat", "read", payload)
        with pytest.raises(InvalidArgument, match="takes no argument"):
            peer.call("thermostat", "reset", b"1")
    assert service.called == []


def test_an_answer_that_does_not_fit_is_a_failure_of_the_handler() -> None:
    with dialled(Thermostat()) as peer:
        with pytest.raises(HandlerFailed):
            peer.call("thermostat", "wrong")
        items = peer.stream("thermostat", "wrong_item")
        assert next(items) == b'{"room":"a","celsius":1.0}'
        with pytest.raises(HandlerFailed):
            next(items)


def test_a_caller_on_a_loop_uses_the_same_service() -> None:
    async def read(url: str) -> Reading:
        async with haptera.dial(url) as peer:
            return await peer.call("thermostat", "read", Room("loft"), codec="json", returning=Reading)

    with haptera.sync.listen("haptera://127.0.0.1:0", services=[Thermostat()]) as server:
        assert asyncio.run(read(server.url)) == Reading("loft", 21.5)


def test_a_method_without_types_or_a_codec_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="give it a codec"):

        class NoCodec(haptera.sync.Service):
            @haptera.sync.typed_method
            def read(self, request: Request, room: Room) -> Reading:
                return Reading(room.name, 1.0)

    with pytest.raises(TypeError, match="room is not annotated"):

        class NoType(haptera.sync.Service, codec="json"):
            @haptera.sync.typed_method
            def read(self, request, room):  # type: ignore[no-untyped-def]
                return Reading(room.name, 1.0)

    with pytest.raises(TypeError, match=r"Iterator\[\.\.\.\]"):

        class NoItems(haptera.sync.Service, codec="json"):
            @haptera.sync.typed_method
            def read(self, request: Request) -> Reading:  # type: ignore[misc]
                yield Reading("a", 1.0)

    with pytest.raises(TypeError, match="plain function"):

        class OnALoop(haptera.sync.Service, codec="json"):
            @haptera.sync.typed_method
            async def read(self, request: Request) -> Reading:
                return Reading("a", 1.0)
