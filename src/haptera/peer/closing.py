"""The end of a link: how the transport is closed, and how an orderly end gets there (spec/protocol.md, section 3)."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from haptera.connection import Closed, Role
from haptera.errors import Code, RemoteProtocolError
from haptera.peer.limits import LINGER_S, WRITE_SIZE
from haptera.transport import let_go, untaken

if TYPE_CHECKING:
    from haptera.peer.link import Link

#: Bytes are owed while answers are: everything that is sent until the last of them.
_ALL: Final = sys.maxsize


class Closing:
    """Closes the transport of a link behind its last bytes, and gives the other side time to take them."""

    __slots__ = ("_linger", "_link", "code", "owed", "patience")

    def __init__(self, link: Link) -> None:
        #: The reason that GOAWAY gives.
        self.code: int = Code.GOING_AWAY
        #: The end waits until the time ``patience`` for the other side to take the first ``owed`` of all bytes sent.
        self.owed: int = 0
        self.patience: float = 0.0
        self._link = link
        self._linger: asyncio.TimerHandle | None = None

    def begin(self, *, half: bool) -> None:
        """Write the last bytes and close; with ``half`` the other side is read until it closes, for a second."""
        link = self._link
        transport = link.transport
        if transport is None or transport.is_closing():
            return
        # Small ready messages still leave, and the ERROR with the reason; messages that take turns are forgotten.
        outbox = link.connection.outbox
        outbox.clear()
        while data := link.connection.data_to_send(WRITE_SIZE):
            link.bytes_sent += len(data)
            transport.write(data)
        outbox.settle()
        if half and transport.can_write_eof():
            with suppress(OSError):  # a side that has gone in this instant is told nothing
                transport.write_eof()
        else:
            transport.close()
        self._linger = link.loop.call_later(LINGER_S, self._leave_behind, transport)

    def close(self) -> None:
        """Close the link behind the ready bytes."""
        self.patience = 0.0
        self.tell_answers()
        self._link.end(Closed(None), "it is closed here")

    def abandon(self) -> None:
        """End a link whose loop is closed, so that nothing can be written, waited for or called any more."""
        self.let_go()
        self._link.closed = True

    def let_go(self) -> None:
        """Close this process's descriptor of the socket, and keep nothing for it."""
        link = self._link
        if link.transport is not None:
            stale = link.transport.is_closing() or link.loop.is_closed()
            let_go(link.transport.get_extra_info("socket"), may_be_stale=stale)
        if not link.closed:
            link.connection.close()  # its bytes are charged to this process no longer

    def left_behind(self) -> bool:
        """Whether the link's loop or process is gone, so that nothing is left to end in an orderly way.

        Raises ``WrongLoop`` where the loop is there and does not run here.
        """
        link = self._link
        if link.home.present:
            if not link.closed:
                link.home.check()
            return False
        if not link.home.forked_from:
            self.abandon()
        return True

    def refuse(self, code: int, details: dict[str, Any] | None = None, *, linger: bool = True) -> None:
        """End a link whose handshake is not done, and say why: nothing that was sent behind HELLO is applied.

        With ``linger`` the other side has a second to read it. Without, the transport is closed as soon as the kernel
        has the few bytes: the other side reads them unless its own bytes are answered with a reset first.
        """
        link = self._link
        if link.ending is None:
            link.connection.fail_connection(RemoteProtocolError(code, details=details))
            link.end(Closed(None), "it is refused", half=linger)

    def tell_answers(self) -> None:
        """Say which answers to changes have been read since the other side was told. It leaves with the GOAWAY."""
        connection = self._link.connection
        if self._link.ending is None and connection.has_untold:
            connection.go_away(Code.GOING_AWAY)

    def _leave_behind(self, transport: asyncio.Transport) -> None:
        """The other side has had its time to close: close without it, unless it is still taking its answers."""
        link = self._link
        if link.loop.time() < self.patience and link.bytes_sent - untaken(transport) < self.owed:
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

    def __init__(self, link: Link) -> None:
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
            closing = link.closing
            closing.patience = deadline
            closing.tell_answers()
            link.end(Closed(None), "it is drained", half=True)

    def advance(self) -> None:
        """Nothing waits to be sent any longer, which could not leave behind GOAWAY: go on with the end."""
        link = self._link
        connection, closing = link.connection, link.closing
        if not link.admitted and connection.role is Role.ACCEPTOR:
            # A dialer may have sent requests behind HELLO, and learns that they can be made elsewhere.
            closing.refuse(Code.GOING_AWAY)
            return
        if link.admitted and not self._said_goaway:
            # GOAWAY itself is not owed: a side that is frozen or gone never takes it.
            self._said_goaway = True
            closing.owed = link.bytes_sent
            connection.go_away(closing.code)
        if connection.awaited:
            closing.owed = _ALL
        elif not connection.outbox.pending:
            if closing.owed == _ALL:
                closing.owed = link.bytes_sent
            if not self._done.done():
                self._done.set_result(None)
