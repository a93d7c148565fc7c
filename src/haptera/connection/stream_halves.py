"""One stream: the half that this side sends on and the half that it receives on (spec/protocol.md, section 3).

The states of both halves are written here and nowhere else, each by way of the table.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from haptera.connection.checks import misplaced
from haptera.connection.stream_law import LAW_FLAGS, TRANSITIONS, HalfState, part_of
from haptera.connection.unfinished_messages import UnfinishedMessage
from haptera.errors import Code, LocalProtocolError, RemoteProtocolError
from haptera.wire import Frame, FrameType

if TYPE_CHECKING:
    from haptera.connection.open_streams import Streams

_OPEN: Final = HalfState.OPEN
_COMPLETE: Final = HalfState.COMPLETE


class Outgoing(msgspec.Struct):
    """A message that waits for its turn, and how much of its payload has been sent."""

    type: int
    flags: int
    metadata: bytes
    payload: bytes
    sent: int = 0

    @property
    def waiting(self) -> int:
        """Bytes that have yet to be sent."""
        return len(self.payload) - self.sent + (0 if self.sent else len(self.metadata))


class SendingHalf(msgspec.Struct):
    """The half of a stream that this side sends on, with its queue and its credit."""

    id: int
    credit: int
    #: Where the half is by the frames that have been made for it.
    state: HalfState
    #: Where it will be once all that is queued has left: the commands are judged by this.
    decided: HalfState
    queue: deque[Outgoing] | None = None
    queued: int = 0  # bytes in the queue
    after: int = 0  # its turn comes only when so much of the ready queue has left: its REQUEST or an ITEM is in there
    overrun: int = 0  # by how much its last turn was longer than a turn is
    plain: bool = False  # of the session service: no frame of the stream is compressed, in either direction
    cancelled: bool = False  # CANCEL has been sent: nothing follows
    turning: bool = False  # waits for its turn
    starved: bool = False  # waits for credit
    wakes_below: int = 0  # its producer waits until fewer bytes are queued; 0 where it does not

    def decide(self, type_: int) -> None:
        """Decide to send a whole message. Raises ``LocalProtocolError`` 1008 if the law does not allow it."""
        following = TRANSITIONS.get(self.decided << 16 | type_ << 8)
        if following is None:
            raise self._refused(self.decided, type_, 0)
        self.decided = following

    def check_decision(self, type_: int) -> None:
        """Raise as ``decide`` does, and decide nothing."""
        if self.decided << 16 | type_ << 8 not in TRANSITIONS:
            raise self._refused(self.decided, type_, 0)

    def send(self, type_: int, flags: int) -> None:
        """A frame is made. Raises ``LocalProtocolError`` 1008 if the law does not allow it."""
        following = TRANSITIONS.get(self.state << 16 | type_ << 8 | flags & LAW_FLAGS)
        if following is None:
            raise self._refused(self.state, type_, flags)
        self.state = following

    def cancel(self) -> None:
        """CANCEL is made, and takes back decisions beyond the frames before it."""
        self.send(FrameType.CANCEL, 0)
        self.decided = self.state
        self.cancelled = True

    def _refused(self, state: HalfState, type_: int, flags: int) -> LocalProtocolError:
        message = f"{_named(type_, flags)} may not be sent where this side of the stream is {state.name}"
        return LocalProtocolError(Code.PROTOCOL_VIOLATION, message, {"stream": self.id})


class ReceivingHalf(msgspec.Struct):
    """The half of a stream that this side receives on, with its window and its unfinished message."""

    id: int
    window: int  # bytes of ITEMs that may still arrive
    state: HalfState
    held: int = 0  # bytes of the connection's budget
    owed: int = 0  # bytes of the window to give back
    #: Whole ITEMs that the application has not taken: the bytes that each gives back to the half's window, to the
    #: connection's window, and to the budget.
    unread: deque[tuple[int, int, int]] | None = None
    unfinished: UnfinishedMessage | None = None
    cancelled: bool = False  # CANCEL has come
    discarding: bool = False  # later frames are dropped: the answer is decided

    def receive(self, frame: Frame) -> None:
        """Take a frame that arrives. Raises 1008, and ends the connection by it, if the law does not allow it."""
        following = TRANSITIONS.get(self.state << 16 | frame.type << 8 | frame.flags & LAW_FLAGS)
        if following is None:
            raise self._refused(frame)
        self.state = following

    def check(self, frame: Frame) -> None:
        """Raise as ``receive`` does, and take nothing."""
        if self.state << 16 | frame.type << 8 | frame.flags & LAW_FLAGS not in TRANSITIONS:
            raise self._refused(frame)

    def _refused(self, frame: Frame) -> RemoteProtocolError:
        return misplaced(frame, f"{_named(frame.type, frame.flags)} where its side of the stream is {self.state.name}")


class Stream(msgspec.Struct):
    """One open stream, on either of its sides.

    Most streams are a request of one frame and an answer of one frame. Nothing asks for their halves, so that a half is
    made when something does, as the request has left it.
    """

    id: int
    own: bool  # whether this side has opened it
    streams: "Streams"
    held: int = 0  # bytes of the connection's budget, while its receiving half is not made
    request_id: bytes | None = None  # of a request of the peer: its answer repeats it
    change: bool = False  # an own one with a request id
    #: The halves, as far as they are made.
    made_sending: SendingHalf | None = None
    made_receiving: ReceivingHalf | None = None

    @property
    def sending(self) -> SendingHalf:
        """The half that this side sends on."""
        half = self.made_sending
        if half is None:
            state = _COMPLETE if self.own else _OPEN
            half = self.made_sending = SendingHalf(self.id, self.streams.peer_stream_window, state, state)
        return half

    @property
    def receiving(self) -> ReceivingHalf:
        """The half that this side receives on."""
        half = self.made_receiving
        if half is None:
            state = _OPEN if self.own else _COMPLETE
            window = self.streams.limits.stream_window
            half = self.made_receiving = ReceivingHalf(self.id, window, state, self.held)
        return half

    @property
    def answered(self) -> bool:
        """Whether the answer to the peer's request is decided: the stream has ended for this side, its responder."""
        return self.sending.decided is HalfState.ENDED


def _named(type_: int, flags: int) -> str:
    return f"a {part_of(flags)} {FrameType(type_).name}"
