"""What a requester sends besides ITEMs: REQUEST, CANCEL, FINISH (spec/protocol.md, section 3)."""

from typing import Final

from haptera.connection.checks import (
    UNKNOWN_FLAGS,
    check_body,
    check_checksum,
    check_entries,
    check_fragment,
    check_raw_length,
    check_single,
    misplaced,
    problem_of,
    take_raw_length,
)
from haptera.connection.config import SESSION_SERVICE
from haptera.connection.events import CancelReceived, PackedItem, RequestFinished, RequestReceived
from haptera.connection.routes import remember_metadata, remember_route
from haptera.connection.stream import Partial, Stream
from haptera.connection.streams import Streams
from haptera.connection.table import REQUEST_TRANSITIONS, Part, RequestInput, RequestState, part_of, request_input
from haptera.connection.unpacking import check_service, joined
from haptera.errors import Failure, RemoteProtocolError, failure
from haptera.wire.frame import COMPRESSED, CONTINUED, MORE, STREAM_MAX, STREAMING, Frame
from haptera.wire.metadata import NO_ENTRIES, Tag, decode_entries, decode_route, route_length

_REQUEST_ID: Final = int(Tag.REQUEST_ID)
_TIMEOUT_MS: Final = int(Tag.TIMEOUT_MS)
_NO_TIME: Final = bytes(4)


