"""Services whose methods take and give values of a program's types (spec/protocol.md, section 6: INVALID_ARGUMENT)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

import haptera
from haptera import Request, Service, typed
from haptera.errors import HandlerFailed, InvalidArgument, UnexpectedValue
from tests.unit.peer.hosts import pair


class Room(msgspec.Struct):
    name: str


@dataclass
class Reading:
    room: str
    celsius: float


class Thermostat(Service, codec="json"):
    name = "thermostat"

    def __init__(self) -> None:
        self.called: list[Room] = []
        self.closed = 0

    @typed.method
    async def read(self, request: Request, room: Room) -> Reading:
        self.called.append(room)
        return Reading(room.name, 21.5)

    @typed.method
    async def history(self, request: Request, room: Room) -> AsyncIterator[Reading]:
        self.called.append(room)
        try:
            for celsius in (1.0, 2.0, 3.0):
                yield Reading(room.name, celsius)
        finally:
            self.closed += 1

    @typed.method
    async def reset(self, request: Request) -> None:
        self.called.append(Room("reset"))

    @typed.method
    async def wrong(self, request: Request) -> Reading:
        celsius: Any = "the secret"
        return Reading("a", celsius)

    @typed.method
    async def wrong_item(self, request: Request) -> AsyncIterator[Reading]:
        yield Reading("a", 1.0)
        celsius: Any = "warm"
        yield Reading("a", celsius)

    @typed.method
    async def silent(self, request: Request) -> None:
        return 1  # type: ignore[return-value]

    @haptera.method
    async def raw(self, request: Request) -> bytes:
        return request.payload


class Inherited(Thermostat):
    name = "inherited"


class Packed(Service, codec="msgpack"):
    name = "packed"

    @typed.method
    async def turn(self, request: Request, values: list[int]) -> list[int]:
        return values[::-1]


async def test_a_call_takes_and_gives_values_of_the_types() -> None:
    service = Thermostat()
    async with pair(service, Packed(), Inherited()) as (peer, _):
        reading = await peer.call("thermostat", "read", Room("hall"), codec="json", returning=Reading)
        assert reading == Reading("hall", 21.5)
        assert await peer.call("thermostat", "reset", codec="json") is None  # type: ignore[func-returns-value]
        assert [room.name for room in service.called] == ["hall", "reset"]
        assert await peer.call("packed", "turn", [1, 2], codec="msgpack", returning=list[int]) == [2, 1]
        assert await peer.call("packed", "turn", b"\x92\x01\x02") == b"\x92\x02\x01"
        assert await peer.call("thermostat", "raw", b"{") == b"{"
        assert (await peer.call("inherited", "read", Room("a"), codec="json", returning=Reading)).room == "a"


async def test_items_are_values_of_the_type() -> None:
    service = Thermostat()
    async with pair(service) as (peer, _):
        stream = peer.stream("thermostat", "history", Room("a"), codec="json", returning=Reading)
        assert [item.celsius async for item in stream] == [1.0, 2.0, 3.0]
        assert stream.answer is not None
        async with peer.stream("thermostat", "history", Room("a"), codec="json", returning=Reading) as left:
            assert (await anext(left)).celsius == 1.0
        assert await peer.call("thermostat", "raw", b"") == b""
        assert service.closed >= 1


@pytest.mark.parametrize(
    ("method", "payload", "reason"),
    [
        ("read", b'{"name": 1}', "Expected `str`, got `int`"),
        ("read", b"", "truncated"),
        ("read", b"\xff", ""),
        ("read", b"[" * 100_000, ""),
        ("history", b"{}", "missing required field `name`"),
        ("reset", b"null", "the method takes no argument"),
    ],
)
async def test_an_argument_that_does_not_fit_is_refused_and_touches_no_handler(
    method: str, payload: bytes, reason: str
) -> None:
    service = Thermostat()
    async with pair(service) as (peer, _):
        with pytest.raises(InvalidArgument) as refused:
            await peer.call("thermostat", method, payload)
        assert reason in refused.value.details["reason"]
        assert refused.value.outcome == "not_applied"
        assert service.called == []


async def test_an_answer_that_does_not_fit_is_a_failure_of_the_handler(caplog: pytest.LogCaptureFixture) -> None:
    async with pair(Thermostat()) as (peer, _):
        for method in ("wrong", "silent"):
            with caplog.at_level(logging.ERROR), pytest.raises(HandlerFailed):
                await peer.call("thermostat", method, b"")
        stream = peer.stream("thermostat", "wrong_item", b"", codec="json", returning=Reading)
        assert await anext(stream) == Reading("a", 1.0)
        with pytest.raises(HandlerFailed):
            await anext(stream)
    assert "the secret" not in caplog.text
    assert "answers with a value that does not fit Reading: Expected `float`, got `str`" in caplog.text


async def test_an_answer_that_the_caller_did_not_expect_names_the_method() -> None:
    async with pair(Thermostat()) as (peer, _):
        with pytest.raises(UnexpectedValue) as found:
            await peer.call("thermostat", "read", Room("a"), codec="json", returning=Room)
        assert str(found.value).startswith("the answer of thermostat.read does not fit Room: ")
        assert (found.value.key, found.value.outcome) == (None, "applied")
        assert found.value.details["method"] == "read"
        with pytest.raises(UnexpectedValue, match="does not fit None"):
            await peer.call("thermostat", "read", Room("a"), codec="json")
        stream = peer.stream("thermostat", "history", Room("a"), codec="json", returning=Room)
        with pytest.raises(UnexpectedValue) as item:
            await anext(stream)
        assert item.value.outcome == "unknown"
        await stream.aclose()


async def test_an_argument_that_its_own_class_refuses_is_not_sent() -> None:
    service, number = Thermostat(), 7
    wrong: Any = number
    async with pair(service) as (peer, _):
        with pytest.raises(UnexpectedValue) as refused:
            await peer.call("thermostat", "read", Room(wrong), codec="json", returning=Reading)
        assert refused.value.outcome == "not_applied"
        for mistake in ({"returning": Reading}, {"codec": "xml", "returning": Reading}):
            call: Any = peer.call
            with pytest.raises((TypeError, ValueError)):
                await call("thermostat", "read", Room("a"), **mistake)
        stream: Any = peer.stream
        with pytest.raises(TypeError, match="the type of its items"):
            stream("thermostat", "history", Room("a"), codec="json")
    assert service.called == []


async def later_named(service: Service, request: Request, argument: Later) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Its type is defined nowhere."""


async def without_annotation(service, request, argument) -> None:  # type: ignore[no-untyped-def]
    """Its argument has no type."""


async def without_items(service: Service, request: Request) -> int:  # type: ignore[misc]
    yield 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (later_named, "'Later' is not defined; the types of arguments and answers are imported or defined at the top"),
        (without_annotation, "the type of argument is not annotated"),
        (without_items, r"annotate it with AsyncIterator\[...\]"),
    ],
)
def test_a_service_that_cannot_be_served_is_refused_when_it_is_defined(function: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        type("Bad", (Service,), {"name": "bad", "method": typed.method(function)}, codec="json")


def test_typed_methods_need_a_codec() -> None:
    with pytest.raises(TypeError, match="Bad has typed methods: give it a codec"):
        type("Bad", (Service,), {"name": "bad", "read": Thermostat.read})


def test_a_service_shows_its_methods() -> None:
    assert repr(Packed()) == "<haptera Service packed: turn>"
