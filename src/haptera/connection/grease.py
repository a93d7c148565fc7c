"""Grease: unknown things sent on purpose, so that a peer that cannot skip them is found early.

The reserved values are in spec/protocol.md, section 2.3 (compare RFC 8701).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from haptera.wire import encode_entry, encode_frame

_TAG: Final = 0x7F
_FLAG: Final = 0x8000
_FIRST_TYPE: Final = 0xF0

#: Between two greased messages lie this many others: rare enough to cost nothing, and far below what a receiver's
#: budget for frames without work allows.
_DISTANCE_MIN: Final = 4096
#: The first one comes early, so that short connections have one too.
_FIRST_DISTANCE_MAX: Final = 16


class Grease:
    """Decides when a message is greased, and with which bytes."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        #: The messages before the next greased one. One that is sent without a question whether it is ``due`` is
        #: subtracted by its sender.
        self.distance: int = entropy(1)[0] % _FIRST_DISTANCE_MAX

    def name(self) -> str:
        """Return a capability or handshake key that no one knows."""
        return f"grease-{self._entropy(2).hex()}"

    def due(self) -> bool:
        """Return whether the message about to be sent is to be greased."""
        self.distance -= 1
        if self.distance >= 0:
            return False
        self.distance = _DISTANCE_MIN + int.from_bytes(self._entropy(2), "big")
        return True

    def entry(self) -> bytes:
        """Return a metadata entry with the reserved tag."""
        drawn = self._entropy(4)
        return encode_entry(_TAG, drawn[: drawn[0] % 4])

    def flag(self) -> int:
        """Return the reserved flag."""
        return _FLAG

    def frame(self) -> bytes:
        """Return a frame of a reserved type, to be skipped."""
        drawn = self._entropy(9)
        return encode_frame(_FIRST_TYPE | drawn[0] & 0x0F, 0, 0, b"", drawn[: 1 + drawn[1] % 8])
