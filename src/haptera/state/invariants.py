"""How the parts of the state say that one of their invariants is broken."""

from __future__ import annotations


def require(condition: bool, invariant: str) -> None:
    """Raise ``AssertionError`` with the invariant if it does not hold."""
    if not condition:
        raise AssertionError(f"broken invariant: {invariant}")
