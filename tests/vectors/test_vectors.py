"""The vectors of spec/vectors: what is read from their bytes, what is written, and that released ones never change."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import msgspec
import pytest

from haptera import dial
from haptera.connection import Role
from haptera.connection.events import RequestReceived
from haptera.connection.stream_law import ConnectionState
from haptera.errors import ServerError
from haptera.kv_groups import KV_GROUPS
from haptera.security import (
    ExchangeFailed,
    PlainLogin,
    ScramAcceptor,
    ScramDialer,
    derive_keys,
    hello_binding,
    read_plain,
    verifier_of,
    write_plain,
)
from haptera.testing import node
from haptera.wire.compression import Codec
from haptera.wire.decoder import FrameDecoder
from haptera.wire.frame import CONTINUED, FrameType, encode_frame
from haptera.wire.metadata import decode_entries, decode_route, encode_route, route_length
from haptera.wire.payload import Goaway, Hello, Limits, Welcome, decode_failure, decode_payload, encode_payload
from haptera.wire.signature import Signer, direction_keys, preshared_keys
from tests.unit.connection.machines import ERROR, hello, machine, send, sent

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.errors import Failure
    from haptera.peer import Peer

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "spec" / "vectors"
#: Name of each file, name of each released vector, SHA-256 of what it says. Lines are added, never changed.
RELEASED = Path(__file__).parent / "released_vectors.json"

Vector = dict[str, Any]


def _vectors(name: str) -> list[Vector]:
    vectors: list[Vector] = json.loads((FOLDER / name).read_text(encoding="utf-8"))["vectors"]
    return vectors


SCRAM_EXCHANGES, SCRAM_REFUSED = (
    [vector for vector in _vectors("scram.json") if ("text" in vector) is refused] for refused in (False, True)
)


def _each(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", _vectors(name), ids=lambda vector: str(vector["name"]))


def _plain(value: Any) -> Any:
    """Undo what JSON needs: {"bin": hexadecimal} is bytes."""
    if isinstance(value, dict):
        if set(value) == {"bin"}:
            return bytes.fromhex(value["bin"])
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value


@_each("checksums.json")
def test_checksums(vector: Vector) -> None:
    assert google_crc32c.value(bytes.fromhex(vector["hex"])) == int(vector["crc32c"], 16)


def test_the_check_value_of_the_specification_is_among_the_checksums() -> None:
    vectors = {each["hex"]: each["crc32c"] for each in _vectors("checksums.json")}
    assert vectors[b"123456789".hex()] == "e3069283"


@_each("frames.json")
def test_frames_are_read(vector: Vector) -> None:
    decoder = FrameDecoder(64 * 1024)
    (frame,) = decoder.receive(bytes.fromhex(vector["hex"]))
    expected = vector["frame"]
    assert (frame.type, frame.flags, frame.stream) == (expected["type"], expected["flags"], expected["stream"])
    assert (frame.metadata.hex(), frame.payload.hex()) == (expected["metadata"], expected["payload"])
    assert not frame.damaged
    start = 0
    if "service" in expected:
        start = route_length(frame.metadata)
        assert decode_route(frame.metadata[:start]) == (expected["service"], expected["method"])
    entries = decode_entries(frame.metadata, start)
    assert {f"{tag:02x}": value.hex() for tag, value in entries.items()} == expected["entries"]


@_each("frames.json")
def test_frames_are_written(vector: Vector) -> None:
    expected = vector["frame"]
    metadata, payload = bytes.fromhex(expected["metadata"]), bytes.fromhex(expected["payload"])
    written = encode_frame(expected["type"], expected["flags"], expected["stream"], metadata, payload)
    assert written.hex() == vector["hex"]
    if "service" in expected:
        assert metadata.startswith(encode_route(expected["service"], expected["method"]))


@pytest.mark.parametrize(
    "vector", [each for each in _vectors("frames.json") if "value" in each["frame"]], ids=lambda vector: vector["name"]
)
def test_payloads_mean_what_the_vectors_say(vector: Vector) -> None:
    payload = bytes.fromhex(vector["frame"]["payload"])
    value = _plain(vector["frame"]["value"])
    type_ = vector["frame"]["type"]
    decoded = _decode(type_, payload)
    known = {key: each for key, each in value.items() if hasattr(decoded, key)}
    assert {key: getattr(decoded, key) for key in known} == known
    assert _decode(type_, encode_payload(decoded)) == decoded
    if isinstance(decoded, Hello) and "max_frame" not in value:
        assert Limits(**{name: getattr(decoded, name) for name in Limits.__struct_fields__}) == Limits()


def _decode(type_: int, payload: bytes) -> Hello | Welcome | Goaway | Failure:
    match type_:
        case FrameType.HELLO:
            return decode_payload(Hello, payload)
        case FrameType.WELCOME:
            return decode_payload(Welcome, payload)
        case FrameType.GOAWAY:
            return decode_payload(Goaway, payload)
        case _:
            return decode_failure(payload)


@_each("headers.json")
def test_header_faults(vector: Vector) -> None:
    decoder = FrameDecoder(vector["max_frame"])
    assert len(decoder.receive(encode_frame(FrameType.HELLO, 0, 0))) == 1
    assert decoder.receive(bytes.fromhex(vector["hex"])) == []
    assert decoder.error is not None
    assert decoder.error.code == vector["code"]


@_each("connection.json")
@pytest.mark.parametrize("size", [None, 1])
def test_what_an_acceptor_answers(vector: Vector, size: int | None) -> None:
    connection = machine(Role.ACCEPTOR)
    data = bytes.fromhex(vector["hex"])
    for start in range(0, len(data), size or len(data)):
        send(connection, data[start : start + (size or len(data))])
    errors = [(each.stream, each.map["code"]) for each in sent(connection) if each.type == ERROR]
    assert errors == [(vector["answer"]["stream"], vector["answer"]["code"])]
    on_stream = vector["answer"]["stream"] != 0
    assert connection.state is (ConnectionState.OPEN if on_stream else ConnectionState.CLOSING)


@_each("connection.json")
def test_an_error_is_said_where_its_scope_allows_it(vector: Vector) -> None:
    scopes = {
        error["code"]: error["scope"] for error in tomllib.loads((ROOT / "spec/errors.toml").read_text())["error"]
    }
    assert scopes[vector["answer"]["code"]] in {"both", "stream" if vector["answer"]["stream"] else "connection"}


@_each("signing.json")
def test_signed_frames_are_written_and_verified(vector: Vector) -> None:
    hello, welcome = bytes.fromhex(vector["hello"]), bytes.fromhex(vector["welcome"])
    keys = [key.hex() for key in preshared_keys(bytes.fromhex(vector["secret"]), hello, welcome)]
    assert vector["key"] == keys["acceptor" in vector["name"]]
    signer = Signer(bytes.fromhex(vector["key"]))
    decoder = FrameDecoder(64 * 1024)
    decoder.receive(hello)
    decoder.verify(Signer(bytes.fromhex(vector["key"])))
    for each in vector["frames"]:
        assert b"".join(signer.seal(bytes.fromhex(each["unsigned"]), b"")).hex() == each["hex"]
        (decoded,) = decoder.receive(bytes.fromhex(each["hex"]))
        assert decoded.metadata + decoded.payload == bytes.fromhex(each["unsigned"])[28:]


def _exchange(vector: Vector) -> tuple[ScramDialer, ScramAcceptor]:
    """Both sides of an exchange, before its first message."""
    certificate = vector["certificate"]
    binding = hello_binding(
        bytes.fromhex(vector["hello"]),
        bytes.fromhex(vector["welcome"]),
        None if certificate is None else bytes.fromhex(certificate),
    )
    return ScramDialer(vector["user"], binding, vector["dialer_nonce"]), ScramAcceptor(
        binding, vector["acceptor_nonce"]
    )


@pytest.mark.parametrize("vector", SCRAM_EXCHANGES, ids=lambda vector: str(vector["name"]))
def test_exchanges_have_these_messages_on_both_sides(vector: Vector) -> None:
    one, other = _exchange(vector)
    verifier = verifier_of(vector["password"], bytes.fromhex(vector["salt"]), vector["iterations"])
    assert (verifier.stored_key.hex(), verifier.server_key.hex()) == (vector["stored_key"], vector["server_key"])
    assert one.first().decode() == vector["client_first"]
    assert other.receive_first(vector["client_first"].encode()) == vector["user"]
    assert other.challenge(verifier, admitted=True).decode() == vector["server_first"]
    challenge = one.challenge(vector["server_first"].encode())
    assert one.prove(derive_keys(vector["password"], *challenge)).decode() == vector["client_final"]
    assert other.receive_final(vector["client_final"].encode()).decode() == vector["server_final"]
    one.conclude(vector["server_final"].encode())
    for side in (one, other):
        secret = side.signing_secret()
        keys = [key.hex() for key in direction_keys(secret.ikm, secret.salt)]
        assert keys == [vector["dialer_key"], vector["acceptor_key"]]


@pytest.mark.parametrize("vector", SCRAM_REFUSED, ids=lambda vector: str(vector["name"]))
def test_messages_of_an_exchange_that_are_refused(vector: Vector) -> None:
    right = SCRAM_EXCHANGES[0]
    one, other = _exchange(right)
    text = {**right, vector["message"]: vector["text"]}
    verifier = verifier_of(right["password"], bytes.fromhex(right["salt"]), right["iterations"])
    keys = derive_keys(right["password"], bytes.fromhex(right["salt"]), right["iterations"])
    one.first()
    steps: list[tuple[str, Callable[[bytes], object]]] = [
        ("client_first", other.receive_first),
        ("server_first", one.challenge),
        ("client_final", other.receive_final),
        ("server_final", one.conclude),
    ]
    for message, receive in steps:
        if message == vector["message"]:
            with pytest.raises(ExchangeFailed):
                receive(text[message].encode())
            return
        receive(text[message].encode())
        if message == "client_first":
            other.challenge(verifier, admitted=True)
        if message == "server_first":
            one.prove(keys)
    raise AssertionError("no step reads this message")


@_each("plain.json")
def test_plain(vector: Vector) -> None:
    message = bytes.fromhex(vector["hex"])
    if "user" not in vector:
        with pytest.raises(ExchangeFailed):
            read_plain(message)
        return
    login = PlainLogin(vector["user"], vector["password"])
    assert read_plain(message) == login
    assert write_plain(login) == message


@_each("compression.json")
def test_compressed_payloads(vector: Vector) -> None:
    connection = machine(Role.ACCEPTOR, compression=Codec(), limits={"max_frame": vector["max_frame"]})
    send(connection, hello(capabilities=["zstd"]))
    sent(connection)
    events = send(connection, bytes.fromhex(vector["hex"]))
    assert [event.payload.hex() for event in events if isinstance(event, RequestReceived)] == (
        [vector["payload"]] if "payload" in vector else []
    )
    errors = [(each.stream, each.map["code"]) for each in sent(connection) if each.type == ERROR]
    assert errors == ([(1, vector["code"])] if "code" in vector else [])


@_each("transact.json")
async def test_transacts(vector: Vector) -> None:
    async with node(storage="memory") as url, dial(url, groups=KV_GROUPS) as peer:
        for key, value in (("a", b"1"), ("n", b"41"), ("b", b"x")):
            await peer.call("kv", "set", msgspec.msgpack.encode([key, value]))
        argument = bytes.fromhex(vector["argument"])
        if "result" in vector:
            assert (await peer.call("kv", "transact", argument)).hex() == vector["result"]
            return
        with pytest.raises(ServerError) as caught:
            await peer.call("kv", "transact", argument)
        expected = (vector["code"], vector["details"], "not_applied")
        assert (caught.value.code, caught.value.details, caught.value.outcome) == expected


@_each("ttl.json")
async def test_keys_that_expire(vector: Vector) -> None:
    async with node(storage="memory") as url, dial(url, groups=KV_GROUPS) as peer:
        await peer.call("kv", "set", msgspec.msgpack.encode(["a", b"1"]))
        await peer.call("kv", "set", msgspec.msgpack.encode(["t", b"x", {"ttl_ms": 600_000}]))
        await answers_as_said(peer, vector)


async def answers_as_said(peer: Peer, vector: Vector) -> None:
    """Send the request of a vector, and hold the answer against its result or its code."""
    argument = bytes.fromhex(vector["argument"])
    if "result" in vector:
        assert (await peer.call("kv", vector["method"], argument)).hex() == vector["result"]
        return
    with pytest.raises(ServerError) as caught:
        await peer.call("kv", vector["method"], argument)
    assert (caught.value.code, caught.value.outcome) == (vector["code"], "not_applied")


@_each("leases.json")
async def test_leases_and_fences(vector: Vector) -> None:
    async with node(storage="memory") as url, dial(url, groups=KV_GROUPS) as peer:
        await peer.call("kv", "grant_lease", msgspec.msgpack.encode([60_000]))
        await peer.call("kv", "set", msgspec.msgpack.encode(["lock", b"me", {"lease": 1}]))
        await peer.call("kv", "set", msgspec.msgpack.encode(["a", b"1"]))
        await answers_as_said(peer, vector)


async def _put_history(peer: Peer) -> None:
    for key, value in (("a", b"1"), ("b", b"x"), ("a", b"2"), ("b", None), ("c", b"y")):
        method, argument = ("delete", [key]) if value is None else ("set", [key, value])
        await peer.call("kv", method, msgspec.msgpack.encode(argument))


@_each("history.json")
async def test_the_past(vector: Vector) -> None:
    async with node(storage="memory") as url, dial(url, groups=KV_GROUPS) as peer:
        await _put_history(peer)
        argument = bytes.fromhex(vector["argument"])
        if "code" in vector:
            with pytest.raises(ServerError) as caught:
                await anext(peer.stream("kv", vector["method"], argument))
            assert (caught.value.code, caught.value.outcome) == (vector["code"], "not_applied")
            return
        answer = msgspec.msgpack.decode(await peer.call("kv", vector["method"], argument))
        if vector["method"] == "history":
            assert all(row.pop(4) > 0 for row in answer[0])
            for row in answer[0]:
                row.insert(4, None)
        assert msgspec.msgpack.encode(answer).hex() == vector["result"]


@_each("watch.json")
async def test_watches(vector: Vector) -> None:
    async with node(storage="memory") as url, dial(url, groups=KV_GROUPS) as peer:
        await _put_history(peer)
        async with peer.stream("kv", "watch", bytes.fromhex(vector["argument"])) as stream:
            if "code" in vector:
                with pytest.raises(ServerError) as caught:
                    await anext(stream)
                assert (caught.value.code, caught.value.outcome) == (vector["code"], "not_applied")
                return
            assert [(await anext(stream)).hex() for _ in vector["items"]] == vector["items"]


def test_every_frame_type_has_a_vector() -> None:
    types = {each["frame"]["type"] for each in _vectors("frames.json")}
    assert types >= {int(each) for each in FrameType}
    assert any(each["frame"]["flags"] & CONTINUED for each in _vectors("frames.json"))


def test_the_vectors_are_what_their_generator_makes() -> None:
    tool = ROOT / "tools" / "generate_vectors.py"
    done = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_released_vectors_never_change_and_new_ones_are_added_knowingly() -> None:
    """A byte that changed its meaning would break peers that are out there."""
    now: dict[str, dict[str, str]] = {}
    for path in sorted(FOLDER.glob("*.json")):
        vectors = _vectors(path.name)
        names = [each["name"] for each in vectors]
        assert len(set(names)) == len(names)
        now[path.name] = {each["name"]: _digest(each) for each in vectors}
    assert now == json.loads(RELEASED.read_text(encoding="utf-8"))


def _digest(vector: Vector) -> str:
    return hashlib.sha256(json.dumps(vector, sort_keys=True).encode()).hexdigest()[:32]
