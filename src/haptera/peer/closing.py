"""The end of a link: how the transport is closed, and how an orderly end gets there (spec/protocol.md, section 3)."""

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from haptera.connection import Closed, Role
from haptera.peer.limits import LINGER_S
from haptera.transport import unacknowledged

if TYPE_CHECKING:
    from haptera.peer.link import Link

#: What is owed while answers are: everything that is sent until the last of them.
_ALL: Final = sys.maxsize


class Closing:
    """Closes the transport of a link behind its last bytes, and gives the other side time to take them."""

    __slots__ = ("_linger", "_link", "owed", "patience")

    def __init__(self, link: "Link") -> None:
        #: The end waits until the time ``patience`` for the other side to take the first ``owed`` of all bytes sent.
        self.owed = 0
        self.patience = 0.0
        self._link = link
        self._linger: asyncio.TimerHandle | None = None

    def begin(self, *, half: bool) -> None:
        """Write what still leaves and close; with ``half`` the other side is read until it closes, for a second."""
        link = self._link
        transport = link.transport
        if transport is None or transport.is_closing():
            return
        link.write_last()
        if half and transport.can_write_eof():
            with suppress(OSError):  # a side that has gone in this instant is told nothing
                transport.write_eof()
        else:
            transport.close()
        self._linger = link.loop.call_later(LINGER_S, self._leave_behind, transport)

    def _leave_behind(self, transport: asyncio.Transport) -> None:
        """The other side has had its time to close: close without it, unless it is still taking what it is owed."""
        link = self._link
        untaken = transport.get_write_buffer_size() + unacknowledged(transport)
        if link.loop.time() < self.patience and link.bytes_sent - untaken < self.owed:
            self._linger = link.loop.call_later(LINGER_S, self._leave_behind, transport)
        else:
            self._linger = None
            transport.abort()

    def stop(self) -> None:
        """Stop waiting: the transport is closed."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None


class Drain:
    """The orderly end of a link: no new request, an answer to each one under way, then the end."""

    __slots__ = ("_done", "_link", "_said_goaway")

    def __init__(self, link: "Link") -> None:
        self._link = link
        self._done: asyncio.Future[None] = link.loop.create_future()
        self._said_goaway = False
        link.draining = True

    async def run(self, timeout: float) -> None:
        """Wait until nothing is owed, for ``timeout`` seconds at most, and end the link."""
        link = self._link
        deadline = link.loop.time() + timeout
        if link.ending is None:
            link.schedule_flush()
            await asyncio.wait((self._done, link.gone), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if link.ending is None:
            # Not a plain close: that would be a reset, which destroys answers on their way, if anything is unread.
            link.closing.patience = deadline
            link.tell_answers()
            link.end(Closed(None), "it is drained", half=True)

    def advance(self) -> None:
        """Nothing waits to be sent any longer, which could not leave behind GOAWAY: go on with the end."""
        link = self._link
        connection, closing = link.connection, link.closing
        if not link.established and connection.role is Role.ACCEPTOR:
            # A dialer may have sent requests behind HELLO, and learns that they can be made elsewhere.
            link.refuse(1014)
            return
        if link.established and not self._said_goaway:
            # GOAWAY itself is not owed: a side that is frozen or gone never takes it.
            self._said_goaway = True
            closing.owed = link.bytes_sent
            connection.go_away(1014)
        if connection.awaited:
            closing.owed = _ALL
        elif not connection.outbox.pending:
            if closing.owed == _ALL:
                closing.owed = link.bytes_sent
            if not self._done.done():
                self._done.set_result(None)
