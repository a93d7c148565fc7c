"""What one side of a connection says on streams: requests, items, answers (spec/protocol.md, section 3)."""

from collections.abc import Mapping
from typing import Final

from haptera.connection.changes import TOLD_EVERY
from haptera.connection.config import (
    COMPRESSION,
    FIRST_FLIGHT_REQUESTS_MAX,
    FIRST_FLIGHT_SIZE_MAX,
    HELD_MIN,
    SESSION_SERVICE,
    TURN_SIZE,
    Budget,
    Config,
    Role,
)
from haptera.connection.events import PackedItem
from haptera.connection.flow import Inflow
from haptera.connection.grease import Grease
from haptera.connection.handshake import Agreement
from haptera.connection.outbox import Outbox
from haptera.connection.routes import remember_route
from haptera.connection.stream import Outgoing, Stream
from haptera.connection.streams import Streams
from haptera.connection.table import ConnectionState, RequestState
from haptera.errors import Failure, LocalProtocolError, RemoteProtocolError, failure
from haptera.wire.compression import COMPRESSED_SIZE_MIN
from haptera.wire.frame import (
    HEADER_SIZE,
    METADATA_SIZE_MAX,
    STREAM_MAX,
    STREAMING,
    FrameType,
    encode_frame,
    encode_head,
)
from haptera.wire.metadata import Tag, encode_entry, encode_route, ignored_tags
from haptera.wire.payload import encode_payload

_REQUEST: Final = int(FrameType.REQUEST)
_ITEM: Final = int(FrameType.ITEM)
_RESPONSE: Final = int(FrameType.RESPONSE)
_ERROR: Final = int(FrameType.ERROR)
_REQUEST_ID_HEAD: Final = bytes((Tag.REQUEST_ID, 16))
_ANSWERED_BELOW_HEAD: Final = bytes((Tag.ANSWERED_BELOW, 8))
_ALL: Final = 2**62
#: What a frame's metadata may take, with room left for grease and for the request id that an answer echoes.
_ENTRIES_SIZE_MAX: Final = METADATA_SIZE_MAX - 32


