"""A connection of a node, by its own protocol or by a dialect's, and the ways in which the node ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.errors import failure
from haptera.node.frontend import DialectCaller
from haptera.peer import Peer, link_of
from haptera.peer import send_away as send_peer_away

if TYPE_CHECKING:
    from typing import Any

#: Both have an address, an identity, a name in the audit log, and an end that others can be told of.
Visitor = Peer | DialectCaller


def refuse(visitor: Visitor, code: int, details: dict[str, Any], *, linger: bool) -> None:
    """End a connection that is not taken, and say why. With ``linger`` it has a second to read that."""
    if isinstance(visitor, DialectCaller):
        visitor.end(failure(code, details, outcome="not_applied"), linger=linger)
    else:
        link_of(visitor).closing.refuse(code, details, linger=linger)


async def send_away(visitor: Visitor, code: int, timeout: float) -> None:
    """End a connection when what it has under way is answered, ``timeout`` seconds later at most, and say why."""
    if isinstance(visitor, DialectCaller):
        await visitor.send_away(failure(code, outcome="not_applied"), timeout)
    else:
        await send_peer_away(visitor, code, timeout)
