"""Writes spec/vectors: frames as bytes and as what they mean, for every implementation to check itself against.

usage: python tools/generate_vectors.py            writes the files
       python tools/generate_vectors.py --check    writes nothing; ends with 1 and names the files that are not current

The bytes are made from the text of spec/protocol.md, sections 2 and 4, without the package that they test: a mistake of
its encoder would otherwise be repeated here. Vectors never change once they are released; new ones are added.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import struct
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.cafe_vectors import make_cafe  # noqa: E402  # it is run as a script, too

FOLDER = Path("spec/vectors")

HELLO, WELCOME, REQUEST, ITEM, RESPONSE, ERROR = 0x01, 0x02, 0x10, 0x11, 0x12, 0x13
CANCEL, CREDIT, FINISH, PING, PONG, GOAWAY = 0x14, 0x15, 0x16, 0x20, 0x21, 0x22
MORE, COMPRESSED, SIGNED, STREAMING, CONTINUED, UNKNOWN_CRITICAL = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
MAX_FRAME = 64 * 1024
ROUTE = b"\x02kv\x03get"
REQUEST_ID = bytes.fromhex("0192f3a4b5c67d8e9fa0b1c2d3e4f506")

pack = msgspec.msgpack.encode


def crc32c(data: bytes) -> int:
    """CRC-32C, bit by bit: Castagnoli, reflected, initial value and final XOR FFFFFFFF."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def frame(
    type_: int, stream: int = 0, payload: bytes = b"", *, metadata: bytes = b"", flags: int = 0, **fault: int
) -> bytes:
    """Make a frame; ``fault`` replaces fields of its header by wrong ones."""
    fields = {
        "magic": 0xFA57,
        "version": 1,
        "type": type_,
        "flags": flags,
        "metadata_length": len(metadata),
        "stream": stream,
        "payload_length": len(payload),
        "body_crc": crc32c(metadata + payload),
    } | {name: value for name, value in fault.items() if name != "header_crc"}
    head = struct.pack(">HBBHHQII", *fields.values())
    return head + fault.get("header_crc", crc32c(head)).to_bytes(4, "big") + metadata + payload


