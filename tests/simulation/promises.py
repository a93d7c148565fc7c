"""How a simulation says that a promise was broken."""

from __future__ import annotations


class PromiseBroken(AssertionError):
    """An answer, an event or a state that the promises rule out."""


def require(holds: bool, text: str) -> None:
    """Raise PromiseBroken unless ``holds``."""
    if not holds:
        raise PromiseBroken(text)
