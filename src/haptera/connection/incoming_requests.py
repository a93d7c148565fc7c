"""The frames of a requester besides ITEMs: REQUEST, CANCEL, FINISH (spec/protocol.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

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
from haptera.connection.stream_halves import ReceivingHalf, Stream
from haptera.connection.stream_law import LAW_FLAGS, REQUEST_UNFINISHED, TRANSITIONS, HalfState
from haptera.errors import Code, Failure, RemoteProtocolError, failure
from haptera.wire import (
    COMPRESSED,
    CONTINUED,
    MORE,
    SIGNED,
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
    from collections.abc import Sequence

    from haptera.connection.open_streams import Streams

_REQUEST_ID: Final = int(Tag.REQUEST_ID)
_REQUEST_ID_SIZE: Final = 16
_REQUEST_ID_HEAD: Final = bytes((Tag.REQUEST_ID, _REQUEST_ID_SIZE))
_ANSWERED_BELOW: Final = int(Tag.ANSWERED_BELOW)
_BELOW_HEAD: Final = bytes((Tag.ANSWERED_BELOW, 8))
_BELOW_ENTRY_SIZE: Final = len(_BELOW_HEAD) + 8
_TIMEOUT_MS: Final = int(Tag.TIMEOUT_MS)
_NO_TIME: Final = bytes(4)
_REQUEST: Final = int(FrameType.REQUEST)
_OPENING: Final = HalfState.UNUSED << 16 | FrameType.REQUEST << 8
_OPEN: Final = HalfState.OPEN

#: The route of a request, and its entries without the ``request_id``.
_Head = tuple[tuple[str, str], dict[int, bytes]]


class _Form(NamedTuple):
    """Metadata that is known but for the id in it: the bytes before the id and behind it, and their meaning. There is
    no ``answered_below`` in it.
    """

    before: bytes
    behind: bytes
    head: _Head


class RequestReceiver:
    """Turns the peer's requests into events. Its methods raise the errors that end the connection."""

    __slots__ = (
        "_form",
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
        self._known: dict[bytes, _Head] = {}
        self._form: _Form | None = None  # of the last request with an id whose metadata was known

    # -- REQUEST ----------------------------------------------------------------------------------------------------

    def receive_usual(self, frames: Sequence[Frame], start: int, refused_flags: int) -> int:
        """Take the usual requests that are in a row from ``start`` on; return the place of the first other frame.

        A usual request is one sound frame that is admitted, and its metadata is known but for its id. All in a row are
        taken in one loop, because a call and a half of a stream for each would cost more than all else about them.
        """
        streams, known, unusual = self._streams, self._known, ~SIGNED | refused_flags
        if streams.last_served is not None:
            return start
        serves, events, parity, highest = streams.serves, streams.events, streams.parity, streams.highest
        limits = self._limits
        max_streams, max_message = limits.max_streams, limits.max_message
        room = before = self._ledger.room
        prefix, suffix, head = self._form or _NO_FORM
        (service, method), entries = last_found = head
        first = len(prefix)
        last = first + _REQUEST_ID_SIZE
        length = last + len(suffix) if self._form is not None else -1
        place = start
        for place in range(start, len(frames)):
            frame = frames[place]
            id_ = frame.stream
            if (
                frame.type != _REQUEST
                or frame.flags & unusual
                or id_ <= highest
                or id_ > STREAM_MAX
                or id_ & 1 == parity
                or frame.body_crc != frame.actual_crc
            ):
                break
            metadata, payload = frame.metadata, frame.payload
            if len(metadata) == length and metadata.startswith(prefix) and metadata.endswith(suffix):
                request_id, found = metadata[first:last], head
            elif len(metadata) == length + _BELOW_ENTRY_SIZE and (telling := self._telling(metadata)) is not None:
                request_id, found = telling
            else:
                request_id, other = None, known.get(metadata)
                if other is None:
                    request_id, common = split_request_id(metadata)
                    other = known.get(common)
                    if other is None:
                        break
                    if request_id is not None:
                        prefix, suffix, head = self._form = _form_of(metadata, other)
                        first = len(prefix)
                        last = first + _REQUEST_ID_SIZE
                        length = len(metadata)
                found = other
            if found is not last_found:
                (service, method), entries = last_found = found
            payload_size = len(payload)
            size = len(metadata) + payload_size
            if size > room or payload_size > max_message or len(serves) >= max_streams or service == SESSION_SERVICE:
                break
            room -= size
            highest = id_
            serves[id_] = Stream(id_, False, streams, size, request_id)
            events.append(RequestReceived(id_, service, method, payload, False, entries, request_id))
        else:
            place = len(frames)
        streams.highest = highest
        self._ledger.take_on(before - room)
        return place

    def _telling(self, metadata: bytes) -> tuple[bytes, _Head] | None:
        """The id and the meaning of metadata of the known form that also tells, right behind the id, which answers were
        read: 8 bytes, which are never the same again. None for other metadata.
        """
        prefix, suffix, (route, entries) = self._form or _NO_FORM
        first = len(prefix)
        last = first + _REQUEST_ID_SIZE
        if not (metadata.startswith(prefix) and metadata.startswith(_BELOW_HEAD, last) and metadata.endswith(suffix)):
            return None
        below = metadata[last + len(_BELOW_HEAD) : last + _BELOW_ENTRY_SIZE]
        return metadata[first:last], (route, {**entries, _ANSWERED_BELOW: below})

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
        self._receive_unusual(frame, request_id, common, known)

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
        known: _Head | None,
    ) -> None:
        """Open the stream of a REQUEST that is not usual: new, damaged, compressed, refused, one of several frames.

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
        half = ReceivingHalf(id_, self._limits.stream_window, state)
        stream = Stream(id_, False, streams, 0, request_id, made_receiving=half)
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


def _form_of(metadata: bytes, head: _Head) -> _Form:
    """The form of known metadata with an id, which stands right behind the names."""
    start = route_length(metadata) + len(_REQUEST_ID_HEAD)
    return _Form(metadata[:start], metadata[start + _REQUEST_ID_SIZE :], head)


_NO_FORM: Final = _Form(b"", b"", (("", ""), {}))


def _no_room() -> Failure:
    return failure(Code.TOO_MANY_REQUESTS, {"reason": "buffers are full"}, outcome="not_applied")
