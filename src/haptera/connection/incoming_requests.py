"""The frames of a requester besides ITEMs: REQUEST, CANCEL, FINISH (spec/protocol.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.connection.checks import (
    check_body,
    check_checksum,
    check_fragment,
    check_raw_length,
    check_single,
    misplaced,
    problem_of,
    read_body,
    take_raw_length,
)
from haptera.connection.compressed_payloads import check_plain
from haptera.connection.config import SESSION_SERVICE
from haptera.connection.decode_cache import remember_metadata, remember_route
from haptera.connection.events import CancelReceived, PackedItem, RequestFinished, RequestReceived
from haptera.connection.stream_halves import ReceivingHalf, SendingHalf, Stream
from haptera.connection.stream_law import LAW_FLAGS, REQUEST_UNFINISHED, TRANSITIONS, HalfState
from haptera.errors import Code, Failure, RemoteProtocolError, failure
from haptera.wire import (
    COMPRESSED,
    CONTINUED,
    MORE,
    STREAM_MAX,
    STREAMING,
    Frame,
    FrameType,
    Tag,
    decode_entries,
    decode_route,
    route_length,
    split_request_id,
)

if TYPE_CHECKING:
    from haptera.connection.open_streams import Streams

_REQUEST_ID: Final = int(Tag.REQUEST_ID)
_ANSWERED_BELOW: Final = int(Tag.ANSWERED_BELOW)
_TIMEOUT_MS: Final = int(Tag.TIMEOUT_MS)
_NO_TIME: Final = bytes(4)
_OPENING: Final = HalfState.UNUSED << 16 | FrameType.REQUEST << 8
_OPEN: Final = HalfState.OPEN
_COMPLETE: Final = TRANSITIONS[_OPENING]


class RequestReceiver:
    """Turns the peer's requests into events. Its methods raise the errors that end the connection."""

    __slots__ = (
        "_known",
        "_ledger",
        "_limits",
        "_routes",
        "_streams",
    )

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._ledger = streams.ledger
        self._limits = streams.limits
        self._routes: dict[bytes, tuple[str, str]] = {}
        self._known: dict[bytes, tuple[tuple[str, str], dict[int, bytes]]] = {}

    # -- REQUEST ----------------------------------------------------------------------------------------------------

    def receive_request(self, frame: Frame) -> None:
        """A REQUEST: open its stream, or extend one that is unfinished."""
        flags = frame.flags
        if flags & CONTINUED:
            self._continue(frame)
            return
        id_, streams = frame.stream, self._streams
        if id_ <= streams.highest or id_ > STREAM_MAX or id_ & 1 == streams.parity:
            raise self._misplaced(frame)
        if flags & MORE:
            check_fragment(frame)
        streams.highest = id_
        metadata = frame.metadata
        request_id, common, known = None, metadata, None
        if not flags & COMPRESSED:
            known = self._known.get(metadata)
            if known is None:
                request_id, common = split_request_id(metadata)
                known = self._known.get(common)
        if known is None or flags or frame.body_crc != frame.actual_crc:
            self._receive_unusual(frame, request_id, common, known)
            return
        # The usual request: one sound frame, whose metadata is known but for its id. It is taken here if it is
        # admitted, without a call for each of the questions below.
        (service, method), entries = known
        payload, limits = frame.payload, self._limits
        size = len(metadata) + len(payload)
        if (
            len(streams.serves) >= limits.max_streams
            or len(payload) > limits.max_message
            or streams.last_served is not None
            or service == SESSION_SERVICE
            or not self._ledger.hold_new(size)
        ):
            self._open(frame, known[0], entries, request_id, 0)
            return
        streams.serves[id_] = Stream(
            id_,
            False,
            SendingHalf(id_, streams.peer_stream_window, _OPEN, _OPEN),
            ReceivingHalf(id_, limits.stream_window, _COMPLETE, size),
            request_id,
        )
        streams.events.append(RequestReceived(id_, service, method, payload, False, entries, request_id))

    def _misplaced(self, frame: Frame) -> RemoteProtocolError:
        """Why no stream can be opened where a REQUEST opens one."""
        id_ = frame.stream
        if not id_ or id_ > STREAM_MAX or id_ & 1 == self._streams.parity:
            return misplaced(frame, "a request's stream is not one that its side opens")
        return misplaced(frame, "a stream is opened again, or out of order")

    def _receive_unusual(
        self,
        frame: Frame,
        request_id: bytes | None,
        common: bytes,
        known: tuple[tuple[str, str], dict[int, bytes]] | None,
    ) -> None:
        """Open the stream of a REQUEST that is new, damaged, compressed or one of several frames.

        ``common`` is its metadata without the ``request_id``, ``known`` what it is known to be.
        """
        streams = self._streams
        found: bytes | None = None  # the id, once the frame is known to be sound
        raw_length = 0
        try:
            check_body(frame)
            if known is not None:
                route, entries = known
                found = request_id
            else:
                stop = route_length(frame.metadata)
                route = self._decode_route(frame.metadata[:stop])
                entries = decode_entries(frame.metadata, stop)
                if entries or frame.flags & COMPRESSED:
                    found = entries.pop(_REQUEST_ID, None)
                    check_raw_length(frame, entries)
                    streams.drop_ignored(entries)
                    raw_length = take_raw_length(frame, entries, self._limits.max_frame)
                # Metadata that comes again is remembered without the id at its beginning, which never does. A
                # request with no time at all is refused, and asked for that each time.
                once = raw_length or _ANSWERED_BELOW in entries or entries.get(_TIMEOUT_MS) == _NO_TIME
                if found == request_id and not once:
                    remember_metadata(self._known, common, (route, entries))
        except RemoteProtocolError as error:
            streams.charge()
            streams.refuse(frame.stream, error.failure("not_applied"), found)
            return
        self._open(frame, route, entries, found, raw_length)

    def _decode_route(self, route: bytes) -> tuple[str, str]:
        names = self._routes.get(route)
        if names is None:
            names = decode_route(route)
            remember_route(self._routes, route, names, len(route))
        return names

    def _open(
        self,
        frame: Frame,
        route: tuple[str, str],
        entries: dict[int, bytes],
        request_id: bytes | None,
        raw_length: int,
    ) -> None:
        """Take a REQUEST whose head is sound: the whole request, or the first frame of one."""
        streams = self._streams
        id_ = frame.stream
        flags = frame.flags
        state = TRANSITIONS[_OPENING | flags & LAW_FLAGS]
        stream = Stream(
            id_,
            False,
            SendingHalf(id_, streams.peer_stream_window, _OPEN, _OPEN),
            ReceivingHalf(id_, self._limits.stream_window, state),
            request_id,
        )
        if route[0] == SESSION_SERVICE:
            stream.sending.plain = True
            check_plain(frame, plain=True)
        refusal = self._refusal(stream, frame, entries, raw_length)
        if refusal is not None:
            streams.refuse(id_, refusal, stream.request_id)
        elif flags & MORE:
            streams.serves[id_] = stream
            streams.unfinished.add(stream.receiving, frame, raw_length, streams.now, entries, route)
        else:
            payload = frame.payload
            if raw_length:
                # Only now, because a request that is refused for a limit is never decompressed.
                unpacked = self._unpack(PackedItem((payload,), (raw_length,)))
                if isinstance(unpacked, Failure):
                    self._ledger.release(stream.receiving, stream.receiving.held)
                    streams.refuse(id_, unpacked, stream.request_id)
                    return
                payload = unpacked
            streams.serves[id_] = stream
            streams.events.append(RequestReceived(id_, *route, payload, flags & STREAMING != 0, entries, request_id))

    def _refusal(self, stream: Stream, frame: Frame, entries: dict[int, bytes], raw_length: int) -> Failure | None:
        """Return why a request is not admitted, or None: then its bytes are charged to the budget.

        A refusal that a peer can cause without end is accounted for as a frame that does no work.
        """
        streams = self._streams
        if entries and entries.get(_TIMEOUT_MS) == _NO_TIME:
            streams.charge()
            return failure(Code.INVALID_ARGUMENT, {"reason": "timeout_ms is 0"}, outcome="not_applied")
        if streams.last_served is not None:
            return failure(Code.GOING_AWAY, outcome="not_applied")
        if len(streams.serves) >= self._limits.max_streams:
            streams.charge()
            return failure(Code.TOO_MANY_REQUESTS, {"max_streams": self._limits.max_streams}, outcome="not_applied")
        size = raw_length or len(frame.payload)
        if size > self._limits.max_message:
            return streams.too_large("not_applied")
        if frame.flags & MORE:
            admitted = self._ledger.hold_part(stream.receiving, len(frame.metadata) + len(frame.payload))
        else:
            admitted = self._ledger.hold(stream.receiving, len(frame.metadata) + size)
        return None if admitted else _no_room()

    def _continue(self, frame: Frame) -> None:
        """Take one more frame of an unfinished request."""
        streams = self._streams
        stream = streams.find(frame, call=False)
        if stream is None:
            return
        half = stream.receiving
        half.receive(frame)
        check_fragment(frame)
        check_plain(frame, plain=stream.sending.plain)
        problem = self._add_fragment(half, frame)
        if problem is not None:
            streams.end_unstarted(stream, problem)
            return
        if not frame.flags & MORE:
            self._end_request(stream)

    def _end_request(self, stream: Stream) -> None:
        """The last frame of a request is there."""
        streams = self._streams
        half = stream.receiving
        unfinished = half.unfinished
        assert unfinished is not None
        assert unfinished.route is not None
        payload = unfinished.joined()
        if isinstance(payload, PackedItem):
            # A request that is refused for a limit is never decompressed.
            more = max(0, unfinished.size - unfinished.sent)
            unpacked = self._unpack(payload) if self._ledger.hold(half, more) else _no_room()
            if isinstance(unpacked, Failure):
                streams.end_unstarted(stream, unpacked)
                return
            payload = unpacked
        streams.unfinished.drop(half)
        streaming = half.state is HalfState.STREAMING
        streams.events.append(
            RequestReceived(
                stream.id,
                *unfinished.route,
                payload,
                streaming,
                unfinished.entries,
                stream.request_id,
                begun=unfinished.since,
            )
        )

    def _add_fragment(self, half: ReceivingHalf, frame: Frame) -> Failure | None:
        """Add one more frame to a request, or return why it is not taken."""
        streams = self._streams
        try:
            entries, raw_length = read_body(frame, self._limits.max_frame)
        except RemoteProtocolError as error:
            streams.charge()
            return error.failure("not_applied")
        assert half.unfinished is not None
        if half.unfinished.size + (raw_length or len(frame.payload)) > self._limits.max_message:
            return streams.too_large("not_applied")
        if not self._ledger.hold_part(half, len(frame.payload)):
            return _no_room()
        streams.unfinished.add(half, frame, raw_length, streams.now, entries)
        return None

    def _unpack(self, payload: PackedItem) -> bytes | Failure:
        """Return the payload of a request all of whose frames are there, or why it is not taken."""
        try:
            return self._streams.unpack(payload)
        except RemoteProtocolError as error:
            self._streams.charge()
            return error.failure("not_applied")

    # -- CANCEL and FINISH ------------------------------------------------------------------------------------------

    def receive_cancel(self, frame: Frame) -> None:
        """A CANCEL: tell the handler, or end a request that is not whole yet."""
        stream = self._streams.find(frame, call=False)
        if stream is None or stream.answered or not self._take(stream, frame):
            return
        half = stream.receiving
        if half.cancelled:
            self._streams.charge()
            return
        half.cancelled = True
        if half.state in REQUEST_UNFINISHED:
            self._streams.end_unstarted(stream, failure(Code.CANCELLED, outcome="not_applied"))
        else:
            self._streams.events.append(CancelReceived(stream.id))

    def receive_finish(self, frame: Frame) -> None:
        """A FINISH: no more ITEMs will come from the requester."""
        stream = self._streams.find(frame, call=False)
        if stream is None or stream.answered:
            return
        if self._take(stream, frame) and not stream.receiving.discarding:
            self._streams.events.append(RequestFinished(stream.id))

    def _take(self, stream: Stream, frame: Frame) -> bool:
        """Take a frame without a payload; False if that spoiled the stream."""
        stream.receiving.check(frame)
        check_single(frame, 0)
        check_checksum(frame)
        problem = problem_of(frame)
        if problem is not None:
            self._streams.spoil_serve(stream, problem)
            return False
        stream.receiving.receive(frame)
        return True


def _no_room() -> Failure:
    return failure(Code.TOO_MANY_REQUESTS, {"reason": "buffers are full"}, outcome="not_applied")
