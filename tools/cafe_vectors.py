"""Makes spec/vectors/cafe.json: connections of CAFE with fixed keys and nonces.

The bytes are made from the text of spec/cafe.md, without the package that they test.
"""

from __future__ import annotations

import hmac
import struct
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

GET, SET, DEL, BIND, OK, ERR, NOTFOUND = 1, 2, 3, 4, 128, 129, 130
COMPRESSED, ENCRYPTED = 1, 2
SHARED_KEY = bytes(range(32))
CLIENT_NONCE = bytes(range(16))
SERVER_NONCE = bytes(range(16, 32))
KEY_MAX, VALUE_MAX = 4096, 8 * 1024 * 1024
VALUE_FIELD_MAX = VALUE_MAX + 64 * 1024


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """Derive 32 bytes (RFC 5869); an empty salt is 32 zeros."""
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def bound_key(shared: bytes, client_nonce: bytes, server_nonce: bytes) -> bytes:
    """Return the key behind BIND."""
    return hkdf(shared, client_nonce + server_nonce, b"cafe/1")


def message(
    opcode: int, request_id: int, name: bytes = b"", value: bytes = b"", *, key: bytes = SHARED_KEY, **fields: Any
) -> bytes:
    """Make a message. ``fields`` replaces fields of its head; ``tag`` its tag."""
    head = {
        "magic": 0xCAFE,
        "version": 1,
        "opcode": opcode,
        "request_id": request_id,
        "flags": 0,
        "reserved": 0,
        "key_len": len(name),
        "value_len": len(value),
    } | {field: each for field, each in fields.items() if field != "tag"}
    packed = struct.pack(">HBBIBBHI", *head.values())
    tag: bytes = fields.get("tag", hmac.digest(key, packed + name + value, "sha256"))
    return packed + tag + name + value


def encrypted(
    opcode: int, request_id: int, nonce: bytes, name: bytes = b"", value: bytes = b"", *, key: bytes, flags: int = 0
) -> bytes:
    """Make an encrypted message; ``flags`` are those beside it."""
    plain = len(name).to_bytes(2, "big") + name + value
    flags |= ENCRYPTED
    size = 12 + len(plain) + 16
    head = struct.pack(">HBBIBBHI", 0xCAFE, 1, opcode, request_id, flags, 0, 0, size)
    body = nonce + AESGCM(hkdf(key, b"", b"cafe/1 encryption")).encrypt(nonce, plain, head)
    return message(opcode, request_id, b"", body, key=key, flags=flags)


def zstd_run(byte: int, size: int, *, declared: int | None = None) -> bytes:
    """Make a zstd frame of one byte ``size`` times (below 128 KiB), a block that says just that."""
    frame = b"\x28\xb5\x2f\xfd\xa0" + (size if declared is None else declared).to_bytes(4, "little")
    return frame + (size << 3 | 1 << 1 | 1).to_bytes(3, "little") + bytes((byte,))


def version(number: int) -> bytes:
    """Return a version as an answer has it."""
    return number.to_bytes(8, "big")


def sent(data: bytes) -> dict[str, Any]:
    """Say that the client has sent a message."""
    return {"from": "client", "hex": data.hex()}


def told(data: bytes) -> dict[str, Any]:
    """Say that the server has answered with a message."""
    return {"from": "server", "hex": data.hex()}


def error(request_id: int, code: int, *, key: bytes = SHARED_KEY) -> dict[str, Any]:
    """Say that the server has answered with ERR under a key; its text is its own."""
    return {"from": "server", "opcode": ERR, "request_id": request_id, "code": code, "key": key.hex()}


def bound(key: bytes = SHARED_KEY) -> list[dict[str, Any]]:
    """Return the beginning of a connection with BIND."""
    return [sent(message(BIND, 1, b"", CLIENT_NONCE, key=key)), told(message(OK, 1, b"", SERVER_NONCE, key=key))]


def make_cafe() -> list[dict[str, Any]]:
    """Return all vectors."""
    cases = [*_plain(), *_bound(), *_bodies(), *_that_go_on(), *_that_close()]
    return [
        {"name": name, "shared_key": SHARED_KEY.hex(), "require_bind": wants_bind, "steps": steps, "closes": closes}
        for name, wants_bind, steps, closes in cases
    ]


_Case = tuple[str, bool, list[dict[str, Any]], bool]