class RequestReceiver:
    """Turns the peer's requests into events. Its methods raise what ends the connection."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._limits = streams.limits
        self._routes: dict[bytes, tuple[str, str]] = {}
        self._known: dict[bytes, tuple[tuple[str, str], dict[int, bytes]]] = {}

    def receive_request(self, frame: Frame) -> None:
        """A REQUEST: open its stream, or extend one that is unfinished."""
        id_ = frame.stream
        flags = frame.flags
        if flags & CONTINUED:
            self._continue(frame)
            return
        streams = self._streams
        if not id_ or id_ > STREAM_MAX or id_ & 1 == streams.parity:
            raise misplaced(frame, "a request's stream is not one that its side opens")
        if id_ <= streams.highest:
            raise misplaced(frame, "a stream is opened again, or out of order")
        if flags & MORE:
            check_fragment(frame)
        streams.highest = id_
        entries = NO_ENTRIES
        raw_length = 0
        try:
            if frame.body_crc != frame.actual_crc or flags & UNKNOWN_FLAGS:
                check_body(frame)
            metadata = frame.metadata
            known = None if flags & COMPRESSED else self._known.get(metadata)
            if known is not None:
                names, entries = known
            else:
                stop = route_length(metadata)
                names = self._decode_route(metadata[:stop])
                entries = decode_entries(metadata, stop)
                if entries or flags & COMPRESSED:
                    check_raw_length(frame, entries)
                    streams.drop_ignored(entries)
                    raw_length = take_raw_length(frame, entries, self._limits.max_frame)
                if not flags & COMPRESSED and _REQUEST_ID not in entries:
                    remember_metadata(self._known, metadata, (names, entries))
        except RemoteProtocolError as error:
            streams.charge()
            streams.refuse(id_, error.failure("not_applied"), entries.get(_REQUEST_ID))
            return
        of_session = names[0] == SESSION_SERVICE
        if raw_length:
            check_service(frame, of_session=of_session)
        request_id = entries.get(_REQUEST_ID)
        if entries.get(_TIMEOUT_MS) == _NO_TIME:
            streams.charge()
            reason = failure(3003, {"reason": "timeout_ms is 0"}, outcome="not_applied")
            streams.refuse(id_, reason, request_id)
            return
        if streams.last_served is not None:
            streams.refuse(id_, failure(1014, outcome="not_applied"), request_id)
            return
        if len(streams.serves) >= self._limits.max_streams:
            streams.charge()
            reason = failure(3007, {"max_streams": self._limits.max_streams}, outcome="not_applied")
            streams.refuse(id_, reason, request_id)
            return
        payload = frame.payload
        size = raw_length or len(payload)
        if size > self._limits.max_message:
            streams.refuse(id_, streams.too_large("not_applied"), request_id)
            return
        state = REQUEST_TRANSITIONS[request_input(flags) << 2 | part_of(flags)]
        stream = Stream(id_, streams.peer_stream_window, self._limits.stream_window, state)
        stream.request_id = request_id
        if of_session:
            stream.of_session = True
        if flags & MORE:
            if not streams.inflow.hold_part(stream, len(metadata) + len(payload)):
                streams.refuse(id_, _no_room(), request_id)
                return
            stream.service, stream.method = names
            streams.serves[id_] = stream
            partial = Partial(frame.type, entries, streams.now)
            partial.add(payload, raw_length)
            streams.begin_partial(stream, partial)
            return
        if not streams.inflow.hold(stream, len(metadata) + size):
            streams.refuse(id_, _no_room(), request_id)
            return
        if raw_length:
            # Only now: what is refused for a limit is never decompressed.
            try:
                payload = streams.unpack(PackedItem((payload,), (raw_length,)))
            except RemoteProtocolError as error:
                streams.inflow.release(stream, stream.held)
                streams.charge()
                streams.refuse(id_, error.failure("not_applied"), request_id)
                return
        streams.serves[id_] = stream
        streams.events.append(RequestReceived(id_, *names, payload, flags & STREAMING != 0, entries))

    def _decode_route(self, route: bytes) -> tuple[str, str]:
        names = self._routes.get(route)
        if names is None:
            names = decode_route(route)
            remember_route(self._routes, route, names, len(route))
        return names

    def _continue(self, frame: Frame) -> None:
        streams = self._streams
        stream = streams.find(frame, call=False)
        if stream is None:
            return
        part = part_of(frame.flags)
        state = REQUEST_TRANSITIONS.get(stream.request_state << 5 | RequestInput.REQUEST << 2 | part)
        if state is None or frame.flags & STREAMING:
            raise misplaced(frame, f"{part.name} REQUEST where the request is {stream.request_state.name}")
        check_fragment(frame)
        partial = stream.partial
        assert partial is not None
        check_service(frame, of_session=stream.of_session)
        problem = self._add_fragment(stream, partial, frame)
        if problem is not None:
            streams.end_unstarted(stream, problem)
        elif part is not Part.LAST:
            stream.request_state = state
        elif isinstance(payload := self._join(stream, partial), Failure):
            streams.end_unstarted(stream, payload)
        else:
            stream.request_state = state
            streams.drop_partial(stream)
            streaming = state is RequestState.STREAMING
            names = stream.service, stream.method
            streams.events.append(
                RequestReceived(stream.id, *names, payload, streaming, partial.entries, begun=partial.since)
            )

    def _add_fragment(self, stream: Stream, partial: Partial, frame: Frame) -> Failure | None:
        """Add one more frame to a request, or return why it is not taken."""
        streams = self._streams
        try:
            check_body(frame)
            raw_length = take_raw_length(frame, check_entries(frame), self._limits.max_frame)
            size = raw_length or len(frame.payload)
            if partial.size + size > self._limits.max_message:
                return streams.too_large("not_applied")
            if not streams.inflow.hold_part(stream, len(frame.payload)):
                return _no_room()
        except RemoteProtocolError as error:
            streams.charge()
            return error.failure("not_applied")
        partial.add(frame.payload, raw_length)
        return None

    def _join(self, stream: Stream, partial: Partial) -> bytes | Failure:
        """Return the payload of a request all of whose frames are there, or why it is not taken."""
        streams = self._streams
        payload = joined(partial)
        if isinstance(payload, bytes):
            return payload
        if not streams.inflow.hold(stream, max(0, partial.size - partial.sent)):
            return _no_room()
        try:
            return streams.unpack(payload)
        except RemoteProtocolError as error:
            streams.charge()
            return error.failure("not_applied")

    def receive_cancel(self, frame: Frame) -> None:
        """A CANCEL: tell the handler, or end a request that is not whole yet."""
        streams = self._streams
        stream = streams.find(frame, call=False)
        if stream is None or stream.answered or not self._advance(stream, frame, RequestInput.CANCEL):
            return
        if stream.cancelled:
            streams.charge()
            return
        stream.cancelled = True
        if stream.request_state in (RequestState.BEGUN, RequestState.BEGUN_STREAMING):
            streams.end_unstarted(stream, failure(3006, outcome="not_applied"))
        else:
            streams.events.append(CancelReceived(stream.id))

    def receive_finish(self, frame: Frame) -> None:
        """A FINISH: no more ITEMs will come from the requester."""
        stream = self._streams.find(frame, call=False)
        if stream is None or stream.answered:
            return
        if self._advance(stream, frame, RequestInput.FINISH) and not stream.discarding:
            self._streams.events.append(RequestFinished(stream.id))

    def _advance(self, stream: Stream, frame: Frame, input_: RequestInput) -> bool:
        """Advance the request half by a frame without a payload; False if that spoiled the stream."""
        state = REQUEST_TRANSITIONS.get(stream.request_state << 5 | input_ << 2 | Part.WHOLE)
        if state is None:
            raise misplaced(frame, f"{input_.name} where the request is {stream.request_state.name}")
        check_single(frame, 0)
        check_checksum(frame)
        problem = problem_of(frame)
        if problem is not None:
            self._streams.spoil_serve(stream, problem)
            return False
        stream.request_state = state
        return True


def _no_room() -> Failure:
    return failure(3007, {"reason": "buffers are full"}, outcome="not_applied")
