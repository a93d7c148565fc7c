"""All state transitions of a stream and of a connection, in one place (spec/protocol.md, section 3).

A stream has two halves. The requester drives the *request half* with REQUEST, ITEM, FINISH and CANCEL; the responder
drives the *answer half* with ITEM, RESPONSE and ERROR. Both sides run the same tables, for what they send and for what
they receive: what is not in a table is a ``LocalProtocolError`` for the one and a ``RemoteProtocolError`` 1008 for the
other. CREDIT changes no state. Frames for streams that have ended never get here; they are dropped.
"""

from enum import IntEnum
from typing import Final

from haptera.wire.frame import CONTINUED, MORE, STREAMING


class Part(IntEnum):
    """Which part of its message a frame is: its MORE and CONTINUED flags."""

    WHOLE = 0
    FIRST = 1
    MIDDLE = 2
    LAST = 3


#: Part by the flags that make it; every other flag is masked out before the look-up.
PART_FLAGS: Final = MORE | CONTINUED
PARTS: Final = {0: Part.WHOLE, MORE: Part.FIRST, MORE | CONTINUED: Part.MIDDLE, CONTINUED: Part.LAST}


class RequestInput(IntEnum):
    """What the requester sends. A REQUEST counts as streaming when its first frame has that flag."""

    REQUEST = 0
    STREAMING_REQUEST = 1
    ITEM = 2
    FINISH = 3
    CANCEL = 4


class RequestState(IntEnum):
    """The request half of a stream."""

    UNUSED = 0
    BEGUN = 1  # a REQUEST whose last frame has not come
    BEGUN_STREAMING = 2  # the same, and ITEMs will follow
    STREAMING = 3
    ITEM_BEGUN = 4  # an ITEM whose last frame has not come
    COMPLETE = 5  # nothing but CANCEL may follow


class AnswerInput(IntEnum):
    """What the responder sends."""

    ITEM = 0
    RESPONSE = 1
    ERROR = 2


class AnswerState(IntEnum):
    """The answer half of a stream."""

    OPEN = 0
    ITEM_BEGUN = 1
    RESPONSE_BEGUN = 2
    ERROR_BEGUN = 3
    ENDED = 4


class ConnectionState(IntEnum):
    """A connection as a whole."""

    HANDSHAKE = 0  # HELLO (acceptor) or WELCOME (dialer) has not come
    OPEN = 1
    CLOSING = 2  # a connection error was sent or received: nothing more is read
    CLOSED = 3


_R, _RI, _A, _AI, _P = RequestState, RequestInput, AnswerState, AnswerInput, Part

_REQUEST_HALF: Final[dict[RequestState, dict[tuple[RequestInput, Part], RequestState]]] = {
    _R.UNUSED: {
        (_RI.REQUEST, _P.WHOLE): _R.COMPLETE,
        (_RI.REQUEST, _P.FIRST): _R.BEGUN,
        (_RI.STREAMING_REQUEST, _P.WHOLE): _R.STREAMING,
        (_RI.STREAMING_REQUEST, _P.FIRST): _R.BEGUN_STREAMING,
    },
    _R.BEGUN: {
        (_RI.REQUEST, _P.MIDDLE): _R.BEGUN,
        (_RI.REQUEST, _P.LAST): _R.COMPLETE,
        (_RI.CANCEL, _P.WHOLE): _R.BEGUN,
    },
    _R.BEGUN_STREAMING: {
        (_RI.REQUEST, _P.MIDDLE): _R.BEGUN_STREAMING,
        (_RI.REQUEST, _P.LAST): _R.STREAMING,
        (_RI.CANCEL, _P.WHOLE): _R.BEGUN_STREAMING,
    },
    _R.STREAMING: {
        (_RI.ITEM, _P.WHOLE): _R.STREAMING,
        (_RI.ITEM, _P.FIRST): _R.ITEM_BEGUN,
        (_RI.FINISH, _P.WHOLE): _R.COMPLETE,
        (_RI.CANCEL, _P.WHOLE): _R.STREAMING,
    },
    _R.ITEM_BEGUN: {
        (_RI.ITEM, _P.MIDDLE): _R.ITEM_BEGUN,
        (_RI.ITEM, _P.LAST): _R.STREAMING,
        (_RI.CANCEL, _P.WHOLE): _R.ITEM_BEGUN,
    },
    _R.COMPLETE: {
        (_RI.CANCEL, _P.WHOLE): _R.COMPLETE,
    },
}

_ANSWER_HALF: Final[dict[AnswerState, dict[tuple[AnswerInput, Part], AnswerState]]] = {
    _A.OPEN: {
        (_AI.ITEM, _P.WHOLE): _A.OPEN,
        (_AI.ITEM, _P.FIRST): _A.ITEM_BEGUN,
        (_AI.RESPONSE, _P.WHOLE): _A.ENDED,
        (_AI.RESPONSE, _P.FIRST): _A.RESPONSE_BEGUN,
        (_AI.ERROR, _P.WHOLE): _A.ENDED,
        (_AI.ERROR, _P.FIRST): _A.ERROR_BEGUN,
    },
    # An ERROR may cut an unfinished message short; nothing else may.
    _A.ITEM_BEGUN: {
        (_AI.ITEM, _P.MIDDLE): _A.ITEM_BEGUN,
        (_AI.ITEM, _P.LAST): _A.OPEN,
        (_AI.ERROR, _P.WHOLE): _A.ENDED,
        (_AI.ERROR, _P.FIRST): _A.ERROR_BEGUN,
    },
    _A.RESPONSE_BEGUN: {
        (_AI.RESPONSE, _P.MIDDLE): _A.RESPONSE_BEGUN,
        (_AI.RESPONSE, _P.LAST): _A.ENDED,
        (_AI.ERROR, _P.WHOLE): _A.ENDED,
        (_AI.ERROR, _P.FIRST): _A.ERROR_BEGUN,
    },
    _A.ERROR_BEGUN: {
        (_AI.ERROR, _P.MIDDLE): _A.ERROR_BEGUN,
        (_AI.ERROR, _P.LAST): _A.ENDED,
    },
    _A.ENDED: {},
}

#: The tables as the machine looks them up: ``state << 5 | input << 2 | part`` to the next state.
REQUEST_TRANSITIONS: Final[dict[int, RequestState]] = {
    state << 5 | input_ << 2 | part: following
    for state, row in _REQUEST_HALF.items()
    for (input_, part), following in row.items()
}
ANSWER_TRANSITIONS: Final[dict[int, AnswerState]] = {
    state << 5 | input_ << 2 | part: following
    for state, row in _ANSWER_HALF.items()
    for (input_, part), following in row.items()
}


def part_of(flags: int) -> Part:
    """Return which part of its message a frame with these flags is."""
    return PARTS[flags & PART_FLAGS]


def request_input(flags: int) -> RequestInput:
    """Return the input that a REQUEST frame with these flags is."""
    return RequestInput.STREAMING_REQUEST if flags & STREAMING else RequestInput.REQUEST
