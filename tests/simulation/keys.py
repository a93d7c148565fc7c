"""The master keys of a simulated node: files on the real disk, because a node reads its key there."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from haptera.storage import MasterKey, open_keyring

if TYPE_CHECKING:
    from haptera.storage import DataDirectory, StoredKeyring


class MasterKeys:
    """The key in the file ``path``, which an operator changes, and a file of each key that was ever there.

    ``possible`` are the files of the keys that may open the keyring, the newest last: a change may be interrupted. At
    the end of the block all files are removed.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="haptera-keys-")
        self.path = os.path.join(self._directory.name, "current")
        self.all: list[str] = []
        self.possible: list[str] = []
        self.change()

    def __enter__(self) -> MasterKeys:
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.cleanup()

    def change(self) -> None:
        """Give another key."""
        path = os.path.join(self._directory.name, str(len(self.all)))
        _write(path, MasterKey.new().format())
        self.all.append(path)
        self.possible.append(path)
        self.give(path)

    def give(self, path: str) -> None:
        """Give the key in a file."""
        with open(path, "rb") as file:
            _write(self.path, file.read())

    def opened(self, path: str) -> None:
        """Note that the keyring is under the key in a file."""
        self.possible = [path]

    def unlock(self, directory: DataDirectory) -> StoredKeyring:
        """Open the keyring of a directory with the key that is given."""
        return open_keyring(directory, read(self.path))


def read(path: str) -> MasterKey:
    """Return the key in a file."""
    with open(path, "rb") as file:
        key = MasterKey.parse(file.read())
    assert key is not None
    return key


def _write(path: str, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
