"""The master key, under which the data keys are encrypted where they are kept (storage-format 2.2 and 2.3)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final

from haptera.secret_forms import KEY_SIZE, form_of, key_in
from haptera.storage.data_key import KEY_ID_SIZE, derive

__all__ = ["MASTER_KEY_FORM", "MasterKey"]

#: The form of a master key, for errors.
MASTER_KEY_FORM: Final = form_of("a master key")


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A master key. `id` (8 bytes) follows from `secret` (32 bytes), and may be shown; the secret never is."""

    id: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> MasterKey:
        """The key with this secret."""
        return cls(derive(secret, None, b"haptera master key id/1", KEY_ID_SIZE), secret)

    @classmethod
    def new(cls) -> MasterKey:
        """A random key."""
        return cls.of(secrets.token_bytes(KEY_SIZE))

    @classmethod
    def parse(cls, data: bytes, *, raw: bool = True) -> MasterKey | None:
        """The key in the content of a file, a variable or an output: 64 hex digits with white space around them, or if
        `raw` the 32 bytes as they are; None for anything else.
        """
        secret = key_in(data, raw=raw)
        return None if secret is None else cls.of(secret)

    def format(self) -> bytes:
        """The key as the content of a file."""
        return self.secret.hex().encode() + b"\n"
