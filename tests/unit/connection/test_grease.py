"""Grease: what is unknown on purpose, where it may stand, and that it harms no one (protocol, section 2.3)."""

from __future__ import annotations

from haptera.connection import Connection, Role
from haptera.connection.events import RequestReceived, ResponseReceived
from haptera.errors import failure
from tests.unit.connection.machines import (
    CONTINUED,
    HELLO,
    REQUEST,
    RESPONSE,
    WELCOME,
    Pair,
    Seen,
    machine,
    parse,
    sent,
)


def _exchange(pair: Pair, rounds: int) -> list[Seen]:
    """Let the two sides call each other; return all frames of both."""
    seen: list[Seen] = []
    for number in range(rounds):
        pair.dialer.request("s", "m", b"request")
        if pair.acceptor.can_request(0):
            pair.acceptor.request("s", "m", bytes(100_000 if number == 3 else 10))
        for sender, receiver in ((pair.dialer, pair.acceptor), (pair.acceptor, pair.dialer)) * 2:
            while data := sender.data_to_send(1 << 20):
                seen += parse(data)
                for event in receiver.receive_data(data, 0.0):
                    if isinstance(event, RequestReceived):
                        assert event.entries == {}, "grease never reaches the application"
                        _answer(receiver, event.stream, number)
                    elif isinstance(event, ResponseReceived):
                        assert event.entries == {}
    assert pair.dialer.open_streams == pair.acceptor.open_streams == 0
    return seen


def _tagged(frame: Seen) -> bool:
    start = 4 if frame.type == REQUEST else 0  # behind the route
    return frame.metadata[start : start + 1] == b"\x7f"


def _answer(connection: Connection, stream: int, number: int) -> None:
    if number % 2:
        connection.respond(stream, b"answer")
    else:
        connection.fail(stream, failure(4001))


def test_greased_peers_understand_each_other_and_each_has_sent_some() -> None:
    kinds = set()
    for seed in range(30):
        pair = Pair(dialer={"grease": True, "seed": seed}, acceptor={"grease": True, "seed": seed})
        seen = _exchange(pair, 20)
        greased = [each for each in seen if each.type >= 0xF0 or each.flags & 0x8000 or _tagged(each)]
        assert len(greased) == 2, "one early on each side, the next thousands of messages later"
        kinds |= {"type" if each.type >= 0xF0 else "flag" if each.flags else "tag" for each in greased}
        for each in seen:
            if each.flags & CONTINUED:
                assert each.metadata == b""
            if each.type in {REQUEST, RESPONSE}:
                assert each.flags & 0xFF00 in {0, 0x8000}
    assert kinds == {"type", "flag", "tag"}


def test_a_greased_hello_offers_what_no_one_knows_and_welcome_does_not() -> None:
    dialer = machine(Role.DIALER, grease=True)
    acceptor = machine(Role.ACCEPTOR, grease=True)
    data = dialer.data_to_send(1 << 20)
    (hello,) = parse(data)
    assert hello.type == HELLO
    assert sum(name.startswith("grease-") for name in hello.map["capabilities"]) == 1
    assert sum(name.startswith("grease-") for name in hello.map) == 1
    acceptor.receive_data(data, 0.0)
    (welcome,) = sent(acceptor)
    assert welcome.type == WELCOME
    assert not any(name.startswith("grease-") for name in welcome.map["capabilities"])
    assert sum(name.startswith("grease-") for name in welcome.map) == 1


def test_the_hello_of_a_side_that_signs_is_greased_too() -> None:
    """Section 2.3: both frames of the handshake go into the keys, so that nothing in them can be altered."""
    (hello,) = sent(machine(Role.DIALER, grease=True, signing_key=bytes(32)))
    assert sum(name.startswith("grease-") for name in hello.map["capabilities"]) == 1
    assert sum(name.startswith("grease-") for name in hello.map) == 1


def test_grease_can_be_left_out() -> None:
    pair = Pair()
    for each in _exchange(pair, 50):
        assert each.type < 0xF0
        assert not each.flags & 0xFF00
        assert each.metadata in {b"", b"\x01s\x01m"}


def test_no_grease_of_a_type_leaves_behind_hello() -> None:
    """Behind HELLO only REQUESTs may follow."""
    for seed in range(50):
        dialer = machine(Role.DIALER, grease=True, seed=seed)
        for _ in range(30):
            dialer.request("s", "m", b"")
        assert [each.type for each in sent(dialer)] == [HELLO] + [REQUEST] * 30


def test_the_longest_metadata_leaves_room_for_grease() -> None:
    for seed in range(20):
        dialer = machine(Role.DIALER, grease=True, seed=seed)
        acceptor = machine(Role.ACCEPTOR)
        acceptor.receive_data(dialer.data_to_send(1 << 20), 0.0)
        dialer.receive_data(acceptor.data_to_send(1 << 20), 0.0)
        entries = b"".join(bytes((tag, 250)) + bytes(250) for tag in range(0x10, 0x20))
        for _ in range(20):
            dialer.request("s", "m", b"", entries=entries)
        assert max(len(each.metadata) for each in sent(dialer)) <= 4096
