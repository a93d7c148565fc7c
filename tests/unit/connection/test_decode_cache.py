"""What was decoded is remembered, but not without end (protocol, section 8)."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from collections.abc import Iterator

import pytest

from haptera.connection import Role
from haptera.connection.config import METADATA_KNOWN_MAX, METADATA_KNOWN_SIZE_MAX, ROUTES_MAX
from haptera.connection.decode_cache import remember_metadata, remember_route
from haptera.connection.events import RequestReceived
from haptera.wire.metadata import Tag, encode_entry
from tests.unit.connection.machines import REQUEST, RESPONSE, drain, frame, open_machine, send


def test_routes_are_remembered_up_to_a_number_and_a_size() -> None:
    cache: dict[int, int] = {}
    sizes = []
    for number in range(3 * ROUTES_MAX + 1):
        remember_route(cache, number, -number, METADATA_KNOWN_SIZE_MAX)
        assert cache[number] == -number, "the newest is there, whatever had to go"
        sizes.append(len(cache))
    assert max(sizes) == ROUTES_MAX
    remember_route(cache, -1, 1, METADATA_KNOWN_SIZE_MAX + 1)
    assert -1 not in cache


def test_metadata_is_remembered_up_to_a_number_and_a_size() -> None:
    cache: dict[bytes, int] = {}
    sizes = []
    for number in range(3 * METADATA_KNOWN_MAX + 1):
        remember_metadata(cache, b"%d" % number, number)
        assert cache[b"%d" % number] == number
        sizes.append(len(cache))
    assert max(sizes) == METADATA_KNOWN_MAX
    remember_metadata(cache, bytes(METADATA_KNOWN_SIZE_MAX), 1)
    remember_metadata(cache, bytes(METADATA_KNOWN_SIZE_MAX + 1), 1)
    assert bytes(METADATA_KNOWN_SIZE_MAX) in cache
    assert bytes(METADATA_KNOWN_SIZE_MAX + 1) not in cache


def test_who_invents_names_is_served_with_each_of_them() -> None:
    """A memory that starts again mixes up nobody's names."""
    connection = open_machine(Role.ACCEPTOR)
    for number in range(ROUTES_MAX + 2):
        name = b"m%d" % number
        metadata = b"\x01s" + bytes((len(name),)) + name
        (event,) = send(connection, frame(REQUEST, 1 + 2 * number, metadata=metadata))
        assert isinstance(event, RequestReceived)
        assert (event.service, event.method) == ("s", name.decode())
        connection.respond(event.stream, b"")


KIB = 1024
#: What a connection may remember of a peer that does its worst, in one direction (docs/messaging.md).
REMEMBERED_MAX = 32 * KIB


def _text(number: int, size: int) -> bytes:
    """The text of so many bytes that takes most memory: one character beyond U+FFFF makes all of them wide."""
    wide = "\U0001f600".encode()
    return wide + b"%07d" % number + b"x" * (size - len(wide) - 7) if size >= 11 else b"%0*d" % (size, number)


def _routes() -> Iterator[bytes]:
    """Metadata of REQUESTs that never comes again: names of all sizes, with few and many entries behind them."""
    for number in itertools.count():
        size = (255, 30, 20, 11)[number % 4]
        name = bytes((size,)) + _text(number, size)
        yield name + name
        yield b"\x0bS2345678901" + bytes((11,)) + _text(number, 11) + _entries(number)


def _entries(number: int) -> bytes:
    """As many entries as fit into the metadata that is remembered."""
    return b"".join(
        encode_entry(tag, value)
        for tag, value in (
            (Tag.TIMEOUT_MS, (number + 1).to_bytes(4, "big")),
            (Tag.SERVER_TIME_US, number.to_bytes(4, "big")),
            (Tag.QUEUE_TIME_US, number.to_bytes(4, "big")),
            (Tag.CONTENT_TYPE, b"t"),
            (Tag.TRACESTATE, b"s"),
            (Tag.REPLAYED, b""),
        )
    )


@pytest.mark.parametrize("direction", ["requests", "answers"])
def test_what_a_peer_can_have_remembered_is_bounded_in_bytes(direction: str) -> None:
    """Trap: memory outside every budget. Each REQUEST and each answer has names and entries of its own."""
    role = Role.ACCEPTOR if direction == "requests" else Role.DIALER
    connection = open_machine(role, idle_frames_burst=1_000_000)
    gc.collect()
    tracemalloc.start()
    try:
        most = 0
        for number, metadata in zip(range(3000), _routes(), strict=False):
            if direction == "requests":
                (event,) = send(connection, frame(REQUEST, 1 + 2 * number, metadata=metadata))
                connection.respond(event.stream, b"")  # type: ignore[union-attr]
            else:
                stream = connection.request("service", f"method{number:050}", b"")
                send(connection, frame(RESPONSE, stream, metadata=_entries(number)))
            drain(connection)
            if number % 16 == 15:
                most = max(most, tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert most < REMEMBERED_MAX, f"{most} bytes"