def nested(depth: int) -> Any:
    """Make an array in an array and so on, ``depth`` of them."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def entry(tag: int, value: bytes) -> bytes:
    """Make a metadata entry."""
    return bytes((tag, len(value))) + value


HELLO_MAP: dict[str, Any] = {
    "versions": [1],
    "agent": "example/1.0",
    "capabilities": ["pipelining", "idempotency"],
    "max_frame": 65536,
    "max_message": 16777216,
    "stream_window": 262144,
    "connection_window": 1048576,
    "max_streams": 1024,
    "session": bytes(range(16)),
    "nonce": bytes(range(32)),
    "services": [],
}
WELCOME_MAP: dict[str, Any] = {
    "version": 1,
    "versions": [1],
    "agent": "example/1.0",
    "capabilities": ["pipelining"],
    "max_frame": 65536,
    "max_message": 16777216,
    "stream_window": 262144,
    "connection_window": 1048576,
    "max_streams": 1024,
    "server_id": bytes(range(16, 32)),
    "session": bytes(range(16)),
    "nonce": bytes(range(32, 64)),
    "services": ["session"],
    "mechanisms": [],
    "ping_interval_ms": 30000,
    "idempotency_ms": 600000,
}
ERROR_MAP: dict[str, Any] = {
    "code": 4001,
    "name": "KEY_NOT_FOUND",
    "message": "the key does not exist",
    "outcome": "not_applied",
    "details": {"key": "config:env"},
}
REFUSED_MAP: dict[str, Any] = {
    "code": 1001,
    "name": "UNSUPPORTED_VERSION",
    "message": "no protocol version in common",
    "outcome": "not_applied",
    "details": {"versions": [1]},
}
MINIMAL_WELCOME: dict[str, Any] = {
    name: WELCOME_MAP[name] for name in ("version", "versions", "agent", "server_id", "session", "nonce")
}
GOAWAY_MAP: dict[str, Any] = {
    "code": 1014,
    "name": "GOING_AWAY",
    "message": "the peer takes no more requests on this connection",
    "last_stream": 41,
}
#: The same HELLO as in MINIMAL_HELLO, with its version as an integer of 64 bits: how wide one is written means nothing.
WIDE_HELLO: bytes = (
    b"\x84\xa8versions\x91\xd3" + (1).to_bytes(8, "big") + b"\xa5agent\xabexample/1.0"
    b"\xa7session\xc4\x10" + bytes(range(16)) + b"\xa5nonce\xc4\x20" + bytes(range(32))
)
MINIMAL_HELLO: dict[str, Any] = {name: HELLO_MAP[name] for name in ("versions", "agent", "session", "nonce")}

#: name, frame's arguments, and what its payload says where the protocol defines it.
FRAMES: list[tuple[str, dict[str, Any], object]] = [
    ("HELLO with every field", {"type_": HELLO}, HELLO_MAP),
    ("HELLO with the required fields", {"type_": HELLO}, MINIMAL_HELLO),
    ("HELLO with a field of a later version", {"type_": HELLO}, {**MINIMAL_HELLO, "later": [1, None]}),
    ("HELLO with an integer in its widest format", {"type_": HELLO, "payload": WIDE_HELLO}, MINIMAL_HELLO),
    (
        "HELLO with a later field that is nested as deeply as any",
        {"type_": HELLO},
        {**MINIMAL_HELLO, "later": nested(31)},
    ),
    (
        "HELLO with limits outside their bounds",
        {"type_": HELLO},
        {**MINIMAL_HELLO, "max_frame": -1, "max_streams": 2**64 - 1},
    ),
    ("WELCOME", {"type_": WELCOME}, WELCOME_MAP),
    ("WELCOME with the required fields", {"type_": WELCOME}, MINIMAL_WELCOME),
    ("REQUEST", {"type_": REQUEST, "stream": 1, "metadata": ROUTE, "payload": pack(["config:env"])}, None),
    ("REQUEST of the acceptor", {"type_": REQUEST, "stream": 2, "metadata": b"\x01s\x01m"}, None),
    (
        "REQUEST with a request id, a timeout and answered_below",
        {
            "type_": REQUEST,
            "stream": 33,
            "metadata": b"\x02kv\x03set"
            + entry(0x01, REQUEST_ID)
            + entry(0x02, (1500).to_bytes(4, "big"))
            + entry(0x0A, (31).to_bytes(8, "big")),
            "payload": pack(["config:env", b"production"]),
        },
        None,
    ),
    (
        "REQUEST of a change that may have been sent on another connection",
        {
            "type_": REQUEST,
            "stream": 1,
            "metadata": b"\x02kv\x03set" + entry(0x01, REQUEST_ID) + entry(0x0C, b""),
            "payload": pack(["config:env", b"production"]),
        },
        None,
    ),
    ("REQUEST that is streaming", {"type_": REQUEST, "stream": 3, "flags": STREAMING, "metadata": b"\x01s\x01m"}, None),
    ("REQUEST on the highest stream", {"type_": REQUEST, "stream": 2**53 - 1, "metadata": b"\x01s\x01m"}, None),
    (
        "REQUEST, the first of two frames",
        {"type_": REQUEST, "stream": 5, "flags": MORE, "metadata": b"\x01s\x01m", "payload": b"a" * 1024},
        None,
    ),
    ("REQUEST, the last of two frames", {"type_": REQUEST, "stream": 5, "flags": CONTINUED, "payload": b"b"}, None),
    (
        "REQUEST with a tag and a flag to be skipped",
        {
            "type_": REQUEST,
            "stream": 7,
            "flags": 0x8000,
            "metadata": ROUTE + entry(0x7F, b"\x01\x02") + entry(0x08, b"application/msgpack"),
            "payload": pack(["a"]),
        },
        None,
    ),
    ("ITEM", {"type_": ITEM, "stream": 3, "payload": b"one element"}, None),
    ("ITEM, empty", {"type_": ITEM, "stream": 3}, None),
    (
        "RESPONSE",
        {
            "type_": RESPONSE,
            "stream": 1,
            "metadata": entry(0x0B, (7).to_bytes(8, "big")),
            "payload": pack([b"v", 7, None]),
        },
        None,
    ),
    (
        "RESPONSE, replayed",
        {
            "type_": RESPONSE,
            "stream": 33,
            "metadata": entry(0x01, REQUEST_ID) + entry(0x09, b""),
            "payload": pack([8, None]),
        },
        None,
    ),
    ("ERROR", {"type_": ERROR, "stream": 33, "metadata": entry(0x01, REQUEST_ID)}, ERROR_MAP),
    (
        "ERROR with a tag that belongs to another type, which is ignored",
        {"type_": ERROR, "stream": 1, "metadata": entry(0x0B, (7).to_bytes(8, "big"))},
        ERROR_MAP,
    ),
    ("ERROR of the connection", {"type_": ERROR}, REFUSED_MAP),
    ("CANCEL", {"type_": CANCEL, "stream": 1}, None),
    ("CREDIT of a stream", {"type_": CREDIT, "stream": 3, "payload": (131072).to_bytes(4, "big")}, None),
    ("CREDIT of the connection", {"type_": CREDIT, "payload": (524288).to_bytes(4, "big")}, None),
    ("FINISH", {"type_": FINISH, "stream": 3}, None),
    ("PING", {"type_": PING, "payload": b"\0\1\2\3\4\5\6\7"}, None),
    ("PONG", {"type_": PONG, "payload": b"\0\1\2\3\4\5\6\7"}, None),
    ("GOAWAY", {"type_": GOAWAY}, GOAWAY_MAP),
    (
        "GOAWAY of a side that has read the answers to its changes",
        {"type_": GOAWAY, "metadata": entry(0x0A, (31).to_bytes(8, "big"))},
        {**GOAWAY_MAP, "last_stream": 0},
    ),
    ("a type to be skipped", {"type_": 0xF3, "stream": 0, "payload": b"\xde\xad"}, None),
]


def make_frames() -> list[dict[str, Any]]:
    """Whole frames, and what they mean."""
    vectors = []
    for name, given, value in FRAMES:
        payload = given["payload"] if "payload" in given else b"" if value is None else pack(value)
        arguments = given | {"payload": payload}
        metadata = given.get("metadata", b"")
        fields: dict[str, Any] = {
            "type": given["type_"],
            "flags": given.get("flags", 0),
            "stream": given.get("stream", 0),
            "metadata": metadata.hex(),
            "payload": payload.hex(),
        }
        if given["type_"] == REQUEST and not fields["flags"] & CONTINUED:
            middle = 1 + metadata[0]
            stop = middle + 1 + metadata[middle]
            fields["service"] = metadata[1:middle].decode()
            fields["method"] = metadata[middle + 1 : stop].decode()
            metadata = metadata[stop:]
        fields["entries"] = split(metadata)
        if value is not None:
            fields["value"] = jsonable(value)
        vectors.append({"name": name, "hex": frame(**arguments).hex(), "frame": fields})
    return vectors


def split(metadata: bytes) -> dict[str, str]:
    """Take well-formed entries apart: tag to value, both hexadecimal. What is not of section 2.3 is skipped."""
    entries = {}
    while metadata:
        stop = 2 + metadata[1]
        if metadata[0] != 0x7F:
            entries[f"{metadata[0]:02x}"] = metadata[2:stop].hex()
        metadata = metadata[stop:]
    return entries


def jsonable(value: Any) -> Any:
    """Write bin as ``{"bin": hexadecimal}``; JSON has no other way to tell it from text."""
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, dict):
        return {key: jsonable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [jsonable(each) for each in value]
    return value


def make_headers() -> list[dict[str, Any]]:
    """Bytes that are no frame; each fault of a header, and each before the later ones."""
    sound = frame(PING, payload=bytes(8))
    faults: list[tuple[str, bytes, int]] = [
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n", 1002),
        ("TLS", bytes.fromhex("1603010200010001fc0303"), 1002),
        ("RESP", b"*1\r\n$4\r\nPING\r\n", 1002),
        ("two bytes that are not the magic", b"\xfa\x58", 1002),
        ("wrong magic before a wrong checksum", frame(PING, magic=0x57FA, header_crc=0, version=2), 1002),
        ("wrong header checksum", sound[:-9] + bytes((sound[-9] ^ 1,)) + sound[-8:], 1003),
        ("wrong header checksum before a wrong version", frame(PING, version=2, header_crc=1), 1003),
        ("wrong header checksum before a wrong length", frame(PING, payload_length=2**32 - 1, header_crc=1), 1003),
        ("wrong version", frame(PING, version=2), 1002),
        ("wrong version before a wrong length", frame(PING, version=0, metadata_length=65535), 1002),
        ("metadata too long", frame(REQUEST, 1, metadata_length=4097), 1004),
        ("payload too long", frame(REQUEST, 1, payload_length=MAX_FRAME + 1), 1004),
        ("payload as long as a length can say", frame(REQUEST, 1, payload_length=2**32 - 1), 1004),
    ]
    return [{"name": name, "max_frame": MAX_FRAME, "hex": data.hex(), "code": code} for name, data, code in faults]


def make_connection() -> list[dict[str, Any]]:
    """What an acceptor reads from the beginning of a connection, and the ERROR that it answers with."""
    hello = frame(HELLO, payload=pack(MINIMAL_HELLO))
    request = frame(REQUEST, 1, b"x", metadata=ROUTE)
    streaming = frame(REQUEST, 1, b"x", metadata=ROUTE, flags=STREAMING)
    doubled = b"\x86" + pack(MINIMAL_HELLO)[1:] + b"\xa1x\xc0\xa1x\xc0"
    refused = frame(REQUEST, 1, b"x", metadata=ROUTE, body_crc=1)
    cases: list[tuple[str, bytes, int, int]] = [
        ("no common version", frame(HELLO, payload=pack({**MINIMAL_HELLO, "versions": [2, 3]})), 0, 1001),
        ("HELLO without a nonce", frame(HELLO, payload=pack({**MINIMAL_HELLO, "nonce": None})), 0, 1002),
        ("HELLO with a short session", frame(HELLO, payload=pack({**MINIMAL_HELLO, "session": bytes(15)})), 0, 1002),
        ("HELLO with a doubled key", frame(HELLO, payload=doubled), 0, 1002),
        ("HELLO with a byte behind it", frame(HELLO, payload=pack(MINIMAL_HELLO) + b"\0"), 0, 1002),
        ("HELLO that is damaged", frame(HELLO, payload=pack(MINIMAL_HELLO), body_crc=1), 0, 1003),
        (
            "HELLO with a float for an integer",
            frame(HELLO, payload=pack({**MINIMAL_HELLO, "max_frame": 65536.0})),
            0,
            1002,
        ),
        (
            "HELLO with a boolean for an integer",
            frame(HELLO, payload=pack({**MINIMAL_HELLO, "max_frame": True})),
            0,
            1002,
        ),
        ("HELLO with text for bytes", frame(HELLO, payload=pack({**MINIMAL_HELLO, "session": "0" * 16})), 0, 1002),
        (
            "HELLO that is nested too deeply",
            frame(HELLO, payload=pack({**MINIMAL_HELLO, "later": nested(32)})),
            0,
            1002,
        ),
        ("HELLO above 16 KiB", frame(HELLO, payload_length=16385), 0, 1004),
        ("no HELLO", request, 0, 1008),
        ("HELLO twice", hello + hello, 0, 1008),
        ("REQUEST that is damaged", hello + frame(REQUEST, 1, b"x", metadata=ROUTE, body_crc=1), 1, 1003),
        (
            "REQUEST with an unknown critical flag",
            hello + frame(REQUEST, 1, metadata=ROUTE, flags=UNKNOWN_CRITICAL),
            1,
            1006,
        ),
        ("REQUEST with an unknown critical tag", hello + frame(REQUEST, 1, metadata=ROUTE + entry(0x90, b"")), 1, 1007),
        ("REQUEST with a tag twice", hello + frame(REQUEST, 1, metadata=ROUTE + entry(0x09, b"") * 2), 1, 1002),
        (
            "REQUEST with a short request id",
            hello + frame(REQUEST, 1, metadata=ROUTE + entry(0x01, bytes(15))),
            1,
            1002,
        ),
        ("REQUEST whose route is cut short", hello + frame(REQUEST, 1, metadata=b"\x02kv\x09get"), 1, 1002),
        ("REQUEST with a raw length alone", hello + frame(REQUEST, 1, metadata=ROUTE + entry(0x85, bytes(4))), 1, 1002),
        ("REQUEST of the wrong parity", hello + frame(REQUEST, 2, metadata=ROUTE), 0, 1008),
        ("REQUEST on stream 0", hello + frame(REQUEST, 0, metadata=ROUTE), 0, 1008),
        ("REQUEST above 2^53 - 1", hello + frame(REQUEST, 2**53 + 1, metadata=ROUTE), 0, 1008),
        ("REQUEST on a stream that is used", hello + request + request, 0, 1008),
        ("REQUEST, continued without a beginning", hello + frame(REQUEST, 1, flags=CONTINUED), 0, 1008),
        (
            "REQUEST with more to come below 1 KiB",
            hello + frame(REQUEST, 1, bytes(1000), metadata=ROUTE, flags=MORE),
            0,
            1002,
        ),
        (
            "REQUEST compressed without the capability",
            hello + frame(REQUEST, 1, metadata=ROUTE, flags=COMPRESSED),
            0,
            1008,
        ),
        ("ITEM for a stream not yet used", hello + frame(ITEM, 1), 0, 1008),
        ("ITEM without STREAMING", hello + request + frame(ITEM, 1), 0, 1008),
        ("ITEM behind FINISH", hello + streaming + frame(FINISH, 1) + frame(ITEM, 1), 0, 1008),
        ("RESPONSE from the requester", hello + request + frame(RESPONSE, 1), 0, 1008),
        ("CREDIT of 0", hello + frame(CREDIT, 0, bytes(4)), 0, 1002),
        ("CREDIT of three bytes", hello + frame(CREDIT, 0, bytes(3)), 0, 1002),
        ("CREDIT above 2^31 - 1", hello + frame(CREDIT, 0, b"\x7f\xff\xff\xff"), 0, 1009),
        ("CREDIT for a stream not yet used", hello + frame(CREDIT, 1, b"\0\0\0\1"), 0, 1008),
        ("CREDIT that is damaged", hello + request + frame(CREDIT, 1, b"\0\0\0\1", body_crc=1), 0, 1003),
        ("CANCEL that is damaged", hello + request + frame(CANCEL, 1, body_crc=1), 0, 1003),
        ("PING on a stream", hello + request + frame(PING, 1, bytes(8)), 0, 1008),
        ("PING of seven bytes", hello + frame(PING, 0, bytes(7)), 0, 1002),
        ("a type that is unknown and critical", hello + frame(0x60), 0, 1005),
        ("a type that is unknown and critical, damaged", hello + frame(0x60, 1, b"x", body_crc=1), 0, 1005),
        (
            "a type that is unknown and critical, with an unknown flag",
            hello + frame(0x60, flags=UNKNOWN_CRITICAL),
            0,
            1005,
        ),
        ("a type that is unknown and critical, compressed", hello + frame(0x60, flags=COMPRESSED), 0, 1005),
        ("a type that is unknown and critical, above 2^53 - 1", hello + frame(0x60, 2**53), 0, 1005),
        ("a type that is unknown and critical, signed", hello + frame(0x60, flags=SIGNED), 0, 1008),
        ("a type to be skipped above 2^53 - 1", hello + frame(0xF3, 2**53), 0, 1008),
        ("a type to be skipped, signed", hello + frame(0xF3, flags=SIGNED), 0, 1008),
        (
            "a type to be skipped, damaged, compressed and with an unknown flag, before a PING of seven bytes",
            hello + frame(0xF3, 1, b"x", flags=COMPRESSED | UNKNOWN_CRITICAL, body_crc=1) + frame(PING, 0, bytes(7)),
            0,
            1002,
        ),
        ("no HELLO but a type to be skipped", frame(0xF3), 0, 1008),
        ("PING of seven bytes, damaged", hello + frame(PING, 0, bytes(7), body_crc=1), 0, 1002),
        (
            "REQUEST with more to come below 1 KiB, damaged",
            hello + frame(REQUEST, 1, bytes(1000), metadata=ROUTE, flags=MORE, body_crc=1),
            0,
            1002,
        ),
        (
            "REQUEST with malformed metadata behind an unknown tag",
            hello + frame(REQUEST, 1, metadata=ROUTE + entry(0x90, b"") + b"\x09"),
            1,
            1002,
        ),
        ("REQUEST with an empty method", hello + frame(REQUEST, 1, metadata=b"\x02kv\x00"), 1, 1002),
        ("REQUEST whose service is not UTF-8", hello + frame(REQUEST, 1, metadata=b"\x01\xff\x03get"), 1, 1002),
        ("CREDIT of 0 for a stream that has ended", hello + refused + frame(CREDIT, 1, bytes(4)), 1, 1003),
        ("CANCEL that is damaged for a stream that has ended", hello + refused + frame(CANCEL, 1, body_crc=1), 1, 1003),
        ("ITEM for a stream that has ended", hello + refused + frame(ITEM, 1, b"x"), 1, 1003),
        (
            "FINISH between fragments",
            hello + frame(REQUEST, 1, bytes(1024), metadata=ROUTE, flags=STREAMING | MORE) + frame(FINISH, 1),
            0,
            1008,
        ),
        ("STREAMING on an ITEM", hello + streaming + frame(ITEM, 1, flags=STREAMING), 0, 1008),
        (
            "GOAWAY without a last stream",
            hello + frame(GOAWAY, payload=pack({**GOAWAY_MAP, "last_stream": None})),
            0,
            1002,
        ),
        (
            "ERROR of the connection without an outcome",
            hello + frame(ERROR, payload=pack({**REFUSED_MAP, "outcome": None})),
            0,
            1002,
        ),
    ]
    return [
        {"name": name, "hex": data.hex(), "answer": {"stream": stream, "code": code}}
        for name, data, stream, code in cases
    ]


def make_signing() -> list[dict[str, Any]]:
    """A connection with a pre-shared key: its keys, and the first frames that each side signs."""
    secret = b"a pre-shared secret of at least 32 bytes"
    hello = frame(HELLO, payload=pack({**HELLO_MAP, "capabilities": ["pipelining", "hmac_sha256"]}))
    accepted = {"capabilities": ["pipelining", "hmac_sha256"], "mechanisms": ["PSK"]}
    welcome = frame(WELCOME, payload=pack({**WELCOME_MAP, **accepted}))
    salt = hashlib.sha256(hello + welcome + bytes(32)).digest()
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    chatter: dict[str, list[dict[str, Any]]] = {
        "dialer": [
            {"type_": REQUEST, "stream": 1, "metadata": ROUTE, "payload": pack(["config:env"])},
            {"type_": 0xF3, "payload": b"skipped, and counted"},
            {"type_": CANCEL, "stream": 1},
        ],
        "acceptor": [
            {"type_": PING, "payload": bytes(range(8))},
            {"type_": RESPONSE, "stream": 1, "payload": pack([b"v", 7, None])},
            {"type_": GOAWAY, "payload": pack(GOAWAY_MAP)},
        ],
    }
    vectors = []
    for side, frames in chatter.items():
        key = hmac.new(extracted, f"haptera/1 {side}".encode() + b"\x01", hashlib.sha256).digest()
        signed = []
        for sequence, each in enumerate(frames):
            data = frame(**{**each, "flags": SIGNED, "body_crc": 0})
            tag = hmac.new(key, sequence.to_bytes(8, "big") + data, hashlib.sha256).digest()
            signed.append({"unsigned": frame(**each).hex(), "hex": (data + tag).hex()})
        vectors.append(
            {
                "name": f"what the {side} signs",
                "secret": secret.hex(),
                "hello": hello.hex(),
                "welcome": welcome.hex(),
                "key": key.hex(),
                "frames": signed,
            }
        )
    return vectors


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256."""
    return hmac.new(key, message, hashlib.sha256).digest()


