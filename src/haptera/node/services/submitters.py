"""The submitter of the requests of one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.node.commands import ANONYMOUS, STRANGER, Submitter

if TYPE_CHECKING:
    from haptera.node.commands import Commands
    from haptera.peer import Peer

#: The mechanism of those who come by the socket of the data directory, which only the node's own user can open.
LOCAL_MECHANISM: Final = "local"
#: The names of a connection's submitter among its attributes, and of the commands that it is for.
_KEY: Final = "haptera.submitter"
_COMMANDS: Final = "haptera.commands"


def admit(peer: Peer, commands: Commands) -> None:
    """Take a connection, whose requests are for these commands."""
    peer.attributes[_COMMANDS] = commands


def submitter_of(peer: Peer) -> Submitter:
    """The submitter on whose behalf this connection's requests are made; one that may do nothing before its proof."""
    found: Submitter | None = peer.attributes.get(_KEY)
    if found is not None:
        return found
    identity = peer.identity
    if identity is None:
        return STRANGER
    if not identity.user:
        found = ANONYMOUS
    elif identity.mechanism == LOCAL_MECHANISM:
        found = Submitter(identity.user)
    else:
        commands: Commands = peer.attributes[_COMMANDS]
        found = commands.submitter(identity.user)
    peer.attributes[_KEY] = found
    return found
