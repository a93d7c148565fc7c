"""How a listener of the messaging library has its peers prove who they are.

PasswordUsers, verifier_for, Verifier       users with passwords
Authenticator, Identity                     for a program with users of another kind
SCRAM, EXTERNAL, PLAIN                      the mechanisms
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.lazy import lazily

if TYPE_CHECKING:
    from haptera.peer import (
        EXTERNAL,
        PLAIN,
        SCRAM,
        Authenticator,
        Identity,
        PasswordUsers,
        Verifier,
        decoy,
        verifier_for,
    )

__all__ = [
    "EXTERNAL",
    "PLAIN",
    "SCRAM",
    "Authenticator",
    "Identity",
    "PasswordUsers",
    "Verifier",
    "decoy",
    "verifier_for",
]

if not TYPE_CHECKING:  # a type checker would take it to mean that any name is there
    __getattr__ = lazily(__name__, dict.fromkeys(__all__, "haptera.peer"))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
