"""The messages of CAFE as bytes: their header, their opcodes and flags, and the limits (spec/cafe.md, section 2)."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

import msgspec

from haptera.key_rules import KEY_SIZE_MAX, VALUE_SIZE_MAX

MAGIC: Final = 0xCAFE
MAGIC_BYTES: Final = MAGIC.to_bytes(2, "big")
VERSION: Final = 1

#: The head, which the tag covers: magic, version, opcode, request_id, flags, reserved, key_len, value_len.
HEAD: Final = Struct(">HBBIBBHI")
HEAD_SIZE: Final = HEAD.size
TAG_SIZE: Final = 32
#: Head and tag.
HEADER: Final = Struct(f"{HEAD.format}{TAG_SIZE}s")
HEADER_SIZE: Final = HEADER.size

COMPRESSED: Final = 0x01
ENCRYPTED: Final = 0x02
FLAGS: Final = COMPRESSED | ENCRYPTED

#: Bytes of the nonce of AES-256-GCM in front of an encrypted body, and of its tag behind it.
CIPHER_NONCE_SIZE: Final = 12
CIPHER_TAG_SIZE: Final = 16
#: Bytes of the key's length in an encrypted body.
KEY_LEN_SIZE: Final = 2
#: Bytes of each side's nonce in BIND.
NONCE_SIZE: Final = 16

#: Bytes of the field `key`. A longer one is refused before anything is kept of it.
KEY_FIELD_MAX: Final = KEY_SIZE_MAX
#: Bytes of the field `value`: the largest value, and 64 KiB for all that compression and encryption may add to it, the
#: longest key among that. So a value that is too large by a few bytes has an answer, and the connection goes on.
VALUE_FIELD_MAX: Final = VALUE_SIZE_MAX + 64 * 1024

REQUEST_ID_MAX: Final = 2**32 - 1
#: The id of an answer that belongs to no request: it ends the connection.
NO_REQUEST: Final = 0

#: Bytes of the version in the answer to SET and DEL, and of the code in ERR.
VERSION_SIZE: Final = 8
CODE_SIZE: Final = 2
#: Bytes of the text in ERR: a sentence.
TEXT_SIZE_MAX: Final = 1024


class Opcode(IntEnum):
    """The opcodes of version 1. Requests are below 128, answers from there on."""

    GET = 1
    SET = 2
    DEL = 3
    BIND = 4
    OK = 128
    ERR = 129
    NOTFOUND = 130


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message whose tag was right. ``head`` is its first 16 bytes; ``key`` and ``value`` are its fields as sent."""

    opcode: int
    request_id: int
    flags: int
    reserved: int
    head: bytes
    key: bytes
    value: bytes

    def __repr__(self) -> str:
        """Show neither key nor value."""
        sizes = f"key_len={len(self.key)}, value_len={len(self.value)}"
        return f"Message(opcode={self.opcode}, request_id={self.request_id}, flags={self.flags}, {sizes})"


def head_of(opcode: int, request_id: int, flags: int, key_len: int, value_len: int) -> bytes:
    """Return the head of a message."""
    return HEAD.pack(MAGIC, VERSION, opcode, request_id, flags, 0, key_len, value_len)
