"""What arrives on streams: requests, items, answers, and all that can be wrong with them (spec/protocol.md, section 3)."""

from typing import Final, TypeVar

from haptera.connection.config import RATE_MIN_BYTES_PER_S, ROUTES_MAX, Config
from haptera.connection.events import (
    CallFailed,
    CancelReceived,
    ErrorReceived,
    Event,
    ItemReceived,
    RequestAborted,
    RequestFinished,
    RequestReceived,
    ResponseReceived,
)
from haptera.connection.flow import Inflow
from haptera.connection.handshake import Agreement
from haptera.connection.outbox import Outbox
from haptera.connection.stream import Partial, Stream
from haptera.connection.table import (
    ANSWER_TRANSITIONS,
    REQUEST_TRANSITIONS,
    AnswerInput,
    AnswerState,
    Part,
    RequestInput,
    RequestState,
    part_of,
    request_input,
)
from haptera.errors import Failure, Outcome, RemoteProtocolError, failure
from haptera.wire.frame import (
    CONTINUED,
    CRITICAL_FLAGS,
    FRAGMENT_SIZE_MIN,
    ITEM_OVERHEAD,
    KNOWN_CRITICAL_FLAGS,
    MORE,
    STREAM_MAX,
    STREAMING,
    Frame,
    FrameType,
    encode_frame,
)
from haptera.wire.metadata import NO_ENTRIES, Tag, decode_entries, decode_route, encode_entry, route_length
from haptera.wire.payload import decode_failure, encode_payload

