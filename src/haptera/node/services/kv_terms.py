"""The terms of the kv service with one connection: the methods that it has, and the answers that it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.kv_groups import TTL
from haptera.node.services.kv_methods import methods_with

if TYPE_CHECKING:
    from haptera.peer import Peer

#: The name of a connection's terms among its attributes.
_TERMS: Final = "haptera.kv.terms"


class Terms:
    """All that the handshake has settled for the kv service. It is found once for a connection, because a read alone
    would spend a tenth of its time on that.

    ``methods`` are the arguments of the connection's methods. ``hides_times`` says that it is not told when keys
    expire, ``identifies`` that the ids of its changes count, and ``message_max`` how many bytes an answer may have.
    """

    __slots__ = ("hides_times", "identifies", "message_max", "methods")

    def __init__(self, peer: Peer) -> None:
        capabilities = peer.capabilities
        self.methods: Final = methods_with(capabilities)
        self.hides_times: Final = TTL not in capabilities
        self.identifies: Final = "idempotency" in capabilities
        self.message_max: Final = peer.max_message

    @classmethod
    def of(cls, peer: Peer) -> Terms:
        """The terms of this connection, whose handshake is done."""
        found: Terms | None = peer.attributes.get(_TERMS)
        if found is None:
            found = peer.attributes[_TERMS] = cls(peer)
        return found