def pbkdf2(password: bytes, salt: bytes, iterations: int) -> bytes:
    """PBKDF2 with HMAC-SHA-256, one block: RFC 8018, section 5.2, step by step."""
    block = last = hmac_sha256(password, salt + (1).to_bytes(4, "big"))
    for _ in range(iterations - 1):
        last = hmac_sha256(password, last)
        block = bytes(a ^ b for a, b in zip(block, last, strict=True))
    return block


def scram_exchange(name: str, **parts: Any) -> dict[str, Any]:
    """Make a whole exchange: its inputs, its messages, the verifier and the keys that sign frames after it."""
    user: str = parts.get("user", "app")
    password: str = parts.get("password", "correct horse battery staple")
    salt: bytes = parts.get("salt", bytes(range(16)))
    iterations: int = parts.get("iterations", 4096)
    certificate: bytes | None = parts.get("certificate")
    capabilities: dict[str, Any] = parts.get("capabilities", {})
    hello = frame(HELLO, payload=pack({**HELLO_MAP, **capabilities}))
    welcome = frame(WELCOME, payload=pack({**WELCOME_MAP, **capabilities, "mechanisms": ["SCRAM-SHA-256"]}))
    certified = bytes(32) if certificate is None else hashlib.sha256(certificate).digest()
    binding = b"p=haptera-hello,," + hashlib.sha256(hello + welcome + certified).digest()
    dialer_nonce, acceptor_nonce = b"fyko+d2lbbFgONRv9qkxdawL", b"3rfcNHYJY1ZVvWVs7j1Vqk2e"
    salted = pbkdf2(password.encode(), salt, iterations)
    client_key, server_key = hmac_sha256(salted, b"Client Key"), hmac_sha256(salted, b"Server Key")
    stored_key = hashlib.sha256(client_key).digest()
    escaped = user.encode().replace(b"=", b"=3D").replace(b",", b"=2C")
    first = b"n=" + escaped + b",r=" + dialer_nonce
    server_first = b"r=" + dialer_nonce + acceptor_nonce + b",s=" + b64encode(salt) + b",i=%d" % iterations
    final = b"c=" + b64encode(binding) + b",r=" + dialer_nonce + acceptor_nonce
    signed = b",".join((first, server_first, final))
    mask = hmac_sha256(stored_key, signed)
    proof = bytes(a ^ b for a, b in zip(client_key, mask, strict=True))
    extracted = hmac_sha256(hashlib.sha256(signed).digest(), client_key + server_key)
    return {
        "name": name,
        "user": user,
        "password": password,
        "salt": salt.hex(),
        "iterations": iterations,
        "stored_key": stored_key.hex(),
        "server_key": server_key.hex(),
        "hello": hello.hex(),
        "welcome": welcome.hex(),
        "certificate": None if certificate is None else certificate.hex(),
        "dialer_nonce": dialer_nonce.decode(),
        "acceptor_nonce": acceptor_nonce.decode(),
        "client_first": (b"p=haptera-hello,," + first).decode(),
        "server_first": server_first.decode(),
        "client_final": (final + b",p=" + b64encode(proof)).decode(),
        "server_final": (b"v=" + b64encode(hmac_sha256(server_key, signed))).decode(),
        "dialer_key": hmac_sha256(extracted, b"haptera/1 dialer\x01").hex(),
        "acceptor_key": hmac_sha256(extracted, b"haptera/1 acceptor\x01").hex(),
    }


