"""One connection: frames in, events out; commands in, frames out (spec/protocol.md, sections 3 and 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from haptera.connection.answer_frames import AnswerSender
from haptera.connection.beginning import Beginning
from haptera.connection.config import CONTROL_SIZE_MAX, Budget, Config, Role
from haptera.connection.control_frames import PING_SIZE, ClosedError, Control
from haptera.connection.events import Closed, Event
from haptera.connection.flood import FloodError
from haptera.connection.frame_router import FrameRouter
from haptera.connection.grease import Grease
from haptera.connection.item_frames import ItemReceiver, ItemSender
from haptera.connection.memory_ledger import Ledger
from haptera.connection.open_streams import Streams
from haptera.connection.outgoing_metadata import Heads
from haptera.connection.outgoing_requests import Requester
from haptera.connection.stream_law import ConnectionState
from haptera.connection.timekeeping import Timekeeper
from haptera.errors import Code, LocalProtocolError, RemoteProtocolError, failure
from haptera.wire import (
    FRAMES_MAX,
    ForeignBytes,
    Frame,
    FrameDecoder,
)

if TYPE_CHECKING:
    from haptera.connection.guard import Guard
    from haptera.connection.handshake import Agreement
    from haptera.connection.outbox import Outbox
    from haptera.connection.stream_halves import Stream

_ALL: Final = 2**62


class Connection:
    """The state machine of one connection, without any I/O.

    Give the bytes that were read to ``receive_data`` and act on the events; call the commands; send the bytes that
    ``data_to_send`` returns. ``now`` is always a monotonic time in seconds.

    A command that the state does not allow raises ``LocalProtocolError`` and changes nothing. A fault of the peer never
    raises: it becomes an ERROR on the stream or ends the connection, with an event that says so.

    The commands that concern a stream are methods of the parts that they are attributes of, because each call would
    pay for a method in between.
    """

    __slots__ = (
        "__weakref__",
        "_control",
        "_decoder",
        "_inflow",
        "_reception",
        "_requester",
        "_streams",
        "_time",
        "agreement",
        "ask_left",
        "ask_room",
        "authenticate",
        "beginning",
        "can_request",
        "cancel",
        "config",
        "fail",
        "finish",
        "frames_received",
        "ledger",
        "outbox",
        "release",
        "request",
        "respond",
        "respond_all",
        "role",
        "send_item",
        "state",
        "take_events",
        "take_item",
        "take_writable",
        "try_item",
        "try_items",
        "try_request",
    )

    def __init__(self, role: Role, config: Config, now: float, process_budget: Budget | None = None) -> None:
        config = config.bounded()
        self.role: Role = role
        self.config: Config = config
        self.state: ConnectionState = ConnectionState.HANDSHAKE
        #: The terms that both sides agreed on; None before the handshake is done.
        self.agreement: Agreement | None = None
        #: Whole frames that have come, ever.
        self.frames_received: int = 0
        #: The bytes that the connection has in memory.
        self.ledger: Ledger = Ledger(config.budget, process_budget)
        self._streams = streams = Streams(int(role), config, self.ledger, now)
        self._inflow = streams.inflow
        #: The unsent frames.
        self.outbox: Outbox = streams.outbox
        self._decoder = FrameDecoder(config.limits.max_frame)
        self._time = Timekeeper(config, self._decoder, now)
        self._control = Control(streams)
        grease = Grease(config.entropy) if config.grease else None
        heads = Heads(self.outbox, grease, config.entropy)
        flies = role is Role.DIALER and config.flies and not config.signs
        self._requester = Requester(streams, heads, flies=flies)
        self.request: Final = self._requester.request
        self.try_request: Final = self._requester.try_request
        self.authenticate: Final = self._requester.authenticate
        self.can_request: Final = self._requester.can_request
        self.finish: Final = self._requester.finish
        self.cancel: Final = self._requester.cancel
        self.release: Final = self._requester.release
        producer = ItemSender(streams)
        self.send_item: Final = producer.send_item
        self.try_item: Final = producer.try_item
        self.try_items: Final = producer.try_items
        self.ask_room: Final = producer.ask_room
        self.ask_left: Final = producer.ask_left
        items = ItemReceiver(streams)
        self.take_item: Final = items.take_item
        answers = AnswerSender(streams, heads)
        self.respond: Final = answers.respond
        self.respond_all: Final = answers.respond_all
        self.fail: Final = answers.fail
        self.take_events: Final = streams.take_events
        self.take_writable: Final = self.outbox.take_writable
        self._reception = FrameRouter(streams, self._control, items)
        #: The handshake, and the proof of an identity behind it; None as soon as the two sides serve each other.
        self.beginning: Beginning | None = Beginning(
            role, config, grease, streams, self._requester, established=self._establish, ended=self._begin_service
        )
        self.beginning.use(self._decoder, self._reception, self._control, self._time)

    # -- how it stands ----------------------------------------------------------------------------------------------

    @property
    def open_streams(self) -> int:
        """Streams of both sides that have no answer yet."""
        return len(self._streams.calls) + len(self._streams.serves)

    @property
    def awaited(self) -> bool:
        """Whether an answer is still waited for: the peer's to a call that was not given up, or one of this side's."""
        streams = self._streams
        return bool(streams.serves) or any(
            stream.made_sending is None or not stream.made_sending.cancelled for stream in streams.calls.values()
        )

    @property
    def streams_opened(self) -> int:
        """A number that grows with each stream that either side opens."""
        return self._streams.next_call + self._streams.highest

    @property
    def max_message(self) -> int:
        """The largest message, in bytes, that the peer takes; 0 before the handshake is done."""
        return 0 if self.agreement is None else self._streams.peer_message_max

    @property
    def open_calls(self) -> Mapping[int, Stream]:
        """The streams that this side opened and that have no answer yet."""
        return self._streams.calls

    def serves(self, id_: int) -> bool:
        """Whether a stream that the peer opened has no answer yet, or one that has not left."""
        return id_ in self._streams.serves

    def owes(self, id_: int) -> bool:
        """Whether a stream that the peer opened is still to be answered: no answer to it is decided."""
        stream = self._streams.serves.get(id_)
        return stream is not None and not stream.answered

    def keeps_items(self, id_: int) -> bool:
        """Whether ITEMs wait to leave on a stream that the peer opened."""
        stream = self._streams.serves.get(id_)
        return stream is not None and bool(stream.sending.queue)

    @property
    def guarded(self) -> bool:
        """Whether the handshake is done, and a proof of the dialer's identity is still to be accepted."""
        return self.beginning is not None and self.beginning.guard is not None

    @property
    def admitted(self) -> bool:
        """Whether the handshake is done, and so is the proof if one is asked for: the two sides serve each other."""
        return self.beginning is None

    @property
    def first_flight(self) -> int:
        """How many requests were sent behind HELLO."""
        return self._requester.first_flight

    @property
    def going_away(self) -> bool:
        """Whether no more requests may be sent: one of the two sides has said GOAWAY."""
        return self._streams.going_away

    def check(self) -> None:
        """Assert the invariants of an open connection's streams, queues, windows and accounts."""
        if self.state <= ConnectionState.OPEN:
            self._streams.check()

    # -- received bytes ---------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float, frames_max: int = FRAMES_MAX) -> list[Event]:
        """Take bytes that were read and return their events, in order, of ``frames_max`` frames at most."""
        if self.state >= ConnectionState.CLOSING:
            return []
        streams = self._streams
        streams.now = self._inflow.now = now
        before = self.frames_received
        shaking = self.state is ConnectionState.HANDSHAKE
        try:
            if self.beginning is None:
                frames = self._decoder.receive(data, frames_max)
                self.frames_received += len(frames)
                self._reception.receive(frames)
            else:
                self._take(self._decoder.receive(data, 1))
            if shaking and self.state is ConnectionState.OPEN:
                # The handshake's frame came alone, because it decides how the bytes behind it are read.
                self._take(self._decoder.receive(b"", frames_max if self.beginning is None else 1))
        except ClosedError as closed:
            self._close(closed.event)
            return streams.take_events()
        except RemoteProtocolError as error:
            self._fail(error)
            return streams.take_events()
        self._time.received(now, frames=self.frames_received > before)
        if self._decoder.error is not None:
            self._fail(self._decoder.error)
        elif self.outbox.control_size > CONTROL_SIZE_MAX:
            self._fail(RemoteProtocolError(Code.SLOW_CONSUMER, "what the peer asks for is not read"))
        else:
            self._inflow.credit_connection()
        return streams.take_events()

    def _take(self, frames: list[Frame]) -> None:
        self.frames_received += len(frames)
        if self.beginning is None:
            self._reception.receive(frames)
            return
        for frame in frames:  # one, because they come singly
            self.beginning.receive(frame)

    @property
    def more(self) -> bool:
        """Whether ``receive_data(b"")`` may have more to tell: many small frames are not taken all at once."""
        return self._decoder.more and self.state < ConnectionState.CLOSING

    def receive_eof(self) -> list[Event]:
        """Take the end of the peer's bytes and return its events."""
        if self.state >= ConnectionState.CLOSING:
            self.state = ConnectionState.CLOSED
            return []
        # A peer that connects and leaves without a word has only looked whether the port is open.
        opened = self.state is ConnectionState.OPEN
        orderly = not self._decoder.held and (opened or self.role is Role.ACCEPTOR)
        where = "in the middle" if opened or self._decoder.held else "before HELLO was answered"
        self._close(
            Closed(None if orderly else RemoteProtocolError(Code.MALFORMED_FRAME, f"the connection ended {where}"))
        )
        return self._streams.take_events()

    # -- bytes to send ----------------------------------------------------------------------------------------------

    def data_to_send(self, size: int) -> bytes:
        """Return about ``size`` bytes to write next; empty if there is nothing to send or no credit for it.

        Once the connection is closing this is all that is left, for any ``size``.
        """
        return b"".join(self.pieces_to_send(size))

    def pieces_to_send(self, size: int) -> list[bytes]:
        """As ``data_to_send``, in pieces for a transport that writes several at once: large payloads are not copied."""
        pieces = self.outbox.pull(size if self.state <= ConnectionState.OPEN else _ALL)
        ended = self._streams.turns.ended
        if ended:
            for half in ended:
                stream = self._streams.serves.get(half.id)
                if stream is not None:
                    self._streams.end_serve(stream)
            ended.clear()
        return pieces

    # -- the beginning ----------------------------------------------------------------------------------------------

    def _establish(self, agreement: Agreement) -> None:
        self.state = ConnectionState.OPEN
        own = self.config.ping_interval_ms if self.role is Role.DIALER else None
        self._time.open(agreement.ping_interval_ms if own is None else own)
        self.agreement = agreement

    def _begin_service(self) -> None:
        self.beginning = None

    @property
    def _quiet(self) -> bool:
        return self.beginning is not None and self.beginning.quiet

    # -- time -------------------------------------------------------------------------------------------------------

    @property
    def unfinished(self) -> bool:
        """Whether ``tick`` must watch the time: the peer owes the rest of something, or this side owes it credit."""
        return (
            self.beginning is not None
            or self._time.frame_since is not None
            or bool(self._streams.unfinished.halves)
            or self._inflow.credit_due is not None
        )

    def next_tick(self) -> float:
        """Return the time at which ``tick`` has something to do at the earliest, if nothing arrives until then."""
        if self.state >= ConnectionState.CLOSING:
            return float("inf")
        credit_due = self._inflow.credit_due
        due = min(self._time.next_due(), self._streams.unfinished.next_timeout())
        return due if credit_due is None else min(due, credit_due)

    def tick(self, now: float) -> list[Event]:
        """Let time pass: time out the peer's debts, ask a silent peer for a sign of life."""
        if self.state >= ConnectionState.CLOSING:
            return []
        self._streams.now = self._inflow.now = now
        overdue = self._time.overdue(now)
        if overdue is not None:
            self._fail(overdue)
        else:
            self._streams.expire(now)
            self._inflow.credit_connection()
            if not self._quiet and self._time.wants_ping(now):
                self.ping(self.config.entropy(PING_SIZE))
        return self._streams.take_events()

    # -- the connection itself --------------------------------------------------------------------------------------

    def ping(self, payload: bytes) -> None:
        """Send a PING with 8 bytes that the peer's PONG will repeat. Raises ``LocalProtocolError`` if it can't be."""
        if self.state is not ConnectionState.OPEN or len(payload) != PING_SIZE:
            raise LocalProtocolError(Code.PROTOCOL_VIOLATION, "a PING has 8 bytes and an open connection")
        self._control.send_ping(payload)

    def probe(self, now: float) -> bool:
        """Ask the peer for a sign of life, in doubt whether it is there, unless it has given one within a second.

        Return whether it was asked now.
        """
        if self.state is not ConnectionState.OPEN or self._quiet or not self._time.probe(now):
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
        """Take no more requests: the ones up to the last one received are answered, later ones get 1014."""
        if self.state is ConnectionState.OPEN and not self._quiet:
            self._control.send_goaway(failure(code, message=message))

    def fail_connection(self, error: RemoteProtocolError) -> list[Event]:
        """End the connection for a fault that the owner finds with the peer: it does not read, for instance."""
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
        """Tell the peer its fault and stop listening (the "connection error" of the specification)."""
        said = error.failure("unknown" if self.beginning is None else "not_applied")
        self.outbox.clear()
        if isinstance(error, FloodError):
            self.go_away(said.code, said.message)
        elif isinstance(error, ForeignBytes) and error.answer and self.role is Role.ACCEPTOR:
            self.outbox.add_ready(error.answer)
        else:
            self._control.send_error(said)
        self._close(Closed(error))
        self.state = ConnectionState.CLOSING

    def _close(self, event: Closed) -> None:
        if self.state >= ConnectionState.CLOSING:
            return
        self.state = ConnectionState.CLOSED
        self._requester.close()
        self._streams.close()
        self._streams.events.append(event)


def beginning_of(connection: Connection) -> Beginning:
    """Return the beginning of a connection that is in it."""
    assert connection.beginning is not None
    return connection.beginning


def guard_of(connection: Connection) -> Guard:
    """Return the guard of a connection on which a proof is asked for, and not given yet."""
    guard = beginning_of(connection).guard
    assert guard is not None
    return guard
