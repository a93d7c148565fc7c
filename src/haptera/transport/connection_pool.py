"""The connections of one listener: how many there may be, and which of too many has to go (section 8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import takewhile
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
    ``max_connections``, whose handshake is not done an old one is dropped, once everything that the half-open ones had
    sent was read: the oldest that has sent nothing, or the oldest of the others (``has_spoken`` tells which those are)
    where more of these are known. A sincere one has shaken hands long before its turn comes. So silent connections keep
    out none that speaks, however many round trips its handshake takes, and those that stop in the middle of a handshake
    keep out none that has just come and is silent for a moment.
    """

    def __init__(
        self,
        refuse: Refuse[C],
        *,
        max_connections: int = CONNECTIONS_MAX,
        max_half_open: int = HALF_OPEN_MAX,
        has_spoken: Callable[[C], bool] = lambda _: False,
    ) -> None:
        #: Open connections, in the order in which they came, so that they end in one order in each run.
        self.connections: dict[C, None] = {}
        self.accepted: int = 0
        #: Connections that were refused or dropped because there were too many.
        self.refused: int = 0
        #: Refused connections that are not gone yet.
        self.leaving: dict[C, None] = {}
        self._refuse = refuse
        self._max_connections = max_connections
        self._max_half_open = half_open_max(max_half_open, max_connections)
        self._max_leaving = leaving_max(max_connections)
        self._has_spoken = has_spoken
        # The half-open ones, the oldest first: those of which no byte is known yet, and those that have sent something.
        self._silent: dict[C, None] = {}
        self._spoken: dict[C, None] = {}
        self._closed = False

    @property
    def half_open(self) -> int:
        """The number of connections whose handshake is not done."""
        return len(self._silent) + len(self._spoken)

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
        self._silent[connection] = None
        if self.half_open > self._max_half_open:
            after_turns(asyncio.get_running_loop(), _READING_TURNS, partial(self._make_room, connection))
        return True

    def established(self, connection: C) -> None:
        """A connection's handshake is done."""
        self._forget(connection)

    def lost(self, connection: C) -> None:
        """A connection is gone; it may never have been admitted."""
        self.connections.pop(connection, None)
        self.leaving.pop(connection, None)
        self._forget(connection)

    def close(self) -> None:
        """Refuse every connection from now on."""
        self._closed = True

    def _make_room(self, connection: C) -> None:
        """Drop one of too many half-open connections for ``connection``, if that one is still half-open itself:
        everything that all had sent when it came has been read by now.
        """
        if self.half_open > self._max_half_open and (connection in self._silent or connection in self._spoken):
            self._sort()
            of_more = self._spoken if len(self._spoken) >= len(self._silent) else self._silent
            self._drop(next(iter(of_more)), self._max_half_open)

    def _sort(self) -> None:
        """Find the oldest silent one. All behind it count as silent until it is gone: so no look goes through all."""
        for connection in list(takewhile(self._has_spoken, self._silent)):
            del self._silent[connection]
            self._spoken[connection] = None

    def _forget(self, connection: C) -> None:
        """A connection is half-open no longer."""
        self._silent.pop(connection, None)
        self._spoken.pop(connection, None)

    def _drop(self, connection: C, limit: int) -> None:
        self.connections.pop(connection, None)
        self._forget(connection)
        self.refused += 1
        linger = len(self.leaving) < self._max_leaving
        if linger:
            self.leaving[connection] = None
        self._refuse(connection, limit, linger=linger)
