"""RESP as a dialect of a node (`haptera.node.frontend.Dialect`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haptera.dialects.resp.resp_session import RespSession
from haptera.dialects.resp.resp_state import RespState

if TYPE_CHECKING:
    from haptera.node.frontend import FrontendConnection
    from haptera.transport import Address


class RespDialect:
    """The protocol of Redis, at the port of Redis."""

    protocol = "resp"
    options: frozenset[str] = frozenset()

    def settings(self, address: Address) -> RespState:
        """Return what the connections of one listener share: it has no options of its own."""
        return RespState()

    def is_signed(self, settings: Any) -> bool:
        """No message is signed: a connection logs in."""
        return False

    def session(self, connection: FrontendConnection, settings: RespState) -> RespSession:
        """Make the session of a new connection."""
        return RespSession(connection, settings)
