"""The fuzz target of CAFE: a node's side of a connection, held against a second judge, written from the text alone.

An input is its options and then records: a byte that says which key makes the tag right, a length, and a message
without its tag; or any bytes as they are.
"""

from __future__ import annotations

import hmac
import struct
from random import Random
from typing import Final, NamedTuple

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from haptera.dialects.cafe.conversation import Conversation
from haptera.dialects.cafe.message_keys import ConnectionKey
from haptera.wire import Codec
from tools.cafe_vectors import (
    BIND,
    CLIENT_NONCE,
    DEL,
    GET,
    KEY_MAX,
    SET,
    SHARED_KEY,
    VALUE_FIELD_MAX,
    VALUE_MAX,
    bound_key,
    hkdf,
)

_SHARED: Final = ConnectionKey(SHARED_KEY)
_BOUND_KEY: Final = bound_key(SHARED_KEY, CLIENT_NONCE, bytes(16))
#: Modes of a record: as it is, a tag under the shared key, one under the key behind BIND; with right lengths or not.
_RAW, _LENGTHS = 3, 4


class Outcome(NamedTuple):
    """All that came of the bytes: commands (id, opcode, key, value), refusals (id, code), and whether it has ended."""

    commands: list[tuple[int, int, bytes, bytes]]
    refusals: list[tuple[int, int]]
    ended: bool


def record(mode: int, data: bytes) -> bytes:
    """Make a record of an input."""
    return bytes((mode,)) + len(data).to_bytes(2, "big") + data


def stream(data: bytes) -> bytes:
    """Return the bytes of a connection that the records of an input make."""
    made = b""
    while len(data) >= 3:
        mode, size = data[0] % 8, int.from_bytes(data[1:3], "big")
        part, data = data[3 : 3 + size], data[3 + size :]
        if mode & 3 == _RAW or len(part) < 16:
            made += part
            continue
        head, body = part[:16], part[16:]
        if mode & _LENGTHS:
            key_len = min(struct.unpack_from(">H", head, 10)[0], len(body))
            head = head[:10] + struct.pack(">HI", key_len, len(body) - key_len)
        key = _BOUND_KEY if mode & 3 == 2 else SHARED_KEY
        made += head + hmac.digest(key, head + body, "sha256") + body
    return made + data


def expected(data: bytes, *, require_bind: bool) -> Outcome:
    """Judge the bytes of a connection by the text of spec/cafe.md, section 4."""
    out = Outcome([], [], ended=False)
    last, bound, key = 0, False, SHARED_KEY
    while True:
        if len(data) >= 2 and data[:2] != b"\xca\xfe":
            return _end(out, 0, 1002)
        if len(data) < 48:
            return out
        _, version, opcode, request_id, flags, reserved, key_len, value_len = struct.unpack_from(">HBBIBBHI", data)
        if version != 1:
            return _end(out, 0, 1001)
        if key_len > KEY_MAX or value_len > VALUE_FIELD_MAX:
            return _end(out, request_id, 1004)
        body = data[48 : 48 + key_len + value_len]
        if len(body) < key_len + value_len:
            return out
        if hmac.digest(key, data[:16] + body, "sha256") != data[16:48]:
            return _end(out, request_id, 1011)
        head, data = data[:16], data[48 + len(body) :]
        name, value = body[:key_len], body[key_len:]
        first = last == 0
        if request_id <= last:
            out.refusals.append((request_id, 1008))
            continue
        last = request_id
        if reserved or flags > 3:
            out.refusals.append((request_id, 1006))
        elif opcode == BIND:
            code = 1008 if not first else 1006 if flags else 3003 if name or len(value) != 16 else 0
            out.refusals.append((request_id, code))
            if not code:
                bound, key = True, bound_key(SHARED_KEY, value, bytes(16))
        elif require_bind and not bound:
            return _end(out, request_id, 2001)
        else:
            code, name, value = _body(opcode, flags, head, name, value, key)
            if code:
                out.refusals.append((request_id, code))
            else:
                out.commands.append((request_id, opcode, name, value))


