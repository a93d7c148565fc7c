"""The ends of a stream, sent and received: RESPONSE and ERROR (spec/protocol.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.connection.checks import SUSPECT_FLAGS, check_fragment, check_raw_length, read_body
from haptera.connection.compressed_payloads import check_plain, whole
from haptera.connection.decode_cache import remember_layout
from haptera.connection.events import ErrorReceived, PackedItem, ResponseReceived
from haptera.connection.outgoing_metadata import ENTRIES_SIZE_MAX, Heads, check_size
from haptera.connection.stream_halves import Outgoing, Stream
from haptera.connection.stream_law import LAW_FLAGS, HalfState
from haptera.errors import Code, Failure, RemoteProtocolError, failure
from haptera.wire import (
    CONTINUED,
    MORE,
    Frame,
    FrameType,
    Layout,
    Tag,
    decode_entries,
    decode_failure,
    encode_frame,
    encode_payload,
    has_layout,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.connection.open_streams import Streams

_RESPONSE: Final = int(FrameType.RESPONSE)
_ERROR: Final = int(FrameType.ERROR)
_RAW_LENGTH: Final = int(Tag.RAW_LENGTH)
_REQUEST_ID_HEAD: Final = bytes((Tag.REQUEST_ID, 16))
#: Entries of less leave room for a request id and for grease in any frame.
_USUAL_ENTRIES_MAX: Final = ENTRIES_SIZE_MAX - 32
_OF_SEVERAL: Final = MORE | CONTINUED
#: A frame without these is a whole message, and nothing about its flags needs a second look.
_UNUSUAL_FLAGS: Final = LAW_FLAGS | SUSPECT_FLAGS


class AnswerSender:
    """Answers the peer's requests."""

    __slots__ = (
        "_heads",
        "_outbox",
        "_serves",
        "_streams",
    )

    def __init__(self, streams: Streams, heads: Heads) -> None:
        self._streams = streams
        self._serves = streams.serves
        self._outbox = streams.outbox
        self._heads = heads

    def respond(self, id_: int, payload: bytes, entries: bytes = b"") -> None:
        """Answer one request, as ``respond_all`` does."""
        self.respond_all(((id_, payload, entries),))

    def respond_all(self, answers: Sequence[tuple[int, bytes, bytes]]) -> None:
        """Answer requests, each with its payload and its entries; nothing for a stream that has ended.

        An answer that is larger than the peer takes becomes ERROR 3004, a large one for which the process has no memory
        3007, both ``unknown``: the change that it reports may have been made. Raises ``LocalProtocolError`` 1004 for
        entries that no frame can carry; the answers before that one are given.
        """
        streams, serves, grease = self._streams, self._serves, self._heads.grease
        plain = grease is None or grease.distance >= len(answers)  # none of them is to be greased
        usual_max = min(self._outbox.joined_max, streams.peer_message_max) if plain else -1
        frames: list[bytes] = []
        held = 0
        try:
            for id_, payload, entries in answers:
                stream = serves.get(id_)
                if stream is None:
                    continue
                if (
                    len(payload) > usual_max
                    or stream.made_sending is not None
                    or stream.made_receiving is not None
                    or len(entries) > _USUAL_ENTRIES_MAX
                ):
                    self._queue(frames)
                    frames = []
                    self._respond(id_, payload, entries)
                    continue
                # Most answers are the one frame of their stream, whose halves were never made. A call for each part
                # of its end would take twice as long.
                request_id = stream.request_id
                metadata = entries if request_id is None else _REQUEST_ID_HEAD + request_id + entries
                frames.append(encode_frame(_RESPONSE, 0, id_, metadata, payload))
                del serves[id_]
                held += stream.held
        finally:
            self._queue(frames)
            streams.ledger.take_off(held)

    def _queue(self, frames: list[bytes]) -> None:
        """Queue whole frames, none of which is greased."""
        if frames:
            self._outbox.add_joined(frames)
            if self._heads.grease is not None:
                self._heads.grease.distance -= len(frames)

    def _respond(self, id_: int, payload: bytes, entries: bytes) -> None:
        """Answer with a payload that perhaps one frame does not carry, or the peer does not take."""
        size, size_max = len(payload), self._streams.peer_message_max
        if size > size_max:
            details = {"length": size, "limit": size_max}
            self.fail(id_, failure(Code.MESSAGE_TOO_LARGE, details, outcome="unknown"), entries)
        elif size > self._outbox.whole_max and self._outbox.over_budget:
            self.fail(id_, failure(Code.TOO_MANY_REQUESTS, {"reason": "buffers are full"}, outcome="unknown"), entries)
        else:
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
        if stream.request_id is not None:
            entries = _REQUEST_ID_HEAD + stream.request_id + entries
        if len(entries) > ENTRIES_SIZE_MAX:
            check_size(len(entries))
        half = stream.sending
        half.decide(type_)
        flags = 0
        heads = self._heads
        if heads.grease is not None and heads.grease.due():
            entries, flags = heads.apply_grease(entries, flags)
        if half.queue and type_ == _ERROR:
            # An ERROR waits for no credit: it takes the place of the ITEMs before it, and cuts an unfinished one short.
            self._streams.turns.drop(half)
        if not half.queue and len(payload) <= self._outbox.whole_max:
            # Its one frame is made here, and both halves are forgotten with it.
            self._outbox.add_whole(type_, flags, half, entries, payload)
            self._streams.end_serve(stream)
            return
        self._streams.discard(stream)
        self._streams.turns.add(half, Outgoing(type_, flags, entries, payload))


