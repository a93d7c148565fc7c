"""What ends a call: RESPONSE and ERROR (spec/protocol.md, section 3)."""

from typing import Final

from haptera.connection.checks import (
    UNKNOWN_FLAGS,
    check_body,
    check_entries,
    check_fragment,
    misplaced,
    take_raw_length,
)
from haptera.connection.events import ErrorReceived, PackedItem, ResponseReceived
from haptera.connection.routes import remember_metadata
from haptera.connection.stream import Partial, Stream
from haptera.connection.streams import Streams
from haptera.connection.table import ANSWER_TRANSITIONS, PART_FLAGS, AnswerInput, AnswerState, Part, part_of
from haptera.connection.unpacking import check_service, joined, whole
from haptera.errors import Failure, RemoteProtocolError, failure
from haptera.wire.frame import COMPRESSED, CONTINUED, STREAMING, Frame
from haptera.wire.metadata import NO_ENTRIES, Tag
from haptera.wire.payload import decode_failure

_REQUEST_ID: Final = int(Tag.REQUEST_ID)
#: A frame without these is a whole message, and nothing about its flags needs a second look.
_UNUSUAL_FLAGS: Final = PART_FLAGS | STREAMING | COMPRESSED | UNKNOWN_FLAGS


class AnswerReceiver:
    """Turns the answers to this side's calls into events. Its methods raise what ends the connection."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._known: dict[bytes, dict[int, bytes]] = {}
        self._message_max = streams.limits.max_message
        self._frame_max = streams.limits.max_frame

    def receive_response(self, frame: Frame) -> None:
        """A RESPONSE: the answer to a call."""
        self._receive(frame, AnswerInput.RESPONSE)

    def receive_error(self, frame: Frame) -> None:
        """An ERROR on a stream: the answer to a call."""
        self._receive(frame, AnswerInput.ERROR)

    def _receive(self, frame: Frame, input_: AnswerInput) -> None:
        stream = self._streams.find(frame, call=True)
        if stream is None:
            return
        if (
            frame.flags & _UNUSUAL_FLAGS
            or stream.answer_state is not AnswerState.OPEN
            or stream.discarding
            or frame.body_crc != frame.actual_crc
        ):
            self._receive_unusual(stream, frame, input_)
            return
        # The usual answer: one sound frame and nothing unfinished before it.
        stream.answer_state = AnswerState.ENDED
        entries = NO_ENTRIES
        if frame.metadata:
            known = self._known.get(frame.metadata)
            if known is not None:
                self._take(stream, input_, frame.payload, known)
                return
            try:
                entries = check_entries(frame)
                self._streams.drop_ignored(entries)
            except RemoteProtocolError as error:
                self._fail(stream, error.failure("unknown"))
                return
            if _REQUEST_ID not in entries:
                remember_metadata(self._known, frame.metadata, entries)
        self._take(stream, input_, frame.payload, entries)

    def _receive_unusual(self, stream: Stream, frame: Frame, input_: AnswerInput) -> None:
        part = part_of(frame.flags)
        state = ANSWER_TRANSITIONS.get(stream.answer_state << 5 | input_ << 2 | part)
        if state is None or frame.flags & STREAMING:
            raise misplaced(frame, f"{part.name} {input_.name} where the answer is {stream.answer_state.name}")
        check_fragment(frame)
        check_service(frame, of_session=stream.of_session)
        stream.answer_state = state
        if stream.discarding:
            if state is AnswerState.ENDED:
                self._streams.end_call(stream)
            return
        try:
            check_body(frame)
            entries = check_entries(frame)
            raw_length = take_raw_length(frame, entries, self._frame_max)
            self._streams.drop_ignored(entries)
        except RemoteProtocolError as error:
            self._fail(stream, error.failure("unknown"))
            return
        size = raw_length or len(frame.payload)
        if frame.flags & CONTINUED:
            assert stream.partial is not None
            size += stream.partial.size
        if size > self._message_max:
            self._fail(stream, self._streams.too_large("unknown"))
            return
        if part is not Part.WHOLE:
            self._add_fragment(stream, frame, raw_length, part, entries)
            if part is Part.LAST:
                assert stream.partial is not None
                self._take_packed(stream, input_, joined(stream.partial), stream.partial.entries)
        else:
            self._take_packed(stream, input_, whole(frame, raw_length), entries)

    def _add_fragment(
        self, stream: Stream, frame: Frame, raw_length: int, part: Part, entries: dict[int, bytes]
    ) -> None:
        streams = self._streams
        if part is Part.FIRST:
            # Of an ERROR, too, that cuts short what was unfinished.
            partial = Partial(frame.type, entries, streams.now)
            partial.add(frame.payload, raw_length)
            streams.begin_partial(stream, partial)
        else:
            assert stream.partial is not None
            stream.partial.add(frame.payload, raw_length)
        if part is not Part.LAST and not streams.inflow.hold_part(stream, len(frame.payload)):
            self._fail(stream, failure(3007, {"reason": "buffers are full"}, outcome="unknown"))

    def _take_packed(
        self, stream: Stream, input_: AnswerInput, payload: bytes | PackedItem, entries: dict[int, bytes]
    ) -> None:
        """A whole answer has arrived, perhaps compressed. Only now: what is above a limit is never decompressed."""
        if not isinstance(payload, bytes):
            try:
                payload = self._streams.unpack(payload)
            except RemoteProtocolError as error:
                self._fail(stream, error.failure("unknown"))
                return
        self._take(stream, input_, payload, entries)

    def _take(self, stream: Stream, input_: AnswerInput, payload: bytes, entries: dict[int, bytes]) -> None:
        """A whole answer has arrived."""
        if len(payload) > self._message_max:
            self._fail(stream, self._streams.too_large("unknown"))
            return
        streams = self._streams
        if input_ is AnswerInput.RESPONSE:
            streams.end_call(stream)
            streams.events.append(ResponseReceived(stream.id, payload, entries))
            return
        try:
            said = decode_failure(payload)
        except RemoteProtocolError as error:
            streams.fail_ended(stream, error.failure("unknown"))
        else:
            streams.end_call(stream)
            streams.events.append(ErrorReceived(stream.id, said, entries))

    def _fail(self, stream: Stream, reason: Failure) -> None:
        """Fail the call here: what is wrong with its answer is the requester's to say (section 3, "Damage")."""
        if stream.answer_state is AnswerState.ENDED:
            self._streams.fail_ended(stream, reason)
        else:
            self._streams.spoil_call(stream, reason)
