"""One connection of a dialect: the pump between transport and session, its time-outs, its memory and its end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from haptera.connection import Budget
from haptera.errors import Code, RemoteProtocolError, failure
from haptera.node.frontend.caller import DialectCaller
from haptera.peer import describe_remote, is_frame, refusal_of_frame, unix_credentials
from haptera.transport import TlsTransport, read_into_place, tune, untaken

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.errors import Failure, Outcome
    from haptera.node.frontend.dialect import DialectSession
    from haptera.node.frontend.frontend_server import FrontendServer

_logger = logging.getLogger(__name__)

#: Bytes of answers that may wait to be written before no more commands are done (spec/protocol.md, section 3).
UNWRITTEN_MAX: Final = 1024 * 1024
#: Bytes that a connection may hold though the budget of the process is used up: enough for any small command.
HELD_MIN: Final = 64 * 1024
#: A side that takes less than this of the unsent bytes in the time of ``write_timeout`` does not read.
WRITTEN_MIN: Final = 64 * 1024
#: Bytes in a second that a message must bring at least, beside the time that a started one has anyway.
RATE_MIN_BYTES_PER_S: Final = 64 * 1024
#: Seconds that a refused side has to read why.
LINGER_S: Final = 1.0


class FrontendConnection(asyncio.Protocol):
    """Pumps bytes between a transport, whose protocol it is, and the session that the dialect has made for it.

    ``caller`` is the other side. ``full`` says that the session must do no further command until `resume` is called: as
    much waits to be written as may.
    """

    __slots__ = (
        "__weakref__", "_charged", "_deadline", "_drained", "_ending", "_flushing", "_half_open", "_in_session",
        "_known", "_linger", "_out", "_out_size", "_paused", "_reading_paused", "_reason", "_server", "_session",
        "_timer", "_transport", "_unsent", "_user_budget", "_writing", "bytes_received", "bytes_sent", "caller", "full",
        "loop",
    )  # fmt: skip

    caller: DialectCaller

    def __init__(self, server: FrontendServer) -> None:
        self.loop: asyncio.AbstractEventLoop = server.loop
        self.bytes_received: int = 0
        self.bytes_sent: int = 0
        self.full: bool = False
        self._server = server
        self._session: DialectSession | None = None
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._out_size = 0
        self._flushing = False  # whether bytes leave at the end of this turn of the loop
        self._in_session = False  # whether bytes that have arrived are looked at: the answers leave behind that
        self._paused = False  # by the transport: the socket takes less than is written
        self._reading_paused = False
        self._ending = False
        self._half_open = True
        self._known = False  # whether all that tells who the other side is has come
        self._charged = 0
        self._unsent = 0  # bytes that are charged because the other side does not take them
        self._user_budget = Budget(server.budget.limit)  # its own: the process's is the lower one
        self._drained: asyncio.Future[None] | None = None
        self._reason: Failure | None = None  # why it is drained
        # The end of the time of a handshake, or of a message that has begun, and the timer that looks at it.
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None

    # -- the beginning ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is open: make the caller and the session."""
        self._transport = stream = cast("asyncio.Transport", transport)
        stream.set_write_buffer_limits(high=UNWRITTEN_MAX // 2, low=UNWRITTEN_MAX // 8)
        tune(stream)
        server = self._server
        self.caller = DialectCaller(
            server.gateway, self, server.next_number(), describe_remote(stream), unix_credentials(stream)
        )
        self._session = server.make_session(self)
        self._wait_until(self.loop.time() + server.handshake_timeout_s)
        server.opened(self)
        if not isinstance(stream, TlsTransport):
            read_into_place(stream, self)
            self._come_in()

    def _come_in(self) -> None:
        """There is nothing more to learn about the other side: give it the identity that needs no further proof, or the
        time for one.
        """
        if self._ending:
            return
        self._known = True
        caller, transport, server = self.caller, self._transport, self._server
        if isinstance(transport, TlsTransport) and transport.session is not None:
            caller.tls = True
            caller.certificate_names = transport.session.names
        if not server.signed:  # else a message has to prove the key first, and the session says so
            caller.come_in(signed=False)
        if self._half_open:
            self._wait_until(self.loop.time() + server.authentication_timeout_s)

    @property
    def has_spoken(self) -> bool:
        """Whether the other side has sent anything, of the handshake of TLS too."""
        transport = self._transport
        return self.bytes_received > 0 or (isinstance(transport, TlsTransport) and transport.has_spoken)

    def established(self) -> None:
        """The other side has an identity, as far as that is asked for: the connection is half-open no longer (its
        caller calls this).
        """
        if self._half_open:
            self._half_open = False
            self._deadline = None
            self._server.established(self)

    @property
    def ending(self) -> bool:
        """Whether the connection is at its end: nothing more is read or done for it."""
        return self._ending

    # -- reading ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes have been read: hand them to the session."""
        if not self._known:
            self._come_in()
        is_first = not self.bytes_received
        self.bytes_received += len(data)
        session = self._session
        if self._ending or session is None:
            return
        if is_first and is_frame(data):
            self._refuse_frame()
            return
        self._in_session = True
        try:
            session.receive(data)
        except Exception as error:
            self._fail(error)
        finally:
            self._in_session = False
        if self._out:
            self._flush()  # nothing else is known to come in this turn

    def eof_received(self) -> bool:
        """The other side sends no more: as with Redis, that ends the connection."""
        return False

    def pause_reading(self) -> None:
        """Take no more bytes until `resume_reading`: the session has enough to do."""
        if not self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes again."""
        if self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()

    def expect(self, size: int | None) -> None:
        """A message of so many bytes, beside those that have come, has begun, and must be whole in time; None: none is
        unfinished. A call while one is unfinished changes nothing, unless it ends that.
        """
        if self._half_open:
            return  # the time of the handshake is shorter
        if size is None:
            self._deadline = None
        elif self._deadline is None:
            self._wait_until(self.loop.time() + self._server.message_timeout_s + size / RATE_MIN_BYTES_PER_S)

    def charge(self, size: int) -> bool:
        """Charge the bytes that the session holds now: input that is kept, and answers that wait.

        Returns False, and charges them all the same, where that is more than the process may hold, or the connections
        of the user: the session then takes no more in until it holds less. A connection that holds little is within
        both budgets.
        """
        process, user = self._server.budget, self._user_budget
        more = size - self._charged
        process.used += more
        user.used += more
        self._charged = size
        return (process.used <= process.limit and user.used <= user.limit) or size <= HELD_MIN

    def share_budget(self, user: Budget | None) -> None:
        """Charge the bytes to a budget of the user too, from now on; None: it has no user any more."""
        held = self._charged + self._unsent
        self._user_budget.used -= held
        self._user_budget = Budget(self._server.budget.limit) if user is None else user
        self._user_budget.used += held

    # -- writing ----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Have bytes leave at the end of this turn of the loop, with all others of this turn."""
        if self._ending:
            return
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size >= UNWRITTEN_MAX:
            self.full = True
        if self._paused:
            self._charge_unsent(self._unsent + len(data))
        if not self._in_session:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush_later)

    def _flush_later(self) -> None:
        self._flushing = False
        self._flush()

    def _flush(self) -> None:
        transport = self._transport
        if transport is None or self._ending or self._paused:
            return
        self._write_out(transport)
        if self.full and not self._is_paused():  # the write may have paused it
            self._go_on()

    def _write_out(self, transport: asyncio.Transport) -> None:
        if self._out:
            out, self._out = self._out, []
            data = out[0] if len(out) == 1 else b"".join(out)
            self.bytes_sent += self._out_size
            self._out_size = 0
            transport.write(data)
            if self._writing is None and transport.get_write_buffer_size():
                self._watch_reader(transport)

    def _go_on(self) -> None:
        self.full = False
        session = self._session
        if session is not None and not self._ending:
            self.guarded(session.resume)

    def pause_writing(self) -> None:
        """The socket takes less than is written."""
        self._paused = self.full = True
        if self._transport is not None:
            self._charge_unsent(self._transport.get_write_buffer_size() + self._out_size)

    def resume_writing(self) -> None:
        """The socket has caught up."""
        self._paused = False
        self._charge_unsent(0)
        self._flush()

    def _charge_unsent(self, size: int) -> None:
        """Charge answers that are not taken, so that what they hold is not given to other connections, too."""
        self._server.budget.used += size - self._unsent
        self._user_budget.used += size - self._unsent
        self._unsent = size

    def _is_paused(self) -> bool:
        return self._paused

    def _watch_reader(self, transport: asyncio.Transport) -> None:
        taken = self.bytes_sent - untaken(transport)
        self._writing = self.loop.call_later(self._server.write_timeout_s, self._look_at_reader, taken, self.bytes_sent)

    def _look_at_reader(self, before: int, until: int) -> None:
        """End a side that has taken too little of the bytes that waited at the last look."""
        self._writing = None
        transport = self._transport
        if transport is None or self._ending or not transport.get_write_buffer_size():
            return
        taken = self.bytes_sent - untaken(transport)
        if taken < until and taken - before < WRITTEN_MIN:
            waiting = transport.get_write_buffer_size() + self._out_size
            self.end(failure(Code.SLOW_CONSUMER, {"waiting": waiting}), linger=False)
        else:
            self._watch_reader(transport)

    # -- time -------------------------------------------------------------------------------------------------------

    def _wait_until(self, deadline: float) -> None:
        self._deadline = deadline
        if self._timer is None:
            self._timer = self.loop.call_at(deadline, self._look_at_time)

    def _look_at_time(self) -> None:
        """A deadline may be over; one that has moved meanwhile is waited for."""
        self._timer = None
        deadline = self._deadline
        if deadline is None or self._ending:
            return
        if self.loop.time() < deadline:
            self._timer = self.loop.call_at(deadline, self._look_at_time)
        elif not self._known and isinstance(self._transport, TlsTransport) and self._transport.session is not None:
            self._come_in()  # the handshake of TLS is done, and nothing has come inside of it
        else:
            code = Code.HANDSHAKE_TIMEOUT if self._half_open else Code.IDLE_TIMEOUT
            outcome: Outcome = "not_applied" if self._half_open else "unknown"
            self.end(RemoteProtocolError(code).failure(outcome), linger=True)

    # -- the end ----------------------------------------------------------------------------------------------------

    def close(self, fault: Failure | None = None) -> None:
        """Close the connection when all that was written has left. One that is drained is told why.

        A ``fault`` of the other side, of which the session has told it, is logged.
        """
        transport = self._transport
        if self._ending or transport is None:
            return
        if fault is not None:
            self._server.ended(self, fault)
        if self._reason is not None:
            self.end(self._reason, linger=True)
            return
        self._write_out(transport)
        self._ending = True
        self._half_close(transport)

    def abort(self) -> None:
        """Close the connection at once."""
        self._ending = True
        if self._transport is not None:
            self._transport.abort()

    def end(self, reason: Failure, *, linger: bool) -> None:
        """End the connection at once, and say why in the words of its protocol.

        With ``linger`` the other side has a second to read that.
        """
        transport, session = self._transport, self._session
        if self._ending or transport is None:
            return
        self._server.ended(self, reason)
        if session is not None:
            with suppress(Exception):  # words that cannot be said are not said
                self._out.append(session.refusal(reason))
        self._write_out(transport)
        self._ending = True
        if linger:
            self._half_close(transport)
        else:
            transport.close()
            self._linger = self.loop.call_later(LINGER_S, self._leave_behind, transport)

    def _refuse_frame(self) -> None:
        """The other side speaks Haptera: tell it in its own words which protocol this is."""
        told = f"this address speaks {self._server.protocol}, not Haptera"
        self.write(refusal_of_frame(told))
        self.close(RemoteProtocolError(Code.PROTOCOL_VIOLATION, told).failure("not_applied"))

    def _half_close(self, transport: asyncio.Transport) -> None:
        """Send no more, and read on for a second: a plain close may be a reset, which destroys answers on their way."""
        self.resume_reading()
        if transport.can_write_eof():
            with suppress(OSError):
                transport.write_eof()
        else:
            transport.close()
        self._linger = self.loop.call_later(LINGER_S, self._leave_behind, transport)

    def _leave_behind(self, transport: asyncio.Transport) -> None:
        """The other side has had its time to close. One that still takes its answers has longer."""
        if transport.get_write_buffer_size() and self._writing is not None:
            self._linger = self.loop.call_later(LINGER_S, self._leave_behind, transport)
        else:
            self._linger = None
            transport.abort()

    async def drain(self, timeout: float, reason: Failure) -> None:
        """End the connection when its commands are answered, ``timeout`` seconds later at most, and say why."""
        if self._drained is None:
            self._drained = self.loop.create_future()
            self._reason = reason
            session = self._session
            if session is not None and not self._ending:
                self.guarded(session.stop)
        await asyncio.wait((self._drained,), timeout=timeout)
        self.end(reason, linger=True)
        if not self._drained.done():
            await asyncio.wait((self._drained,), timeout=LINGER_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._ending = True
        for timer in (self._timer, self._writing, self._linger):
            if timer is not None:
                timer.cancel()
        session, self._session = self._session, None
        if session is not None:
            try:
                session.lost()
            except Exception as error:
                _logger.error("session_failed", exc_info=error)
        self.charge(0)
        self._charge_unsent(0)
        self._out.clear()
        self.caller.gone()
        self._server.lost(self)
        if self._drained is None:
            self._drained = self.loop.create_future()
        if not self._drained.done():
            self._drained.set_result(None)

    def call_soon(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Call a function of the session in the next turn of the loop, `guarded`."""
        self.loop.call_soon(self.guarded, call, *arguments)

    def guarded(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Call a function of the session. Its defect is logged, and ends this connection alone.

        All calls of a session go through here, but for those that its own calls make: a defect in a callback would
        fall on the part of the node that calls it, and leave the connection without its replies.

        A flush of a full connection may have the session go on, which would end here again: others have a turn before.
        """
        within, self._in_session = self._in_session, True
        try:
            call(*arguments)
        except Exception as error:
            self._fail(error)
        finally:
            self._in_session = within
        if self._out and not within:
            (self._flush_soon if self.full else self._flush)()

    def _fail(self, error: Exception) -> None:
        _logger.error("session_failed", exc_info=error)
        self.abort()