class AnswerReceiver:
    """Turns the answers to this side's calls into events. Its methods raise the errors that end the connection."""

    __slots__ = (
        "_calls",
        "_frame_max",
        "_layouts",
        "_message_max",
        "_streams",
    )

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._layouts: dict[int, Layout] = {}  # by the length of the metadata
        self._calls = streams.calls
        self._message_max = streams.limits.max_message
        self._frame_max = streams.limits.max_frame

    def receive_usual(self, frames: Sequence[Frame], start: int, refused_flags: int) -> int:
        """Take the usual answers that are in a row from ``start`` on; return the place of the first other frame.

        A usual answer is one sound RESPONSE, the first frame that this side receives on its stream. Its entries are
        known but for their values. All in a row are taken in one loop, because a call for each would cost as much as
        all else about them.
        """
        streams, calls, layouts, unusual = self._streams, self._calls, self._layouts, _UNUSUAL_FLAGS | refused_flags
        events, message_max, end_change = streams.events, self._message_max, streams.changes.end
        for place in range(start, len(frames)):
            frame = frames[place]
            metadata, payload = frame.metadata, frame.payload
            stream, layout = calls.get(frame.stream), layouts.get(len(metadata))
            if (
                frame.type != _RESPONSE
                or layout is None
                or stream is None
                or stream.made_receiving is not None
                or frame.flags & unusual
                or frame.body_crc != frame.actual_crc
                or len(payload) > message_max
                or (entries := layout.read(metadata)) is None
            ):
                return place
            if stream.made_sending is None:
                # As ``end_call``, without a call for each.
                del calls[stream.id]
                if stream.change:
                    end_change(stream.id)
            else:
                streams.end_call(stream)
            events.append(ResponseReceived(stream.id, payload, entries))
        return len(frames)

    def receive_answer(self, frame: Frame) -> None:
        """A RESPONSE or an ERROR on a stream, which is not the usual answer to a call."""
        streams = self._streams
        stream = self._calls.get(frame.stream)
        if stream is None:
            streams.find(frame, call=True)
            return
        half = stream.receiving
        half.receive(frame)
        if frame.flags & _UNUSUAL_FLAGS or half.discarding or frame.body_crc != frame.actual_crc:
            self._receive_unusual(stream, frame)
            return
        try:
            entries = decode_entries(frame.metadata)
            if _RAW_LENGTH in entries:
                check_raw_length(frame, entries)
        except RemoteProtocolError as error:
            self._fail(stream, error.failure("unknown"))
            return
        streams.drop_ignored(entries)
        if has_layout(frame.metadata, entries):
            remember_layout(self._layouts, frame.metadata)
        if len(frame.payload) > self._message_max:
            self._fail(stream, streams.too_large("unknown"))
        elif frame.type == _RESPONSE:
            streams.end_call(stream)
            streams.events.append(ResponseReceived(stream.id, frame.payload, entries))
        else:
            self._take_error(stream, frame.payload, entries)

    def _receive_unusual(self, stream: Stream, frame: Frame) -> None:
        """Take a frame of several, a compressed or a faulty one, or one that is not wanted."""
        half = stream.receiving
        check_fragment(frame)
        check_plain(frame, plain=stream.sending.plain)
        if half.discarding:
            if half.state is HalfState.ENDED:
                self._streams.end_call(stream)
            return
        try:
            entries, raw_length = read_body(frame, self._frame_max)
            self._streams.drop_ignored(entries)
        except RemoteProtocolError as error:
            self._fail(stream, error.failure("unknown"))
            return
        size = raw_length or len(frame.payload)
        if frame.flags & CONTINUED:
            assert half.unfinished is not None
            size += half.unfinished.size
        if size > self._message_max:
            self._fail(stream, self._streams.too_large("unknown"))
        elif frame.flags & _OF_SEVERAL:
            self._add_fragment(stream, frame, raw_length, entries)
        else:
            self._take_packed(stream, frame.type, whole(frame, raw_length), entries)

    def _add_fragment(self, stream: Stream, frame: Frame, raw_length: int, entries: dict[int, bytes]) -> None:
        streams = self._streams
        half = stream.receiving
        if half.unfinished is not None and not frame.flags & CONTINUED:
            streams.inflow.cut_short(half, half.unfinished)
        unfinished = streams.unfinished.add(half, frame, raw_length, streams.now, entries)
        if not frame.flags & MORE:
            self._take_packed(stream, frame.type, unfinished.joined(), unfinished.entries)
        elif not streams.ledger.hold_part(half, len(frame.payload)):
            self._fail(stream, failure(Code.TOO_MANY_REQUESTS, {"reason": "buffers are full"}, outcome="unknown"))

    def _take_packed(self, stream: Stream, type_: int, payload: bytes | PackedItem, entries: dict[int, bytes]) -> None:
        """A whole answer has arrived, perhaps compressed. Only now, because an answer above a limit is never
        decompressed.
        """
        if isinstance(payload, PackedItem):
            try:
                payload = self._streams.unpack(payload)
            except RemoteProtocolError as error:
                self._fail(stream, error.failure("unknown"))
                return
        if type_ == _RESPONSE:
            self._streams.end_call(stream)
            self._streams.events.append(ResponseReceived(stream.id, payload, entries))
        else:
            self._take_error(stream, payload, entries)

    def _take_error(self, stream: Stream, payload: bytes, entries: dict[int, bytes]) -> None:
        """A whole ERROR has arrived."""
        streams = self._streams
        try:
            said = decode_failure(payload)
        except RemoteProtocolError as error:
            streams.fail_ended(stream, error.failure("unknown"))
        else:
            streams.end_call(stream)
            streams.events.append(ErrorReceived(stream.id, said, entries))

    def _fail(self, stream: Stream, reason: Failure) -> None:
        """Fail the call here, because the requester judges the answer (section 3, "Damage")."""
        if stream.receiving.state is HalfState.ENDED:
            self._streams.fail_ended(stream, reason)
        else:
            self._streams.spoil_call(stream, reason)