def make_scram() -> list[dict[str, Any]]:
    """Whole exchanges, then the first of them with one message in place of the right one."""
    right = scram_exchange("an exchange without TLS")
    exchanges = [
        right,
        scram_exchange("an exchange inside TLS", certificate=b"the bytes of a certificate"),
        scram_exchange("a name with a comma and an equals sign", user="a,b=c"),
        scram_exchange("a name and a password that are not ASCII", user="jürgen", password="ö, = ü"),  # noqa: S106  # of an example
        scram_exchange("the largest salt", salt=bytes(64), iterations=5000),
    ]
    nonce, both = right["dialer_nonce"], right["dialer_nonce"] + right["acceptor_nonce"]
    first, challenge = str(right["client_first"]), str(right["server_first"])
    final, last = str(right["client_final"]), str(right["server_final"])
    salt = b64encode(bytes(range(16))).decode()
    bare, _, proof = final.rpartition(",p=")
    cases: list[tuple[str, str, str]] = [
        ("no channel binding", "client_first", first.replace("p=haptera-hello", "n")),
        ("no channel binding, because the acceptor seems to have none", "client_first", "y,,n=app,r=" + nonce),
        ("another channel binding", "client_first", first.replace("haptera-hello", "tls-exporter")),
        ("an identity to act as", "client_first", first.replace("hello,,", "hello,a=root,")),
        ("a mandatory extension", "client_first", first.replace(",,n", ",,m=x,n")),
        ("a name that comes twice", "client_first", first + ",n=root"),
        ("a name with an equals sign", "client_first", first.replace("n=app", "n=a=b")),
        ("a name with a control character", "client_first", first.replace("n=app", "n=a\nb")),
        ("an empty name", "client_first", first.replace("n=app", "n=")),
        ("a name of 257 bytes", "client_first", first.replace("n=app", "n=" + "x" * 257)),
        ("a nonce of 15 characters", "client_first", "p=haptera-hello,,n=app,r=" + "x" * 15),
        ("a nonce of 129 characters", "client_first", "p=haptera-hello,,n=app,r=" + "x" * 129),
        ("a message of 4,097 bytes", "client_first", (first + ",x=").ljust(4097, "y")),
        ("another nonce", "server_first", challenge.replace("r=f", "r=g")),
        ("a nonce without the acceptor's part", "server_first", challenge.replace(both, nonce)),
        ("4,095 iterations", "server_first", challenge.replace("i=4096", "i=4095")),
        ("1,000,001 iterations", "server_first", challenge.replace("i=4096", "i=1000001")),
        ("iterations with a zero before them", "server_first", challenge.replace("i=4096", "i=04096")),
        ("a salt of 15 bytes", "server_first", challenge.replace(salt, b64encode(bytes(15)).decode())),
        ("a salt of 65 bytes", "server_first", challenge.replace(salt, b64encode(bytes(65)).decode())),
        ("a salt without its padding", "server_first", challenge.replace(salt, salt[:-2])),
        ("a mandatory extension of the acceptor", "server_first", "m=x," + challenge),
        ("the binding of no handshake", "client_final", final.replace(bare[2 : bare.index(",")], "biws")),
        ("the nonce of another exchange", "client_final", final.replace("r=f", "r=g")),
        ("a proof of zeros", "client_final", f"{bare},p={b64encode(bytes(32)).decode()}"),
        ("a proof of 31 bytes", "client_final", f"{bare},p={b64encode(bytes(31)).decode()}"),
        ("no proof", "client_final", bare),
        ("something behind the proof", "client_final", final + ",x=1"),
        ("an extension that was not signed", "client_final", f"{bare},x=1,p={proof}"),
        ("a signature of zeros", "server_final", "v=" + b64encode(bytes(32)).decode()),
        ("an error in place of a signature", "server_final", "e=other-error"),
        ("two signatures", "server_final", f"{last},{last}"),
    ]
    return exchanges + [{"name": name, "message": which, "text": text} for name, which, text in cases]


