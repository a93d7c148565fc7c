"""One connection: frames in, events out; commands in, frames out (spec/protocol.md, sections 3 and 4)."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from haptera.connection.config import (
    FIRST_FLIGHT_REQUESTS_MAX,
    FIRST_FLIGHT_SIZE_MAX,
    RATE_MIN_BYTES_PER_S,
    TURN_SIZE,
    Budget,
    Config,
)
from haptera.connection.events import Closed, Established, Event, GoawayReceived, PongReceived
from haptera.connection.flow import Inflow
from haptera.connection.grease import Grease
from haptera.connection.handshake import Agreement, answer_hello, check_welcome, make_hello
from haptera.connection.outbox import Outbox
from haptera.connection.receiver import Receiver
from haptera.connection.stream import Outgoing, Stream
from haptera.connection.table import ConnectionState, RequestState
from haptera.errors import Failure, LocalProtocolError, RemoteProtocolError, failure
from haptera.wire.decoder import FrameDecoder
from haptera.wire.frame import (
    COMPRESSED,
    CRITICAL_FLAGS,
    FIRST_IGNORABLE_TYPE,
    HEADER_SIZE,
    KNOWN_CRITICAL_FLAGS,
    METADATA_SIZE_MAX,
    SIGNED,
    STREAM_MAX,
    STREAMING,
    Frame,
    FrameType,
    encode_frame,
    encode_head,
)
from haptera.wire.metadata import Tag, encode_entry, encode_route
from haptera.wire.payload import (

    Goaway,
    Hello,
    Welcome,
    decode_failure,
    decode_payload,
    encode_payload,
)

_PING_SIZE: Final = 8
_REQUEST: Final = int(FrameType.REQUEST)
_ITEM: Final = int(FrameType.ITEM)
_RESPONSE: Final = int(FrameType.RESPONSE)
_ERROR: Final = int(FrameType.ERROR)


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
        self.role = role
        self.config = config
        self.state = ConnectionState.HANDSHAKE
        #: What both sides agreed on; None before the handshake is done.
        self.agreement: Agreement | None = None
        self.outbox = Outbox()
        self._decoder = FrameDecoder(config.limits.max_frame)
        self._grease = Grease(config.entropy) if config.grease else None
        self._inflow = Inflow(
            self.outbox,
            config.limits.stream_window,
            config.limits.connection_window,
            config.budget,
            process_budget or Budget(),
        )
        self._receiver = Receiver(int(role), config, self.outbox, self._inflow)
        self._calls = self._receiver.calls
        self._whole_max = FIRST_FLIGHT_SIZE_MAX  # largest payload that leaves in one frame
        self._first_flight = 0
        self._first_flight_size = 0
        self._routes: dict[tuple[str, str], bytes] = {}
        self._peer_goaway: Goaway | None = None
        self._started = now
        self._last_received = now
        self._pinged_at: float | None = None
        self._frame_since: float | None = None
        self._receivers = {
            int(FrameType.REQUEST): self._receiver.receive_request,
            int(FrameType.ITEM): self._receiver.receive_item,
            int(FrameType.RESPONSE): self._receiver.receive_response,
            int(FrameType.ERROR): self._receive_error,
            int(FrameType.CANCEL): self._receiver.receive_cancel,
            int(FrameType.CREDIT): self._receiver.receive_credit,
            int(FrameType.FINISH): self._receiver.receive_finish,
            int(FrameType.PING): self._receive_ping,
            int(FrameType.PONG): self._receive_pong,
            int(FrameType.GOAWAY): self._receive_goaway,
        }
        self._hello: Hello | None = None
        if role is Role.DIALER:
            self._hello, extra = make_hello(config, self._grease)
            self.outbox.add_control(encode_frame(FrameType.HELLO, 0, 0, b"", encode_payload(self._hello, extra)))

    # -- what came in -----------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Take bytes that were read and return what they mean, in order."""
        if self.state >= ConnectionState.CLOSING:
            return []
        self._last_received = now
        self._pinged_at = None
        receiver = self._receiver
        receiver.now = now
        decoder = self._decoder
        frames = decoder.receive(data)
        try:
            for frame in frames:
                self._receive(frame)
                if self.state is ConnectionState.CLOSED:
                    break
        except RemoteProtocolError as error:
            self._fail(error)
        else:
            if decoder.error is not None:
                self._fail(decoder.error)
        if not decoder.held:
            self._frame_since = None
        elif frames or self._frame_since is None:
            self._frame_since = now
        self._inflow.credit_connection()
        return receiver.take_events()

    def receive_eof(self) -> list[Event]:
        """Take the end of what the peer sends and return what it means."""
        if self.state is ConnectionState.CLOSED:
            return []
        orderly = not self._decoder.held and self.state is ConnectionState.OPEN
        error = None if orderly else RemoteProtocolError(1002, "the connection ended in the middle")
        if self.state is ConnectionState.CLOSING:
            error = None
        self._close(Closed(error))
        return self._receiver.take_events()

    def _receive(self, frame: Frame) -> None:
        if self.state is ConnectionState.HANDSHAKE:
            self._receive_handshake(frame)
            return
        flags = frame.flags
        if flags & (SIGNED | COMPRESSED):
            raise RemoteProtocolError(1008, "a frame has a flag whose capability was not accepted", {"flags": flags})
        receiver = self._receivers.get(frame.type)
        if receiver is not None:
            receiver(frame)
        elif frame.type in (FrameType.HELLO, FrameType.WELCOME):
            raise RemoteProtocolError(1008, "a second handshake", {"type": frame.type})
        elif frame.type < FIRST_IGNORABLE_TYPE:
            raise RemoteProtocolError(1005, "a frame's type is critical and not known", {"type": frame.type})

    def _receive_handshake(self, frame: Frame) -> None:
        expected = FrameType.WELCOME if self.role is Role.DIALER else FrameType.HELLO
        if frame.type == FrameType.ERROR and frame.stream == 0 and self.role is Role.DIALER:
            self._receive_error(frame)
            return
        if frame.type != expected:
            raise RemoteProtocolError(
                1008, f"the first frame is not {expected.name}", {"expected": int(expected), "actual": frame.type}
            )
        self._check_connection_frame(frame)
        if self.role is Role.ACCEPTOR:
            hello = decode_payload(Hello, frame.payload)
            welcome, extra, agreement = answer_hello(self.config, hello, self._grease)
            self.outbox.add_control(encode_frame(FrameType.WELCOME, 0, 0, b"", encode_payload(welcome, extra)))
        else:
            assert self._hello is not None
            agreement = check_welcome(self._hello, decode_payload(Welcome, frame.payload))
        self._establish(agreement)

    def _establish(self, agreement: Agreement) -> None:
        self.agreement = agreement
        self.state = ConnectionState.OPEN
        limits = agreement.peer_limits
        self.outbox.max_frame = limits.max_frame
        self.outbox.add_connection_credit(limits.connection_window)
        self._whole_max = min(limits.max_frame, TURN_SIZE)
        self._receiver.open(agreement)
        for stream in self._calls.values():
            self.outbox.add_credit(stream, limits.stream_window)
        self._receiver.events.append(Established())

    def _check_connection_frame(self, frame: Frame) -> None:
        """Raise what is wrong with a frame of stream 0; all of it is fatal there (section 3, "Damage")."""
        if frame.stream:
            raise RemoteProtocolError(1008, "a frame of the connection names a stream", {"stream": frame.stream})
        if frame.damaged:
            raise RemoteProtocolError(
                1003,
                "the checksum of a frame's body is wrong",
                {"expected": frame.body_crc, "actual": frame.actual_crc},
            )
        unknown = frame.flags & CRITICAL_FLAGS & ~KNOWN_CRITICAL_FLAGS
        if unknown:
            raise RemoteProtocolError(1006, "a frame has a critical flag that is not known", {"flags": unknown})
        if frame.flags & CRITICAL_FLAGS:
            raise RemoteProtocolError(1008, "a frame of the connection has a flag for messages", {"flags": frame.flags})
        self._receiver.check_entries(frame)

    def _receive_error(self, frame: Frame) -> None:
        if frame.stream:
            self._receiver.receive_error(frame)
            return
        self._check_connection_frame(frame)
        said = decode_failure(frame.payload)
        self._close(Closed(LocalProtocolError(said.code, said.message, said.details), said))

    def _receive_ping(self, frame: Frame) -> None:
        self._check_fixed(frame, _PING_SIZE)
        self.outbox.add_control(encode_frame(FrameType.PONG, 0, 0, b"", frame.payload))

    def _receive_pong(self, frame: Frame) -> None:
        self._check_fixed(frame, _PING_SIZE)
        self._receiver.events.append(PongReceived(frame.payload))

    def _check_fixed(self, frame: Frame, size: int) -> None:
        self._check_connection_frame(frame)
        if len(frame.payload) != size:
            raise RemoteProtocolError(
                1002, "a frame's payload has the wrong size", {"expected": size, "actual": len(frame.payload)}
            )

    def _receive_goaway(self, frame: Frame) -> None:
        self._check_connection_frame(frame)
        goaway = decode_payload(Goaway, frame.payload)
        if self._peer_goaway is not None and goaway.last_stream > self._peer_goaway.last_stream:
            raise RemoteProtocolError(1008, "a later GOAWAY raises its last stream")
        self._peer_goaway = goaway
        self._receiver.events.append(GoawayReceived(goaway))

    # -- what the owner wants ---------------------------------------------------------------------------------------

    @property
    def open_streams(self) -> int:
        """Streams of both sides that have no answer yet."""
        return len(self._calls) + len(self._receiver.serves)

    @property
    def max_message(self) -> int:
        """The largest message, in bytes, that the peer takes; 0 before the handshake is done."""
        return self._receiver.peer_message_max

    @property
    def open_calls(self) -> Mapping[int, Stream]:
        """The streams that this side opened and that have no answer yet."""
        return self._calls

    @property
    def first_flight(self) -> int:
        """How many requests were sent behind HELLO."""
        return self._first_flight

    @property
    def going_away(self) -> bool:
        """Whether the peer has said that it takes no more requests."""
        return self._peer_goaway is not None

    def can_request(self, size: int) -> bool:
        """Whether a request with a payload of ``size`` bytes may be sent now, by the peer's limits and ours."""
        if self.state is ConnectionState.OPEN:
            assert self.agreement is not None
            return (
                len(self._calls) < self.agreement.peer_limits.max_streams
                and (size <= self._whole_max or self.outbox.large_free)
                and self._peer_goaway is None
            )
        if self.state is ConnectionState.HANDSHAKE and self.role is Role.DIALER:
            # Metadata counts as well; a request's is never larger than this.
            room = FIRST_FLIGHT_SIZE_MAX - self._first_flight_size - HEADER_SIZE - METADATA_SIZE_MAX
            return self._first_flight < FIRST_FLIGHT_REQUESTS_MAX and size <= room
        return False

    @property
    def lowest_unanswered(self) -> int:
        """The lowest of our streams whose answer has not been read: what ``answered_below`` says."""
        for stream in self._calls:
            return stream
        return self._receiver.next_call

    def request(
        self, service: str, method: str, payload: bytes, *, streaming: bool = False, entries: bytes = b""
    ) -> int:
        """Open a stream with a REQUEST and return its id.

        ``entries`` are encoded metadata entries. Raises ``LocalProtocolError`` 3004 if the payload is larger than the
        peer takes, 1014 if the peer is going away, 3007 if ``can_request`` is false for another reason.
        """
        size = len(payload)
        if not self.can_request(size):
            self._refuse_request()
        route = self._routes.get((service, method)) or self._remember_route(service, method)
        flags = STREAMING if streaming else 0
        if self._grease is not None and self._grease.due():
            entries, flags = self._apply_grease(entries, flags)
        metadata = route + entries if entries else route
        if len(metadata) > METADATA_SIZE_MAX:
            raise LocalProtocolError(1004, "a request's metadata is too long", {"length": len(metadata)})
        if self.agreement is not None and size > self.agreement.peer_limits.max_message:
            raise LocalProtocolError(
                3004,
                "the message is larger than the peer takes",
                {"length": size, "limit": self.agreement.peer_limits.max_message},
            )
        id_ = self._receiver.next_call
        if id_ > STREAM_MAX:
            raise LocalProtocolError(1008, "the connection's stream ids are used up")
        self._receiver.next_call = id_ + 2
        state = RequestState.STREAMING if streaming else RequestState.COMPLETE
        stream = Stream(id_, self._receiver.peer_stream_window, self._inflow.stream_window, state)
        self._calls[id_] = stream
        if self.agreement is None:
            self._first_flight += 1
            self._first_flight_size += HEADER_SIZE + len(metadata) + size
            self.outbox.add_ready(encode_head(_REQUEST, flags, id_, metadata, payload), payload)
        elif size <= self._whole_max:
            self.outbox.add_ready(encode_head(_REQUEST, flags, id_, metadata, payload), payload)
        else:
            self.outbox.begin_request(stream, Outgoing(_REQUEST, flags, metadata, payload))
        return id_

    def _refuse_request(self) -> None:
        if self._peer_goaway is not None:
            raise LocalProtocolError(1014, "the peer takes no more requests on this connection")
        if self.state >= ConnectionState.CLOSING:
            raise LocalProtocolError(1008, "the connection is closed")
        raise LocalProtocolError(3007, "no more requests may be under way now")

    def _remember_route(self, service: str, method: str) -> bytes:
        try:
            route = encode_route(service, method)
        except ValueError as error:
            raise LocalProtocolError(1002, str(error)) from error
        self._receiver.remember(self._routes, (service, method), route)
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
        if len(payload) > self._receiver.peer_message_max:
            raise LocalProtocolError(
                3004,
                "the item is larger than the peer takes",
                {"length": len(payload), "limit": self._receiver.peer_message_max},
            )
        self.outbox.add(stream, Outgoing(_ITEM, 0, entries, payload))
        return not stream.throttled

    def finish(self, id_: int) -> None:
        """Say that the last ITEM of a streaming request has been sent."""
        stream = self._sendable(id_)
        stream.request_state = RequestState.COMPLETE
        if stream.outbox:
            self.outbox.add(stream, Outgoing(FrameType.FINISH, 0, b"", b""))
        else:
            self.outbox.add_ready(encode_frame(FrameType.FINISH, 0, id_))

    def _sendable(self, id_: int) -> Stream:
        stream = self._calls.get(id_) if id_ & 1 == self.role else self._receiver.serves.get(id_)
        if stream is None or stream.cancelled and id_ & 1 == self.role:
            raise LocalProtocolError(1008, "the stream has ended", {"stream": id_})
        if id_ & 1 == self.role:
            if stream.request_state is not RequestState.STREAMING:
                raise LocalProtocolError(1008, "the request is not streaming or is finished", {"stream": id_})
        elif stream.answered:
            raise LocalProtocolError(1008, "the request has been answered", {"stream": id_})
        return stream

    def cancel(self, id_: int) -> None:
        """Ask the responder to stop. The stream stays open until its answer has come; nothing if it has ended."""
        stream = self._calls.get(id_)
        if stream is not None and not stream.cancelled and self.state <= ConnectionState.OPEN:
            self._receiver.send_cancel(stream)

    def take_item(self, id_: int) -> None:
        """Say that the application has taken the oldest unread ITEM of a stream: that opens the window again."""
        stream = self._calls.get(id_) if id_ & 1 == self.role else self._receiver.serves.get(id_)
        if stream is not None:
            self._inflow.take(stream)
            self._inflow.credit_connection()

    def respond(self, id_: int, payload: bytes, entries: bytes = b"") -> None:
        """Answer a request; nothing if the stream has ended.

        An answer that is larger than the peer takes becomes ERROR 3004: the change that it reports may have been made.
        """
        if len(payload) > self._receiver.peer_message_max:
            details = {"length": len(payload), "limit": self._receiver.peer_message_max}
            self.fail(id_, failure(3004, details, outcome="unknown"), entries)
            return
        self._answer(id_, _RESPONSE, payload, entries)

    def fail(self, id_: int, reason: Failure, entries: bytes = b"") -> None:
        """Answer a request with an ERROR; nothing if the stream has ended."""
        self._answer(id_, _ERROR, encode_payload(reason), entries)

    def _answer(self, id_: int, type_: int, payload: bytes, entries: bytes) -> None:
        stream = self._receiver.serves.get(id_)
        if stream is None:
            return
        if stream.answered:
            raise LocalProtocolError(1008, "the request has been answered", {"stream": id_})
        if stream.request_id is not None:
            entries = encode_entry(Tag.REQUEST_ID, stream.request_id) + entries
        flags = 0
        if self._grease is not None and self._grease.due():
            entries, flags = self._apply_grease(entries, flags)
        if stream.outbox and stream.cancelled and type_ == _ERROR:
            # No one waits for the ITEMs before it, and an ERROR may cut an unfinished one short.
            self.outbox.drop(stream)
        if not stream.outbox and len(payload) <= self._whole_max:
            self.outbox.add_ready(encode_head(type_, flags, id_, entries, payload), payload)
            self._receiver.end_serve(stream)
            return
        stream.answered = stream.discarding = True
        self.outbox.add(stream, Outgoing(type_, flags, entries, payload))

    def ping(self, payload: bytes) -> None:
        """Send a PING with 8 bytes that the peer's PONG will repeat."""
        self.outbox.add_control(encode_frame(FrameType.PING, 0, 0, b"", payload))

    def go_away(self, code: int, message: str | None = None) -> None:
        """Take no more requests: those up to the last one received are answered, later ones get 1014."""
        if self.state is not ConnectionState.OPEN:
            return
        said = failure(code, message=message)
        last = self._receiver.go_away()
        goaway = Goaway(code=code, name=said.name, message=said.message, last_stream=last)
        self.outbox.add_control(encode_frame(FrameType.GOAWAY, 0, 0, b"", encode_payload(goaway)))

    def close(self) -> None:
        """End the connection from this side: what is queued may still leave, nothing more is read."""
        self._close(Closed(None))
        self._receiver.take_events()

    # -- what goes out ----------------------------------------------------------------------------------------------

    def data_to_send(self, size: int) -> bytes:
        """Return about ``size`` bytes to write next; empty if there is nothing to send or no credit for it."""
        data = self.outbox.pull(size)
        if self.outbox.ended:
            for stream in self.outbox.ended:
                self._receiver.end_serve(stream)
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
        """Whether the peer owes the rest of something, so that ``tick`` must watch the time."""
        return (
            self.state is ConnectionState.HANDSHAKE or self._frame_since is not None or bool(self._receiver.unfinished)
        )

    def next_tick(self) -> float:
        """Return the time at which ``tick`` has something to do at the earliest, if nothing arrives until then."""
        interval = self._ping_interval()
        if self.state is ConnectionState.HANDSHAKE:
            return self._started + self.config.handshake_timeout_s
        due = float("inf") if interval is None else (self._pinged_at or self._last_received) + interval
        if self._frame_since is not None:
            due = min(due, self._frame_deadline())
        return min(due, self._receiver.next_timeout())

    def tick(self, now: float) -> list[Event]:
        """Let time pass: time out what the peer owes, ask a silent peer for a sign of life."""
        self._receiver.now = now
        if self.state is ConnectionState.HANDSHAKE:
            if now >= self._started + self.config.handshake_timeout_s:
                self._fail(RemoteProtocolError(1012, "the handshake took too long"))
        elif self.state is ConnectionState.OPEN:
            if self._frame_since is not None and now >= self._frame_deadline():
                self._fail(RemoteProtocolError(1015, "a frame was begun and did not arrive in time"))
            else:
                self._receiver.expire(now)
                self._watch_silence(now)
        return self._receiver.take_events()

    def _frame_deadline(self) -> float:
        assert self._frame_since is not None
        return self._frame_since + self.config.frame_timeout_s + self._decoder.wanted / RATE_MIN_BYTES_PER_S

    def _ping_interval(self) -> float | None:
        if self.agreement is None or not self.agreement.ping_interval_ms:
            return None
        return self.agreement.ping_interval_ms / 1000

    def _watch_silence(self, now: float) -> None:
        interval = self._ping_interval()
        if interval is None:
            return
        if self._pinged_at is not None:
            if now >= self._pinged_at + interval:
                self._fail(RemoteProtocolError(1015, "nothing was received, and a PING was not answered"))
        elif now >= self._last_received + interval:
            self._pinged_at = now
            self.ping(self.config.entropy(_PING_SIZE))

    # -- the end ----------------------------------------------------------------------------------------------------

    def _fail(self, error: RemoteProtocolError) -> None:
        """Tell the peer what it did wrong and stop listening (the "connection error" of the specification)."""
        outcome = "not_applied" if self.state is ConnectionState.HANDSHAKE else "unknown"
        said = Failure(error.code, error.name, error.message, outcome, error.details)
        self.outbox.clear()
        self.outbox.add_ready(encode_frame(FrameType.ERROR, 0, 0, b"", encode_payload(said)))
        self._close(Closed(error))
        self.state = ConnectionState.CLOSING

    def _close(self, event: Closed) -> None:
        if self.state is ConnectionState.CLOSED:
            return
        self.state = ConnectionState.CLOSED
        self._receiver.close()
        self._inflow.close()
        self._receiver.events.append(event)


