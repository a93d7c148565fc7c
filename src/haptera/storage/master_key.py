"""The master key, under which the data keys are encrypted where they are kept (storage-format 2.2 and 2.3)."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from haptera.storage.data_key import KEY_ID_SIZE, derive

__all__ = ["MASTER_KEY_DIGITS", "MASTER_KEY_FORM", "MASTER_KEY_SIZE", "MasterKey", "size_of_no_key"]

MASTER_KEY_SIZE: Final = 32
#: Hex digits of a master key as text.
MASTER_KEY_DIGITS: Final = 2 * MASTER_KEY_SIZE
#: The form of a master key, for errors: they never quote what was there instead.
MASTER_KEY_FORM: Final = f"a master key is {MASTER_KEY_SIZE} bytes, raw or as {MASTER_KEY_DIGITS} hex digits"
_DIGITS: Final = re.compile(rb"[0-9A-Fa-f]+", re.ASCII)
_HEX: Final = re.compile(rb"\s*([0-9A-Fa-f]{64})\s*", re.ASCII)


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
        return cls.of(secrets.token_bytes(MASTER_KEY_SIZE))

    @classmethod
    def parse(cls, data: bytes, *, raw: bool = True) -> MasterKey | None:
        """The key in the content of a file, a variable or an output: 64 hex digits with white space around them, or if
        `raw` the 32 bytes as they are; None for anything else.
        """
        if raw and len(data) == MASTER_KEY_SIZE:
            return cls.of(data)
        match = _HEX.fullmatch(data)
        return cls.of(bytes.fromhex(match[1].decode())) if match else None

    def format(self) -> bytes:
        """The key as the content of a file."""
        return self.secret.hex().encode() + b"\n"


def size_of_no_key(data: bytes) -> str:
    """How much there is of something that is no master key, for errors, without a byte of it."""
    text = data.strip()
    if _DIGITS.fullmatch(text):
        return f"{len(text)} hex digits"
    if len(text) == MASTER_KEY_DIGITS:
        return f"{MASTER_KEY_DIGITS} bytes that are not all hex digits"
    return f"{len(data)} bytes"
