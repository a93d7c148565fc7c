"""A dialect, as a node has it: another protocol in front of the same commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from haptera.errors import Failure
    from haptera.node.frontend.frontend_connection import FrontendConnection
    from haptera.transport import Address


class DialectSession(Protocol):
    """One connection, as its dialect sees it: the bytes, and the commands that are under way.

    It is called on the loop of its node. An exception is a defect: it is logged, and ends the connection.
    """

    def receive(self, data: bytes) -> None:
        """Take bytes that have arrived. None come while the connection's reading is paused."""

    def resume(self) -> None:
        """Go on with what was kept: the connection was ``full``, and has room for answers again."""

    def refusal(self, reason: Failure) -> bytes:
        """Return the last words to the other side, because the node ends the connection for this reason.

        They may be the first bytes of the connection, too. Empty where the protocol has no words for it.
        """

    def stop(self) -> None:
        """Take no command any more, and close the connection once the ones under way are answered."""

    def lost(self) -> None:
        """Take back what no one waits for any more: the connection is gone."""


class Dialect(Protocol):
    """A protocol that a node speaks at the listeners whose URLs name it."""

    @property
    def protocol(self) -> str:
        """The name of the protocol in URLs; `haptera.defaults.PORTS` has its port."""

    @property
    def options(self) -> frozenset[str]:
        """The names of its own options in a URL, beside those of TLS."""

    def settings(self, address: Address) -> Any:
        """Read the values of its own options in the URL of a listener, and the files that they name.

        Raises ConfigurationError.
        """

    def is_signed(self, settings: Any) -> bool:
        """Whether each message is proved by a key that both sides share, so that no login is needed.

        The session then calls `DialectCaller.come_in` when the first message is proved.
        """

    def session(self, connection: FrontendConnection, settings: Any) -> DialectSession:
        """Make the session of a new connection, whose `FrontendConnection.caller` is set."""
