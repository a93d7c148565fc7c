"""The caller of a request, as the audit log names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.node.audit.event import AuditCaller

if TYPE_CHECKING:
    from haptera.node.visitor import Visitor
    from haptera.peer import Identity

__all__ = ["caller_of"]

_KEY: Final = "caller"


def caller_of(peer: Visitor) -> AuditCaller:
    """The connection and its user. It is made once for each identity that the connection has."""
    known: tuple[Identity | None, AuditCaller] | None = peer.attributes.get(_KEY)
    identity = peer.identity
    if known is None or known[0] is not identity:
        user, mechanism = ("", "") if identity is None else (identity.user, identity.mechanism)
        known = identity, AuditCaller(peer.session.hex(), peer.remote, user, mechanism)
        peer.attributes[_KEY] = known
    return known[1]