_WINDOW_MAX: Final = 2**31 - 1
_CREDIT_SIZE: Final = 4
_UNKNOWN_FLAGS: Final = CRITICAL_FLAGS & ~KNOWN_CRITICAL_FLAGS
_REQUEST_ID: Final = int(Tag.REQUEST_ID)
_RAW_LENGTH: Final = int(Tag.RAW_LENGTH)
_ITEM_OF_REQUEST: Final = int(RequestInput.ITEM)
_ITEM_OF_ANSWER: Final = int(AnswerInput.ITEM)

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Receiver:
    """The receiving side of all streams of one connection.

    Its methods raise ``RemoteProtocolError`` for what ends the connection. What is wrong with one stream alone ends
    that stream: with an ERROR where this side is the responder, with ``CallFailed`` and a CANCEL where it called.
    """

    def __init__(self, parity: int, config: Config, outbox: Outbox, inflow: Inflow) -> None:
        self.calls: dict[int, Stream] = {}  # streams that this side opened
        self.serves: dict[int, Stream] = {}  # streams that the peer opened
        self.events: list[Event] = []
        self.now = 0.0
        self.peer_stream_window = 0
        self.peer_message_max = 0
        #: Streams with a message of which only some frames have arrived.
        self.unfinished: dict[int, Stream] = {}
        self._parity = parity
        self._config = config
        self._limits = config.limits
        self._outbox = outbox
        self._inflow = inflow
        self.next_call = 1 if parity else 2  # the id of the next stream that this side opens
        self._highest = 0  # the highest stream that the peer opened
        self._last_served: int | None = None
        self._routes: dict[bytes, tuple[str, str]] = {}

    def open(self, agreement: Agreement) -> None:
        """Take over what the handshake agreed on."""
        self.peer_stream_window = agreement.peer_limits.stream_window
        self.peer_message_max = agreement.peer_limits.max_message

    def take_events(self) -> list[Event]:
        """Return the events since the last call."""
        events = self.events
        self.events = []
        return events

    def go_away(self) -> int:
        """Refuse requests from now on; return the last stream that is answered."""
        if self._last_served is None:
            self._last_served = self._highest
        return self._last_served

    def close(self) -> None:
        """Forget all streams: the connection is over."""
        self.calls.clear()
        self.serves.clear()
        self.unfinished.clear()

    @staticmethod
    def remember(cache: dict[_Key, _Value], key: _Key, value: _Value) -> None:
        """Add to a bounded cache; a full one starts again."""
        if len(cache) >= ROUTES_MAX:
            cache.clear()
        cache[key] = value

    # -- what can be wrong with a frame's body -----------------------------------------------------------------------

    def check_entries(self, frame: Frame) -> dict[int, bytes]:
        """Decode a frame's metadata entries. Raises 1002 or 1007."""
        if not frame.metadata:
            return NO_ENTRIES
        entries = decode_entries(frame.metadata)
        if frame.flags & CONTINUED and entries:
            raise RemoteProtocolError(1002, "a continued frame has metadata of its own")
        return self._without_raw_length(entries)

    def _without_raw_length(self, entries: dict[int, bytes]) -> dict[int, bytes]:
        # COMPRESSED frames never get here, so the tag that belongs to them stands alone.
        if _RAW_LENGTH in entries:
            raise RemoteProtocolError(1002, "a frame has a raw length and is not compressed")
        return entries

    def _check_body(self, frame: Frame) -> None:
        """Raise what is wrong with a frame's body or flags, in the order of checks of section 2."""
        if frame.body_crc != frame.actual_crc:
            raise RemoteProtocolError(
                1003,
                "the checksum of a frame's body is wrong",
                {"expected": frame.body_crc, "actual": frame.actual_crc},
            )
        if frame.flags & _UNKNOWN_FLAGS:
            raise RemoteProtocolError(
                1006, "a frame has a critical flag that is not known", {"flags": frame.flags & _UNKNOWN_FLAGS}
            )

    def _check_fixed(self, frame: Frame, size: int) -> None:
        """Raise what is wrong with a CREDIT, CANCEL or FINISH whose damage ends the connection."""
        if frame.body_crc != frame.actual_crc:
            self._check_body(frame)
        if len(frame.payload) != size:
            raise RemoteProtocolError(
                1002, "a frame's payload has the wrong size", {"expected": size, "actual": len(frame.payload)}
            )

    def _check_fragment(self, frame: Frame) -> None:
        if frame.flags & MORE and len(frame.payload) < FRAGMENT_SIZE_MIN:
            raise RemoteProtocolError(
                1002, "a frame with more to come is too small", {"minimum": FRAGMENT_SIZE_MIN, "actual": len(frame.payload)}
            )

    def _find(self, frame: Frame, *, call: bool) -> Stream | None:
        """Return the open stream of a frame, or None if it has ended.

        ``call`` says whether this side must have opened it. Raises 1008 for a stream of the other side, of none, or
        one that was never opened.
        """
        id_ = frame.stream
        if not id_ or id_ > STREAM_MAX or (id_ & 1 == self._parity) is not call:
            raise _misplaced(frame, "a frame's stream is not one that it may be on")
        if call:
            if id_ >= self.next_call:
                raise _misplaced(frame, "a frame names a stream that was not opened")
            return self.calls.get(id_)
        if id_ > self._highest:
            raise _misplaced(frame, "a frame names a stream that was not opened")
        return self.serves.get(id_)

    # -- requests -----------------------------------------------------------------------------------------------------

    def receive_request(self, frame: Frame) -> None:
        """A REQUEST: open its stream, or extend one that is unfinished."""
        id_ = frame.stream
        flags = frame.flags
        if flags & CONTINUED:
            self._continue_request(frame)
            return
        if not id_ or id_ > STREAM_MAX or id_ & 1 == self._parity:
            raise _misplaced(frame, "a request's stream is not one that its side opens")
        if id_ <= self._highest:
            raise _misplaced(frame, "a stream is opened again, or out of order")
        self._highest = id_
        self._check_fragment(frame)
        try:
            if frame.body_crc != frame.actual_crc or flags & _UNKNOWN_FLAGS:
                self._check_body(frame)
            metadata = frame.metadata
            stop = route_length(metadata)
            route = metadata[:stop]
            names = self._routes.get(route)
            if names is None:
                names = decode_route(route)
                self.remember(self._routes, route, names)
            entries = decode_entries(metadata, stop)
            if _RAW_LENGTH in entries:
                self._without_raw_length(entries)
        except RemoteProtocolError as error:
            self._refuse(id_, error.failure("not_applied"))
            return
        request_id = entries.get(_REQUEST_ID)
        if self._last_served is not None:
            self._refuse(id_, failure(1014, outcome="not_applied"), request_id)
            return
        if len(self.serves) >= self._limits.max_streams:
            self._refuse(id_, failure(3007, {"max_streams": self._limits.max_streams}), request_id)
            return
        payload = frame.payload
        size = len(payload)
        state = REQUEST_TRANSITIONS[request_input(flags) << 2 | part_of(flags)]
        stream = Stream(id_, self.peer_stream_window, self._limits.stream_window, state)
        stream.request_id = request_id
        if size > self._limits.max_message:
            self._refuse(id_, self._too_large(), request_id)
            return
        if not self._inflow.hold(stream, size):
            self._refuse(id_, failure(3007, {"reason": "buffers are full"}, outcome="not_applied"), request_id)
            return
        self.serves[id_] = stream
        if flags & MORE:
            stream.service, stream.method = names
            stream.partial = Partial(frame.type, entries, [payload], size, self.now)
            self.unfinished[id_] = stream
        else:
            self.events.append(RequestReceived(id_, *names, payload, flags & STREAMING != 0, entries))

    def _continue_request(self, frame: Frame) -> None:
        if frame.flags & STREAMING:
            raise _misplaced(frame, "only a request's first frame says that it is streaming")
        stream = self._find(frame, call=False)
        if stream is None:
            return
        part = part_of(frame.flags)
        state = REQUEST_TRANSITIONS.get(stream.request_state << 5 | RequestInput.REQUEST << 2 | part)
        if state is None:
            raise _misplaced(frame, "a request goes on that is not unfinished")
        stream.request_state = state
        self._check_fragment(frame)
        partial = stream.partial
        assert partial is not None
        problem = self._problem(frame)
        if problem is None and partial.size + len(frame.payload) > self._limits.max_message:
            problem = self._too_large()
        if problem is None and not self._inflow.hold(stream, len(frame.payload)):
            problem = failure(3007, {"reason": "buffers are full"}, outcome="not_applied")
        if problem is not None:
            self._end_unstarted(stream, problem)
            return
        partial.pieces.append(frame.payload)
        partial.size += len(frame.payload)
        if part is Part.LAST:
            self._drop_partial(stream)
            streaming = state is RequestState.STREAMING
            payload = b"".join(partial.pieces)
            self.events.append(
                RequestReceived(stream.id, stream.service, stream.method, payload, streaming, partial.entries)
            )

    def receive_cancel(self, frame: Frame) -> None:
        """A CANCEL: tell the handler, or end a request that is not whole yet."""
        stream = self._find(frame, call=False)
        if stream is None:
            return
        self._check_fixed(frame, 0)
        if self._on_request_half(stream, frame, RequestInput.CANCEL) or stream.cancelled:
            return
        stream.cancelled = True
        if stream.request_state in (RequestState.BEGUN, RequestState.BEGUN_STREAMING):
            self._end_unstarted(stream, failure(3006, outcome="not_applied"))
        elif not stream.answered:
            self.events.append(CancelReceived(stream.id))

    def receive_finish(self, frame: Frame) -> None:
        """A FINISH: no more ITEMs will come from the requester."""
        stream = self._find(frame, call=False)
        if stream is None:
            return
        self._check_fixed(frame, 0)
        if not self._on_request_half(stream, frame, RequestInput.FINISH) and not stream.discarding:
            self.events.append(RequestFinished(stream.id))

    def _on_request_half(self, stream: Stream, frame: Frame, input_: RequestInput) -> bool:
        """Advance the request half by a frame without a payload; True if that ended or spoiled the stream."""
        state = REQUEST_TRANSITIONS.get(stream.request_state << 5 | input_ << 2 | part_of(frame.flags))
        if state is None or frame.flags & STREAMING:
            raise _misplaced(frame, f"{input_.name} where the request is {stream.request_state.name}")
        problem = self._problem(frame)
        if problem is not None:
            self._spoil_serve(stream, problem)
            return True
        stream.request_state = state
        return False

    # -- items ----------------------------------------------------------------------------------------------------------

    def receive_item(self, frame: Frame) -> None:
        """An ITEM of either side."""
        call = frame.stream & 1 == self._parity
        stream = self._find(frame, call=call)
        cost = ITEM_OVERHEAD + len(frame.metadata) + len(frame.payload)
        self._inflow.spend(cost)
        if stream is None:
            self._inflow.drop(cost)
            return
        part = part_of(frame.flags)
        self._advance_item(stream, frame, part, call=call)
        self._check_fragment(frame)
        self._inflow.spend_stream(stream, cost)
        if stream.discarding:
            self._inflow.drop(cost)
            return
        problem = self._problem(frame)
        size = len(frame.payload) + (stream.partial.size if stream.partial is not None else 0)
        if problem is None and size > self._limits.max_message:
            problem = self._too_large()
        if problem is not None:
            self._inflow.drop(cost)
            self._spoil(stream, problem, call=call)
        elif part is Part.WHOLE:
            self._inflow.keep_item(stream, cost, None)
            self.events.append(ItemReceived(stream.id, frame.payload))
        else:
            self._add_fragment(stream, frame, part, cost, call=call)

    def _advance_item(self, stream: Stream, frame: Frame, part: Part, *, call: bool) -> None:
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
        raise _misplaced(frame, f"{part.name} ITEM where its side of the stream is {name}")

    def _add_fragment(self, stream: Stream, frame: Frame, part: Part, cost: int, *, call: bool) -> None:
        if part is Part.FIRST:
            stream.partial = Partial(frame.type, NO_ENTRIES, [], 0, self.now)
            self.unfinished[stream.id] = stream
        partial = stream.partial
        assert partial is not None
        partial.pieces.append(frame.payload)
        partial.size += len(frame.payload)
        if part is Part.LAST:
            self._drop_partial(stream)
            self._inflow.keep_item(stream, cost, partial)
            self.events.append(ItemReceived(stream.id, b"".join(partial.pieces)))
        elif not self._inflow.keep_fragment(stream, cost):
            self._spoil(stream, failure(3007, {"reason": "buffers are full"}, outcome="unknown"), call=call)

    # -- answers --------------------------------------------------------------------------------------------------------

    def receive_response(self, frame: Frame) -> None:
        """A RESPONSE: the answer to a call."""
        stream = self._find(frame, call=True)
        if stream is None:
            return
        if not frame.flags and stream.answer_state is AnswerState.OPEN and not stream.discarding:
            # The usual answer: one frame, nothing before it.
            if frame.body_crc == frame.actual_crc and len(frame.payload) <= self._limits.max_message:
                try:
                    entries = self.check_entries(frame)
                except RemoteProtocolError as error:
                    self._end_call(stream)
                    self.events.append(CallFailed(stream.id, error.failure("unknown")))
                    return
                self._end_call(stream)
                self.events.append(ResponseReceived(stream.id, frame.payload, entries))
                return
        self._receive_answer(stream, frame, AnswerInput.RESPONSE)

    def receive_error(self, frame: Frame) -> None:
        """An ERROR on a stream: the answer to a call."""
        stream = self._find(frame, call=True)
        if stream is not None:
            self._receive_answer(stream, frame, AnswerInput.ERROR)

    def _receive_answer(self, stream: Stream, frame: Frame, input_: AnswerInput) -> None:
        part = part_of(frame.flags)
        state = ANSWER_TRANSITIONS.get(stream.answer_state << 5 | input_ << 2 | part)
        if state is None or frame.flags & STREAMING:
            raise _misplaced(frame, f"{part.name} {input_.name} where the answer is {stream.answer_state.name}")
        stream.answer_state = state
        self._check_fragment(frame)
        if part in (Part.WHOLE, Part.FIRST):
            self._drop_partial(stream)  # an ERROR cuts short what was unfinished
        problem = None if stream.discarding else self._add_answer(stream, frame, part)
        if state is not AnswerState.ENDED:
            if problem is not None:
                self._spoil_call(stream, problem)
            return
        partial = stream.partial
        discarding = stream.discarding
        self._end_call(stream)
        if discarding:
            return
        if problem is None:
            assert partial is not None
            problem = self._report_answer(stream, input_, b"".join(partial.pieces), partial.entries)
        if problem is not None:
            self.events.append(CallFailed(stream.id, problem))

    def _add_answer(self, stream: Stream, frame: Frame, part: Part) -> Failure | None:
        """Keep a frame of an answer; return why that cannot be done."""
        try:
            self._check_body(frame)
            entries = self.check_entries(frame)
        except RemoteProtocolError as error:
            return error.failure("unknown")
        if part in (Part.WHOLE, Part.FIRST):
            stream.partial = Partial(frame.type, entries, [], 0, self.now)
            if part is Part.FIRST:
                self.unfinished[stream.id] = stream
        partial = stream.partial
        assert partial is not None
        partial.pieces.append(frame.payload)
        partial.size += len(frame.payload)
        if partial.size > self._limits.max_message:
            return self._too_large("unknown")
        if not self._inflow.hold(stream, len(frame.payload)):
            return failure(3007, {"reason": "buffers are full"}, outcome="unknown")
        return None

    def _report_answer(
        self, stream: Stream, input_: AnswerInput, payload: bytes, entries: dict[int, bytes]
    ) -> Failure | None:
        if input_ is AnswerInput.RESPONSE:
            self.events.append(ResponseReceived(stream.id, payload, entries))
            return None
        try:
            said = decode_failure(payload)
        except RemoteProtocolError as error:
            return error.failure("unknown")
        self.events.append(ErrorReceived(stream.id, said, entries))
        return None

    # -- credit ---------------------------------------------------------------------------------------------------------

    def receive_credit(self, frame: Frame) -> None:
        """A CREDIT, of the connection's window or of a stream's."""
        stream: Stream | None = None
        if frame.stream:
            stream = self._find(frame, call=frame.stream & 1 == self._parity)
            if stream is None:
                return
        self._check_fixed(frame, _CREDIT_SIZE)
        if frame.flags & (MORE | CONTINUED | STREAMING):
            raise _misplaced(frame, "CREDIT has a flag for messages")
        problem = self._problem(frame)
        if problem is not None:
            if stream is None:
                raise RemoteProtocolError(problem.code, problem.message, problem.details)
            self._spoil(stream, problem, call=stream.id & 1 == self._parity)
            return
        amount = int.from_bytes(frame.payload, "big")
        if not amount:
            raise RemoteProtocolError(1002, "CREDIT of nothing")
        window = self._outbox.credit if stream is None else stream.send_credit
        if window + amount > _WINDOW_MAX:
            raise RemoteProtocolError(1009, "CREDIT opens a window too far", {"limit": _WINDOW_MAX})
        if stream is None:
            self._outbox.add_connection_credit(amount)
        else:
            self._outbox.add_credit(stream, amount)

    # -- ends -----------------------------------------------------------------------------------------------------------

    def _problem(self, frame: Frame) -> Failure | None:
        """Return what is wrong with the body, flags or metadata of a frame that is not the first of a request."""
        if frame.body_crc == frame.actual_crc and not frame.flags & _UNKNOWN_FLAGS and not frame.metadata:
            return None
        try:
            self._check_body(frame)
            self.check_entries(frame)
        except RemoteProtocolError as error:
            return error.failure("unknown")
        return None

    def _too_large(self, outcome: Outcome = "not_applied") -> Failure:
        return failure(3004, {"limit": self._limits.max_message}, outcome=outcome)

    def _refuse(self, id_: int, reason: Failure, request_id: bytes | None = None) -> None:
        """Answer a request that never began; its stream counts as opened and ended."""
        entries = encode_entry(Tag.REQUEST_ID, request_id) if request_id is not None else b""
        payload = encode_payload(reason)
        self._outbox.add_ready(encode_frame(FrameType.ERROR, 0, id_, entries, payload))

    def _end_unstarted(self, stream: Stream, reason: Failure) -> None:
        """End a stream whose request never became whole, so that no handler knows of it."""
        self.end_serve(stream)
        nothing_done = Failure(reason.code, reason.name, reason.message, "not_applied", reason.details)
        self._refuse(stream.id, nothing_done, stream.request_id)

    def _spoil(self, stream: Stream, reason: Failure, *, call: bool) -> None:
        if call:
            self._spoil_call(stream, reason)
        else:
            self._spoil_serve(stream, reason)

    def _spoil_call(self, stream: Stream, reason: Failure) -> None:
        """Fail a call here; its stream stays open until the responder has ended it."""
        unknown = Failure(reason.code, reason.name, reason.message, "unknown", reason.details)
        self.events.append(CallFailed(stream.id, unknown))
        self._discard(stream)
        if not stream.cancelled:
            self.send_cancel(stream)

    def _spoil_serve(self, stream: Stream, reason: Failure) -> None:
        """Give up a request whose handler may be at work: its owner stops the handler, then fails the stream."""
        if stream.request_state in (RequestState.BEGUN, RequestState.BEGUN_STREAMING):
            self._end_unstarted(stream, reason)
            return
        self._discard(stream)
        if not stream.answered:
            self.events.append(RequestAborted(stream.id, reason))

    def _discard(self, stream: Stream) -> None:
        stream.discarding = True
        self._drop_partial(stream)
        self._inflow.end(stream)

    def send_cancel(self, stream: Stream) -> None:
        """Send CANCEL, behind whatever of the request has been queued as ready; nothing more of it is sent."""
        stream.cancelled = True
        self._outbox.drop(stream)
        self._outbox.add_ready(encode_frame(FrameType.CANCEL, 0, stream.id))

    def end_serve(self, stream: Stream) -> None:
        """A stream that the peer opened has ended."""
        self._drop_partial(stream)
        self.serves.pop(stream.id, None)
        if stream.held or stream.unread:
            self._inflow.end(stream)

    def _end_call(self, stream: Stream) -> None:
        """A stream that this side opened has ended."""
        if stream.partial is not None:
            self._drop_partial(stream)
        del self.calls[stream.id]
        if stream.outbox:
            self._outbox.drop(stream)
        if stream.held or stream.unread:
            self._inflow.end(stream)

    def _drop_partial(self, stream: Stream) -> None:
        if stream.partial is not None:
            stream.partial = None
            self.unfinished.pop(stream.id, None)

    # -- time -----------------------------------------------------------------------------------------------------------

    def next_timeout(self) -> float:
        """Return when the first unfinished message times out."""
        return min((self._deadline(stream) for stream in self.unfinished.values()), default=float("inf"))

    def expire(self, now: float) -> None:
        """End the streams whose unfinished message did not become whole in time (section 2)."""
        for stream in list(self.unfinished.values()):
            partial = stream.partial
            assert partial is not None
            if now < self._deadline(stream):
                continue
            if partial.type == FrameType.ITEM and stream.receive_window < ITEM_OVERHEAD + FRAGMENT_SIZE_MIN:
                partial.since = now  # its sender has no credit to go on with
                continue
            self._spoil(stream, failure(3005, outcome="unknown"), call=stream.id & 1 == self._parity)

    def _deadline(self, stream: Stream) -> float:
        partial = stream.partial
        assert partial is not None
        return partial.since + self._config.message_timeout_s + partial.size / RATE_MIN_BYTES_PER_S


def _misplaced(frame: Frame, message: str) -> RemoteProtocolError:
    return RemoteProtocolError(1008, message, {"type": frame.type, "stream": frame.stream})