def _plain() -> list[_Case]:
    return [
        (
            "every command",
            False,
            [
                sent(message(GET, 1, b"a")),
                told(message(NOTFOUND, 1)),
                sent(message(SET, 2, b"a", b"one")),
                told(message(OK, 2, b"", version(1))),
                sent(message(GET, 3, b"a")),
                told(message(OK, 3, b"", b"one")),
                sent(message(DEL, 4, b"a")),
                told(message(OK, 4, b"", version(2))),
                sent(message(DEL, 5, b"a")),
                told(message(NOTFOUND, 5)),
            ],
            False,
        ),
        (
            "ids may have gaps, up to the last one",
            False,
            [
                sent(message(SET, 7, "key/ä".encode(), b"")),
                told(message(OK, 7, b"", version(1))),
                sent(message(GET, 2**32 - 1, "key/ä".encode())),
                told(message(OK, 2**32 - 1, b"", b"")),
            ],
            False,
        ),
    ]


def _bound() -> list[_Case]:
    key = bound_key(SHARED_KEY, CLIENT_NONCE, SERVER_NONCE)
    nonces = [bytes((each,)) * 12 for each in range(1, 5)]
    return [
        (
            "behind BIND both sides have another key",
            True,
            [
                *bound(),
                sent(message(SET, 2, b"a", b"one", key=key)),
                told(message(OK, 2, b"", version(1), key=key)),
                sent(message(GET, 3, b"a", key=key)),
                told(message(OK, 3, b"", b"one", key=key)),
            ],
            False,
        ),
        (
            "encrypted, behind BIND",
            True,
            [
                *bound(),
                sent(encrypted(SET, 2, nonces[0], b"a", b"one", key=key)),
                told(encrypted(OK, 2, nonces[1], b"", version(1), key=key)),
                sent(encrypted(GET, 3, nonces[2], b"b", key=key)),
                told(encrypted(NOTFOUND, 3, nonces[3], key=key)),
            ],
            False,
        ),
        (
            "a message under the shared key behind BIND",
            False,
            [*bound(), sent(message(SET, 2, b"a", b"one")), error(2, 1011, key=key)],
            True,
        ),
        (
            "a second BIND",
            True,
            [
                *bound(),
                sent(message(BIND, 2, b"", CLIENT_NONCE, key=key)),
                error(2, 1008, key=key),
                sent(message(GET, 3, b"a", key=key)),
                told(message(NOTFOUND, 3, key=key)),
            ],
            False,
        ),
        ("a listener that wants BIND", True, [sent(message(GET, 1, b"a")), error(1, 2001)], True),
    ]


def _bodies() -> list[_Case]:
    nonces = [bytes((each,)) * 12 for each in range(17, 21)]
    value = b"v" * 5000
    return [
        (
            "a compressed value",
            False,
            [
                sent(message(SET, 1, b"a", zstd_run(ord("v"), 5000), flags=COMPRESSED)),
                told(message(OK, 1, b"", version(1))),
                sent(message(GET, 2, b"a")),
                told(message(OK, 2, b"", value)),
            ],
            False,
        ),
        (
            "an encrypted value, without BIND",
            False,
            [
                sent(encrypted(SET, 1, nonces[0], b"a", b"one", key=SHARED_KEY)),
                told(encrypted(OK, 1, nonces[1], b"", version(1), key=SHARED_KEY)),
                sent(message(GET, 2, b"a")),
                told(message(OK, 2, b"", b"one")),
            ],
            False,
        ),
        (
            "compressed, then encrypted",
            False,
            [
                sent(encrypted(SET, 1, nonces[2], b"a", zstd_run(ord("v"), 5000), key=SHARED_KEY, flags=COMPRESSED)),
                told(encrypted(OK, 1, nonces[3], b"", version(1), key=SHARED_KEY)),
                sent(message(GET, 2, b"a")),
                told(message(OK, 2, b"", value)),
            ],
            False,
        ),
    ]


