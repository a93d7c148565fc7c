"""This side's frames as a requester: REQUEST, FINISH, CANCEL (spec/protocol.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.connection.answers_read import TOLD_EVERY
from haptera.connection.config import (
    AUTHENTICATE,
    FIRST_FLIGHT_REQUESTS_MAX,
    FIRST_FLIGHT_SIZE_MAX,
    SESSION_SERVICE,
)
from haptera.connection.outgoing_metadata import ENTRIES_SIZE_MAX, Heads, check_size, refuse_size
from haptera.connection.stream_halves import Outgoing, SendingHalf, Stream
from haptera.connection.stream_law import TRANSITIONS, HalfState
from haptera.errors import Code, LocalProtocolError
from haptera.wire import HEADER_SIZE, METADATA_SIZE_MAX, STREAM_MAX, STREAMING, FrameType, Tag, encode_frame

if TYPE_CHECKING:
    from haptera.connection.open_streams import Streams

_REQUEST: Final = int(FrameType.REQUEST)
_FINISH: Final = int(FrameType.FINISH)
_REQUEST_ID_HEAD: Final = bytes((Tag.REQUEST_ID, 16))
_ANSWERED_BELOW_HEAD: Final = bytes((Tag.ANSWERED_BELOW, 8))
_OPENING: Final = HalfState.UNUSED << 16 | FrameType.REQUEST << 8
_UNUSED: Final = HalfState.UNUSED


class Requester:
    """Opens streams, and sends a requester's frames on them."""

    __slots__ = (
        "_calls",
        "_calls_max",
        "_closed",
        "_first_flight_size",
        "_flies",
        "_heads",
        "_outbox",
        "_streams",
        "_turns",
        "first_flight",
    )

    def __init__(self, streams: Streams, heads: Heads, *, flies: bool) -> None:
        """``flies`` says whether requests may leave before the handshake is done (section 4, "First flight")."""
        #: How many requests were sent behind HELLO.
        self.first_flight: int = 0
        self._streams = streams
        self._calls = streams.calls
        self._outbox = streams.outbox
        self._turns = streams.turns
        self._heads = heads
        self._first_flight_size = 0
        self._flies = flies
        self._closed = False
        self._calls_max = -1  # how many calls the peer takes at once; none before the handshake is done

    def open(self, max_streams: int) -> None:
        """The handshake is done; the peer takes ``max_streams`` calls at once."""
        self._flies = False
        self._calls_max = max_streams

    def hold(self) -> None:
        """The handshake is done, and a proof is asked for: until ``open`` nothing but ``authenticate`` is sent."""
        self._flies = False

    def authenticate(self, argument: bytes) -> int:
        """Send a step of the exchange, for which no other request waits; return its stream."""
        kept = self._calls_max
        if not self._flies:
            self._calls_max = len(self._calls) + 1
        try:
            return self.request(SESSION_SERVICE, AUTHENTICATE, argument)
        finally:
            self._calls_max = kept

    def close(self) -> None:
        """The connection is over: no request may be sent."""
        self._flies = False
        self._closed = True
        self._calls_max = -1

    def can_request(self, size: int) -> bool:
        """Whether a request with a payload of ``size`` bytes may be sent now, by the peer's limits and ours."""
        if self._flies:
            # Metadata counts as well; a request's is never larger than this.
            room = FIRST_FLIGHT_SIZE_MAX - self._first_flight_size - HEADER_SIZE - METADATA_SIZE_MAX
            return self.first_flight < FIRST_FLIGHT_REQUESTS_MAX and size <= room
        return (
            len(self._calls) < self._calls_max
            and (size <= self._outbox.whole_max or self._turns.large_free)
            and not self._streams.going_away
        )

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
        """Open a stream with a REQUEST and return its id, as ``try_request`` does.

        Raises ``LocalProtocolError`` 1014 if one of the sides is going away, 3007 if ``can_request`` is false for
        another reason.
        """
        stream = self.try_request(service, method, payload, request_id=request_id, streaming=streaming, entries=entries)
        if not stream:
            self._refuse()
        return stream

    def try_request(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        request_id: bytes | None = None,
        streaming: bool = False,
        entries: bytes = b"",
    ) -> int:
        """Open a stream with a REQUEST and return its id; 0 if ``can_request`` is false.

        A ``request_id``, 16 bytes, makes it a change: every few of them tell which answers have been read. ``entries``
        are further metadata entries, encoded. Raises ``LocalProtocolError`` 3004 if the payload is larger than the peer
        takes.
        """
        size = len(payload)
        streams, heads, outbox, calls = self._streams, self._heads, self._outbox, self._calls
        whole = size <= outbox.whole_max
        usual = whole and len(calls) < self._calls_max and not streams.going_away
        if not usual and not self.can_request(size):
            return 0
        route = heads.routes.get((service, method)) or heads.route(service, method)
        flags = STREAMING if streaming else 0
        if request_id is not None:
            entries = self._change_entries(request_id) + entries
        if len(route) + len(entries) > ENTRIES_SIZE_MAX:
            check_size(len(route) + len(entries))
        if size > streams.peer_message_max:
            refuse_size(size, streams.peer_message_max)
        if heads.grease is not None and heads.grease.due():
            entries, flags = heads.apply_grease(entries, flags)
        metadata = route + entries if entries else route
        id_ = streams.next_call
        if id_ > STREAM_MAX:
            raise LocalProtocolError(Code.PROTOCOL_VIOLATION, "the connection's stream ids are used up")
        streams.next_call = id_ + 2
        calls[id_] = stream = Stream(id_, True, streams, 0, None, request_id is not None)
        if request_id is not None:
            streams.changes.begin(id_)
        if size <= outbox.joined_max and not streaming:
            outbox.add_ready(encode_frame(_REQUEST, flags, id_, metadata, payload))
            return id_
        following = TRANSITIONS[_OPENING | (STREAMING if streaming else 0)]
        half = SendingHalf(id_, streams.peer_stream_window, following if whole else _UNUSED, following)
        stream.made_sending = half
        if service == SESSION_SERVICE:
            half.plain = True
        if self._flies:
            self.first_flight += 1
            self._first_flight_size += HEADER_SIZE + len(metadata) + size
        if not whole:
            outbox.begin_request(half, Outgoing(_REQUEST, flags, metadata, payload))
            return id_
        outbox.add_whole(_REQUEST, flags, half, metadata, payload)
        if streaming:
            outbox.hold_turns(half)
        return id_

    def _change_entries(self, request_id: bytes) -> bytes:
        below = self._streams.changes.tell(self._streams.next_call, least=TOLD_EVERY)
        if below is None:
            return _REQUEST_ID_HEAD + request_id
        return _REQUEST_ID_HEAD + request_id + _ANSWERED_BELOW_HEAD + below.to_bytes(8, "big")

    def _refuse(self) -> None:
        if self._closed:
            raise LocalProtocolError(Code.PROTOCOL_VIOLATION, "the connection is closed")
        if self._streams.going_away:
            raise LocalProtocolError(Code.GOING_AWAY, "no more requests are taken on this connection")
        raise LocalProtocolError(Code.TOO_MANY_REQUESTS, "no more requests may be under way now")

    def finish(self, id_: int) -> None:
        """Say that the last ITEM of a streaming request has been sent."""
        half = self._streams.sendable(id_)
        half.decide(_FINISH)
        if half.queue:
            self._turns.add(half, Outgoing(_FINISH, 0, b"", b""))
        else:
            half.send(_FINISH, 0)
            self._outbox.add_frame(encode_frame(_FINISH, 0, id_))

    def cancel(self, id_: int) -> None:
        """Ask the responder to stop. The stream stays open until its answer has come; nothing if it has ended."""
        stream = self._calls.get(id_)
        if stream is not None and not stream.sending.cancelled:
            self._streams.cancel(stream)

    def release(self, id_: int) -> None:
        """Say that a change whose answer could not be read will not be sent again; nothing for any other stream.

        Until then ``answered_below`` does not pass it: the responder remembers its answer.
        """
        self._streams.changes.release(id_, ended=id_ not in self._calls)
