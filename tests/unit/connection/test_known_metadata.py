"""Metadata that comes again is not decoded again: what is remembered, for how many, and what never is."""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.connection import Config, Connection, Role
from haptera.connection.config import LAYOUTS_MAX, METADATA_KNOWN_MAX
from haptera.connection.events import CallFailed, Closed, ErrorReceived, ItemReceived, RequestReceived, ResponseReceived
from haptera.wire import Limits
from haptera.wire.frame import COMPRESSED, SIGNED, FrameType, encode_frame
from haptera.wire.metadata import Tag, encode_entry, encode_route

ALL = Config(entropy=os.urandom).capabilities
TIMEOUT = encode_entry(Tag.TIMEOUT_MS, (5000).to_bytes(4, "big"))
TIMES = encode_entry(Tag.SERVER_TIME_US, (7).to_bytes(4, "big"))


def pair(capabilities: tuple[str, ...] = ALL, limits: Limits | None = None) -> tuple[Connection, Connection]:
    """A dialer and an acceptor whose handshake is done."""
    dialer, acceptor = (
        Connection(
            role,
            Config(entropy=os.urandom, grease=False, capabilities=capabilities, limits=limits or Limits()),
            0.0,
        )
        for role in (Role.DIALER, Role.ACCEPTOR)
    )
    acceptor.receive_data(dialer.data_to_send(1 << 20), 0.0)
    dialer.receive_data(acceptor.data_to_send(1 << 20), 0.0)
    return dialer, acceptor


def ask(dialer: Connection, acceptor: Connection, entries: bytes) -> RequestReceived:
    dialer.request("s", "m", b"", entries=entries)
    (event,) = acceptor.receive_data(dialer.data_to_send(1 << 20), 0.0)
    assert isinstance(event, RequestReceived)
    return event


def known(connection: Connection, kind: FrameType) -> dict[bytes, object]:
    receiver = connection._reception._receivers[int(kind)].__self__  # type: ignore[attr-defined]
    remembered: dict[bytes, object] = receiver._known
    return remembered


def layouts(connection: Connection) -> dict[int, object]:
    """The forms of answers that a connection knows."""
    receiver = connection._reception._receivers[int(FrameType.RESPONSE)].__self__  # type: ignore[attr-defined]
    remembered: dict[int, object] = receiver._layouts
    return remembered


def test_a_request_that_comes_again_means_the_same() -> None:
    dialer, acceptor = pair()
    first, second = ask(dialer, acceptor, TIMEOUT), ask(dialer, acceptor, TIMEOUT)
    assert (first.service, first.method, first.entries) == ("s", "m", {Tag.TIMEOUT_MS: (5000).to_bytes(4, "big")})
    assert (second.service, second.method, second.entries) == (first.service, first.method, first.entries)
    assert second.entries is first.entries
    assert (first.stream, second.stream) == (1, 3)


@pytest.mark.parametrize("again", [0, 1, 5])
def test_what_was_not_agreed_is_left_out_of_what_is_remembered(again: int) -> None:
    dialer, acceptor = pair(("pipelining",))
    for _ in range(again + 1):
        assert ask(dialer, acceptor, TIMEOUT).entries == {}


def test_answers_that_come_again_mean_the_same() -> None:
    dialer, acceptor = pair()
    for _ in range(3):
        acceptor.respond(ask(dialer, acceptor, b"").stream, b"x", TIMES)
        (answer,) = dialer.receive_data(acceptor.data_to_send(1 << 20), 0.0)
        assert isinstance(answer, ResponseReceived)
        assert answer.entries == {Tag.SERVER_TIME_US: (7).to_bytes(4, "big")}
    assert list(layouts(dialer)) == [len(TIMES)]


@pytest.mark.parametrize("again", [0, 1, 5])
def test_an_answer_leaves_out_what_was_not_agreed_however_often_it_comes(again: int) -> None:
    dialer, acceptor = pair(("pipelining",))
    for _ in range(again + 1):
        stream = ask(dialer, acceptor, b"").stream
        (answer,) = dialer.receive_data(encode_frame(FrameType.RESPONSE, 0, stream, TIMES), 0.0)
        assert isinstance(answer, ResponseReceived)
        assert answer.entries == {}


def answered(dialer: Connection, metadata: bytes) -> dict[int, bytes] | None:
    """The entries of an answer with this metadata; None where it is refused."""
    stream = dialer.request("s", "m", b"")
    (event,) = dialer.receive_data(encode_frame(FrameType.RESPONSE, 0, stream, metadata), 0.0)
    return dict(event.entries.items()) if isinstance(event, ResponseReceived) else None