def make_sessions() -> list[dict[str, Any]]:
    """Connections from HELLO to the first answer behind an exchange: without signed frames, and with them."""
    vectors = []
    for signs in (False, True):
        capabilities = {"capabilities": ["pipelining", "hmac_sha256"] if signs else ["pipelining"]}
        kind = "with signed frames" if signs else "without signed frames"
        exchange = scram_exchange(f"an authenticated connection {kind}", capabilities=capabilities)
        messages = ("client_first", "server_first", "client_final", "server_final")
        first, challenge, final, last = (str(exchange[each]).encode() for each in messages)
        step, describe = b"\x07session\x0cauthenticate", b"\x07session\x08describe"
        said: list[tuple[str, dict[str, Any]]] = [
            ("dialer", {"type_": REQUEST, "stream": 1, "metadata": step, "payload": pack(["SCRAM-SHA-256", first])}),
            ("acceptor", {"type_": RESPONSE, "stream": 1, "payload": pack([False, challenge])}),
            ("dialer", {"type_": REQUEST, "stream": 3, "metadata": step, "payload": pack(["SCRAM-SHA-256", final])}),
            ("acceptor", {"type_": RESPONSE, "stream": 3, "payload": pack([True, last])}),
            ("dialer", {"type_": REQUEST, "stream": 5, "metadata": describe, "payload": pack([])}),
            ("acceptor", {"type_": RESPONSE, "stream": 5, "payload": pack([["session", ["describe"]]])}),
        ]
        frames = [("dialer", bytes.fromhex(exchange["hello"])), ("acceptor", bytes.fromhex(exchange["welcome"]))]
        sequences = {"dialer": 0, "acceptor": 0}
        for number, (side, each) in enumerate(said):
            if signs and number > 2:  # behind client-final
                data = frame(**{**each, "flags": SIGNED, "body_crc": 0})
                data += hmac_sha256(bytes.fromhex(exchange[f"{side}_key"]), sequences[side].to_bytes(8, "big") + data)
                sequences[side] += 1
            else:
                data = frame(**each)
            frames.append((side, data))
        kept = ("name", "user", "password", "salt", "iterations", "dialer_nonce", "acceptor_nonce")
        told = [{"from": side, "hex": data.hex()} for side, data in frames]
        vectors.append({**{each: exchange[each] for each in kept}, "signed": signs, "frames": told})
    return vectors


def make_plain() -> list[dict[str, Any]]:
    """PLAIN's message: the name and the password in it, or nothing where it is refused."""
    read = [
        ("a name and a password", "app", "p"),
        ("signs of all kinds", "jürgen", "p,=\n ö"),
        ("the longest ones", "n" * 256, "p" * 1024),
    ]
    refused = [
        ("nothing", b""),
        ("an identity to act as", b"app\0app\0p"),
        ("no password", b"\0app\0"),
        ("no name", b"\0\0p"),
        ("one part too many", b"\0app\0p\0"),
        ("no UTF-8", b"\0app\0\xff"),
        ("a name with a control character", b"\0a\nb\0p"),
        ("a name of 257 bytes", b"\0" + b"n" * 257 + b"\0p"),
        ("a password of 1,025 bytes", b"\0n\0" + b"p" * 1025),
    ]
    vectors: list[dict[str, Any]] = [
        {"name": name, "hex": f"\0{user}\0{password}".encode().hex(), "user": user, "password": password}
        for name, user, password in read
    ]
    return vectors + [{"name": name, "hex": data.hex()} for name, data in refused]


#: zstd frames of "haptera " 256 times, unless they say otherwise, in hexadecimal as some encoder made them: others make
#: other ones.
_PACKED = {
    "size declared": "28b52ffd6400077d00004068617074657261200100f5ef2f5c15f0b025",
    "size not declared": "28b52ffd04087d00004068617074657261200100f5ef2f5c15f0b025",
    "no checksum": "28b52ffd6000077d00004068617074657261200100f5ef2f5c",
    "a single segment": "28b52ffda4010080005400001000000100fbff39c002"
    + "02001000" * 63
    + "0900000092950aa9",  # of 8 MiB and one zeros
    "a window of 16 MiB": "28b52ffd04707d00004068617074657261200100f5ef2f5c15f0b025",
}


