"""Ranges of keys. The order of keys is that of their UTF-8 bytes, which is the order of Python's text comparison."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

_LAST_CODE_POINT: Final = "\U0010ffff"


class KeyRange(Struct, frozen=True):
    """The keys from ``low`` (itself too, unless ``low_open``) up to, not including, ``high`` (None: to the end)."""

    low: str = ""
    low_open: bool = False
    high: str | None = None

    @property
    def empty(self) -> bool:
        """Whether no key can be in it."""
        return self.high is not None and self.low >= self.high

    def holds(self, key: str) -> bool:
        """Whether a key is in it."""
        return (key > self.low if self.low_open else key >= self.low) and (self.high is None or key < self.high)


EVERYTHING: Final = KeyRange()


def prefix_end(prefix: str) -> str | None:
    """The first text behind every text that begins with ``prefix``; None where there is none."""
    stem = prefix.rstrip(_LAST_CODE_POINT)
    return stem[:-1] + chr(ord(stem[-1]) + 1) if stem else None


def key_range(
    prefixes: tuple[str | None, ...],
    start: str | None = None,
    end: str | None = None,
    after: str | None = None,
    *,
    reverse: bool = False,
) -> KeyRange:
    """The keys that a scan or count covers: the keys with all ``prefixes``, from ``start`` to before ``end``, beyond
    ``after``.

    Beyond is above ``after``, and below it for a reverse scan: a cursor is a key, so writes between two scans neither
    hide an entry nor show one twice.
    """
    low, high, low_open = start or "", end, False
    for prefix in prefixes:
        if prefix:
            low = max(low, prefix)
            high = _lower(high, prefix_end(prefix))
    if after is not None:
        if reverse:
            high = _lower(high, after)
        elif after >= low:
            low, low_open = after, True
    return KeyRange(low, low_open, high)


def _lower(high: str | None, other: str | None) -> str | None:
    if high is None or other is None:
        return other if high is None else high
    return min(high, other)
