"""The order of a connection's requests without pipelining: one runs at a time (spec/protocol.md, section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.connection import SESSION_SERVICE

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.peer.request import Request


class SerialOrder:
    """Chooses the requests that may start, in the order of their streams. ``serves`` says whether a stream's answer is
    still owed, or has frames that have not left.
    """

    __slots__ = ("_running", "_serves")

    def __init__(self, serves: Callable[[int], bool]) -> None:
        self._serves = serves
        self._running = 0  # the stream that runs

    def take(self, arrived: list[Request]) -> list[Request]:
        """Take out of the list the requests that may start; the session service's need not wait."""
        # An answer of several frames ends its stream when the last has left: a later one must not overtake it.
        if not self._serves(self._running):
            request = arrived.pop(0)
            if request.service != SESSION_SERVICE:
                self._running = request.stream
            return [request]
        exempt = [request for request in arrived if request.service == SESSION_SERVICE]
        for request in exempt:
            arrived.remove(request)
        return exempt
