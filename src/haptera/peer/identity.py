"""The user at the other end of a connection, and its proof."""

from __future__ import annotations

from msgspec import Struct


class Identity(Struct, frozen=True):
    """A user, and the mechanism that has proved its identity: one of spec/protocol.md, section 5.1, or ``local`` for
    the socket of the data directory. Both are empty where a node asks for no proof.
    """

    user: str = ""
    mechanism: str = ""


#: The identity of each peer of a listener that asks for no proof.
ANYONE = Identity()
