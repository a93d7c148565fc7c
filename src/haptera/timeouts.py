"""The timeout of a call, as programs give it."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal


class Default(Enum):
    """Stands for a timeout that is not given, because None means no limit."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        """Return the text in a signature."""
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
#: Seconds, None for no limit, or a default of the object that makes the call.
Timeout = float | Literal[Default.DEFAULT] | None


def check_timeout(timeout: object) -> None:
    """Raise ``TypeError`` unless it is a number, ``ValueError`` unless that is above 0, as NaN is not."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout is a number of seconds or None, not {type(timeout).__name__}")
    if not timeout > 0:
        raise ValueError(f"timeout is a number of seconds above 0, not {timeout}")