def _end(out: Outcome, request_id: int, code: int) -> Outcome:
    out.refusals.append((request_id, code))
    return out._replace(ended=True)


def _body(opcode: int, flags: int, head: bytes, name: bytes, value: bytes, key: bytes) -> tuple[int, bytes, bytes]:
    """Return the code of step 9, or 0 and the key and the value."""
    none = b""
    if opcode not in {GET, SET, DEL}:
        return 1005, none, none
    if flags & 2:
        if name or len(value) < 30:
            return 3003, none, none
        try:
            plain = AESGCM(hkdf(key, b"", b"cafe/1 encryption")).decrypt(value[:12], value[12:], head)
        except InvalidTag:
            return 3003, none, none
        size = int.from_bytes(plain[:2], "big")
        if 2 + size > len(plain):
            return 3003, none, none
        name, value = plain[2 : 2 + size], plain[2 + size :]
    if name.decode(errors="ignore").encode() != name:
        return 4006, none, none
    if opcode != SET:
        return (3003, none, none) if value else (0, name, none)
    if flags & 1:
        opened = _decompressed(value)
        return (1010, none, none) if opened is None else (0, name, opened)
    return 0, name, value


def _decompressed(data: bytes) -> bytes | None:
    """Return the content of one zstd frame within the bounds; None for anything else. It is read as a stream."""
    if not data.startswith(b"\x28\xb5\x2f\xfd"):
        return None
    try:
        parameters = zstandard.get_frame_parameters(data)
        if parameters.dict_id or parameters.window_size > 8 << 20:
            return None
        if parameters.content_size != zstandard.CONTENTSIZE_UNKNOWN and parameters.content_size > VALUE_MAX:
            return None
        reader = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj()
        content = reader.decompress(data)
    except zstandard.ZstdError:
        return None
    return content if reader.eof and not reader.unused_data and len(content) <= VALUE_MAX else None


def found(data: bytes, cuts: Random, *, require_bind: bool) -> Outcome:
    """Give the bytes to a node's side in pieces, and return all that came of them."""
    talk = Conversation(_SHARED, require_bind=require_bind, entropy=bytes, codec=Codec())
    out = Outcome([], [], ended=False)
    while data:
        size = cuts.choice((1, 16, 47, 48, 100, 1 << 16))
        piece, data = data[:size], data[size:]
        talk.receive(piece)
        for asked in talk.asked(cuts.randrange(1, 4), 1 << 20):
            value = getattr(asked.op, "value", b"")
            opcode = {"Get": GET, "Set": SET, "Delete": DEL}[type(asked.op).__name__]
            out.commands.append((asked.request_id, opcode, asked.op.key.encode(), value))
        assert talk.held <= 48 + len(piece) or talk.more or talk.expected
    while talk.more:
        for asked in talk.asked(100, 1 << 30):
            opcode = {"Get": GET, "Set": SET, "Delete": DEL}[type(asked.op).__name__]
            out.commands.append((asked.request_id, opcode, asked.op.key.encode(), getattr(asked.op, "value", b"")))
    talk.asked(1, 1)  # the fault behind the last message
    for refusal in talk.refusals:
        request_id = int.from_bytes(refusal[4:8], "big")
        out.refusals.append((request_id, int.from_bytes(refusal[48:50], "big") if refusal[3] == 129 else 0))
    return out._replace(ended=talk.ended)


def check_cafe(data: bytes) -> None:
    """Any bytes, in any pieces, are the commands, the refusals and the end that the specification says."""
    options = data[0] if data else 0
    bytes_ = stream(data[1:])
    wants = expected(bytes_, require_bind=bool(options & 1))
    assert found(bytes_, Random(options), require_bind=bool(options & 1)) == wants