class Sender:
    """The commands of a connection that concern its streams. Each queues frames; a pull of the outbox sends them.

    ``Connection`` is one with the other direction, the time and the end added to it. The two are classes and not
    objects of one another because a request and its answer would pay for the step between them.
    """

    def __init__(self, role: Role, config: Config, now: float, process_budget: Budget | None) -> None:
        self.role = role
        self.config = config
        self.state = ConnectionState.HANDSHAKE
        #: What both sides agreed on; None before the handshake is done.
        self.agreement: Agreement | None = None
        process_budget = process_budget or Budget()
        self.outbox = Outbox(config.budget, process_budget)
        limits = config.limits
        self._inflow = Inflow(
            self.outbox, limits.stream_window, limits.connection_window, config.budget, process_budget
        )
        self._streams = Streams(int(role), config, self.outbox, self._inflow, now)
        self._calls = self._streams.calls
        self._serves = self._streams.serves
        self._grease = Grease(config.entropy) if config.grease else None
        self._whole_max = FIRST_FLIGHT_SIZE_MAX  # largest payload that leaves in one frame
        self._packed_min = _ALL  # smallest payload that may leave compressed
        self._first_flight = 0
        self._first_flight_size = 0
        self._routes: dict[tuple[str, str], bytes] = {}

    def _open(self, agreement: Agreement) -> None:
        """Take over what was agreed on: what had to wait for that may leave."""
        self.agreement = agreement
        limits = agreement.peer_limits
        self._whole_max = min(limits.max_frame, TURN_SIZE)
        codec = self.config.compression
        if codec is not None and COMPRESSION in agreement.capabilities:
            self._streams.codec = codec
            self.outbox.compress(codec)
            self._packed_min = COMPRESSED_SIZE_MIN
        self.outbox.open(limits.max_frame, limits.connection_window)
        self._streams.open(limits, ignored_tags(agreement.capabilities))

    # -- how it stands ----------------------------------------------------------------------------------------------

    @property
    def open_streams(self) -> int:
        """Streams of both sides that have no answer yet."""
        return len(self._calls) + len(self._serves)

    @property
    def awaited(self) -> bool:
        """Whether an answer is still waited for: the peer's to a call that was not given up, or one of this side's."""
        return bool(self._serves) or any(not stream.cancelled for stream in self._calls.values())

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

    def keeps_items(self, id_: int) -> bool:
        """Whether ITEMs wait to leave on a stream that the peer opened."""
        stream = self._serves.get(id_)
        return stream is not None and bool(stream.outbox)

    @property
    def first_flight(self) -> int:
        """How many requests were sent behind HELLO."""
        return self._first_flight

    @property
    def going_away(self) -> bool:
        """Whether no more requests may be sent: one of the two sides has said GOAWAY."""
        return self._streams.goaway is not None or self._streams.last_served is not None

    def can_request(self, size: int) -> bool:
        """Whether a request with a payload of ``size`` bytes may be sent now, by the peer's limits and ours."""
        if self.state is ConnectionState.OPEN:
            assert self.agreement is not None
            return (
                len(self._calls) < self.agreement.peer_limits.max_streams
                and (size <= self._whole_max or self.outbox.large_free)
                and self._streams.goaway is None
                and self._streams.last_served is None
            )
        if self.state is ConnectionState.HANDSHAKE and self.role is Role.DIALER and self.config.signing_key is None:
            # Metadata counts as well; a request's is never larger than this.
            room = FIRST_FLIGHT_SIZE_MAX - self._first_flight_size - HEADER_SIZE - METADATA_SIZE_MAX
            return self._first_flight < FIRST_FLIGHT_REQUESTS_MAX and size <= room
        return False

    @property
    def lowest_unanswered(self) -> int:
        """The lowest of our changes whose answer has not been read: what ``answered_below`` says."""
        return self._streams.changes.lowest(self._streams.next_call)

    # -- requests and items -----------------------------------------------------------------------------------------

    def request(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        request_id: bytes | None = None,
        streaming: bool = False,
        entries: bytes = b"",
    ) -> int:
        """Open a stream with a REQUEST and return its id.

        A ``request_id``, 16 bytes, makes it a change: every few of them tell which answers have been read. ``entries``
        are further metadata entries, encoded. Raises ``LocalProtocolError`` 3004 if the payload is larger than the peer
        takes, 1014 if one of the sides is going away, 3007 if ``can_request`` is false for another reason.
        """
        size = len(payload)
        if not self.can_request(size):
            self._refuse_request()
        route = self._routes.get((service, method)) or self._remember_route(service, method)
        flags = STREAMING if streaming else 0
        if request_id is not None:
            entries = self._change_entries(request_id) + entries
        if len(route) + len(entries) > _ENTRIES_SIZE_MAX:
            self._check_metadata(len(route) + len(entries))
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
        if request_id is not None:
            stream.change = True
            self._streams.changes.begin(id_)
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

    def _change_entries(self, request_id: bytes) -> bytes:
        below = self._streams.changes.tell(self._streams.next_call, least=TOLD_EVERY)
        if below is None:
            return _REQUEST_ID_HEAD + request_id
        return _REQUEST_ID_HEAD + request_id + _ANSWERED_BELOW_HEAD + below.to_bytes(8, "big")

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
        remember_route(self._routes, (service, method), route, len(route))
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
        ``take_writable``. Raises ``LocalProtocolError`` if the stream has ended or may not carry ITEMs, 3004 if the
        ITEM is larger than the peer takes, 3007 while the process's budget is used up.
        """
        stream = self._producing(id_, len(payload))
        if len(payload) > self._streams.peer_message_max:
            self._refuse_size(len(payload))
        self._check_metadata(len(entries))
        self.outbox.add(stream, Outgoing(_ITEM, 0, entries, payload))
        return self.outbox.ask_room(stream)

    def ask_room(self, id_: int) -> bool:
        """Whether a producer may make its next ITEM for an open stream; otherwise it waits as for ``send_item``.

        What is made while nothing more can leave, or while as much waits for credit as the connection's budget holds,
        would only be kept. Raises ``LocalProtocolError`` as ``send_item`` does.
        """
        return self.outbox.ask_room(self._producing(id_, 0))

    def _producing(self, id_: int, size: int) -> Stream:
        stream = self._sendable(id_)
        if not self._has_memory(size):
            raise LocalProtocolError(3007, "the process has as much in memory for its connections as it may")
        return stream

    def _has_memory(self, size: int) -> bool:
        return not self.outbox.over_budget or self.outbox.charged + size <= HELD_MIN

    def try_item(self, id_: int, payload: bytes) -> bool:
        """Queue one ITEM as ``send_item`` does, if all before it has left and there is room for it; say whether."""
        stream = self._sendable(id_)
        if stream.outbox or not self.outbox.has_room or not self._has_memory(len(payload)):
            return False
        self.send_item(id_, payload)
        return True

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

    def release(self, id_: int) -> None:
        """Say that a change whose answer could not be read will not be sent again; nothing for any other stream.

        Until then ``answered_below`` does not pass it: the responder remembers its answer.
        """
        self._streams.changes.release(id_, ended=id_ not in self._calls)

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
        try:
            return self._streams.unpack(item)
        except RemoteProtocolError as error:
            reason = error.failure("unknown")
            if stream is not None:
                self._streams.spoil(stream, reason, call=id_ & 1 == self.role)
            return reason

    # -- answers ----------------------------------------------------------------------------------------------------

    def respond(self, id_: int, payload: bytes, entries: bytes = b"") -> None:
        """Answer a request; nothing if the stream has ended.

        An answer that is larger than the peer takes becomes ERROR 3004, a large one for which the process has no memory
        3007, both ``unknown``: the change that it reports may have been made.
        """
        if len(payload) > self._streams.peer_message_max:
            details = {"length": len(payload), "limit": self._streams.peer_message_max}
            self.fail(id_, failure(3004, details, outcome="unknown"), entries)
            return
        if len(payload) > self._whole_max and self.outbox.over_budget:
            self.fail(id_, failure(3007, {"reason": "buffers are full"}, outcome="unknown"), entries)
            return
        self._answer(id_, _RESPONSE, payload, entries)

    def fail(self, id_: int, reason: Failure, entries: bytes = b"") -> None:
        """Answer a request with an ERROR; nothing if the stream has ended.

        ITEMs of the stream that have not left are dropped, so that the ERROR need not wait for their credit.
        """
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
            self._check_metadata(len(entries))
        if self._grease is not None and self._grease.due():
            entries, flags = self._apply_grease(entries, flags)
        if stream.outbox and type_ == _ERROR:
            # An ERROR waits for no credit: it takes the place of the ITEMs before it, and cuts an unfinished one short.
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
    def _check_metadata(size: int) -> None:
        if size > _ENTRIES_SIZE_MAX:
            details = {"length": size, "limit": _ENTRIES_SIZE_MAX}
            raise LocalProtocolError(1004, "a frame's metadata is too long", details)

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
