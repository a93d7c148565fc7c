"""HELLO, WELCOME, ERROR and GOAWAY: what is malformed (protocol, sections 1, 4 and 6)."""

from __future__ import annotations

import base64
import tracemalloc
from typing import Any

import msgspec
import pytest

from haptera.errors import Failure, RemoteProtocolError
from haptera.wire.payload import (
    LIMITS,
    NESTING_MAX,
    Goaway,
    Hello,
    Limits,
    Welcome,
    decode_failure,
    decode_payload,
    encode_payload,
    nesting,
)

pack = msgspec.msgpack.encode

HELLO: dict[str, Any] = {"versions": [1], "agent": "a/1", "session": bytes(16), "nonce": bytes(32)}
WELCOME: dict[str, Any] = {
    **HELLO,
    "version": 1,
    "server_id": bytes(16),
    "capabilities": [],
    "services": [],
    "mechanisms": [],
}
GOAWAY: dict[str, Any] = {"code": 1014, "name": "GOING_AWAY", "message": "", "last_stream": 3}
ERROR: dict[str, Any] = {"code": 4001, "name": "N", "message": "m", "outcome": "not_applied", "details": {"key": "k"}}

KINDS: list[tuple[type[Hello | Welcome | Goaway], dict[str, Any]]] = [
    (Hello, HELLO),
    (Welcome, WELCOME),
    (Goaway, GOAWAY),
]


def _refused(data: bytes, type_: type[Any] | None = Hello) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_failure(data) if type_ is None else decode_payload(type_, data)
    assert caught.value.code == 1002


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(("type_", "fields"), KINDS)
def test_what_is_written_is_read(type_: type[Any], fields: dict[str, Any]) -> None:
    payload = decode_payload(type_, pack(fields))
    assert decode_payload(type_, encode_payload(payload)) == payload
    assert decode_payload(type_, encode_payload(payload, {"grease-1": b"x"})) == payload


def test_an_error_is_the_map_of_section_6() -> None:
    said = decode_failure(pack(ERROR))
    assert said == Failure(4001, "N", "m", "not_applied", {"key": "k"})
    assert msgspec.msgpack.decode(encode_payload(said)) == ERROR
    assert decode_failure(pack(ERROR | {"later": [1]})) == said


@pytest.mark.parametrize("outcome", ["", "banana", "NOT_APPLIED", "not_applied "])
def test_an_outcome_that_is_none_of_the_three_says_nothing(outcome: str) -> None:
    assert decode_failure(pack(ERROR | {"outcome": outcome})).outcome == "unknown"


@pytest.mark.parametrize("outcome", ["not_applied", "unknown", "applied"])
def test_an_outcome_of_section_6_is_read_as_it_is(outcome: str) -> None:
    assert decode_failure(pack(ERROR | {"outcome": outcome})).outcome == outcome


@pytest.mark.parametrize(("type_", "fields"), [*KINDS, (None, ERROR)])
def test_bytes_behind_the_value_are_malformed(type_: type[Any] | None, fields: dict[str, Any]) -> None:
    _refused(pack(fields) + b"\xc0", type_)
    _refused(pack(fields)[:-1], type_)
    _refused(b"", type_)


@pytest.mark.parametrize(("type_", "fields"), KINDS)
@pytest.mark.parametrize("key", [b"\xa5agent", b"\xa4code", b"\xa5later"])
def test_a_doubled_key_is_malformed(type_: type[Any], fields: dict[str, Any], key: bytes) -> None:
    """Whichever key: one that is known, or one that would have been ignored."""
    data = pack(fields)
    assert data[0] == 0x80 | len(fields)
    doubled = bytes((data[0] + 2,)) + data[1:] + (key + b"\xa1x") * 2
    _refused(doubled, type_)


@pytest.mark.parametrize(
    "header", [lambda size: b"\xde" + size.to_bytes(2, "big"), lambda size: b"\xdf" + size.to_bytes(4, "big")]
)
def test_maps_may_have_any_header(header: Any) -> None:
    body = pack(HELLO)[1:]
    assert decode_payload(Hello, header(4) + body).agent == "a/1"
    _refused(header(5) + body + b"\xa5agent\xa1x")


@pytest.mark.parametrize("value", [None, 1, "text", [], b"", True])
@pytest.mark.parametrize("type_", [Hello, Welcome, Goaway, None])
def test_a_payload_that_is_no_map_is_malformed(type_: type[Any] | None, value: object) -> None:
    _refused(pack(value), type_)


@pytest.mark.parametrize("key", [1, b"bin", None])
def test_a_key_that_is_not_text_is_malformed(key: object) -> None:
    data = pack(HELLO)
    _refused(bytes((data[0] + 1,)) + data[1:] + pack(key) + b"\xc0")


@pytest.mark.parametrize(
    "wrong",
    [
        {"versions": 1},
        {"versions": ["1"]},
        {"versions": [True]},
        {"versions": [1.0]},
        {"versions": None},
        {"agent": b"bin"},
        {"agent": 1},
        {"session": "sixteen letters!"},
        {"session": base64.b64encode(bytes(16)).decode()},
        {"nonce": base64.b64encode(bytes(32)).decode()},
        {"session": [0] * 16},
        {"capabilities": "zstd"},
        {"capabilities": [b"zstd"]},
        {"services": {"a": 1}},
        {"max_frame": "65536"},
        {"max_frame": 65536.0},
        {"max_frame": True},
        {"max_frame": None},
    ],
)
def test_a_wrong_type_is_malformed(wrong: dict[str, Any]) -> None:
    """Keys and text are str, ids and nonces bin: base64 in a str is not a nonce."""
    _refused(pack(HELLO | wrong))
    _refused(pack(WELCOME | wrong), Welcome)


