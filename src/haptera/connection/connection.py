"""One connection: frames in, events out; commands in, frames out (spec/protocol.md, sections 3 and 4)."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from haptera.connection.answers import AnswerReceiver
from haptera.connection.checks import check_body, check_control, misplaced
from haptera.connection.config import (
    COMPRESSION,
    CONTROL_SIZE_MAX,
    FIRST_FLIGHT_REQUESTS_MAX,
    FIRST_FLIGHT_SIZE_MAX,
    SESSION_SERVICE,
    SIGNING,
    TURN_SIZE,
    Budget,
    Config,
)
from haptera.connection.control import PING_SIZE, ControlReceiver
from haptera.connection.events import Closed, Established, Event, PackedItem
from haptera.connection.flood import FloodError
from haptera.connection.flow import Inflow
from haptera.connection.grease import Grease
from haptera.connection.handshake import Agreement, answer_hello, check_welcome, make_hello
from haptera.connection.items import ItemReceiver
from haptera.connection.outbox import Outbox
from haptera.connection.requests import RequestReceiver
from haptera.connection.routes import remember
from haptera.connection.stream import Outgoing, Stream
from haptera.connection.streams import Streams
from haptera.connection.table import ConnectionState, RequestState
from haptera.connection.timekeeping import Timekeeper
from haptera.connection.unpacking import unpack
from haptera.error_table import TABLE
from haptera.errors import Failure, LocalProtocolError, RemoteProtocolError, failure
from haptera.wire.compression import COMPRESSED_SIZE_MIN
from haptera.wire.decoder import FrameDecoder
from haptera.wire.frame import (
    COMPRESSED,
    FIRST_IGNORABLE_TYPE,
    HEADER_SIZE,
    METADATA_SIZE_MAX,
    SIGNED,
    STREAM_MAX,
    STREAMING,
    Frame,
    FrameType,
    encode_frame,
    encode_head,
)
from haptera.wire.metadata import Tag, encode_entry, encode_route, ignored_tags
from haptera.wire.payload import Goaway, Hello, Welcome, decode_failure, decode_payload, encode_payload
from haptera.wire.signature import Signer, preshared_keys

_REQUEST: Final = int(FrameType.REQUEST)
_ITEM: Final = int(FrameType.ITEM)
_RESPONSE: Final = int(FrameType.RESPONSE)
_ERROR: Final = int(FrameType.ERROR)
_ALL: Final = 2**62
#: What a frame's metadata may take, with room left for grease and for the request id that an answer echoes.
_ENTRIES_SIZE_MAX: Final = METADATA_SIZE_MAX - 32
_HANDSHAKE_TYPES: Final = frozenset({int(FrameType.HELLO), int(FrameType.WELCOME)})


class Role(IntEnum):
    """Which side of the connection this is; its value is the parity of the streams that it opens."""

    ACCEPTOR = 0
    DIALER = 1


class Connection:
    """The state machine of one connection, without any I/O.

    Give what was read to ``receive_data`` and act on the events; call the command methods; send what
    ``data_to_send`` returns. ``now`` is always a monotonic time in seconds.

    A command that the state does not allow raises ``LocalProtocolError`` and changes nothing. What the peer does wrong
    never raises: it becomes an ERROR on the stream or ends the connection, with an event that says so.
    """

    def __init__(self, role: Role, config: Config, now: float, process_budget: Budget | None = None) -> None:
        config = config.bounded()
        self.role = role
        self.config = config
        self.state = ConnectionState.HANDSHAKE
        #: What both sides agreed on; None before the handshake is done.
        self.agreement: Agreement | None = None
        self.outbox = Outbox()
        limits = config.limits
        self._decoder = FrameDecoder(limits.max_frame)
        self._time = Timekeeper(config, self._decoder, now)
        self._grease = Grease(config.entropy) if config.grease else None
        self._inflow = Inflow(
            self.outbox, limits.stream_window, limits.connection_window, config.budget, process_budget or Budget()
        )
        self._streams = Streams(int(role), config, self.outbox, self._inflow, now)
        self._calls = self._streams.calls
        self._serves = self._streams.serves
        self._whole_max = FIRST_FLIGHT_SIZE_MAX  # largest payload that leaves in one frame
        self._packed_min = _ALL  # smallest payload that may leave compressed
        self._first_flight = 0
        self._first_flight_size = 0
        self._routes: dict[tuple[str, str], bytes] = {}
        requests = RequestReceiver(self._streams)
        items = ItemReceiver(self._streams)
        answers = AnswerReceiver(self._streams)
        self._control = ControlReceiver(self._streams)
        self._receivers = {
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
        self._refused_flags = SIGNED | COMPRESSED  # their capability has not been accepted
        self._hello: Hello | None = None
        self._hello_frame = b""
        if role is Role.DIALER:
            self._hello, extra = make_hello(config, self._grease)
            self._hello_frame = encode_frame(FrameType.HELLO, 0, 0, b"", encode_payload(self._hello, extra))
            self.outbox.add_control(self._hello_frame)

    # -- what came in -----------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Take bytes that were read and return what they mean, in order."""
        if self.state >= ConnectionState.CLOSING:
            return []
        streams = self._streams
        streams.now = self._inflow.now = now
        shaking = self.state is ConnectionState.HANDSHAKE
        frames = self._decoder.receive(data)
        try:
            for frame in frames:
                self._receive(frame)
                if self.state is ConnectionState.CLOSED:
                    return streams.take_events()
            if shaking:
                # The handshake's frame came alone: it says how what stands behind it is to be read.
                for frame in self._decoder.receive(b""):
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

    def receive_eof(self) -> list[Event]:
        """Take the end of what the peer sends and return what it means."""
        if self.state >= ConnectionState.CLOSING:
            self.state = ConnectionState.CLOSED
            return []
        # Who connects and leaves without a word has only looked whether somebody listens.
        orderly = not self._decoder.held and (self.state is ConnectionState.OPEN or self.role is Role.ACCEPTOR)
        self._close(Closed(None if orderly else RemoteProtocolError(1002, "the connection ended in the middle")))
        return self._streams.take_events()

    def _receive(self, frame: Frame) -> None:
        if frame.flags & self._refused_flags:
            raise RemoteProtocolError(
                1008, "a frame has a flag whose capability was not accepted", {"flags": frame.flags}
            )
        if self.state is ConnectionState.HANDSHAKE:
            self._receive_handshake(frame)
            return
        receiver = self._receivers.get(frame.type)
        if receiver is None:
            self._receive_unknown(frame)
        elif frame.type == _ERROR and not frame.stream:
            self._receive_connection_error(frame)
        else:
            receiver(frame)

    def _receive_unknown(self, frame: Frame) -> None:
        if frame.type in _HANDSHAKE_TYPES:
            raise misplaced(frame, "a second handshake")
        if frame.stream > STREAM_MAX:
            raise misplaced(frame, "a stream's id is too large")
        if frame.type < FIRST_IGNORABLE_TYPE:
            check_body(frame)
            raise RemoteProtocolError(1005, "a frame's type is critical and not known", {"type": frame.type})
        self._streams.charge()

    def _receive_handshake(self, frame: Frame) -> None:
        expected = FrameType.WELCOME if self.role is Role.DIALER else FrameType.HELLO
        if frame.type == _ERROR and not frame.stream and self.role is Role.DIALER:
            self._receive_connection_error(frame)
            return
        if frame.type != expected:
            raise misplaced(frame, f"the first frame is not {expected.name}")
        check_control(frame)
        received = encode_frame(frame.type, frame.flags, frame.stream, frame.metadata, frame.payload)
        if self._hello is None:
            hello = decode_payload(Hello, frame.payload)
            welcome, extra, agreement = answer_hello(self.config, hello, self._grease)
            welcome_frame = encode_frame(FrameType.WELCOME, 0, 0, b"", encode_payload(welcome, extra))
            self.outbox.add_control(welcome_frame)
            self._sign(agreement, received, welcome_frame)
        else:
            agreement = check_welcome(self._hello, decode_payload(Welcome, frame.payload))
            self._sign(agreement, self._hello_frame, received)
        self._establish(agreement)

    def _sign(self, agreement: Agreement, hello_frame: bytes, welcome_frame: bytes) -> None:
        """Sign and verify every frame behind the handshake, if that was agreed."""
        if SIGNING not in agreement.capabilities:
            return
        assert self.config.signing_key is not None
        keys = preshared_keys(self.config.signing_key, hello_frame, welcome_frame)
        dialer, acceptor = (Signer(key) for key in keys)
        dials = self.role is Role.DIALER
        self.outbox.sign(dialer if dials else acceptor)
        self._decoder.verify(acceptor if dials else dialer)
        self._refused_flags &= ~SIGNED

    def _establish(self, agreement: Agreement) -> None:
        self.agreement = agreement
        self.state = ConnectionState.OPEN
        limits = agreement.peer_limits
        self._whole_max = min(limits.max_frame, TURN_SIZE)
        codec = self.config.compression
        if codec is not None and COMPRESSION in agreement.capabilities:
            self._streams.codec = codec
            self.outbox.compress(codec)
            self._packed_min = COMPRESSED_SIZE_MIN
            self._refused_flags &= ~COMPRESSED
        self._time.open(agreement.ping_interval_ms)
        self._streams.events.append(Established())
        self.outbox.open(limits.max_frame, limits.connection_window)
        self._streams.open(limits, ignored_tags(agreement.capabilities))

    def _receive_connection_error(self, frame: Frame) -> None:
        check_control(frame)
        said = decode_failure(frame.payload)
        self._close(Closed(_said_error(said), said))

    # -- what the owner wants ---------------------------------------------------------------------------------------

    @property
    def open_streams(self) -> int:
        """Streams of both sides that have no answer yet."""
        return len(self._calls) + len(self._serves)

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
        return self._calls

    def serves(self, id_: int) -> bool:
        """Whether a stream that the peer opened has no answer yet, or one that has not left."""
        return id_ in self._serves

    @property
    def first_flight(self) -> int:
        """How many requests were sent behind HELLO."""
        return self._first_flight

    @property
    def going_away(self) -> bool:
        """Whether no more requests may be sent: one of the two sides has said GOAWAY."""
        return self._control.goaway is not None or self._streams.last_served is not None

    def can_request(self, size: int) -> bool:
        """Whether a request with a payload of ``size`` bytes may be sent now, by the peer's limits and ours."""
        if self.state is ConnectionState.OPEN:
            assert self.agreement is not None
            return (
                len(self._calls) < self.agreement.peer_limits.max_streams
                and (size <= self._whole_max or self.outbox.large_free)
                and self._control.goaway is None
                and self._streams.last_served is None
            )
        if self.state is ConnectionState.HANDSHAKE and self.role is Role.DIALER and self.config.signing_key is None:
            # Metadata counts as well; a request's is never larger than this.
            room = FIRST_FLIGHT_SIZE_MAX - self._first_flight_size - HEADER_SIZE - METADATA_SIZE_MAX
            return self._first_flight < FIRST_FLIGHT_REQUESTS_MAX and size <= room
        return False

    @property
    def lowest_unanswered(self) -> int:
        """The lowest of our streams whose answer has not been read: what ``answered_below`` says."""
        for stream in self._calls:
            return stream
        return self._streams.next_call

    def request(
        self, service: str, method: str, payload: bytes, *, streaming: bool = False, entries: bytes = b""
    ) -> int:
        """Open a stream with a REQUEST and return its id.

        ``entries`` are encoded metadata entries. Raises ``LocalProtocolError`` 3004 if the payload is larger than the
        peer takes, 1014 if one of the sides is going away, 3007 if ``can_request`` is false for another reason.
        """
        size = len(payload)
        if not self.can_request(size):
            self._refuse_request()
        route = self._routes.get((service, method)) or self._remember_route(service, method)
        flags = STREAMING if streaming else 0
        if len(route) + len(entries) > _ENTRIES_SIZE_MAX:
            raise LocalProtocolError(1004, "a request's metadata is too long", {"length": len(route) + len(entries)})
        if size > self._streams.peer_message_max:
            self._refuse_size(size)
        if self._grease is not None and self._grease.due():
            entries, flags = self._apply_grease(entries, flags)
        metadata = route + entries if entries else route
        id_ = self._streams.next_call
        if id_ > STREAM_MAX:
            raise LocalProtocolError(1008, "the connection's stream ids are used up")
        self._streams.next_call = id_ + 2
        state = RequestState.STREAMING if streaming else RequestState.COMPLETE
        stream = Stream(id_, self._streams.peer_stream_window, self._inflow.stream_window, state)
        if service == SESSION_SERVICE:
            stream.of_session = True
        self._calls[id_] = stream
        if self.agreement is None:
            self._first_flight += 1
            self._first_flight_size += HEADER_SIZE + len(metadata) + size
        if size <= self._whole_max:
            if size < self._packed_min:
                self.outbox.add_ready(encode_head(_REQUEST, flags, id_, metadata, payload), payload)
            else:
                self.outbox.add_whole(_REQUEST, flags, stream, metadata, payload)
            if streaming:
                self.outbox.hold_turns(stream)
        else:
            self.outbox.begin_request(stream, Outgoing(_REQUEST, flags, metadata, payload))
        return id_

    def _refuse_request(self) -> None:
        if self.state >= ConnectionState.CLOSING:
            raise LocalProtocolError(1008, "the connection is closed")
        if self.going_away:
            raise LocalProtocolError(1014, "no more requests are taken on this connection")
        raise LocalProtocolError(3007, "no more requests may be under way now")

    def _refuse_size(self, size: int) -> None:
        details = {"length": size, "limit": self._streams.peer_message_max}
        raise LocalProtocolError(3004, "the message is larger than the peer takes", details)

    def _remember_route(self, service: str, method: str) -> bytes:
        try:
            route = encode_route(service, method)
        except ValueError as error:
            raise LocalProtocolError(1002, str(error)) from error
        remember(self._routes, (service, method), route)
        return route

    def _apply_grease(self, entries: bytes, flags: int) -> tuple[bytes, int]:
        assert self._grease is not None
        kind = self.config.entropy(1)[0] % 3
        if kind == 0 and self.state is ConnectionState.OPEN:
            self.outbox.add_control(self._grease.frame())
        elif kind == 1:
            flags |= self._grease.flag()
        else:
            entries = self._grease.entry() + entries
        return entries, flags

    def send_item(self, id_: int, payload: bytes, entries: bytes = b"") -> bool:
        """Queue one ITEM on an open stream of either side.

        Returns whether the producer may go on at once; otherwise it waits until the stream is among
        ``take_writable``. Raises ``LocalProtocolError`` if the stream has ended or may not carry ITEMs.
        """
        stream = self._sendable(id_)
        if len(payload) > self._streams.peer_message_max:
            self._refuse_size(len(payload))
        self._check_entries(entries)
        self.outbox.add(stream, Outgoing(_ITEM, 0, entries, payload))
        return not stream.throttled

    def finish(self, id_: int) -> None:
        """Say that the last ITEM of a streaming request has been sent."""
        stream = self._sendable(id_)
        stream.request_state = RequestState.COMPLETE
        if stream.outbox:
            self.outbox.add(stream, Outgoing(FrameType.FINISH, 0, b"", b""))
        else:
            self.outbox.add_frame(encode_frame(FrameType.FINISH, 0, id_))

    def _sendable(self, id_: int) -> Stream:
        mine = id_ & 1 == self.role
        stream = self._calls.get(id_) if mine else self._serves.get(id_)
        if stream is None or (mine and stream.cancelled):
            raise LocalProtocolError(1008, "the stream has ended", {"stream": id_})
        if mine:
            if stream.request_state is not RequestState.STREAMING:
                raise LocalProtocolError(1008, "the request is not streaming or is finished", {"stream": id_})
        elif stream.answered:
            raise LocalProtocolError(1008, "the request has been answered", {"stream": id_})
        return stream

    def cancel(self, id_: int) -> None:
        """Ask the responder to stop. The stream stays open until its answer has come; nothing if it has ended."""
        stream = self._calls.get(id_)
        if stream is not None and not stream.cancelled and self.state <= ConnectionState.OPEN:
            self._streams.send_cancel(stream)

    def take_item(self, id_: int, item: bytes | PackedItem = b"", *, now: float | None = None) -> bytes | Failure:
        """Say that the application has taken the oldest unread ITEM of a stream: that opens the window again.

        Returns the payload of ``item``, which came with its event; one that was sent compressed is decompressed only
        here. If it is not what its sender announced, that is a failure with 1010: the stream has been given up, and
        ``take_events`` says so if it was still open. ``now`` is the time at which the window opens.
        """
        if now is not None:
            self._inflow.now = now
        stream = self._calls.get(id_) or self._serves.get(id_)
        if stream is not None:
            self._inflow.take(stream)
            self._inflow.credit_connection()
        if isinstance(item, PackedItem):
            return self._unpack(id_, stream, item)
        return item

    def _unpack(self, id_: int, stream: Stream | None, item: PackedItem) -> bytes | Failure:
        assert self._streams.codec is not None  # else its frames were refused
        try:
            return unpack(self._streams.codec, item)
        except RemoteProtocolError as error:
            reason = error.failure("unknown")
            if stream is not None:
                self._streams.spoil(stream, reason, call=id_ & 1 == self.role)
            return reason

    def take_events(self) -> list[Event]:
        """Return what a command has led to, if it is one that says so."""
        return self._streams.take_events()

    def respond(self, id_: int, payload: bytes, entries: bytes = b"") -> None:
        """Answer a request; nothing if the stream has ended.

        An answer that is larger than the peer takes becomes ERROR 3004: the change that it reports may have been made.
        """
        if len(payload) > self._streams.peer_message_max:
            details = {"length": len(payload), "limit": self._streams.peer_message_max}
            self.fail(id_, failure(3004, details, outcome="unknown"), entries)
            return
        self._answer(id_, _RESPONSE, payload, entries)

    def fail(self, id_: int, reason: Failure, entries: bytes = b"") -> None:
        """Answer a request with an ERROR; nothing if the stream has ended."""
        payload = encode_payload(reason)
        if len(payload) > self._streams.peer_message_max:
            payload = encode_payload(Failure(reason.code, reason.name, "", reason.outcome, {}))
        self._answer(id_, _ERROR, payload, entries)

    def _answer(self, id_: int, type_: int, payload: bytes, entries: bytes) -> None:
        stream = self._serves.get(id_)
        if stream is None:
            return
        if stream.answered:
            raise LocalProtocolError(1008, "the request has been answered", {"stream": id_})
        if stream.request_id is not None:
            entries = encode_entry(Tag.REQUEST_ID, stream.request_id) + entries
        flags = 0
        if entries:
            self._check_entries(entries)
        if self._grease is not None and self._grease.due():
            entries, flags = self._apply_grease(entries, flags)
        if stream.outbox and type_ == _ERROR and (stream.cancelled or stream.discarding):
            # No one waits for the ITEMs before it, and an ERROR may cut an unfinished one short.
            self.outbox.drop(stream)
        if not stream.outbox and len(payload) <= self._whole_max:
            if len(payload) < self._packed_min:
                self.outbox.add_ready(encode_head(type_, flags, id_, entries, payload), payload)
            else:
                self.outbox.add_whole(type_, flags, stream, entries, payload)
            self._streams.end_serve(stream)
            return
        self._streams.begin_answer(stream)
        self.outbox.add(stream, Outgoing(type_, flags, entries, payload))

    @staticmethod
    def _check_entries(entries: bytes) -> None:
        if len(entries) > _ENTRIES_SIZE_MAX:
            raise LocalProtocolError(1004, "a frame's metadata is too long", {"length": len(entries)})

    def ping(self, payload: bytes) -> None:
        """Send a PING with 8 bytes that the peer's PONG will repeat. Raises ``LocalProtocolError`` if it can't be."""
        if self.state is not ConnectionState.OPEN or len(payload) != PING_SIZE:
            raise LocalProtocolError(1008, "a PING has 8 bytes and an open connection")
        self.outbox.add_control(encode_frame(FrameType.PING, 0, 0, b"", payload))

    def go_away(self, code: int, message: str | None = None) -> None:
        """Take no more requests: those up to the last one received are answered, later ones get 1014."""
        if self.state is not ConnectionState.OPEN:
            return
        said = failure(code, message=message)
        last = self._streams.go_away()
        goaway = Goaway(code=code, name=said.name, message=said.message, last_stream=last)
        self.outbox.add_control(encode_frame(FrameType.GOAWAY, 0, 0, b"", encode_payload(goaway)))

    def fail_connection(self, error: RemoteProtocolError) -> list[Event]:
        """End the connection for what the owner finds wrong with the peer: that it does not read, for instance."""
        if self.state < ConnectionState.CLOSING:
            self._fail(error)
        return self._streams.take_events()

    def close(self) -> None:
        """End the connection from this side: what is queued may still leave, nothing more is read."""
        self._close(Closed(None))
        self._streams.take_events()
        self.state = ConnectionState.CLOSED

    # -- what goes out ----------------------------------------------------------------------------------------------

    def data_to_send(self, size: int) -> bytes:
        """Return about ``size`` bytes to write next; empty if there is nothing to send or no credit for it.

        Once the connection is closing this is all that is left, whatever ``size`` is.
        """
        data = self.outbox.pull(size if self.state <= ConnectionState.OPEN else _ALL)
        if self.outbox.ended:
            for stream in self.outbox.ended:
                self._streams.end_serve(stream)
            self.outbox.ended = []
        return data

    def take_writable(self) -> list[int]:
        """Return the streams whose producers may go on, once each."""
        if not self.outbox.writable:
            return []
        streams, self.outbox.writable = self.outbox.writable, []
        return [stream.id for stream in streams]

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

    # -- the end ----------------------------------------------------------------------------------------------------

    def _fail(self, error: RemoteProtocolError) -> None:
        """Tell the peer what it did wrong and stop listening (the "connection error" of the specification)."""
        said = error.failure("not_applied" if self.state is ConnectionState.HANDSHAKE else "unknown")
        self.outbox.clear()
        if isinstance(error, FloodError):
            self.go_away(said.code, said.message)
        else:
            self.outbox.add_ready(encode_frame(FrameType.ERROR, 0, 0, b"", encode_payload(said)))
        self._close(Closed(error))
        self.state = ConnectionState.CLOSING

    def _close(self, event: Closed) -> None:
        if self.state >= ConnectionState.CLOSING:
            return
        self.state = ConnectionState.CLOSED
        self._streams.close()
        self._inflow.close()
        self._streams.events.append(event)


def _said_error(said: Failure) -> LocalProtocolError:
    """Return what the peer says that this side did; a code of a later version keeps its number and name."""
    error = LocalProtocolError(said.code if said.code in TABLE else 1008, said.message, said.details)
    error.code, error.name = said.code, said.name
    return error
