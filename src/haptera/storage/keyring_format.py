"""The file of the keyring as bytes: the data keys, encrypted under a master key (storage-format 2.2).

Nothing here touches a file.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import google_crc32c
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from haptera.errors import CorruptionError
from haptera.storage.data_key import DATA_KEY_SIZE, KEY_ID_SIZE, DataKey, derive
from haptera.storage.errors import NewerFormat, WrongKey
from haptera.storage.keyring import Keyring
from haptera.storage.toml import parse_toml

if TYPE_CHECKING:
    from haptera.storage.master_key import MasterKey

__all__ = ["KEYS_FORMAT", "WrappedKeyring", "format_of_keys", "wrap"]

KEYS_FORMAT: Final = 2
SALT_SIZE: Final = 32
_TAG_SIZE: Final = 16
#: A wrapping has a key of its own, made from a new salt, and encrypts once: one nonce is enough.
_NONCE: Final = bytes(12)
_PURPOSE: Final = b"haptera keyring/2"
_ENTRY: Final = struct.Struct(f">{KEY_ID_SIZE}sQQ")
_U64_MAX: Final = (1 << 64) - 1
_NOTICE: Final = "# The data keys, encrypted under the master key. Without it no one can read them, or the data.\n"
_EXPECTED: Final = "a keyring of this format and its CRC-32C"


@dataclass(frozen=True, slots=True)
class _Entry:
    """The plain part of a data key."""

    id: bytes
    created_ms: int
    first_segment: int


@dataclass(frozen=True, slots=True)
class _Wrapping:
    """The secrets of all keys, encrypted under one master key."""

    master_id: bytes
    salt: bytes
    sealed: bytes


def wrap(keyring: Keyring, masters: Iterable[MasterKey]) -> bytes:
    """The content of the file that keeps a keyring, openable with each of the master keys."""
    entries = [_Entry(key.id, key.created_ms, key.first_segment) for key in keyring.keys]
    return _encode(entries, [_wrapping(keyring, entries, master) for master in masters])


def format_of_keys(path: str, data: bytes) -> int:
    """The format of the file, 1 or KEYS_FORMAT. Raises NewerFormat, and CorruptionError where there is none."""
    return _format_of(path, _table(data))


def _table(data: bytes) -> dict[str, Any]:
    """The tables of a file; none where it has no such form."""
    try:
        return parse_toml(data)
    except ValueError:
        return {}


def _format_of(path: str, table: dict[str, Any]) -> int:
    number = table.get("format")
    if type(number) is not int or number < 1:
        raise CorruptionError(path, 0, _EXPECTED, "something else")
    if number > KEYS_FORMAT:
        raise NewerFormat(path, number, KEYS_FORMAT)
    return number


class WrappedKeyring:
    """The content of the file of a keyring, still encrypted. `master_ids` are the ids of the keys that open it.

    Making one raises CorruptionError and NewerFormat: the file is then damaged under any master key.
    """

    def __init__(self, path: str, data: bytes) -> None:
        self._path = path
        table = _table(data)
        found = _decode(data, table) if _format_of(path, table) == KEYS_FORMAT else None
        if found is None:
            raise CorruptionError(path, 0, _EXPECTED, "something else")  # never quote it: it may be a key
        self._entries, self._wrappings = found
        self.master_ids: tuple[bytes, ...] = tuple(wrapping.master_id for wrapping in self._wrappings)

    def unwrap(self, master: MasterKey) -> Keyring:
        """The keyring. Raises WrongKey for another master key, and CorruptionError where the file was changed."""
        for wrapping in self._wrappings:
            if wrapping.master_id == master.id:
                return self._unwrap(wrapping, master)
        ids = ", ".join(master_id.hex() for master_id in self.master_ids)
        raise WrongKey(self._path, ids, master.id.hex(), "master key")

    def _unwrap(self, wrapping: _Wrapping, master: MasterKey) -> Keyring:
        try:
            plain = _cipher(master, wrapping.salt).decrypt(_NONCE, wrapping.sealed, _bound(self._entries))
        except InvalidTag:
            raise CorruptionError(
                self._path, 0, f"data keys under the master key {master.id.hex()}", "bytes that do not decrypt to them"
            ) from None
        keys = [
            DataKey.of(plain[at : at + DATA_KEY_SIZE], entry.created_ms, entry.first_segment)
            for at, entry in zip(range(0, len(plain), DATA_KEY_SIZE), self._entries, strict=True)
        ]
        if [key.id for key in keys] != [entry.id for entry in self._entries]:
            raise CorruptionError(self._path, 0, "the ids that follow from the data keys", "others")
        return Keyring(keys)


def _wrapping(keyring: Keyring, entries: Sequence[_Entry], master: MasterKey) -> _Wrapping:
    salt = secrets.token_bytes(SALT_SIZE)  # new each time, so that no key and nonce encrypt two contents
    plain = b"".join(key.secret for key in keyring.keys)
    return _Wrapping(master.id, salt, _cipher(master, salt).encrypt(_NONCE, plain, _bound(entries)))


def _cipher(master: MasterKey, salt: bytes) -> AESGCM:
    return AESGCM(derive(master.secret, salt, _PURPOSE, 32))


def _bound(entries: Iterable[_Entry]) -> bytes:
    """The plain parts as additional data: none can be changed, left out or put elsewhere."""
    return _PURPOSE + b"".join(_ENTRY.pack(entry.id, entry.created_ms, entry.first_segment) for entry in entries)


def _encode(entries: Iterable[_Entry], wrappings: Iterable[_Wrapping]) -> bytes:
    tables = [
        f'[[key]]\nid = "{entry.id.hex()}"\ncreated_ms = {entry.created_ms}\nfirst_segment = {entry.first_segment}\n'
        for entry in entries
    ] + [
        f'[[wrapping]]\nmaster_key = "{wrapping.master_id.hex()}"\nsalt = "{wrapping.salt.hex()}"\n'
        f'secrets = "{wrapping.sealed.hex()}"\n'
        for wrapping in wrappings
    ]
    body = "\n".join(tables).encode()
    return f"{_NOTICE}format = {KEYS_FORMAT}\ncheck = {google_crc32c.value(body)}\n\n".encode() + body


def _decode(data: bytes, table: dict[str, Any]) -> tuple[list[_Entry], list[_Wrapping]] | None:
    """The keys in the tables of a file, or None unless it is, byte for byte, what `_encode` makes of them."""
    try:
        entries = [
            _Entry(_hex(key["id"], KEY_ID_SIZE), _u64(key["created_ms"]), _u64(key["first_segment"]))
            for key in table["key"]
        ]
        sealed_size = len(entries) * DATA_KEY_SIZE + _TAG_SIZE
        wrappings = [
            _Wrapping(
                _hex(row["master_key"], KEY_ID_SIZE), _hex(row["salt"], SALT_SIZE), _hex(row["secrets"], sealed_size)
            )
            for row in table["wrapping"]
        ]
    except (ValueError, KeyError, TypeError):
        return None
    whole = bool(entries) and bool(wrappings) and data == _encode(entries, wrappings)
    return (entries, wrappings) if whole else None


def _hex(text: Any, size: int) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != size:
        raise ValueError("another size")
    return value


def _u64(number: Any) -> int:
    if type(number) is not int or not 0 <= number <= _U64_MAX:
        raise ValueError("no such number")
    return number
