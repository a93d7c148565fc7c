"""The form of a key of 32 bytes in a file, a variable or an output: the bytes as they are, or hex digits."""

from __future__ import annotations

import re
from typing import Final

#: Bytes of a key, and its hex digits as text.
KEY_SIZE: Final = 32
KEY_DIGITS: Final = 2 * KEY_SIZE
_DIGITS: Final = re.compile(rb"[0-9A-Fa-f]+", re.ASCII)
_HEX: Final = re.compile(rb"\s*([0-9A-Fa-f]{64})\s*", re.ASCII)


def form_of(name: str) -> str:
    """Return the form of a key for errors, which never quote anything that was there instead."""
    return f"{name} is {KEY_SIZE} bytes, raw or as {KEY_DIGITS} hex digits"


def key_in(data: bytes, *, raw: bool = True) -> bytes | None:
    """Return the key in a content: 64 hex digits with white space around them, or if ``raw`` the 32 bytes as they are;
    None for anything else.
    """
    if raw and len(data) == KEY_SIZE:
        return data
    match = _HEX.fullmatch(data)
    return bytes.fromhex(match[1].decode()) if match else None


def size_of_no_key(data: bytes) -> str:
    """Return how much there is of something that is no key, for errors, without a byte of it."""
    text = data.strip()
    if _DIGITS.fullmatch(text):
        return f"{len(text)} hex digits"
    if len(text) == KEY_DIGITS:
        return f"{KEY_DIGITS} bytes that are not all hex digits"
    return f"{len(data)} bytes"
