"""Checks of what a caller passes: ``TypeError`` and ``ValueError`` for mistakes that are in the program itself.

What only the store can judge (an empty key, a value that is too large) is left to it, so that an embedded and a remote
store refuse it alike.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

from haptera.peer.calls import check_timeout

VERSION_MAX = 2**53 - 1
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1
TIMEOUT_SECONDS_MAX = (2**32 - 1) / 1000

Value = str | bytes | bytearray | memoryview
"""What can be stored. Text is stored as UTF-8."""


class Default(Enum):
    """Marks an argument that was not given, where None has a meaning of its own."""

    TIMEOUT = "the database's own timeout"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT = Default.TIMEOUT
Timeout = float | None | Literal[Default.TIMEOUT]
"""Seconds, None for no limit, or the database's own default."""


def plain_key(key: object) -> str:
    """A key as plain ``str``; called for whatever is not one already."""
    if isinstance(key, str):
        return str.__str__(key)
    raise TypeError(f"a key is a str, not {type(key).__name__}")


def plain_value(value: object) -> bytes | bytearray | memoryview:
    """A value as bytes; called for whatever is not ``bytes`` already."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, memoryview):
        return value if value.c_contiguous else value.tobytes()
    if isinstance(value, bytes | bytearray):
        return value
    raise TypeError(f"a value is a str or bytes, not {type(value).__name__}")


def checked_timeout(timeout: float | None) -> float | None:
    """Seconds above 0, or None. A limit longer than the wire can carry (49 days) is no limit."""
    if timeout is None:
        return None
    check_timeout(timeout)
    return float(timeout) if timeout <= TIMEOUT_SECONDS_MAX else None


def checked_int(name: str, number: object, low: int, high: int) -> int:
    """``number`` as an int between ``low`` and ``high``."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name} is an int, not {type(number).__name__}")
    if not low <= number <= high:
        raise ValueError(f"{name} is between {low} and {high}, not {number}")
    return number


def text_option(name: str, text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{name} is a str, not {type(text).__name__}")
    return str.__str__(text)
