"""A data key: the key that segments are encrypted under, and the id by which a header names it (storage-format 2.2)."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["DATA_KEY_SIZE", "KEY_ID_SIZE", "DataKey", "derive"]

DATA_KEY_SIZE = 32
KEY_ID_SIZE = 8


def derive(secret: bytes, salt: bytes | None, purpose: bytes, size: int) -> bytes:
    """HKDF-SHA256 of a secret for one purpose."""
    return HKDF(SHA256(), size, salt, purpose).derive(secret)


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key that data is encrypted under.

    `id` (8 bytes) follows from `secret` (32 bytes), and may be shown; the secret never is. The key was made at
    `created_ms` (Unix milliseconds), and no segment below `first_segment` is under it.
    """

    id: bytes
    secret: bytes = field(repr=False)
    created_ms: int = 0
    first_segment: int = 1

    @classmethod
    def of(cls, secret: bytes, created_ms: int = 0, first_segment: int = 1) -> DataKey:
        """The key with this secret."""
        return cls(derive(secret, None, b"haptera data key id/1", KEY_ID_SIZE), secret, created_ms, first_segment)

    @classmethod
    def new(cls, first_segment: int) -> DataKey:
        """A random key, made now."""
        return cls.of(secrets.token_bytes(DATA_KEY_SIZE), time.time_ns() // 1_000_000, first_segment)

    def derived(self, purpose: bytes) -> bytes:
        """A secret of 32 bytes for another purpose, from which the key does not follow."""
        return derive(self.secret, None, purpose, DATA_KEY_SIZE)
