"""What was decoded is remembered, but not without end (protocol, section 8)."""

from __future__ import annotations

from haptera.connection import Role
from haptera.connection.config import METADATA_KNOWN_MAX, METADATA_KNOWN_SIZE_MAX, ROUTES_MAX
from haptera.connection.events import RequestReceived
from haptera.connection.routes import remember, remember_metadata
from tests.unit.connection.machines import REQUEST, frame, open_machine, send


def test_routes_are_remembered_up_to_a_number() -> None:
    cache: dict[int, int] = {}
    sizes = []
    for number in range(3 * ROUTES_MAX + 1):
        remember(cache, number, -number)
        assert cache[number] == -number, "the newest is there, whatever had to go"
        sizes.append(len(cache))
    assert max(sizes) == ROUTES_MAX


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
