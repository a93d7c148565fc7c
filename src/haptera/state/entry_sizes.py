"""The bytes of memory that the entries of the store take.

A size follows from the key and the value alone, so that every process that applies the same entries counts the same. It
is what a process with a million of them takes, within 10 % (bench/memory.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Bytes of an entry beside the characters of the key and the bytes of the value: both objects, the version, the tuple
#: that holds them, the places in the table and in the index.
ENTRY_OVERHEAD: Final = 228
#: Bytes of a character of a key that is not ASCII: one to four, and its UTF-8, which Python keeps beside the text once
#: the key has been in an answer.
_WIDE_CHARACTER_SIZE: Final = 4


def entry_size(key: str, value: bytes) -> int:
    """Bytes of memory of one entry."""
    return ENTRY_OVERHEAD + _key_size(key) + len(value)


def entries_size(keys: Sequence[str], values: Iterable[bytes]) -> int:
    """As `entry_size`, of many."""
    ascii_only = "".join(keys).isascii()
    of_keys = sum(map(len if ascii_only else _key_size, keys))
    return len(keys) * ENTRY_OVERHEAD + of_keys + sum(map(len, values))


def _key_size(key: str) -> int:
    return len(key) if key.isascii() else len(key) * _WIDE_CHARACTER_SIZE
