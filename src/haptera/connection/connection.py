"""One connection: frames in, events out; commands in, frames out (spec/protocol.md, sections 3 and 4)."""

from collections.abc import Callable
from typing import Final

from haptera.connection.answers import AnswerReceiver
from haptera.connection.checks import misplaced
from haptera.connection.config import CONTROL_SIZE_MAX, Budget, Config, Role
from haptera.connection.control import PING_SIZE, Control
from haptera.connection.events import Closed, Established, Event
from haptera.connection.flood import FloodError
from haptera.connection.handshake import Agreement, Handshake
from haptera.connection.items import ItemReceiver
from haptera.connection.requests import RequestReceiver
from haptera.connection.sender import Sender
from haptera.connection.table import ConnectionState
from haptera.connection.timekeeping import Timekeeper
from haptera.errors import LocalProtocolError, RemoteProtocolError, failure
from haptera.wire.decoder import FrameDecoder
from haptera.wire.frame import COMPRESSED, FIRST_IGNORABLE_TYPE, SIGNED, STREAM_MAX, Frame, FrameType

_ERROR: Final = int(FrameType.ERROR)
_HANDSHAKE_TYPES: Final = frozenset({int(FrameType.HELLO), int(FrameType.WELCOME)})


class Connection(Sender):
    """The state machine of one connection, without any I/O.

    Give what was read to ``receive_data`` and act on the events; call the command methods; send what
    ``data_to_send`` returns. ``now`` is always a monotonic time in seconds.

    A command that the state does not allow raises ``LocalProtocolError`` and changes nothing. What the peer does wrong
    never raises: it becomes an ERROR on the stream or ends the connection, with an event that says so.
    """

    def __init__(self, role: Role, config: Config, now: float, process_budget: Budget | None = None) -> None:
        config = config.bounded()
        super().__init__(role, config, now, process_budget)
        #: Whole frames that have come, ever.
        self.frames_received = 0
        self._decoder = FrameDecoder(config.limits.max_frame)
        self._time = Timekeeper(config, self._decoder, now)
        self._control = Control(self._streams)
        self._receivers = self._make_receivers()
        self._refused_flags = SIGNED | COMPRESSED  # their capability has not been accepted
        self._handshake: Handshake | None = Handshake(config, self._grease, dials=role is Role.DIALER)
        if self._handshake.sent:
            self.outbox.add_control(self._handshake.sent)

    def _make_receivers(self) -> dict[int, Callable[[Frame], None]]:
        requests = RequestReceiver(self._streams)
        items = ItemReceiver(self._streams)
        answers = AnswerReceiver(self._streams)
        return {
            int(FrameType.REQUEST): requests.receive_request,
            int(FrameType.ITEM): items.receive_item,
            int(FrameType.RESPONSE): answers.receive_response,
            int(FrameType.ERROR): answers.receive_error,
            int(FrameType.CANCEL): requests.receive_cancel,
            int(FrameType.CREDIT): items.receive_credit,
            int(FrameType.FINISH): requests.receive_finish,
            int(FrameType.PING): self._control.receive_ping,
            int(FrameType.PONG): self._control.receive_pong,
            int(FrameType.GOAWAY): self._control.receive_goaway,
        }

    # -- what came in -----------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Take bytes that were read and return what they mean, in order."""
        if self.state >= ConnectionState.CLOSING:
            return []
        streams = self._streams
        streams.now = self._inflow.now = now
        shaking = self.state is ConnectionState.HANDSHAKE
        frames = self._decoder.receive(data)
        self.frames_received += len(frames)
        try:
            for frame in frames:
                self._receive(frame)
                if self.state is ConnectionState.CLOSED:
                    return streams.take_events()
            if shaking:
                # The handshake's frame came alone: it says how what stands behind it is to be read.
                behind = self._decoder.receive(b"")
                self.frames_received += len(behind)
                for frame in behind:
                    self._receive(frame)
                    if self.state is ConnectionState.CLOSED:
                        return streams.take_events()
        except RemoteProtocolError as error:
            self._fail(error)
            return streams.take_events()
        self._time.received(now, frames=bool(frames))
        if self._decoder.error is not None:
            self._fail(self._decoder.error)
        elif self.outbox.control_size > CONTROL_SIZE_MAX:
            self._fail(RemoteProtocolError(3009, "what the peer asks for is not read"))
        else:
            self._inflow.credit_connection()
        return streams.take_events()

    @property
    def more(self) -> bool:
        """Whether ``receive_data(b"")`` may have more to tell: many small frames are taken some hundreds at once."""
        return self._decoder.more and self.state < ConnectionState.CLOSING

    def receive_eof(self) -> list[Event]:
        """Take the end of what the peer sends and return what it means."""
        if self.state >= ConnectionState.CLOSING:
            self.state = ConnectionState.CLOSED
            return []
        # Who connects and leaves without a word has only looked whether somebody listens.
        orderly = not self._decoder.held and (self.state is ConnectionState.OPEN or self.role is Role.ACCEPTOR)
        where = "in the middle" if self._handshake is None or self._decoder.held else "before HELLO was answered"
        self._close(Closed(None if orderly else RemoteProtocolError(1002, f"the connection ended {where}")))
        return self._streams.take_events()

    def _receive(self, frame: Frame) -> None:
        if frame.flags & self._refused_flags:
            self._check_flags(frame)
        if self._handshake is not None:
            self._receive_handshake(self._handshake, frame)
            return
        receiver = self._receivers.get(frame.type)
        if receiver is None:
            self._receive_unknown(frame)
        elif frame.type == _ERROR and not frame.stream:
            self._close(self._control.receive_error(frame))
        else:
            receiver(frame)

    def _check_flags(self, frame: Frame) -> None:
        """Raise 1008 for a flag whose capability was not accepted.

        A SIGNED frame of any type is followed by bytes that are no frame. COMPRESSED means nothing on an unknown type.
        """
        if frame.flags & SIGNED or frame.type in self._receivers or self._handshake is not None:
            raise RemoteProtocolError(
                1008, "a frame has a flag whose capability was not accepted", {"flags": frame.flags}
            )

    def _receive_unknown(self, frame: Frame) -> None:
        if frame.type in _HANDSHAKE_TYPES:
            raise misplaced(frame, "a second handshake")
        if frame.type < FIRST_IGNORABLE_TYPE:
            raise RemoteProtocolError(1005, "a frame's type is critical and not known", {"type": frame.type})
        if frame.stream > STREAM_MAX:
            raise misplaced(frame, "a stream's id is too large")
        self._streams.charge()

    def take_events(self) -> list[Event]:
        """Return what a command has led to, if it is one that says so."""
        return self._streams.take_events()

    # -- the handshake ----------------------------------------------------------------------------------------------

    def _receive_handshake(self, handshake: Handshake, frame: Frame) -> None:
        if frame.type == _ERROR and not frame.stream and self.role is Role.DIALER:
            self._close(self._control.receive_error(frame))
            return
        agreement = handshake.receive(frame)
        if self.role is Role.ACCEPTOR:
            self.outbox.add_control(handshake.sent)
        signers = handshake.signers(agreement)
        if signers is not None:
            self.outbox.sign(signers[0])
            self._decoder.verify(signers[1])
            self._refused_flags &= ~SIGNED
        self._handshake = None
        self._establish(agreement)

    def _establish(self, agreement: Agreement) -> None:
        self.state = ConnectionState.OPEN
        own = self.config.ping_interval_ms if self.role is Role.DIALER else None
        self._time.open(agreement.ping_interval_ms if own is None else own)
        self._streams.events.append(Established())
        self._open(agreement)
        if self._streams.codec is not None:
            self._refused_flags &= ~COMPRESSED

    # -- time -------------------------------------------------------------------------------------------------------

    @property
    def unfinished(self) -> bool:
        """Whether ``tick`` must watch the time: the peer owes the rest of something, or this side owes it credit."""
        return (
            self.state is ConnectionState.HANDSHAKE
            or self._time.frame_begun
            or bool(self._streams.unfinished)
            or self._inflow.credit_due is not None
        )

    def next_tick(self) -> float:
        """Return the time at which ``tick`` has something to do at the earliest, if nothing arrives until then."""
        if self.state >= ConnectionState.CLOSING:
            return float("inf")
        credit_due = self._inflow.credit_due
        due = min(self._time.next_due(), self._streams.next_timeout())
        return due if credit_due is None else min(due, credit_due)

    def tick(self, now: float) -> list[Event]:
        """Let time pass: time out what the peer owes, ask a silent peer for a sign of life."""
        if self.state >= ConnectionState.CLOSING:
            return []
        self._streams.now = self._inflow.now = now
        overdue = self._time.overdue(now)
        if overdue is not None:
            self._fail(overdue)
        else:
            self._streams.expire(now)
            self._inflow.credit_connection()
            if self._time.wants_ping(now):
                self.ping(self.config.entropy(PING_SIZE))
        return self._streams.take_events()

    # -- the connection itself --------------------------------------------------------------------------------------

    def ping(self, payload: bytes) -> None:
        """Send a PING with 8 bytes that the peer's PONG will repeat. Raises ``LocalProtocolError`` if it can't be."""
        if self.state is not ConnectionState.OPEN or len(payload) != PING_SIZE:
            raise LocalProtocolError(1008, "a PING has 8 bytes and an open connection")
        self._control.send_ping(payload)

    def probe(self, now: float) -> bool:
        """Ask the peer for a sign of life, in doubt whether it is there, unless it has given one within a second.

        Return whether it was asked now.
        """
        if self.state is not ConnectionState.OPEN or not self._time.probe(now):
            return False
        self.ping(self.config.entropy(PING_SIZE))
        return True

    def postpone_probe(self, now: float) -> None:
        """Wait longer for the sign of life that ``probe`` asks for: the PING is behind bytes that are being taken."""
        self._time.postpone_probe(now)

    @property
    def has_untold(self) -> bool:
        """Whether answers to changes have been read of which the peer was not told: the next GOAWAY tells it."""
        return self.state is ConnectionState.OPEN and self._streams.changes.untold

    def go_away(self, code: int, message: str | None = None) -> None:
        """Take no more requests: those up to the last one received are answered, later ones get 1014."""
        if self.state is ConnectionState.OPEN:
            self._control.send_goaway(failure(code, message=message))

    def fail_connection(self, error: RemoteProtocolError) -> list[Event]:
        """End the connection for what the owner finds wrong with the peer: that it does not read, for instance."""
        if self.state < ConnectionState.CLOSING:
            self._fail(error)
        return self._streams.take_events()

    def close(self) -> None:
        """End the connection from this side: nothing more is read or sent, and nothing that was queued is kept."""
        self._close(Closed(None))
        self._streams.take_events()
        self.outbox.close()
        self.state = ConnectionState.CLOSED

    def _fail(self, error: RemoteProtocolError) -> None:
        """Tell the peer what it did wrong and stop listening (the "connection error" of the specification)."""
        said = error.failure("not_applied" if self.state is ConnectionState.HANDSHAKE else "unknown")
        self.outbox.clear()
        if isinstance(error, FloodError):
            self.go_away(said.code, said.message)
        else:
            self._control.send_error(said)
        self._close(Closed(error))
        self.state = ConnectionState.CLOSING

    def _close(self, event: Closed) -> None:
        if self.state >= ConnectionState.CLOSING:
            return
        self.state = ConnectionState.CLOSED
        self._streams.close()
        self._inflow.close()
        self._streams.events.append(event)