@pytest.mark.parametrize(
    ("sent", "entries"),
    [
        ([TIMES, encode_entry(Tag.QUEUE_TIME_US, b"1234"), TIMES], [{6: TIMES[2:]}, {7: b"1234"}, {6: TIMES[2:]}]),
        ([TIMES + encode_entry(0x30, b"later")] * 3, [{6: TIMES[2:]}] * 3),
        ([TIMES + encode_entry(Tag.CONTENT_TYPE, text) for text in (b"ab", b"cd", b"\xff\xff")], [
            {6: TIMES[2:], 8: b"ab"},
            {6: TIMES[2:], 8: b"cd"},
            None,
        ]),
        ([TIMES, encode_entry(0xF0, b"1234"), TIMES[:-1]], [{6: TIMES[2:]}, None, None]),
    ],
)  # fmt: skip
def test_answers_of_one_length_are_told_apart(sent: list[bytes], entries: list[dict[int, bytes] | None]) -> None:
    dialer, _ = pair()
    assert [answered(dialer, metadata) for metadata in sent] == entries


def test_a_usual_answer_to_a_call_that_has_failed_says_nothing_more() -> None:
    dialer, _ = pair()
    assert answered(dialer, TIMES) == answered(dialer, TIMES)
    stream = dialer.request("s", "m", b"")
    damaged = bytearray(encode_frame(FrameType.ITEM, 0, stream, b"", b"item"))
    damaged[-1] ^= 1
    (event,) = dialer.receive_data(bytes(damaged), 0.0)
    assert isinstance(event, CallFailed)
    assert dialer.receive_data(encode_frame(FrameType.RESPONSE, 0, stream, TIMES), 0.0) == []


def test_the_answer_to_a_usual_request_waits_for_the_items_before_it() -> None:
    dialer, acceptor = pair()
    ask(dialer, acceptor, TIMEOUT)
    stream = ask(dialer, acceptor, TIMEOUT).stream
    items = [bytes([number]) * 50_000 for number in range(3)]
    for item in items:
        acceptor.send_item(stream, item)
    acceptor.respond_all([(stream, b"end", b"")])
    events = dialer.receive_data(acceptor.data_to_send(1 << 20), 0.0)
    payloads = [event.payload for event in events if isinstance(event, ItemReceived | ResponseReceived)]
    assert payloads == [*items, b"end"]


def test_a_usual_answer_is_no_larger_than_this_side_takes() -> None:
    limits = Limits(max_message=64 * 1024, max_frame=1024 * 1024)
    dialer, _ = pair(limits=limits)
    answered(dialer, TIMES)
    stream = dialer.request("s", "m", b"")
    payload = bytes(limits.max_message + 1)
    (event,) = dialer.receive_data(encode_frame(FrameType.RESPONSE, 0, stream, TIMES, payload), 0.0)
    assert isinstance(event, CallFailed)
    assert event.failure.code == 3004


def test_answers_of_a_known_form_have_values_of_their_own() -> None:
    dialer, acceptor = pair()
    answers = []
    for number in range(4):
        stream = ask(dialer, acceptor, b"").stream
        entries = encode_entry(Tag.REVISION, number.to_bytes(8, "big")) + encode_entry(Tag.REPLAYED, b"")
        answers += dialer.receive_data(encode_frame(FrameType.RESPONSE, 0, stream, entries), 0.0)
    assert [answer.entries for answer in answers if isinstance(answer, ResponseReceived)] == [
        {Tag.REVISION: number.to_bytes(8, "big"), Tag.REPLAYED: b""} for number in range(4)
    ]


def test_an_id_is_not_remembered_since_it_never_comes_again() -> None:
    dialer, acceptor = pair()
    for _ in range(3):
        request_id = os.urandom(16)
        request = ask(dialer, acceptor, encode_entry(Tag.REQUEST_ID, request_id) + TIMEOUT)
        assert request.entries == {Tag.TIMEOUT_MS: (5000).to_bytes(4, "big")}
        assert request.request_id == request_id
        acceptor.respond(request.stream, b"")
        dialer.receive_data(acceptor.data_to_send(1 << 20), 0.0)
    assert list(known(acceptor, FrameType.REQUEST)) == [encode_route("s", "m") + TIMEOUT]


def test_what_comes_once_beside_an_id_is_not_remembered() -> None:
    dialer, acceptor = pair()
    for number in range(3):
        below = encode_entry(Tag.ANSWERED_BELOW, number.to_bytes(8, "big"))
        ask(dialer, acceptor, encode_entry(Tag.REQUEST_ID, os.urandom(16)) + below)
    assert known(acceptor, FrameType.REQUEST) == {}


