"""The data key, and the key file that keeps it beside the data (storage-format 2.2)."""

from __future__ import annotations

import os
import secrets
import tomllib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from haptera.errors import CorruptionError
from haptera.storage.directory import LOG_NAME, segment_number
from haptera.storage.errors import MissingKey, NewerFormat, translated
from haptera.storage.filesystem import FileSystem, read_file, write_file_atomically

__all__ = ["DATA_KEY_SIZE", "KEY_ID_SIZE", "DataKey", "load_or_create"]

DATA_KEY_SIZE = 32
KEY_ID_SIZE = 8
KEYS_FORMAT = 1
_FILE_SIZE_MAX = 4096
_NOTICE = "# The key of the data beside it. A reader of this file can read the data; without it, no one can.\n"


def derive(secret: bytes, salt: bytes | None, purpose: bytes, size: int) -> bytes:
    """HKDF-SHA256 of a secret for one purpose."""
    return HKDF(SHA256(), size, salt, purpose).derive(secret)


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key that data is encrypted under.

    `id` (8 bytes) follows from `secret` (32 bytes), and may be shown; the secret never is.
    """

    id: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> DataKey:
        return cls(derive(secret, None, b"haptera data key id/1", KEY_ID_SIZE), secret)


def load_or_create(fs: FileSystem, path: str) -> DataKey:
    """Read the data key, or make one where there is nothing yet that needs it.

    `path` is the key file inside its data directory (`DataDirectory.keys_path`), whose lock the caller holds. A new
    file has mode 0600. Raises MissingKey (a log without its key file), CorruptionError, NewerFormat, DiskFull,
    DiskFailed. See storage-format 2.2.
    """
    directory = os.path.dirname(path)
    with translated(path, "read the key file"):
        try:
            data = read_file(fs, path, _FILE_SIZE_MAX)
        except FileNotFoundError:
            pass
        else:
            return _parse(path, data)
    with translated(path, "look for a log beside the key file"):
        if any(segment_number(name) is not None for name in fs.listdir(os.path.join(directory, LOG_NAME))):
            raise MissingKey(path)
    key = DataKey.of(secrets.token_bytes(DATA_KEY_SIZE))
    with translated(path, "create the key file"):
        write_file_atomically(fs, directory, os.path.basename(path), _format(key))
    return key


def _format(key: DataKey) -> bytes:
    return f'{_NOTICE}format = {KEYS_FORMAT}\nid = "{key.id.hex()}"\nkey = "{key.secret.hex()}"\n'.encode()


def _parse(path: str, data: bytes) -> DataKey:
    try:
        table = tomllib.loads(data.decode())
        if type(table["format"]) is int and table["format"] > KEYS_FORMAT:
            raise NewerFormat(path, table["format"], KEYS_FORMAT)
        key = DataKey.of(bytes.fromhex(table["key"]))
        if table["format"] == KEYS_FORMAT and len(key.secret) == DATA_KEY_SIZE and key.id == bytes.fromhex(table["id"]):
            return key
    except (ValueError, KeyError, TypeError):
        pass  # never quote the text: it may be most of the key
    raise CorruptionError(path, 0, "a data key and the id that follows from it", "something else")
