"""The open streams of a connection: how they are found, given up and ended (spec/protocol.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.connection.answers_read import Changes
from haptera.connection.checks import misplaced
from haptera.connection.compressed_payloads import unpack
from haptera.connection.events import CallFailed, Event, PackedItem, RequestAborted
from haptera.connection.flood import Bucket
from haptera.connection.flow import Inflow
from haptera.connection.outbox import Outbox
from haptera.connection.stream_law import MESSAGE_UNFINISHED, REQUEST_UNFINISHED, HalfState
from haptera.connection.unfinished_messages import UnfinishedMessages
from haptera.errors import Code, Failure, LocalProtocolError, Outcome, failure
from haptera.wire import LIMITS, Frame, FrameType, Goaway, Limits, Tag, encode_entry, encode_frame, encode_payload

if TYPE_CHECKING:
    from haptera.connection.config import Config
    from haptera.connection.memory_ledger import Ledger
    from haptera.connection.send_turns import SendingTurns
    from haptera.connection.stream_halves import ReceivingHalf, SendingHalf, Stream
    from haptera.wire import Codec


class Streams:
    """All streams that have not ended, of both sides, and the events that they give.

    A fault of one stream alone ends that stream: with an ERROR where this side is the responder, with ``CallFailed``
    and a CANCEL where it called.
    """

    __slots__ = (
        "_bucket",
        "calls",
        "changes",
        "codec",
        "events",
        "goaway",
        "going_away",
        "highest",
        "ignored",
        "inflow",
        "last_served",
        "ledger",
        "limits",
        "next_call",
        "now",
        "outbox",
        "parity",
        "peer_connection_window",
        "peer_message_max",
        "peer_stream_window",
        "serves",
        "turns",
        "unfinished",
    )

    def __init__(self, parity: int, config: Config, ledger: Ledger, now: float) -> None:
        self.calls: dict[int, Stream] = {}  # streams that this side opened
        self.serves: dict[int, Stream] = {}  # streams that the peer opened
        self.changes: Changes = Changes()
        self.events: list[Event] = []
        self.now: float = now
        self.parity: int = parity
        self.limits: Limits = config.limits
        self.ledger: Ledger = ledger
        self.outbox: Outbox = Outbox(ledger)
        self.turns: SendingTurns = self.outbox.turns
        self.unfinished: UnfinishedMessages = UnfinishedMessages(config.message_timeout_s)
        self.inflow: Inflow = Inflow(
            self.outbox, ledger, self.unfinished, self.limits.stream_window, self.limits.connection_window
        )
        self.next_call = 1 if parity else 2  # the id of the next stream that this side opens
        self.highest: int = 0  # the highest stream that the peer opened
        self.last_served: int | None = None  # the last that is answered, once this side goes away
        self.goaway: Goaway | None = None  # the last that the peer sent
        self.going_away: bool = False  # one of the two sides has said GOAWAY: this one opens no more streams
        self.peer_stream_window: int = 0
        #: The largest message that the peer takes; before the handshake has told it, the most that any may take.
        self.peer_message_max: int = LIMITS["max_message"].maximum
        self.peer_connection_window: int = 0
        self.ignored: tuple[int, ...] = ()
        self.codec: Codec | None = None  # where compressed payloads were agreed on
        self._bucket = Bucket(config.idle_frames_burst, config.idle_frames_per_s, now)

    def open(self, peer: Limits, ignored: tuple[int, ...]) -> None:
        """Take over the peer's limits. Messages queued before that are too large fail.

        ``ignored`` are the metadata tags whose capability was not accepted.
        """
        self.ignored = ignored
        self.peer_stream_window = peer.stream_window
        self.peer_connection_window = peer.connection_window
        self.peer_message_max = peer.max_message
        for stream in list(self.calls.values()):
            half = stream.sending
            self.turns.add_credit(half, peer.stream_window)
            if half.queue and any(len(message.payload) > peer.max_message for message in half.queue):
                self.spoil_call(stream, failure(Code.MESSAGE_TOO_LARGE, {"limit": peer.max_message}))
        for stream in self.serves.values():  # requests that have waited for the proof of their side's identity
            self.turns.add_credit(stream.sending, peer.stream_window)

    def take_events(self) -> list[Event]:
        """Return the events since the last call."""
        events = self.events
        self.events = []
        return events

    def go_away(self) -> int:
        """Refuse requests from now on; return the last stream that is answered."""
        self.going_away = True
        if self.last_served is None:
            self.last_served = self.highest
        return self.last_served

    def close(self) -> None:
        """Forget all streams: the connection is over."""
        self.calls.clear()
        self.serves.clear()
        self.unfinished.close()
        self.ledger.close()

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

    def sendable(self, id_: int) -> SendingHalf:
        """Return the half on which this side sends. Raises ``LocalProtocolError`` 1008 if nothing may follow on it."""
        stream = self.calls.get(id_) if id_ & 1 == self.parity else self.serves.get(id_)
        if stream is None or stream.sending.cancelled:
            raise LocalProtocolError(Code.PROTOCOL_VIOLATION, "the stream has ended", {"stream": id_})
        return stream.sending

    def drop_ignored(self, entries: dict[int, bytes]) -> None:
        """Take out of a frame's entries the ones to be ignored on this connection."""
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
        return failure(Code.MESSAGE_TOO_LARGE, {"limit": self.limits.max_message}, outcome=outcome)

    def refuse(self, id_: int, reason: Failure, request_id: bytes | None = None) -> None:
        """Answer a request that never began; its stream counts as opened and ended."""
        entries = encode_entry(Tag.REQUEST_ID, request_id) if request_id is not None else b""
        self.outbox.add_control(encode_frame(FrameType.ERROR, 0, id_, entries, encode_payload(reason)))

    def end_unstarted(self, stream: Stream, reason: Failure) -> None:
        """End a stream whose request never became whole, so that no handler knows of it."""
        self.end_serve(stream)
        nothing_done = Failure(reason.code, reason.name, reason.message, "not_applied", reason.details)
        self.refuse(stream.id, nothing_done, stream.request_id)

    def spoil(self, stream: Stream, reason: Failure) -> None:
        """Give up a stream because of a frame that arrived on it, or did not."""
        if stream.own:
            self.spoil_call(stream, reason)
        else:
            self.spoil_serve(stream, reason)

    def spoil_call(self, stream: Stream, reason: Failure) -> None:
        """Fail a call here; its stream stays open until the responder has ended it."""
        if stream.receiving.discarding:
            return
        unknown = Failure(reason.code, reason.name, reason.message, "unknown", reason.details)
        self._fail_call(stream, unknown)
        self.discard(stream)
        if not stream.sending.cancelled:
            self.cancel(stream)

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
        if stream.receiving.state in REQUEST_UNFINISHED:
            self.end_unstarted(stream, reason)
        elif not stream.receiving.discarding:
            self.discard(stream)
            self.events.append(RequestAborted(stream.id, reason))

    def discard(self, stream: Stream) -> None:
        """The answer of an open stream is decided: drop all that the peer sent on it and still sends."""
        half = stream.receiving
        half.discarding = True
        self.inflow.discard(half)
        self.unfinished.drop(half)

    def cancel(self, stream: Stream) -> None:
        """Send CANCEL, behind the part of the request that is queued as ready; nothing more of it is sent."""
        self.turns.drop(stream.sending)
        stream.sending.cancel()
        self.outbox.add_frame(encode_frame(FrameType.CANCEL, 0, stream.id))

    def end_serve(self, stream: Stream) -> None:
        """A stream that the peer opened has ended."""
        self.serves.pop(stream.id, None)
        half = stream.made_receiving
        if half is None:
            self.ledger.take_off(stream.held)
        else:
            self._end_receiving(half)

    def end_call(self, stream: Stream) -> None:
        """A stream that this side opened has ended."""
        del self.calls[stream.id]
        if stream.change:
            self.changes.end(stream.id)
        sending, receiving = stream.made_sending, stream.made_receiving
        if sending is not None and sending.queue:
            self.turns.drop(sending)
        if receiving is not None:
            self._end_receiving(receiving)

    def _end_receiving(self, half: ReceivingHalf) -> None:
        if half.unfinished is not None:
            self.unfinished.drop(half)
        if half.held or half.unread:
            self.inflow.end(half)

    def expire(self, now: float) -> None:
        """End the streams whose unfinished message did not become whole in time (section 2)."""
        for half in self.unfinished.overdue(now):
            stream = self.calls.get(half.id) or self.serves[half.id]
            self.spoil(stream, failure(Code.DEADLINE_EXCEEDED, outcome="unknown"))

    def check(self) -> None:
        """Assert the invariants of the open streams and of their accounts."""
        open_streams = {**self.calls, **self.serves}
        assert len(open_streams) == len(self.calls) + len(self.serves)
        held = 0
        sending: list[SendingHalf] = []
        receiving: list[ReceivingHalf] = []
        for id_, stream in open_streams.items():
            assert id_ == stream.id
            assert stream.own is (id_ & 1 == self.parity) is (id_ in self.calls)
            # No half is made for the question, because one that is not made is what is asked about.
            if (own := stream.made_sending) is not None:
                sending.append(own)
                assert own.id == id_
                assert (own.state < HalfState.OPEN) is stream.own
                assert own.state is not HalfState.ENDED or own in self.turns.ended
            if (half := stream.made_receiving) is None:
                held += stream.held
                continue
            receiving.append(half)
            held += half.held
            assert half.id == id_
            assert (half.unfinished is not None) is (half.state in MESSAGE_UNFINISHED and not half.discarding)
            assert (half.state >= HalfState.OPEN) is stream.own
            assert half.state is not HalfState.ENDED
        assert self.unfinished.halves == {half.id: half for half in receiving if half.unfinished is not None}
        assert len(self.serves) <= self.limits.max_streams
        assert max(self.calls, default=0) < self.next_call
        assert max(self.serves, default=0) <= self.highest
        self.unfinished.check()
        self.ledger.check(held)
        self.inflow.check(receiving)
        self.outbox.check(sending)
