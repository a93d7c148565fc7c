"""The bytes of memory that the entries of the store take.

A size follows from the key and the entry alone, so that every process that applies the same entries counts the same. It
is what a process with a million of them takes, within 10 % (bench/memory.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from haptera.state.results import StoredEntry

#: Bytes of an entry beside the characters of the key and the bytes of the value: both objects, the version, the tuple
#: that holds them, the places in the table and in the index.
ENTRY_OVERHEAD: Final = 228
#: Bytes of the time at which an entry expires, if it does: the number, and the place in the index of such times.
EXPIRY_SIZE: Final = 64
#: Bytes of a character of a key that is not ASCII: one to four, and its UTF-8, which Python keeps beside the text once
#: the key has been in an answer.
_WIDE_CHARACTER_SIZE: Final = 4


def entry_size(key: str, value: bytes, expires_at_ms: int | None) -> int:
    """Bytes of memory of one entry."""
    return ENTRY_OVERHEAD + _key_size(key) + len(value) + (0 if expires_at_ms is None else EXPIRY_SIZE)


def size_added(key: str, value: bytes, expires_at_ms: int | None, previous: StoredEntry | None) -> int:
    """Bytes of memory that an entry adds in the place of the previous one."""
    size = entry_size(key, value, expires_at_ms)
    return size if previous is None else size - entry_size(key, previous[0], previous[2])


def entries_size(keys: Sequence[str], values: Iterable[bytes], expiring: int) -> int:
    """As `entry_size`, of many entries, so many of which expire."""
    ascii_only = "".join(keys).isascii()
    of_keys = sum(map(len if ascii_only else _key_size, keys))
    return len(keys) * ENTRY_OVERHEAD + of_keys + sum(map(len, values)) + expiring * EXPIRY_SIZE


def _key_size(key: str) -> int:
    return len(key) if key.isascii() else len(key) * _WIDE_CHARACTER_SIZE