def test_a_request_that_says_which_answers_were_read_is_as_usual_as_the_ones_around_it() -> None:
    dialer, acceptor = pair()
    ask(dialer, acceptor, encode_entry(Tag.REQUEST_ID, bytes(16)) + TIMEOUT)
    told = {2: 7, 4: 9}
    for number in range(6):
        below = encode_entry(Tag.ANSWERED_BELOW, told[number].to_bytes(8, "big")) if number in told else b""
        dialer.request("s", "m", b"", request_id=bytes([number]) * 16, entries=below + TIMEOUT)
    seen = [
        (event.request_id, event.entries, acceptor._streams.serves[event.stream].made_receiving)
        for event in acceptor.receive_data(dialer.data_to_send(1 << 20), 0.0)
        if isinstance(event, RequestReceived)
    ]
    timeout = {Tag.TIMEOUT_MS: TIMEOUT[2:]}
    assert seen == [
        (
            bytes([number]) * 16,
            timeout | ({Tag.ANSWERED_BELOW: told[number].to_bytes(8, "big")} if number in told else {}),
            None,
        )
        for number in range(6)
    ]


def test_a_request_that_says_which_answers_were_read_means_what_stands_in_it() -> None:
    dialer, acceptor = pair()
    for _ in range(2):  # from the second one on its form is known
        ask(dialer, acceptor, encode_entry(Tag.REQUEST_ID, bytes(16)) + TIMEOUT)
    later = encode_entry(Tag.TIMEOUT_MS, (6000).to_bytes(4, "big"))
    below, other = (encode_entry(tag, (7).to_bytes(8, "big")) for tag in (Tag.ANSWERED_BELOW, 0x30))
    request_id = encode_entry(Tag.REQUEST_ID, bytes(16))
    seen = [ask(dialer, acceptor, request_id + entries).entries for entries in (below + later, other + TIMEOUT)]
    assert seen == [{Tag.TIMEOUT_MS: later[2:], Tag.ANSWERED_BELOW: below[2:]}, {Tag.TIMEOUT_MS: TIMEOUT[2:]}]
    dialer.request("s", "n", b"", entries=request_id + below + TIMEOUT)
    (event,) = acceptor.receive_data(dialer.data_to_send(1 << 20), 0.0)
    assert isinstance(event, RequestReceived)
    assert event.method == "n"


def test_requests_with_ids_of_the_same_length_are_told_apart() -> None:
    dialer, acceptor = pair()
    later = encode_entry(Tag.TIMEOUT_MS, (6000).to_bytes(4, "big"))
    sent = [(method, entry) for method in ("m", "n") for entry in (TIMEOUT, later)] * 3
    for number, (method, entry) in enumerate(sent):
        dialer.request("s", method, b"", request_id=bytes([number]) * 16, entries=entry)
    seen = [
        (event.method, event.entries, event.request_id)
        for event in acceptor.receive_data(dialer.data_to_send(1 << 20), 0.0)
        if isinstance(event, RequestReceived)
    ]
    assert seen == [
        (method, {Tag.TIMEOUT_MS: entry[2:]}, bytes([number]) * 16) for number, (method, entry) in enumerate(sent)
    ]


@pytest.mark.parametrize("flag", [SIGNED, COMPRESSED])
def test_a_flag_that_was_not_agreed_on_is_refused_on_frames_that_are_usual_but_for_it(flag: int) -> None:
    metadata = encode_route("s", "m") + TIMEOUT
    for type_, entries in ((FrameType.REQUEST, metadata), (FrameType.RESPONSE, TIMES)):
        dialer, acceptor = pair()
        receiver = acceptor if type_ is FrameType.REQUEST else dialer
        for stream in (1, 3):
            dialer.request("s", "m", b"", entries=TIMEOUT)
            (event,) = receiver.receive_data(encode_frame(type_, 0, stream, entries), 0.0)
            assert isinstance(event, RequestReceived | ResponseReceived)
        dialer.request("s", "m", b"", entries=TIMEOUT)
        (event,) = receiver.receive_data(encode_frame(type_, flag, 5, entries), 0.0)
        assert isinstance(event, Closed)
        assert event.error is not None
        assert event.error.code == 1008


