"""RESP as a dialect of a node (`haptera.node.frontend.Dialect`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from haptera.dialects.resp.client_details import details_of
from haptera.dialects.resp.resp_session import RespSession
from haptera.dialects.resp.resp_state import RespListener, RespState
from haptera.errors import ConfigurationError

if TYPE_CHECKING:
    from haptera.node.frontend import FrontendConnection
    from haptera.transport import Address


class RespDialect:
    """The protocol of Redis, at the port of Redis."""

    protocol = "resp"
    options: ClassVar[frozenset[str]] = frozenset({"debug"})

    def settings(self, address: Address) -> RespListener:
        """Return the options of a listener. ``debug=yes`` has it take DEBUG SLEEP, for tests."""
        debug = address.options.get("debug", "no")
        if debug not in {"yes", "no"}:
            raise ConfigurationError(f"{address}: debug is yes or no")
        return RespListener(port=address.hosts[0][1] if address.hosts else 0, debug=debug == "yes")

    def is_signed(self, settings: Any) -> bool:
        """No message is signed: a connection logs in."""
        return False

    def session(self, connection: FrontendConnection, settings: RespListener) -> RespSession:
        """Make the session of a new connection."""
        state = connection.caller.facts.kept(RespState)
        details_of(connection.caller)  # from here on it is in the list of clients
        return RespSession(connection, state, settings)