def _that_go_on() -> list[_Case]:
    nonce = bytes(12)
    foreign = encrypted(GET, 2, nonce, b"a", key=SHARED_KEY)
    moved = message(GET, 3, b"", foreign[48:], flags=ENCRYPTED)  # the additional data are those of another id
    outside = encrypted(GET, 3, nonce, b"a", key=SHARED_KEY)[48:]
    refused: list[tuple[str, list[bytes], int]] = [
        ("a repeated request_id", [message(SET, 2, b"a", b"x")] * 2, 1008),
        ("a smaller request_id", [message(SET, 2, b"a", b"x"), message(SET, 1, b"a", b"y")], 1008),
        ("the request_id 0", [message(SET, 0, b"a", b"x")], 1008),
        ("a reserved bit", [message(SET, 2, b"a", b"x", reserved=1)], 1006),
        ("an unknown flag", [message(SET, 2, b"a", b"x", flags=4)], 1006),
        ("an unknown opcode", [message(9, 2, b"a", b"x")], 1005),
        ("the opcode of an answer", [message(OK, 2, b"a", b"x")], 1005),
        ("a BIND that is not the first message", [message(GET, 2, b"b"), message(BIND, 3, b"", CLIENT_NONCE)], 1008),
        ("a BIND with a flag", [message(BIND, 2, b"", CLIENT_NONCE, flags=COMPRESSED)], 1006),
        ("a BIND with a key", [message(BIND, 2, b"a", CLIENT_NONCE)], 3003),
        ("a BIND whose nonce is short", [message(BIND, 2, b"", CLIENT_NONCE[1:])], 3003),
        ("a GET with a value", [message(GET, 2, b"a", b"x")], 3003),
        ("a DEL with a value", [message(DEL, 2, b"a", b"x")], 3003),
        ("an empty key", [message(SET, 2, b"", b"x")], 4006),
        ("a key that is not UTF-8", [message(SET, 2, b"\xff", b"x")], 4006),
        ("a key with a NUL", [message(SET, 2, b"a\x00", b"x")], 4006),
        ("a value that is no zstd frame", [message(SET, 2, b"a", b"x", flags=COMPRESSED)], 1010),
        ("an empty value that is compressed", [message(SET, 2, b"a", b"", flags=COMPRESSED)], 1010),
        ("bytes behind a zstd frame", [message(SET, 2, b"a", zstd_run(120, 9) + b"x", flags=COMPRESSED)], 1010),
        (
            "a zstd frame that declares too much",
            [message(SET, 2, b"a", zstd_run(120, 9, declared=VALUE_MAX + 1), flags=COMPRESSED)],
            1010,
        ),
        ("an encrypted body for another message", [moved], 3003),
        ("an encrypted body that is too short", [message(GET, 2, b"", bytes(29), flags=ENCRYPTED)], 3003),
        ("a key beside an encrypted body", [message(GET, 3, b"a", outside, flags=ENCRYPTED)], 3003),
    ]
    cases: list[_Case] = []
    for name, messages, code in refused:
        answers = [told(_answer(each)) for each in messages[:-1]]
        steps = [step for each in zip(map(sent, messages[:-1]), answers, strict=True) for step in each]
        (request_id,) = struct.unpack(">I", messages[-1][4:8])
        steps += [sent(messages[-1]), error(request_id, code)]
        steps += [sent(message(GET, 9, b"no")), told(message(NOTFOUND, 9))]
        cases.append((name, False, steps, False))
    return cases


def _answer(request: bytes) -> bytes:
    """Return the answer to the first command of a connection."""
    (request_id,) = struct.unpack(">I", request[4:8])
    return message(NOTFOUND, request_id) if request[3] == GET else message(OK, request_id, b"", version(1))


def _that_close() -> list[_Case]:
    good = message(SET, 1, b"a", b"x")
    faults: list[tuple[str, bytes, int, int]] = [
        ("another magic", message(SET, 1, b"a", b"x", magic=0xCAFF), 0, 1002),
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n", 0, 1002),
        ("another version", message(SET, 1, b"a", b"x", version=2), 0, 1001),
        ("a key that is too long, before it has come", message(SET, 1, b"", b"", key_len=KEY_MAX + 1), 1, 1004),
        (
            "a value that is too long, before it has come",
            message(SET, 1, b"", b"", value_len=VALUE_FIELD_MAX + 1),
            1,
            1004,
        ),
        ("a wrong tag", message(SET, 1, b"a", b"x", tag=bytes(32)), 1, 1011),
        ("a tag under another key", message(SET, 1, b"a", b"x", key=bytes(32)), 1, 1011),
        ("another key of the store", good[:48] + b"b" + good[49:], 1, 1011),
        ("another value", good[:-1] + b"y", 1, 1011),
        ("another request_id", good[:7] + b"\x02" + good[8:], 2, 1011),
    ]
    return [(name, False, [sent(data), error(request_id, code)], True) for name, data, request_id, code in faults]
