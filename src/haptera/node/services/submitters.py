"""The submitter of the requests of one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.node.commands import ANONYMOUS, Submitter

if TYPE_CHECKING:
    from haptera.peer import Peer

_KEY: Final = "submitter"


def submitter_of(peer: Peer) -> Submitter:
    """The submitter on whose behalf this connection's requests are made; its identity is proved by then."""
    found: Submitter | None = peer.attributes.get(_KEY)
    if found is None:
        user = "" if peer.identity is None else peer.identity.user
        found = peer.attributes[_KEY] = Submitter(user) if user else ANONYMOUS
    return found
