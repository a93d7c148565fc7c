"""The data keys of a directory, found by the ids that headers name them by (storage-format 2.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from haptera.storage.errors import WrongKey

if TYPE_CHECKING:
    from haptera.storage.data_key import DataKey

__all__ = ["Keyring"]


class Keyring:
    """Data keys in the order in which they were made, at least one: new files get the newest, and each older file is
    read with the key that its header names.

    A keyring is replaced in one step when it changes, so one thread may read it while another adds a key.
    """

    __slots__ = ("_hint", "_keys")

    def __init__(self, keys: Iterable[DataKey], hint: str = "") -> None:
        """`hint` says where a key may be that is not among these, for the errors of files under it."""
        self._keys = tuple(keys)
        self._hint = hint
        if not self._keys:
            raise ValueError("a keyring has at least one key")

    @property
    def keys(self) -> tuple[DataKey, ...]:
        """Every key, oldest first."""
        return self._keys

    @property
    def newest(self) -> DataKey:
        """The key for all that is written from now on."""
        return self._keys[-1]

    def find(self, key_id: bytes) -> DataKey | None:
        """The key with an id, or None if the keyring does not hold it."""
        for key in self._keys:
            if key.id == key_id:
                return key
        return None

    def key_of(self, file: str, key_id: bytes) -> DataKey:
        """The key that the header of `file` names. Raises WrongKey if the keyring does not hold it."""
        key = self.find(key_id)
        if key is None:
            raise WrongKey(file, key_id.hex(), ", ".join(key.id.hex() for key in self._keys), hint=self._hint)
        return key
