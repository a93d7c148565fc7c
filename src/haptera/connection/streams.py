"""The open streams of a connection: how they are found, given up and ended (spec/protocol.md, section 3)."""

from typing import TYPE_CHECKING, Final

from haptera.connection.changes import Changes
from haptera.connection.checks import misplaced
from haptera.connection.config import RATE_MIN_BYTES_PER_S, Config
from haptera.connection.events import CallFailed, Event, PackedItem, RequestAborted
from haptera.connection.flood import Bucket
from haptera.connection.flow import Inflow
from haptera.connection.outbox import Outbox
from haptera.connection.stream import Partial, Stream
from haptera.connection.table import RequestState
from haptera.connection.unpacking import unpack
from haptera.errors import Failure, Outcome, failure
from haptera.wire.frame import Frame, FrameType, encode_frame
from haptera.wire.metadata import Tag, encode_entry
from haptera.wire.payload import LIMITS, Goaway, Limits, encode_payload

if TYPE_CHECKING:
    from haptera.wire.compression import Codec

_BEGUN: Final = frozenset({RequestState.BEGUN, RequestState.BEGUN_STREAMING})


class Streams:
    """All streams that have not ended, of both sides, and the events that they give.

    What is wrong with one stream alone ends that stream: with an ERROR where this side is the responder, with
    ``CallFailed`` and a CANCEL where it called.
    """

    def __init__(self, parity: int, config: Config, outbox: Outbox, inflow: Inflow, now: float) -> None:
        self.calls: dict[int, Stream] = {}  # streams that this side opened
        self.changes = Changes()
        self.serves: dict[int, Stream] = {}  # streams that the peer opened
        self.unfinished = inflow.unfinished
        self.events: list[Event] = []
        self.now = now
        self.parity = parity
        self.limits = config.limits
        self.outbox = outbox
        self.inflow = inflow
        self.next_call = 1 if parity else 2  # the id of the next stream that this side opens
        self.highest = 0  # the highest stream that the peer opened
        self.last_served: int | None = None  # the last that is answered, once this side goes away
        self.goaway: Goaway | None = None  # the last that the peer sent
        self.peer_stream_window = 0
        #: The largest message that the peer takes; before the handshake has told it, the most that any may take.
        self.peer_message_max = LIMITS["max_message"].maximum
        self.peer_connection_window = 0
        self.ignored: tuple[int, ...] = ()
        self.codec: Codec | None = None  # where compressed payloads were agreed on
        self._message_timeout = config.message_timeout_s
        self._look_at = float("inf")  # no unfinished message times out before
        self._bucket = Bucket(config.idle_frames_burst, config.idle_frames_per_s, now)

    def open(self, peer: Limits, ignored: tuple[int, ...]) -> None:
        """Take over what the peer accepts. What was queued for it before and is too large fails.

        ``ignored`` are the metadata tags whose capability was not accepted.
        """
        self.ignored = ignored
        self.peer_stream_window = peer.stream_window
        self.peer_connection_window = peer.connection_window
        self.peer_message_max = peer.max_message
        for stream in list(self.calls.values()):
            self.outbox.add_credit(stream, peer.stream_window)
            if stream.outbox and any(len(message.payload) > peer.max_message for message in stream.outbox):
                self.spoil_call(stream, failure(3004, {"limit": peer.max_message}))

    def take_events(self) -> list[Event]:
        """Return the events since the last call."""
        events = self.events
        self.events = []
        return events

    def go_away(self) -> int:
        """Refuse requests from now on; return the last stream that is answered."""
        if self.last_served is None:
            self.last_served = self.highest
        return self.last_served

    def close(self) -> None:
        """Forget all streams: the connection is over."""
        self.calls.clear()
        self.serves.clear()
        self.unfinished.clear()

    def find(self, frame: Frame, *, call: bool) -> Stream | None:
        """Return the open stream of a frame, or None if it has ended.

        ``call`` says whether this side must have opened it. Raises 1008 for a stream of the other side, of none, or
        one that was never opened.
        """
        id_ = frame.stream
        if not id_ or (id_ & 1 == self.parity) is not call:
            raise misplaced(frame, "a frame's stream is not one that it may be on")
        if call:
            if id_ >= self.next_call:
                raise misplaced(frame, "a frame names a stream that was not opened")
            return self.calls.get(id_)
        if id_ > self.highest:
            raise misplaced(frame, "a frame names a stream that was not opened")
        return self.serves.get(id_)

    def drop_ignored(self, entries: dict[int, bytes]) -> None:
        """Take out of a frame's entries what is to be ignored on this connection."""
        for tag in self.ignored:
            entries.pop(tag, None)

    def unpack(self, payload: PackedItem) -> bytes:
        """Return a payload as it was before compression. Raises 1010."""
        assert self.codec is not None  # else its frames were refused
        return unpack(self.codec, payload)

    def charge(self) -> None:
        """Account for a frame that makes work and does none. Raises ``FloodError`` if there were too many."""
        self._bucket.spend(self.now)

    # -- giving up ----------------------------------------------------------------------------------------------

    def too_large(self, outcome: Outcome) -> Failure:
        """Return why a message of the peer is not taken."""
        return failure(3004, {"limit": self.limits.max_message}, outcome=outcome)

    def refuse(self, id_: int, reason: Failure, request_id: bytes | None = None) -> None:
        """Answer a request that never began; its stream counts as opened and ended."""
        entries = encode_entry(Tag.REQUEST_ID, request_id) if request_id is not None else b""
        self.outbox.add_control(encode_frame(FrameType.ERROR, 0, id_, entries, encode_payload(reason)))

    def end_unstarted(self, stream: Stream, reason: Failure) -> None:
        """End a stream whose request never became whole, so that no handler knows of it."""
        self.end_serve(stream)
        nothing_done = Failure(reason.code, reason.name, reason.message, "not_applied", reason.details)
        self.refuse(stream.id, nothing_done, stream.request_id)

    def spoil(self, stream: Stream, reason: Failure, *, call: bool) -> None:
        """Give up a stream because of what arrived on it, or did not."""
        if call:
            self.spoil_call(stream, reason)
        else:
            self.spoil_serve(stream, reason)

    def spoil_call(self, stream: Stream, reason: Failure) -> None:
        """Fail a call here; its stream stays open until the responder has ended it."""
        if stream.discarding:
            return
        unknown = Failure(reason.code, reason.name, reason.message, "unknown", reason.details)
        self._fail_call(stream, unknown)
        self._discard(stream)
        if not stream.cancelled:
            self.send_cancel(stream)

    def fail_ended(self, stream: Stream, reason: Failure) -> None:
        """Fail a call here whose stream its answer has ended, although that could not be read."""
        self._fail_call(stream, reason)
        self.end_call(stream)

    def _fail_call(self, stream: Stream, reason: Failure) -> None:
        # Held from here on: other changes may be sent before the caller of this one hears of its failure.
        if stream.change:
            self.changes.hold(stream.id)
        self.events.append(CallFailed(stream.id, reason))

    def spoil_serve(self, stream: Stream, reason: Failure) -> None:
        """Give up a request whose handler may be at work: its owner stops the handler, then fails the stream."""
        if stream.request_state in _BEGUN:
            self.end_unstarted(stream, reason)
        elif not stream.discarding:
            self._discard(stream)
            self.events.append(RequestAborted(stream.id, reason))

    def begin_answer(self, stream: Stream) -> None:
        """A request's answer is queued behind other frames: what its requester still sends is not wanted."""
        stream.answered = True
        self._discard(stream)

    def _discard(self, stream: Stream) -> None:
        stream.discarding = True
        self.inflow.discard(stream)
        self.drop_partial(stream)

    def send_cancel(self, stream: Stream) -> None:
        """Send CANCEL, behind whatever of the request has been queued as ready; nothing more of it is sent."""
        stream.cancelled = True
        self.outbox.drop(stream)
        self.outbox.add_frame(encode_frame(FrameType.CANCEL, 0, stream.id))

    def end_serve(self, stream: Stream) -> None:
        """A stream that the peer opened has ended."""
        if stream.partial is not None:
            self.drop_partial(stream)
        self.serves.pop(stream.id, None)
        if stream.held or stream.unread:
            self.inflow.end(stream)

    def end_call(self, stream: Stream) -> None:
        """A stream that this side opened has ended."""
        if stream.partial is not None:
            self.drop_partial(stream)
        del self.calls[stream.id]
        if stream.change:
            self.changes.end(stream.id)
        if stream.outbox:
            self.outbox.drop(stream)
        if stream.held or stream.unread:
            self.inflow.end(stream)

    def drop_partial(self, stream: Stream) -> None:
        """Forget the unfinished message of a stream: it is whole now, or given up."""
        if stream.partial is not None:
            stream.partial = None
            self.unfinished.pop(stream.id, None)

    # -- time ---------------------------------------------------------------------------------------------------

    def begin_partial(self, stream: Stream, partial: Partial) -> None:
        """The first frame of a message of several has arrived."""
        stream.partial = partial
        self.unfinished[stream.id] = stream
        self._look_at = min(self._look_at, self._deadline(stream))

    def next_timeout(self) -> float:
        """Return the time before which no unfinished message times out."""
        if not self.unfinished:
            return float("inf")
        if self.inflow.resumed:
            self._look()
        return self._look_at

    def _look(self) -> None:
        """Find the first time-out. Until then none is looked for again, since more bytes only put one off."""
        self.inflow.resumed = False
        self._look_at = min((self._deadline(stream) for stream in self.unfinished.values()), default=float("inf"))

    def expire(self, now: float) -> None:
        """End the streams whose unfinished message did not become whole in time (section 2)."""
        if now < self.next_timeout():
            return
        for stream in list(self.unfinished.values()):
            if now >= self._deadline(stream):
                self.spoil(stream, failure(3005, outcome="unknown"), call=stream.id & 1 == self.parity)
        self._look()

    def _deadline(self, stream: Stream) -> float:
        partial = stream.partial
        assert partial is not None
        if partial.stalled_at is not None:
            return float("inf")  # time without credit does not count
        return partial.since + self._message_timeout + partial.sent / RATE_MIN_BYTES_PER_S