def make_compression() -> list[dict[str, Any]]:
    """REQUESTs with compressed payloads, which an acceptor takes or refuses with an ERROR on that stream."""
    sound = bytes.fromhex(_PACKED["size declared"])
    size = len(b"haptera " * 256)
    skippable = bytes.fromhex("502a4d1804000000") + b"skip"
    cases: list[tuple[str, bytes, int, int]] = [
        ("one frame, its size declared", sound, size, 0),
        ("one frame, its size not declared", bytes.fromhex(_PACKED["size not declared"]), size, 0),
        ("a raw length that is too small", sound, size - 1, 1010),
        ("a raw length that is too large", bytes.fromhex(_PACKED["size not declared"]), size + 1, 1010),
        ("a raw length below 1 KiB", sound, 1023, 1010),
        ("a raw length above max_frame", sound, MAX_FRAME + 1, 1010),
        ("no checksum", bytes.fromhex(_PACKED["no checksum"]), size, 1010),
        ("a wrong checksum", sound[:-1] + bytes((sound[-1] ^ 1,)), size, 1010),
        ("a window of 16 MiB", bytes.fromhex(_PACKED["a window of 16 MiB"]), size, 1010),
        ("cut short", sound[:-1], size, 1010),
        ("a byte behind it", sound + b"\0", size, 1010),
        ("a skippable frame before it", skippable + sound, size, 1010),
        ("a skippable frame behind it", sound + skippable, size, 1010),
        ("two frames", sound + sound, 2 * size, 1010),
        ("no zstd frame", b"haptera " * 4, size, 1010),
    ]
    vectors = []
    for name, payload, raw_length, code in cases:
        metadata = ROUTE + entry(0x85, raw_length.to_bytes(4, "big"))
        data = frame(REQUEST, 1, payload, metadata=metadata, flags=COMPRESSED)
        meant = {"code": code} if code else {"payload": (b"haptera " * 256).hex()}
        vectors.append({"name": name, "max_frame": MAX_FRAME, "hex": data.hex(), **meant})
    without = frame(REQUEST, 1, sound, metadata=ROUTE, flags=COMPRESSED)
    vectors.append({"name": "no raw length", "max_frame": MAX_FRAME, "hex": without.hex(), "code": 1002})
    size = 8 * 1024 * 1024 + 1
    metadata = ROUTE + entry(0x85, size.to_bytes(4, "big"))
    segment = frame(REQUEST, 1, bytes.fromhex(_PACKED["a single segment"]), metadata=metadata, flags=COMPRESSED)
    name = "a single segment of more than 8 MiB, whose window is as large"
    vectors.append({"name": name, "max_frame": 16 * 1024 * 1024, "hex": segment.hex(), "code": 1010})
    return vectors


def make_ttl() -> list[dict[str, Any]]:
    """Requests to a store that holds `a` = `1` of version 1, and `t` = `x` of version 2 with a time to live."""
    longest = 3_153_600_000_000
    cases: list[tuple[str, str, list[Any], list[Any] | int]] = [
        ("a set with a time", "set", ["a", b"2", {"ttl_ms": 60_000}], [3, None]),
        ("the shortest time", "set", ["b", b"2", {"ttl_ms": 1}], [3, None]),
        ("the longest time", "set", ["b", b"2", {"ttl_ms": longest}], [3, None]),
        ("a time that is kept", "set", ["t", b"2", {"keep_ttl": True}], [3, None]),
        ("no time", "set", ["b", b"2", {"ttl_ms": 0}], 3003),
        ("a negative time", "set", ["b", b"2", {"ttl_ms": -1}], 3003),
        ("more than 100 years", "set", ["b", b"2", {"ttl_ms": longest + 1}], 3003),
        ("a new time and the old one", "set", ["t", b"2", {"ttl_ms": 5, "keep_ttl": True}], 3003),
        ("several keys with a time", "set_many", [[["b", b"2"], ["c", b"3"]], {"ttl_ms": 60_000}], [3]),
        ("several keys that keep theirs", "set_many", [[["t", b"2"]], {"keep_ttl": True}], 3003),
        ("expire", "expire", ["a", 60_000], [3]),
        ("persist", "expire", ["t", None], [3]),
        ("persist of a key that stays", "expire", ["a", None], [3]),
        ("expire of a missing key", "expire", ["no", 60_000], 4001),
        ("expire without a time", "expire", ["a"], 3003),
        ("the time of a key that stays", "ttl", ["a"], [None]),
        ("the time of a missing key", "ttl", ["no"], 4001),
        ("get_and_expire that persists", "get_and_expire", ["t", {"persist": True}], [b"x", 3, None]),
        ("get_and_expire with neither", "get_and_expire", ["t"], 3003),
        ("get_and_expire with both", "get_and_expire", ["t", {"ttl_ms": 5, "persist": True}], 3003),
        ("get_and_expire of a missing key", "get_and_expire", ["no", {"ttl_ms": 5}], 4001),
        ("get_and_delete", "get_and_delete", ["a"], [b"1", 1, None, 3]),
        ("get_and_delete of a missing key", "get_and_delete", ["no"], 4001),
    ]
    return _requests(cases)


def _requests(cases: list[tuple[str, str, list[Any], list[Any] | int]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "method": method, "argument": pack(argument).hex()}
        | ({"code": result} if isinstance(result, int) else {"result": pack(result).hex()})
        for name, method, argument, result in cases
    ]


def make_history() -> list[dict[str, Any]]:
    """Requests to a store that got `a` = `1`, `b` = `x`, `a` = `2`, a delete of `b` and `c` = `y`: revisions 1 to 5."""
    first, both = [b"1", 1, None], [[b"1", 1, None], [b"x", 2, None]]
    cases: list[tuple[str, str, list[Any], list[Any] | int]] = [
        ("a get of the present", "get", ["a", {}], [b"2", 3, None]),
        ("a get at a revision", "get", ["a", {"at_revision": 2}], first),
        ("a get at the present revision", "get", ["a", {"at_revision": 5}], [b"2", 3, None]),
        ("a get of a key that was deleted since", "get", ["b", {"at_revision": 3}], [b"x", 2, None]),
        ("a get of a key that was deleted by then", "get", ["b", {"at_revision": 4}], 4001),
        ("a get of a key that was not there yet", "get", ["c", {"at_revision": 4}], 4001),
        ("a get before everything", "get", ["a", {"at_revision": 0}], 4001),
        ("a get before all times", "get", ["a", {"at_time_ms": 0}], 4001),
        ("a get of a revision that is still to come", "get", ["a", {"at_revision": 6}], 4009),
        ("a get of a time that is still to come", "get", ["a", {"at_time_ms": 2**53 - 1}], 4009),
        ("a get at both", "get", ["a", {"at_revision": 1, "at_time_ms": 1}], 3003),
        ("a get at a revision below all", "get", ["a", {"at_revision": -1}], 3003),
        ("a get at a revision above all", "get", ["a", {"at_revision": 2**53}], 3003),
        ("a get at no number", "get", ["a", {"at_revision": None}], 3003),
        ("get_many at a revision", "get_many", [["a", "b", "a", "no"], {"at_revision": 3}], [[*_AT_3, None]]),
        ("get_many of no keys at a revision", "get_many", [[], {"at_revision": 3}], [[]]),
        ("get_many at another revision", "get_many", [["a", "b"], {"at_revision": 2}], [both]),
        ("count at a revision", "count", [{"at_revision": 3}], [2]),
        ("count of a range at a revision", "count", [{"prefix": "b", "at_revision": 4}], [0]),
        ("count before everything", "count", [{"at_revision": 0}], [0]),
        ("a read of the past in a transact", "transact", [[], [["get", ["a", {"at_revision": 1}]]]], 3003),
        ("a history", "history", ["a"], [[[1, 1, b"1", None, None, ""], [3, 1, b"2", None, None, ""]], False, 1]),
        ("a history with a delete", "history", ["b", {"after": 2}], [[[4, 2, None, None, None, ""]], False, 1]),
        ("a history of one row", "history", ["a", {"limit": 1}], [[[1, 1, b"1", None, None, ""]], True, 1]),
        ("a history of a missing key", "history", ["no"], [[], False, 1]),
        ("a history of no key", "history", [""], 4006),
    ]
    return [
        {"name": name, "method": method, "argument": pack(argument).hex()}
        | ({"code": result} if isinstance(result, int) else {"result": pack(result).hex()})
        for name, method, argument, result in cases
    ]