@pytest.mark.parametrize("name", ["session", "nonce", "server_id"])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_session_nonce_or_id_of_another_size_is_malformed(name: str, change: int) -> None:
    size = len(WELCOME[name]) + change
    _refused(pack(WELCOME | {name: bytes(size)}), Welcome)
    if name in HELLO:
        _refused(pack(HELLO | {name: bytes(size)}))


@pytest.mark.parametrize("wrong", [{"ping_interval_ms": -1}, {"idempotency_ms": -1}])
def test_integers_are_unsigned(wrong: dict[str, Any]) -> None:
    _refused(pack(WELCOME | wrong), Welcome)
    _refused(pack(GOAWAY | {"last_stream": -1}), Goaway)


def test_nesting_above_32_is_malformed_and_32_is_not() -> None:
    """Where the type is open: the whole payload counts, so its own map is the first."""
    assert decode_payload(Hello, pack(HELLO | {"later": _nested(NESTING_MAX - 1)})).agent == "a/1"
    _refused(pack(HELLO | {"later": _nested(NESTING_MAX)}))
    assert decode_failure(pack(ERROR | {"details": {"a": _nested(NESTING_MAX - 2)}})).code == 4001
    _refused(pack(ERROR | {"details": {"a": _nested(NESTING_MAX - 1)}}), None)


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a", b"\x81"])
@pytest.mark.parametrize("type_", [Hello, Welcome, Goaway, None])
def test_nesting_without_end_harms_nothing(type_: type[Any] | None, opening: bytes) -> None:
    _refused(b"\x81\xa5later" + opening * 8000, type_)
    _refused(opening * 100_000, type_)
    _refused(b"\x85" + pack(ERROR)[1:-8] + opening * 100_000, type_)


@pytest.mark.parametrize(
    "count", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"]
)
@pytest.mark.parametrize("type_", [Hello, Welcome, Goaway, None])
def test_a_count_is_no_reason_to_allocate(type_: type[Any] | None, count: bytes) -> None:
    """Trap: preallocating from a count in the payload."""
    tracemalloc.start()
    try:
        for data in (count, b"\x81\xa5later" + count, b"\x81\xa8versions" + count, b"\x81\xa7details" + count):
            _refused(data, type_)
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", [b"\xa2\xff\xfe", b"\xa2\xc0\x80", b"\xa3\xed\xa0\x80"])
def test_text_that_is_not_utf_8_is_malformed(text: bytes) -> None:
    data = pack({key: value for key, value in HELLO.items() if key != "agent"})
    _refused(bytes((data[0] + 1,)) + data[1:] + b"\xa5agent" + text)
    failure = pack({key: value for key, value in ERROR.items() if key != "name"})
    _refused(bytes((failure[0] + 1,)) + failure[1:] + b"\xa4name" + text, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"code": "1"},
        {"name": 1},
        {"message": None},
        {"outcome": 3},
        {"details": None},
        {"details": []},
        {"details": {1: 2}},
    ],
)
def test_an_error_with_a_wrong_type_is_malformed(wrong: dict[str, Any]) -> None:
    _refused(pack(ERROR | wrong), None)


@pytest.mark.parametrize("missing", list(ERROR))
def test_an_error_without_a_field_is_malformed(missing: str) -> None:
    _refused(pack({key: value for key, value in ERROR.items() if key != missing}), None)


def test_the_limits_are_those_of_the_specification() -> None:
    kib, mib, gib = 2**10, 2**20, 2**30
    table = {name: (limit.minimum, limit.default, limit.maximum) for name, limit in LIMITS.items()}
    assert table == {
        "max_frame": (16 * kib, 64 * kib, 16 * mib),
        "max_message": (64 * kib, 16 * mib, gib),
        "stream_window": (16 * kib, 256 * kib, 16 * mib),
        "connection_window": (64 * kib, mib, 64 * mib),
        "max_streams": (64, 1024, 65535),
    }


@pytest.mark.parametrize("name", list(LIMITS))
def test_a_limit_outside_its_bounds_is_read_as_the_bound(name: str) -> None:
    limit = LIMITS[name]
    for value, read in (
        (0, limit.minimum),
        (-1, limit.minimum),
        (limit.minimum, limit.minimum),
        (limit.default, limit.default),
        (limit.maximum + 1, limit.maximum),
        (2**63, limit.maximum),
    ):
        hello = decode_payload(Hello, pack(HELLO | {name: value}))
        assert getattr(hello.clamped(), name) == read
    assert getattr(decode_payload(Hello, pack(HELLO)).clamped(), name) == limit.default


def test_nesting_counts_containers() -> None:
    shapes: list[object] = [1, [], [[]], {"a": [1, {}]}, (1,)]
    assert [nesting(value) for value in shapes] == [0, 1, 2, 3, 1]
    assert nesting(_nested(500)) == NESTING_MAX + 1
    assert Limits().clamped() == Limits()
