"""The bodies of messages: compressed, encrypted, or compressed and then encrypted (spec/cafe.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.cafe.messages import (
    CIPHER_NONCE_SIZE,
    CIPHER_TAG_SIZE,
    COMPRESSED,
    ENCRYPTED,
    KEY_LEN_SIZE,
    Message,
    head_of,
)
from haptera.errors import Code, RemoteProtocolError
from haptera.key_rules import VALUE_SIZE_MAX
from haptera.wire import COMPRESSED_SIZE_MIN, available

if TYPE_CHECKING:
    from haptera.dialects.cafe.message_keys import ConnectionKey
    from haptera.wire import Codec

_SEALED_SIZE_MIN: Final = CIPHER_NONCE_SIZE + KEY_LEN_SIZE + CIPHER_TAG_SIZE


def message(
    key: ConnectionKey, opcode: int, request_id: int, flags: int, name: bytes, value: bytes, *, nonce: bytes = b""
) -> bytes:
    """Return a whole message. With `ENCRYPTED` among the flags it has the nonce, of 12 bytes that no other message has.

    `COMPRESSED` says that ``value`` is compressed already.
    """
    if flags & ENCRYPTED:
        plain = len(name).to_bytes(KEY_LEN_SIZE, "big") + name + value
        head = head_of(opcode, request_id, flags, 0, CIPHER_NONCE_SIZE + len(plain) + CIPHER_TAG_SIZE)
        body = nonce + key.encrypt(nonce, plain, head)
    else:
        head = head_of(opcode, request_id, flags, len(name), len(value))
        body = name + value
    return b"".join((head, key.tag(head, body), body))


def opened(key: ConnectionKey, sent: Message) -> tuple[bytes, bytes]:
    """Return the key and the value of a message, decrypted. The value is compressed still, where it is.

    Raises 3003 for an encrypted body that is none.
    """
    if not sent.flags & ENCRYPTED:
        return sent.key, sent.value
    if sent.key:
        raise RemoteProtocolError(Code.INVALID_ARGUMENT, "an encrypted message has a key outside its encrypted body")
    if len(sent.value) < _SEALED_SIZE_MIN:
        raise RemoteProtocolError(Code.INVALID_ARGUMENT, "an encrypted body is too short")
    nonce, sealed = sent.value[:CIPHER_NONCE_SIZE], sent.value[CIPHER_NONCE_SIZE:]
    plain = key.decrypt(nonce, sealed, sent.head)
    if plain is None:
        raise RemoteProtocolError(Code.INVALID_ARGUMENT, "an encrypted body was not encrypted for this message")
    middle = KEY_LEN_SIZE + int.from_bytes(plain[:KEY_LEN_SIZE], "big")
    if middle > len(plain):
        raise RemoteProtocolError(Code.INVALID_ARGUMENT, "an encrypted body is shorter than the key in it")
    return plain[KEY_LEN_SIZE:middle], plain[middle:]


def unpacked(codec: Codec, flags: int, value: bytes) -> bytes:
    """Return a value, decompressed if the flags say that it is compressed. Raises 1010 for one that is no frame."""
    if not flags & COMPRESSED:
        return value
    if not available():
        raise RemoteProtocolError(Code.DECOMPRESSION_FAILED, "this side cannot decompress: it has no zstd")
    return codec.decompress_within(value, VALUE_SIZE_MAX)


def packed(codec: Codec, value: bytes) -> tuple[int, bytes]:
    """Return a value compressed, and the flag that says so, if that makes it smaller; else the value itself, and 0."""
    if len(value) >= COMPRESSED_SIZE_MIN and available():
        smaller = codec.compress(value)
        if len(smaller) < len(value):
            return COMPRESSED, smaller
    return 0, value
