"""ITEMs of either side, and the CREDIT that lets them flow (spec/protocol.md, section 3, "Flow control")."""

from typing import Final

from haptera.connection.checks import (
    check_checksum,
    check_fragment,
    check_single,
    misplaced,
    problem_of,
    take_raw_length,
)
from haptera.connection.events import ItemReceived
from haptera.connection.stream import Partial, Stream
from haptera.connection.streams import Streams
from haptera.connection.table import (
    ANSWER_TRANSITIONS,
    REQUEST_TRANSITIONS,
    AnswerInput,
    Part,
    RequestInput,
    part_of,
)
from haptera.connection.unpacking import check_service, joined, whole
from haptera.errors import RemoteProtocolError, failure
from haptera.wire.frame import COMPRESSED, ITEM_OVERHEAD, STREAMING, Frame
from haptera.wire.metadata import NO_ENTRIES, decode_entries

_WINDOW_MAX: Final = 2**31 - 1
_CREDIT_SIZE: Final = 4
_NO_CREDIT: Final = bytes(_CREDIT_SIZE)
_ITEM_OF_REQUEST: Final = int(RequestInput.ITEM)
_ITEM_OF_ANSWER: Final = int(AnswerInput.ITEM)


class ItemReceiver:
    """Takes ITEMs as far as windows and budget allow. Its methods raise what ends the connection."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._inflow = streams.inflow
        self._outbox = streams.outbox
        self._message_max = streams.limits.max_message
        self._frame_max = streams.limits.max_frame

    def receive_item(self, frame: Frame) -> None:
        """An ITEM of either side."""
        streams = self._streams
        inflow = self._inflow
        call = frame.stream & 1 == streams.parity
        stream = streams.find(frame, call=call)
        cost = ITEM_OVERHEAD + len(frame.metadata) + len(frame.payload)
        if stream is None or stream.answered:
            inflow.spend(cost)
            inflow.drop(None, cost)
            return
        part = part_of(frame.flags)
        _advance(stream, frame, part, call=call)
        check_fragment(frame)
        check_service(frame, of_session=stream.of_session)
        inflow.spend(cost)
        inflow.spend_stream(stream, cost)
        if stream.discarding:
            inflow.drop(stream, cost)
            return
        problem = problem_of(frame)
        raw_length = 0
        if frame.flags & COMPRESSED and problem is None:
            try:
                raw_length = take_raw_length(frame, decode_entries(frame.metadata), self._frame_max)
            except RemoteProtocolError as error:
                problem = error.failure("unknown")
        size = (raw_length or len(frame.payload)) + (stream.partial.size if stream.partial is not None else 0)
        if problem is None and size > self._message_max:
            problem = streams.too_large("unknown")
        if problem is not None:
            inflow.drop(stream, cost)
            streams.spoil(stream, problem, call=call)
        elif part is Part.WHOLE:
            inflow.keep_item(stream, cost, None)
            streams.events.append(ItemReceived(stream.id, whole(frame, raw_length)))
        else:
            self._add_fragment(stream, frame, part, raw_length, cost, call=call)

    def _add_fragment(
        self, stream: Stream, frame: Frame, part: Part, raw_length: int, cost: int, *, call: bool
    ) -> None:
        streams = self._streams
        if part is Part.FIRST:
            partial = Partial(frame.type, NO_ENTRIES, streams.now)
        else:
            assert stream.partial is not None
            partial = stream.partial
        partial.add(frame.payload, raw_length)
        if part is Part.FIRST:
            streams.begin_partial(stream, partial)
        if part is Part.LAST:
            streams.drop_partial(stream)
            self._inflow.keep_item(stream, cost, partial)
            streams.events.append(ItemReceived(stream.id, joined(partial)))
        elif not self._inflow.keep_fragment(stream, partial, cost):
            streams.spoil(stream, failure(3007, {"reason": "buffers are full"}, outcome="unknown"), call=call)

    def receive_credit(self, frame: Frame) -> None:
        """A CREDIT, of the connection's window or of a stream's."""
        streams = self._streams
        stream: Stream | None = None
        if frame.stream:
            stream = streams.find(frame, call=frame.stream & 1 == streams.parity)
            if stream is None or (stream.answered and not _opens(frame)):
                if int.from_bytes(frame.payload[:_CREDIT_SIZE], "big") * 4 < streams.peer_stream_window:
                    streams.charge()
                return
        check_single(frame, _CREDIT_SIZE)
        check_checksum(frame)
        problem = problem_of(frame)
        if problem is not None:
            if stream is None:
                raise RemoteProtocolError(problem.code, problem.message, problem.details)
            streams.spoil(stream, problem, call=stream.id & 1 == streams.parity)
            return
        amount = int.from_bytes(frame.payload, "big")
        if not amount:
            raise RemoteProtocolError(1002, "CREDIT of nothing")
        if amount * 4 < (streams.peer_connection_window if stream is None else streams.peer_stream_window):
            streams.charge()
        window = self._outbox.credit if stream is None else stream.send_credit
        if window + amount > _WINDOW_MAX:
            raise RemoteProtocolError(1009, "CREDIT opens a window too far", {"limit": _WINDOW_MAX})
        if stream is None:
            self._outbox.add_connection_credit(amount)
        else:
            self._outbox.add_credit(stream, amount)


def _opens(frame: Frame) -> bool:
    """Whether a CREDIT is sound and opens a window: any other is dropped where its stream has ended."""
    try:
        check_single(frame, _CREDIT_SIZE)
    except RemoteProtocolError:
        return False
    return frame.payload != _NO_CREDIT and problem_of(frame) is None


def _advance(stream: Stream, frame: Frame, part: Part, *, call: bool) -> None:
    """Take an ITEM's frame through the table of the half that it belongs to. Raises 1008."""
    if call:
        answer_state = ANSWER_TRANSITIONS.get(stream.answer_state << 5 | _ITEM_OF_ANSWER << 2 | part)
        if answer_state is not None and not frame.flags & STREAMING:
            stream.answer_state = answer_state
            return
        name = stream.answer_state.name
    else:
        request_state = REQUEST_TRANSITIONS.get(stream.request_state << 5 | _ITEM_OF_REQUEST << 2 | part)
        if request_state is not None and not frame.flags & STREAMING:
            stream.request_state = request_state
            return
        name = stream.request_state.name
    raise misplaced(frame, f"{part.name} ITEM where its side of the stream is {name}")
