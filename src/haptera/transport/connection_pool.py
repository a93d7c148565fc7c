"""The connections of one listener: how many there may be, and which of too many has to go (section 8)."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from haptera.transport.limits import CONNECTIONS_MAX, HALF_OPEN_MAX, half_open_max, leaving_max
from haptera.transport.loop_ownership import after_turns

#: Turns after which a first message that had come with its connection was read: one to watch the socket, one to read
#: it. Of many that connect at one instant, several are accepted in one turn, before any of them can be heard.
_READING_TURNS: Final = 2

C = TypeVar("C")
C_contra = TypeVar("C_contra", contravariant=True)


class Refuse(Protocol[C_contra]):
    """Tells a connection, in the words of its protocol, that it is not taken, and ends it."""

    def __call__(self, connection: C_contra, limit: int | None, /, *, linger: bool) -> Any:
        """``limit`` is the bound that it is beyond, or None where the listener is closed.

        With ``linger`` it has a second to read why. Without, it is closed at once.
        """


class Pool(Generic[C]):
    """The connections of one listener.

    It always accepts, and refuses afterwards: a listener that stops accepting would be held up by silent connections.
    Of more than ``max_connections`` the newest is refused. Of more than ``max_half_open``, or than half of
    ``max_connections``, whose handshake is not done the oldest is dropped, once everything that the half-open ones had
    sent was read: a sincere one has shaken hands long before its turn comes, so that silent connections keep no others
    out.
    """

    def __init__(
        self, refuse: Refuse[C], *, max_connections: int = CONNECTIONS_MAX, max_half_open: int = HALF_OPEN_MAX
    ) -> None:
        #: Open connections, in the order in which they came, so that they end in one order in each run.
        self.connections: dict[C, None] = {}
        self.accepted = 0
        #: Connections that were refused or dropped because there were too many.
        self.refused = 0
        #: Refused connections that are not gone yet.
        self.leaving: dict[C, None] = {}
        self._refuse = refuse
        self._max_connections = max_connections
        self._max_half_open = half_open_max(max_half_open, max_connections)
        self._max_leaving = leaving_max(max_connections)
        self._half_open: dict[C, None] = {}  # the oldest first
        self._closed = False

    @property
    def half_open(self) -> int:
        """The number of connections whose handshake is not done."""
        return len(self._half_open)

    def admit(self, connection: C) -> bool:
        """Take an accepted connection, or refuse it; return whether it was taken."""
        if self._closed:
            self.leaving[connection] = None
            self._refuse(connection, None, linger=True)  # it had connected before the listener was closed
            return False
        if len(self.connections) >= self._max_connections:
            self._drop(connection, self._max_connections)
            return False
        self.accepted += 1
        self.connections[connection] = None
        self._half_open[connection] = None
        if len(self._half_open) > self._max_half_open:
            after_turns(asyncio.get_running_loop(), _READING_TURNS, partial(self._make_room, connection))
        return True

    def established(self, connection: C) -> None:
        """A connection's handshake is done."""
        self._half_open.pop(connection, None)

    def lost(self, connection: C) -> None:
        """A connection is gone; it may never have been admitted."""
        self.connections.pop(connection, None)
        self.leaving.pop(connection, None)
        self._half_open.pop(connection, None)

    def close(self) -> None:
        """Refuse every connection from now on."""
        self._closed = True

    def _make_room(self, connection: C) -> None:
        """Drop the oldest of too many half-open connections for ``connection``, if that one is still half-open itself:
        everything that both had sent when it came has been read by now.
        """
        if len(self._half_open) > self._max_half_open and connection in self._half_open:
            self._drop(next(iter(self._half_open)), self._max_half_open)

    def _drop(self, connection: C, limit: int) -> None:
        self.connections.pop(connection, None)
        self._half_open.pop(connection, None)
        self.refused += 1
        linger = len(self.leaving) < self._max_leaving
        if linger:
            self.leaving[connection] = None
        self._refuse(connection, limit, linger=linger)
