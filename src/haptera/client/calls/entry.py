"""The entry that a read of the store gives."""

from __future__ import annotations

from typing import Final

import msgspec

#: Bytes of a value that the text of an entry shows: a prompt prints it, and a value may have 8 MiB.
VALUE_SHOWN_MAX: Final = 60


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One key of the store with its value, as it was at one revision.

    ``key`` is the key, ``value`` its bytes (empty in a scan with ``keys_only``), ``version`` the store's revision at
    which the key was last written, and ``expires_at`` Unix time in seconds, or None for a key that does not expire.
    """

    key: str
    value: bytes
    version: int
    expires_at: float | None = None

    def __repr__(self) -> str:
        shown = [f"key={self.key!r}", f"value={short(self.value)}", f"version={self.version}"]
        if self.expires_at is not None:
            shown.append(f"expires_at={self.expires_at!r}")
        return f"Entry({', '.join(shown)})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show no more than ``repr`` does."""
        return [("entry", repr(self))]

    @property
    def text(self) -> str:
        """The value as text; raises ``UnicodeDecodeError`` (a ``ValueError``) if it is not UTF-8."""
        return self.value.decode()


def short(value: bytes) -> str:
    """A value as an object's text shows it: of a long one the beginning and the size."""
    if len(value) <= VALUE_SHOWN_MAX:
        return repr(value)
    return f"{value[:VALUE_SHOWN_MAX]!r}… ({len(value):,} bytes)"


def entry_of(key: str, value: bytes, version: int, expires_at_ms: int | None) -> Entry:
    """The entry of a row of the wire, where times are milliseconds."""
    return Entry(key, value, version, None if expires_at_ms is None else expires_at_ms / 1000)
