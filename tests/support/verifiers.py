"""The verifier of a password that no one knows, for users that only have to be there."""

from __future__ import annotations

from typing import Final

from haptera.state.access_operations import StoredVerifier

VERIFIER: Final = StoredVerifier(b"s" * 16, 600_000, b"k" * 32, b"K" * 32)
