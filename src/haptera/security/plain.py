"""PLAIN's one message (RFC 4616), without an identity to act as (spec/protocol.md, section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from haptera.access_rules import NAME_SIZE_MAX, PASSWORD_SIZE_MAX, is_name, is_password
from haptera.security.errors import ExchangeFailed

_SIZE_MAX: Final = NAME_SIZE_MAX + PASSWORD_SIZE_MAX + 2
_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class PlainLogin:
    """A name, and the password that the peer claims to be its."""

    name: str
    password: str = field(repr=False)


def write_plain(login: PlainLogin) -> bytes:
    """Return the message. Raises ``ValueError`` for a name or a password that cannot be one; neither is repeated."""
    if not is_name(login.name) or not is_password(login.password):
        raise ValueError("the name or the password cannot be one")
    return f"\0{login.name}\0{login.password}".encode()


def read_plain(message: bytes) -> PlainLogin:
    """Return the name and the password that a message holds. Raises `ExchangeFailed`."""
    if len(message) > _SIZE_MAX:
        raise ExchangeFailed("the PLAIN message is too long")
    try:
        parts = message.decode().split("\0")
    except UnicodeDecodeError:
        parts = []
    if len(parts) != _PARTS or parts[0] or not is_name(parts[1]) or not is_password(parts[2]):
        raise ExchangeFailed("the PLAIN message is malformed")
    return PlainLogin(parts[1], parts[2])
