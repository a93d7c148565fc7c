"""The entry that a read of the store gives."""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One key of the store with its value, as it was at one revision.

    ``key`` is the key, ``value`` its bytes (empty in a scan with ``keys_only``), ``version`` the store's revision at
    which the key was last written, and ``expires_at`` Unix time in seconds, or None for a key that does not expire.
    """

    key: str
    value: bytes
    version: int
    expires_at: float | None = None

    @property
    def text(self) -> str:
        """The value as text; raises ``UnicodeDecodeError`` (a ``ValueError``) if it is not UTF-8."""
        return self.value.decode()


def entry_of(key: str, value: bytes, version: int, expires_at_ms: int | None) -> Entry:
    """The entry of a row of the wire, where times are milliseconds."""
    return Entry(key, value, version, None if expires_at_ms is None else expires_at_ms / 1000)