_AT_3: list[Any] = [[b"2", 3, None], [b"x", 2, None], [b"2", 3, None]]


def make_watches() -> list[dict[str, Any]]:
    """Watches of the same store, from their first ITEM to the last before they wait."""
    put_a, put_b, put_a2 = [1, "a", b"1", 1, None, None], [1, "b", b"x", 2, None, None], [1, "a", b"2", 3, None, None]
    gone, put_c = [2, "b", None, 4, None, None], [1, "c", b"y", 5, None, None]
    present = [[0, "a", b"2", 3, None, None], [0, "c", b"y", 5, None, None]]
    with_previous = [[2, "b", None, 4, [b"x", 2, None], None], put_c]
    cases: list[tuple[str, dict[str, Any], list[list[Any]] | int]] = [
        ("from the present", {}, [[5, [], False]]),
        (
            "from the first change",
            {"start_revision": 1},
            [[0, [], False], [5, [put_a, put_b, put_a2, gone, put_c], False]],
        ),
        ("of a key", {"key": "b", "start_revision": 1}, [[0, [], False], [4, [put_b, gone], False]]),
        ("of a prefix", {"prefix": "a", "start_revision": 2}, [[1, [], False], [3, [put_a2], False]]),
        (
            "with the entries of before",
            {"start_revision": 4, "with_previous": True},
            [[3, [], False], [5, with_previous, False]],
        ),
        ("with the present entries", {"initial": True}, [[5, present, True], [5, [], False]]),
        ("with the present entry of a key", {"key": "b", "initial": True}, [[5, [], False]]),
        ("from the next revision", {"start_revision": 6}, [[5, [], False]]),
        ("from behind the next revision", {"start_revision": 7}, 4009),
        ("of a key and a prefix", {"key": "a", "prefix": "a"}, 3003),
        ("from two places", {"initial": True, "start_revision": 1}, 3003),
        ("from revision 0", {"start_revision": 0}, 3003),
        ("with marks too often", {"progress_ms": 999}, 3003),
        ("of a key that is none", {"key": ""}, 4006),
        ("with an option that is not known", {"later": True}, 3003),
    ]
    return [
        {"name": name, "argument": pack([options] if options else []).hex()}
        | ({"code": items} if isinstance(items, int) else {"items": [pack(item).hex() for item in items]})
        for name, options, items in cases
    ]


def make_leases() -> list[dict[str, Any]]:
    """Requests to a store with the lease 1 of 60 seconds, to which `lock` = `me` of version 2 belongs, and `a` = `1` of
    version 3.
    """
    held, gone = {"fence": 2}, {"fence": 3}
    cases: list[tuple[str, str, list[Any], list[Any] | int]] = [
        ("a grant", "grant_lease", [1000], [4, 1000]),
        ("the longest lease", "grant_lease", [86_400_000], [4, 86_400_000]),
        ("a lease that is too short", "grant_lease", [999], 3003),
        ("a lease that is too long", "grant_lease", [86_400_001], 3003),
        ("a renewal", "renew_lease", [[1, 2]], [[60_000, None]]),
        ("a renewal of none", "renew_lease", [[]], [[]]),
        ("a renewal of an id that is in no list", "renew_lease", [1], 3003),
        ("a revoke", "revoke_lease", [1], [1, 4]),
        ("a revoke of a lease that is not there", "revoke_lease", [2], 4010),
        ("a list beyond the last lease", "leases", [{"after": 1}], [[], False]),
        ("a list of none", "leases", [{"limit": 0}], [[], True]),
        ("a key that comes to a lease", "set", ["a", b"2", {"lease": 1}], [4, None]),
        ("several keys that come to a lease", "set_many", [[["b", b"2"], ["c", b"3"]], {"lease": 1}], [4]),
        ("a key and a lease that is not there", "set", ["a", b"2", {"lease": 2, "if_version": 9}], 4010),
        ("a lease and a time to live", "set", ["a", b"2", {"lease": 1, "ttl_ms": 1000}], 3003),
        ("a lease and the old time to live", "set", ["a", b"2", {"lease": 1, "keep_ttl": True}], 3003),
        ("a fenced set", "set", ["a", b"2", held], [4, None]),
        ("a fenced delete", "delete", ["a", held], [True, 4, None]),
        ("a fenced delete of several keys", "delete_many", [["a", "no"], held], [1, 4]),
        ("a fenced increment", "increment", ["a", 1, held], [2, 4]),
        ("a fenced rename", "rename", ["a", "b", held], [4]),
        ("a fenced clear", "clear", [{"prefix": "a", **held}], [1, 4]),
        ("a fenced expire", "expire", ["a", None, held], [4]),
        ("a fenced transact", "transact", [[], [["delete", ["a"]]], [], held], [True, 4, [[True, 4, None]]]),
        ("a token that is the version of a key without a lease", "set", ["a", b"2", gone], 4011),
        ("a fence is judged before the lease", "set", ["a", b"2", {"lease": 2, **gone}], 4011),
        ("a transact with a token that has ended", "transact", [[], [["delete", ["a"]]], [], gone], 4011),
        ("a fence of an operation", "transact", [[], [["delete", ["a", held]]]], 3003),
        ("a compare of a lease", "transact", [[["lock", "lease", "=", 1]], []], [True, None, []]),
        ("a compare of no lease", "transact", [[["a", "lease", "!=", 0]], []], [False, None, []]),
        ("a token of 0", "set", ["a", b"2", {"fence": 0}], 3003),
    ]
    return _requests(cases)