_ENTRY = st.one_of(
    st.binary(min_size=16, max_size=16).map(lambda value: encode_entry(Tag.REQUEST_ID, value)),
    st.sampled_from(
        (TIMEOUT, encode_entry(Tag.RESENT, b""), encode_entry(0x30, b"new"), encode_entry(0xF0, b"critical"))
    ),
    st.integers(0, 2).map(lambda number: encode_entry(Tag.ANSWERED_BELOW, number.to_bytes(8, "big"))),
    st.binary(max_size=20),
)
_METADATA = st.lists(_ENTRY, max_size=3).map(lambda entries: encode_route("s", "m") + b"".join(entries)) | st.binary(
    max_size=24
)


@given(st.lists(_METADATA, max_size=12))
def test_metadata_means_the_same_whatever_is_remembered(sent: list[bytes]) -> None:
    _, acceptor = pair()
    for number, metadata in enumerate(sent):
        data = encode_frame(FrameType.REQUEST, 0, 2 * number + 1, metadata)
        _, fresh = pair()
        assert acceptor.receive_data(data, 0.0) == fresh.receive_data(data, 0.0)
        assert acceptor.data_to_send(1 << 20) == fresh.data_to_send(1 << 20)


_ANSWER_ENTRY = st.one_of(
    _ENTRY,
    st.integers(0, 2).map(lambda number: encode_entry(Tag.REVISION, number.to_bytes(8, "big"))),
    st.sampled_from((TIMES, encode_entry(Tag.REPLAYED, b""), encode_entry(Tag.CONTENT_TYPE, b"text"))),
    st.just(encode_entry(Tag.RAW_LENGTH, (7).to_bytes(4, "big"))),
)


@given(
    st.lists(st.lists(_ANSWER_ENTRY, max_size=4).map(b"".join), max_size=12), st.sampled_from([ALL, ("pipelining",)])
)
def test_the_metadata_of_an_answer_means_the_same_whatever_forms_are_known(
    sent: list[bytes], capabilities: tuple[str, ...]
) -> None:
    dialer, _ = pair(capabilities)
    for metadata in sent:
        fresh, _ = pair(capabilities)
        answers = []
        for connection in (dialer, fresh):
            stream = connection.request("s", "m", b"")
            connection.data_to_send(1 << 20)
            events = connection.receive_data(encode_frame(FrameType.RESPONSE, 0, stream, metadata, b"x"), 0.0)
            answers.append([msgspec.structs.replace(event, stream=0) for event in events])
            assert connection.data_to_send(1 << 20) == b""
            connection.check()
        assert answers[0] == answers[1]


def test_a_peer_that_varies_the_forms_of_its_answers_fills_no_memory() -> None:
    dialer, acceptor = pair()
    entries = [encode_entry(tag, bytes(length)) for tag, length in ((1, 16), (6, 4), (7, 4), (9, 0), (10, 8), (11, 8))]
    lengths = set()
    for number in range(1 << len(entries)):
        metadata = b"".join(entry for place, entry in enumerate(entries) if number >> place & 1)
        lengths.add(len(metadata))
        stream = ask(dialer, acceptor, b"").stream
        dialer.receive_data(encode_frame(FrameType.RESPONSE, 0, stream, metadata), 0.0)
        assert len(layouts(dialer)) <= LAYOUTS_MAX
    assert len(lengths) > LAYOUTS_MAX


def test_a_peer_that_varies_its_metadata_fills_no_memory() -> None:
    dialer, acceptor = pair()
    for number in range(1, 500):
        entry = encode_entry(Tag.TIMEOUT_MS, number.to_bytes(4, "big"))
        assert ask(dialer, acceptor, entry).entries == {Tag.TIMEOUT_MS: number.to_bytes(4, "big")}
        assert len(known(acceptor, FrameType.REQUEST)) <= METADATA_KNOWN_MAX
    known(acceptor, FrameType.REQUEST).clear()
    for number in range(10):
        entry = encode_entry(Tag.CONTENT_TYPE, b"%d" % number * 100)
        ask(dialer, acceptor, entry)
    assert known(acceptor, FrameType.REQUEST) == {}


def test_a_frame_that_is_damaged_is_that_whatever_is_remembered() -> None:
    dialer, acceptor = pair()
    ask(dialer, acceptor, TIMEOUT)
    metadata = encode_route("s", "m") + TIMEOUT
    data = bytearray(encode_frame(FrameType.REQUEST, 0, 3, metadata, b"payload"))
    data[-1] ^= 1
    assert acceptor.receive_data(bytes(data), 0.0) == []
    assert dialer.request("s", "m", b"") == 3
    (event,) = dialer.receive_data(acceptor.data_to_send(1 << 20), 0.0)
    assert isinstance(event, ErrorReceived)
    assert event.failure.code == 1003
