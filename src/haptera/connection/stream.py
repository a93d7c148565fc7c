"""One stream: its two halves, its windows, what it has received in part and what it has yet to send."""

from collections import deque

import msgspec

from haptera.connection.table import AnswerState, RequestState


class Outgoing(msgspec.Struct):
    """A message that waits for its turn, and how far it has been sent."""

    type: int
    flags: int
    metadata: bytes
    payload: bytes
    sent: int = 0
    begun: bool = False


class Partial(msgspec.Struct):
    """A message of which only some frames have arrived."""

    type: int
    entries: dict[int, bytes]
    since: float  # when it began, moved on by the time that its sender was without credit
    pieces: list[bytes] = []
    size: int = 0  # before compression
    sent: int = 0  # as it was sent
    stalled_at: float | None = None  # since when its sender has been without credit
    uncredited: int = 0  # what its fragments cost the stream's window and have not given back
    held: int = 0  # what its fragments are charged to the budget
    raw_lengths: list[int] | None = None  # of each piece that is kept compressed, 0 of the others; None without any

    def add(self, piece: bytes, raw_length: int) -> None:
        """Take the payload of one more frame; one that is compressed has a ``raw_length`` and is kept as it is."""
        if raw_length:
            if self.raw_lengths is None:
                self.raw_lengths = []
            self.raw_lengths += [0] * (len(self.pieces) - len(self.raw_lengths))
            self.raw_lengths.append(raw_length)
        self.pieces.append(piece)
        self.size += raw_length or len(piece)
        self.sent += len(piece)


class Stream(msgspec.Struct):
    """The state of one open stream, on either of its sides."""

    id: int
    send_credit: int
    receive_window: int
    request_state: RequestState
    answer_state: AnswerState = AnswerState.OPEN
    request_id: bytes | None = None
    service: str = ""
    method: str = ""
    of_session: bool = False  # of the session service: its frames are never compressed
    change: bool = False  # one that this side opened, with a request id
    held: int = 0  # bytes of the connection's budget
    owed: int = 0  # window bytes to give back
    #: Whole ITEMs that the application has not taken: what each gives back to the stream's window, to the
    #: connection's window, and to the budget.
    unread: deque[tuple[int, int, int]] | None = None
    partial: Partial | None = None
    outbox: deque[Outgoing] | None = None
    queued: int = 0  # bytes in the outbox
    after: int = 0  # its turn comes only when that much of the outbox's ready queue has left: its REQUEST is in there
    overrun: int = 0  # by how much its last turn was longer than a turn is
    cancelled: bool = False
    answered: bool = False  # its answer is queued: for the responder it has ended, and takes nothing more but credit
    discarding: bool = False  # what still arrives is dropped: the answer is decided
    turning: bool = False  # waits for its turn
    starved: bool = False  # waits for credit
    throttled: bool = False  # its producer was told to wait
