"""The name of the mechanism, by itself: a peer that has no password loads nothing else of this layer."""

from __future__ import annotations

from typing import Final

#: The name in WELCOME and in `authenticate`.
SCRAM_SHA_256: Final = "SCRAM-SHA-256"
