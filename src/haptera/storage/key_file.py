"""The key file: it keeps the data keys beside the data (storage-format 2.2)."""

from __future__ import annotations

import secrets
import tomllib
from typing import TYPE_CHECKING

from haptera.errors import CorruptionError
from haptera.storage.data_key import DATA_KEY_SIZE, DataKey
from haptera.storage.directory import KEYS_NAME, segment_number
from haptera.storage.errors import MissingKey, NewerFormat, translated
from haptera.storage.filesystem import read_file, write_file_atomically
from haptera.storage.keyring import Keyring

if TYPE_CHECKING:
    from haptera.storage.directory import DataDirectory

__all__ = ["open_keyring"]

KEYS_FORMAT = 1
_FILE_SIZE_MAX = 4096
_NOTICE = "# The key of the data beside it. A reader of this file can read the data; without it, no one can.\n"


def open_keyring(directory: DataDirectory) -> Keyring:
    """Read the keyring of an open directory, or make one where there is nothing yet that needs it.

    A new file has mode 0600. Raises MissingKey (a log without its key file), CorruptionError, NewerFormat, DiskFull,
    DiskFailed. See storage-format 2.2.
    """
    fs, path = directory.fs, directory.keys_path
    with translated(path, "read the key file"):
        try:
            data = read_file(fs, path, _FILE_SIZE_MAX)
        except FileNotFoundError:
            pass
        else:
            return Keyring([_parse(path, data)])
    with translated(path, "look for a log beside the key file"):
        if any(segment_number(name) is not None for name in fs.listdir(directory.log_path)):
            raise MissingKey(path)
    key = DataKey.of(secrets.token_bytes(DATA_KEY_SIZE))
    with translated(path, "create the key file"):
        write_file_atomically(fs, directory.path, KEYS_NAME, _format(key))
    return Keyring([key])


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
