"""The law of a stream and the states of a connection, in one place (spec/protocol.md, section 3).

A stream has two halves. The requester drives the *request half* with REQUEST, ITEM, FINISH and CANCEL; the responder
drives the *answer half* with ITEM, RESPONSE and ERROR. On each side one of the two is the half that it sends on, the
other the half that it receives on. Both sides run this table, for the frames that they send and for the frames that
arrive: a frame that has no cell is a ``LocalProtocolError`` for its sender and a ``RemoteProtocolError`` 1008 for its
receiver. CREDIT changes no state. A frame for a stream that has ended never gets here; it is dropped.

``ARCHITECTURE.md`` has the diagram that ``tools/generate_diagram.py`` draws from the table.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from haptera.wire import CONTINUED, MORE, STREAMING, FrameType


class HalfState(IntEnum):
    """How far a half of a stream is."""

    UNUSED = 0
    REQUEST_BEGUN = 1  # a REQUEST whose last frame has yet to come
    STREAMING_REQUEST_BEGUN = 2  # the same, and ITEMs will follow
    STREAMING = 3
    STREAMED_ITEM_BEGUN = 4  # an ITEM of the request half whose last frame has yet to come
    COMPLETE = 5  # nothing but CANCEL may follow
    OPEN = 6  # the answer half, from its beginning
    ITEM_BEGUN = 7
    RESPONSE_BEGUN = 8
    ERROR_BEGUN = 9
    ENDED = 10


class ConnectionState(IntEnum):
    """A connection as a whole."""

    HANDSHAKE = 0  # HELLO (acceptor) or WELCOME (dialer) has not come
    OPEN = 1
    CLOSING = 2  # a connection error was sent or received: nothing more is read
    CLOSED = 3


#: The flags of a frame that the law knows: which part of its message it is, and whether ITEMs will follow a REQUEST.
LAW_FLAGS: Final = MORE | CONTINUED | STREAMING

# The parts of a message, as the flags of their frames.
_WHOLE, _FIRST, _MIDDLE, _LAST = 0, MORE, MORE | CONTINUED, CONTINUED

_S, _T = HalfState, FrameType

#: Each state with the frames that may come next, by type and flags, and the state that follows.
LAW: Final[dict[HalfState, dict[tuple[FrameType, int], HalfState]]] = {
    _S.UNUSED: {
        (_T.REQUEST, _WHOLE): _S.COMPLETE,
        (_T.REQUEST, _FIRST): _S.REQUEST_BEGUN,
        (_T.REQUEST, STREAMING | _WHOLE): _S.STREAMING,
        (_T.REQUEST, STREAMING | _FIRST): _S.STREAMING_REQUEST_BEGUN,
    },
    _S.REQUEST_BEGUN: {
        (_T.REQUEST, _MIDDLE): _S.REQUEST_BEGUN,
        (_T.REQUEST, _LAST): _S.COMPLETE,
        (_T.CANCEL, _WHOLE): _S.REQUEST_BEGUN,
    },
    _S.STREAMING_REQUEST_BEGUN: {
        (_T.REQUEST, _MIDDLE): _S.STREAMING_REQUEST_BEGUN,
        (_T.REQUEST, _LAST): _S.STREAMING,
        (_T.CANCEL, _WHOLE): _S.STREAMING_REQUEST_BEGUN,
    },
    _S.STREAMING: {
        (_T.ITEM, _WHOLE): _S.STREAMING,
        (_T.ITEM, _FIRST): _S.STREAMED_ITEM_BEGUN,
        (_T.FINISH, _WHOLE): _S.COMPLETE,
        (_T.CANCEL, _WHOLE): _S.STREAMING,
    },
    _S.STREAMED_ITEM_BEGUN: {
        (_T.ITEM, _MIDDLE): _S.STREAMED_ITEM_BEGUN,
        (_T.ITEM, _LAST): _S.STREAMING,
        (_T.CANCEL, _WHOLE): _S.STREAMED_ITEM_BEGUN,
    },
    _S.COMPLETE: {
        (_T.CANCEL, _WHOLE): _S.COMPLETE,
    },
    _S.OPEN: {
        (_T.ITEM, _WHOLE): _S.OPEN,
        (_T.ITEM, _FIRST): _S.ITEM_BEGUN,
        (_T.RESPONSE, _WHOLE): _S.ENDED,
        (_T.RESPONSE, _FIRST): _S.RESPONSE_BEGUN,
        (_T.ERROR, _WHOLE): _S.ENDED,
        (_T.ERROR, _FIRST): _S.ERROR_BEGUN,
    },
    # An ERROR may cut an unfinished message short; nothing else may.
    _S.ITEM_BEGUN: {
        (_T.ITEM, _MIDDLE): _S.ITEM_BEGUN,
        (_T.ITEM, _LAST): _S.OPEN,
        (_T.ERROR, _WHOLE): _S.ENDED,
        (_T.ERROR, _FIRST): _S.ERROR_BEGUN,
    },
    _S.RESPONSE_BEGUN: {
        (_T.RESPONSE, _MIDDLE): _S.RESPONSE_BEGUN,
        (_T.RESPONSE, _LAST): _S.ENDED,
        (_T.ERROR, _WHOLE): _S.ENDED,
        (_T.ERROR, _FIRST): _S.ERROR_BEGUN,
    },
    _S.ERROR_BEGUN: {
        (_T.ERROR, _MIDDLE): _S.ERROR_BEGUN,
        (_T.ERROR, _LAST): _S.ENDED,
    },
    _S.ENDED: {},
}

#: The law as the halves look it up: ``state << 16 | type << 8 | flags & LAW_FLAGS`` to the next state.
TRANSITIONS: Final[dict[int, HalfState]] = {
    state << 16 | type_ << 8 | flags: following
    for state, row in LAW.items()
    for (type_, flags), following in row.items()
}

#: A request of which no handler knows yet.
REQUEST_UNFINISHED: Final = frozenset({_S.REQUEST_BEGUN, _S.STREAMING_REQUEST_BEGUN})
#: A half in one of these states has an unfinished message.
MESSAGE_UNFINISHED: Final = REQUEST_UNFINISHED | {
    _S.STREAMED_ITEM_BEGUN,
    _S.ITEM_BEGUN,
    _S.RESPONSE_BEGUN,
    _S.ERROR_BEGUN,
}


def part_of(flags: int) -> str:
    """Return which part of its message a frame with these flags is, in a word."""
    return {_WHOLE: "whole", _FIRST: "first", _MIDDLE: "middle", _LAST: "last"}[flags & (MORE | CONTINUED)]
