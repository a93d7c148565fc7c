"""The connections whose bytes strangers cannot read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.peer import host_of, link_of
from haptera.transport import is_loopback

if TYPE_CHECKING:
    from haptera.peer import Peer

#: The name of the other end of a Unix socket.
_UNIX: Final = "unix"


def is_private(peer: Peer) -> bool:
    """Whether a connection is inside TLS, or does not leave this machine."""
    if link_of(peer).tls is not None or peer.remote == _UNIX:
        return True
    return is_loopback(host_of(peer.remote))