def make_transacts() -> list[dict[str, Any]]:
    """Transacts on a store that holds `a` = `1` of version 1, `n` = `41` of version 2 and `b` = `x` of version 3."""
    gets = [["get", ["a"]], ["get", ["no"]]]
    cases: list[tuple[str, list[Any], list[Any] | int, dict[str, Any]]] = [
        ("nothing at all", [[], []], [True, None, []], {}),
        ("reads alone", [[], gets], [True, None, [[b"1", 1, None], None]], {}),
        ("a compare that holds", [[["a", "version", "=", 1]], [["set", ["a", b"2"]]]], [True, 4, [[4, None]]], {}),
        ("a compare that fails", [[["a", "version", ">", 1]], [["set", ["a", b"2"]]], gets[:1]], *_OTHERWISE),
        (
            "one of two compares fails",
            [[["a", "exists", "=", True], ["b", "value", "!=", b"x"]], [], gets[:1]],
            *_OTHERWISE,
        ),
        ("a missing key is of version 0", [[["no", "version", "=", 0]], []], [True, None, []], {}),
        ("a missing key has no value", [[["no", "value", "!=", b"x"]], []], [False, None, []], {}),
        ("values are compared byte by byte", [[["n", "value", "<", b"5"]], []], [True, None, []], {}),
        (
            "later operations see earlier ones, and all have one version",
            [
                [],
                [
                    ["set", ["c", b"7", {"if": "absent"}]],
                    ["increment", ["c", 2]],
                    ["rename", ["c", "d"]],
                    ["get", ["d"]],
                    ["exists", ["c"]],
                    ["delete", ["b", {"return_previous": True}]],
                    ["set", ["d", b"8", {"if_version": 4}]],
                ],
            ],
            [
                True,
                4,
                [[4, None], [9, 4], [4], [b"9", 4, None], [False], [True, 4, [b"x", 3, None]], [4, None]],
            ],
            {},
        ),
        ("a delete of a missing key alone", [[], [["delete", ["no"]]]], [True, None, [[False, None, None]]], {}),
        ("what comes and goes has a version", [[], [["set", ["c", b""]], ["delete", ["c"]]]], *_GONE),
        (
            "a condition that fails inside",
            [[], [["set", ["c", b""]], ["set", ["a", b"2", {"if_version": 2}]]]],
            4002,
            {"key": "a", "expected": 2, "actual": 1, "branch": "then", "operation": 1},
        ),
        (
            "a missing key inside",
            [[["a", "exists", "=", False]], [], [["rename", ["no", "c"]]]],
            4001,
            {"key": "no", "branch": "otherwise", "operation": 0},
        ),
        ("no number inside", [[], [["increment", ["b", 1]]]], 4004, {"key": "b", "branch": "then", "operation": 0}),
        ("too many operations", [[], [["exists", ["a"]]] * 129], 4008, {"field": "then", "limit": 128}),
        (
            "a method of many keys inside",
            [[], [["clear", []]]],
            3003,
            {"unknown": "clear", "branch": "then", "operation": 0},
        ),
        ("a key that is none", [[["", "exists", "=", True]], []], 4006, {"reason": "empty", "compare": 0}),
    ]
    vectors = []
    for name, argument, result, details in cases:
        meant = {"code": result, "details": details} if isinstance(result, int) else {"result": pack(result).hex()}
        vectors.append({"name": name, "argument": pack(argument).hex(), **meant})
    return vectors


_OTHERWISE: tuple[list[Any], dict[str, Any]] = ([False, None, [[b"1", 1, None]]], {})
_GONE: tuple[list[Any], dict[str, Any]] = ([True, 4, [[4, None], [True, 4, None]]], {})


def make_checksums() -> list[dict[str, Any]]:
    """CRC-32C of a few texts."""
    texts = [("the check value", b"123456789"), ("nothing", b""), ("32 zeros", bytes(32)), ("32 ones", b"\xff" * 32)]
    return [{"name": name, "hex": data.hex(), "crc32c": f"{crc32c(data):08x}"} for name, data in texts]


def generate() -> dict[Path, str]:
    """Return each file's content by its path."""
    files = {
        "checksums.json": (
            "CRC-32C of the bytes `hex` (section 2).",
            make_checksums(),
        ),
        "frames.json": (
            (
                "Whole frames. `entries`: the metadata entries that are known, by tag. `value`: the "
                'payload where the protocol defines it, bin as {"bin": hexadecimal} (sections 2 to 4, 6).'
            ),
            make_frames(),
        ),
        "headers.json": (
            (
                "Behind a whole first frame these end a connection: a decoder that announced `max_frame` names `code` "
                "(section 2, order of checks)."
            ),
            make_headers(),
        ),
        "connection.json": (
            (
                "All that an acceptor with default limits reads, and the ERROR that it sends: on "
                "stream 0 it ends the connection, elsewhere the connection goes on (sections 3 and 4)."
            ),
            make_connection(),
        ),
        "signing.json": (
            (
                "The `key` of one direction of a connection with a pre-shared `secret`, and the first frames that are "
                "signed with it, with what they would be unsigned (section 5.2)."
            ),
            make_signing(),
        ),
        "scram.json": (
            (
                "Whole exchanges of SCRAM-SHA-256: the messages, the verifier, and the keys of signed frames after it. "
                "Behind them: a `text` in place of the right `message` of the first exchange, which the side that "
                "reads it refuses (sections 5.1 and 5.2)."
            ),
            make_scram(),
        ),
        "sessions.json": (
            (
                "Whole connections without TLS, up to the first answer behind an exchange of SCRAM-SHA-256: the frames "
                "of both sides in their order, each `from` one of them (sections 4, 5.1 and 5.2)."
            ),
            make_sessions(),
        ),
        "plain.json": (
            "PLAIN's message `hex`: the `user` and the `password` in it; without them it is refused (section 5.1).",
            make_plain(),
        ),
        "compression.json": (
            (
                "REQUESTs that an acceptor with `zstd` and that `max_frame` reads behind HELLO: their `payload`, or "
                "the `code` of the ERROR that refuses them (section 4.1)."
            ),
            make_compression(),
        ),
        "transact.json": (
            (
                "Arguments of `kv.transact`, each for a store that was empty and got, in this order, `a` = `1`, `n` = "
                "`41` and `b` = `x`: the `result`, or the `code` and the `details` of the ERROR (section 7)."
            ),
            make_transacts(),
        ),
        "ttl.json": (
            (
                "Requests to `kv` with `kv_ttl`, each to a store that was empty and got `a` = `1` and, with a `ttl_ms` "
                "of 600000, `t` = `x`: the `method` and its `argument`, and the `result` or the `code` (section 7)."
            ),
            make_ttl(),
        ),
        "history.json": (
            (
                "Requests to `kv` with `kv_history`, each to a store that was empty and got, in this order, `a` = `1`, "
                "`b` = `x`, `a` = `2`, a delete of `b` and `c` = `y`: the `method` and its `argument`, and the "
                "`result` or the `code`. The times in the rows of a history are nil here (section 7)."
            ),
            make_history(),
        ),
        "watch.json": (
            (
                "Arguments of `kv.watch`, each for a store as in history.json: the `items` that are sent at once, or "
                "the `code` (section 7). The events of one ITEM may as well come in several."
            ),
            make_watches(),
        ),
        "leases.json": (
            (
                "Requests to `kv` with all of its groups, each to a store that was empty and got, in this order, a "
                "lease of 60000, with that lease `lock` = `me`, and `a` = `1`: the `method` and its `argument`, and "
                "the `result` or the `code` (section 7)."
            ),
            make_leases(),
        ),
        "cafe.json": (
            (
                "Connections of CAFE to a store that was empty (cafe.md): the messages of both sides in their order. "
                "The nonces of the server are in its answers. Of an ERR there is the code, and the `key` of its tag. "
                "`closes`: the server closes the connection behind the last step."
            ),
            make_cafe(),
        ),
    }
    return {
        FOLDER / name: json.dumps(
            {"generated": "by tools/generate_vectors.py; do not edit", "about": about, "vectors": vectors}, indent=1
        )
        + "\n"
        for name, (about, vectors) in files.items()
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the tool; return its exit status."""
    parser = argparse.ArgumentParser(description="Writes spec/vectors.")
    parser.add_argument("--check", action="store_true", help="write nothing, name the files that are not current")
    check: bool = parser.parse_args(arguments).check
    files = generate()
    changed = [
        path
        for path, text in files.items()
        if not (ROOT / path).exists() or (ROOT / path).read_text(encoding="utf-8") != text
    ]
    for path in changed:
        if check:
            print(f"{path} is not what tools/generate_vectors.py makes: run `make generate`", file=sys.stderr)
        else:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(files[path], encoding="utf-8")
            print(f"wrote {path}")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
