"""The events of a connection, for its owner. Plain values: the machine is done with their content."""

from __future__ import annotations

import msgspec

from haptera.errors import Failure, ProtocolError
from haptera.wire import Entries, Goaway


class Established(msgspec.Struct, frozen=True, gc=False):
    """The handshake is done; the connection's attributes have the terms."""


class RequestReceived(msgspec.Struct, frozen=True, gc=False):
    """A request is whole and waits for its answer.

    ``entries`` are those of its metadata without its ``request_id``. Requests with the same ones have one object
    together, which is not to be changed. ``begun`` is when its first frame came, for one of several frames: its time is
    counted from there.
    """

    stream: int
    service: str
    method: str
    payload: bytes
    streaming: bool
    entries: dict[int, bytes]
    request_id: bytes | None = None
    begun: float | None = None


class PackedItem(msgspec.Struct, frozen=True, gc=False):
    """An ITEM that came compressed, kept as it was sent: its pieces, and of each how long it was before (0: as it is).

    ``Connection.take_item`` gives its payload.
    """

    pieces: tuple[bytes, ...]
    raw_lengths: tuple[int, ...]


class ItemReceived(msgspec.Struct, frozen=True, gc=False):
    """An ITEM is whole. Say so by ``Connection.take_item`` when the application has it: that opens the window."""

    stream: int
    payload: bytes | PackedItem


class RequestFinished(msgspec.Struct, frozen=True, gc=False):
    """The requester has sent its last ITEM."""

    stream: int


class CancelReceived(msgspec.Struct, frozen=True, gc=False):
    """The requester no longer wants the answer; the stream still owes one."""

    stream: int


class RequestAborted(msgspec.Struct, frozen=True, gc=False):
    """The requester's ITEMs cannot be taken any further: stop the handler, then fail the stream with this."""

    stream: int
    failure: Failure


class ResponseReceived(msgspec.Struct, frozen=True, gc=False):
    """A call has succeeded."""

    stream: int
    payload: bytes
    entries: Entries


class ErrorReceived(msgspec.Struct, frozen=True, gc=False):
    """A call has failed: the peer said so."""

    stream: int
    failure: Failure
    entries: dict[int, bytes]


class CallFailed(msgspec.Struct, frozen=True, gc=False):
    """A call has failed here: its answer was damaged or could not be kept."""

    stream: int
    failure: Failure


class PongReceived(msgspec.Struct, frozen=True, gc=False):
    """The peer answered a PING."""

    payload: bytes


class GoawayReceived(msgspec.Struct, frozen=True, gc=False):
    """The peer opens no more streams and answers ours up to ``goaway.last_stream``.

    ``answered_below`` is the stream below which it has read the answers to its changes, if it says so.
    """

    goaway: Goaway
    answered_below: int | None = None


class Closed(msgspec.Struct, frozen=True):
    """The connection is over.

    ``error`` is why, and None for an orderly end: a ``RemoteProtocolError`` for a fault of the peer, a
    ``LocalProtocolError`` for a fault of ours, as the peer tells it. ``failure`` is the ERROR that the peer sent, if
    it did.
    """

    error: ProtocolError | None
    failure: Failure | None = None


Event = (
    Established
    | RequestReceived
    | ItemReceived
    | RequestFinished
    | CancelReceived
    | RequestAborted
    | ResponseReceived
    | ErrorReceived
    | CallFailed
    | PongReceived
    | GoawayReceived
    | Closed
)
