"""ITEMs of either side, sent and received, and the CREDIT that lets them flow (spec/protocol.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.connection.checks import (
    SUSPECT_FLAGS,
    check_checksum,
    check_fragment,
    check_single,
    problem_of,
    read_body,
)
from haptera.connection.compressed_payloads import check_plain, whole
from haptera.connection.events import ItemReceived, PackedItem
from haptera.connection.outgoing_metadata import check_size, refuse_size
from haptera.connection.stream_halves import Outgoing, SendingHalf, Stream
from haptera.connection.stream_law import HalfState
from haptera.errors import Code, Failure, LocalProtocolError, RemoteProtocolError, failure
from haptera.wire import CONTINUED, ITEM_OVERHEAD, MORE, NO_ENTRIES, Frame, FrameType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.connection.open_streams import Streams

_WINDOW_MAX: Final = 2**31 - 1
_CREDIT_SIZE: Final = 4
_NO_CREDIT: Final = bytes(_CREDIT_SIZE)
_ITEM: Final = int(FrameType.ITEM)
_ENDED: Final = HalfState.ENDED
_OF_SEVERAL: Final = MORE | CONTINUED


class ItemSender:
    """Queues ITEMs as far as there is room for them."""

    __slots__ = (
        "_ledger",
        "_outbox",
        "_streams",
    )

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._ledger = streams.ledger
        self._outbox = streams.outbox

    def send_item(self, id_: int, payload: bytes, entries: bytes = b"") -> bool:
        """Queue one ITEM on an open stream of either side.

        Returns whether the producer may go on at once; otherwise it waits until the stream is among
        ``take_writable``. Raises ``LocalProtocolError`` if the stream has ended or may not carry ITEMs, 3004 if the
        ITEM is larger than the peer takes, 3007 while the process's budget is used up.
        """
        half = self._streams.sendable(id_)
        half.decide(_ITEM)
        if not self._ledger.has_memory(len(payload)):
            raise _no_memory()
        if len(payload) > self._streams.peer_message_max:
            refuse_size(len(payload), self._streams.peer_message_max)
        check_size(len(entries))
        self._outbox.turns.add(half, Outgoing(_ITEM, 0, entries, payload))
        return self._outbox.ask_room(half)

    def ask_room(self, id_: int) -> bool:
        """Whether a producer may make its next ITEM for an open stream; otherwise it waits as for ``send_item``.

        An ITEM that is made while nothing more can leave, or while as much waits for credit as the connection's budget
        holds, would only be kept. Raises ``LocalProtocolError`` as ``send_item`` does.
        """
        half = self._streams.sendable(id_)
        half.check_decision(_ITEM)
        if not self._ledger.has_memory(0):
            raise _no_memory()
        return self._outbox.ask_room(half)

    def ask_left(self, id_: int) -> bool:
        """As ``ask_room``, but it also waits until all ITEMs before have left."""
        half = self._streams.sendable(id_)
        half.check_decision(_ITEM)
        if not self._ledger.has_memory(0):
            raise _no_memory()
        return self._outbox.ask_left(half)

    def try_item(self, id_: int, payload: bytes) -> bool:
        """Queue one ITEM as ``send_item`` does, if all before it has left and there is room for it; say whether."""
        half = self._streams.sendable(id_)
        half.check_decision(_ITEM)
        if half.queue or not self._outbox.has_room or not self._ledger.has_memory(len(payload)):
            return False
        self.send_item(id_, payload)
        return True

    def try_items(self, ids: Sequence[int], payload: bytes) -> list[int]:
        """Queue one ITEM on different streams of the peer, as ``try_item`` does on one; return the places among them of
        those that it was not queued on, the ones that have ended too.

        While the bytes are few the frames are made here, with one checksum and no queue for each, and count as having
        left. Raises ``LocalProtocolError`` 3004 if the ITEM is larger than the peer takes.
        """
        if len(payload) > self._streams.peer_message_max:
            refuse_size(len(payload), self._streams.peer_message_max)
        outbox, serves, ledger = self._outbox, self._streams.serves, self._ledger
        cost = ITEM_OVERHEAD + len(payload)
        at_once = min(outbox.whole_room(len(payload)), outbox.turns.credit // cost)
        made: list[SendingHalf] = []
        rest: list[int] = []
        unsent: list[int] = []
        for place, id_ in enumerate(ids):
            stream = serves.get(id_)
            if stream is None or stream.sending.queue:  # one without a queue is open
                unsent.append(place)
            elif len(made) < at_once and stream.sending.credit >= cost and not stream.sending.plain:
                made.append(stream.sending)
            else:
                rest.append(place)
        if made:
            outbox.add_items(made, payload)
        for place in rest:
            if outbox.has_room and ledger.has_memory(len(payload)):
                self.send_item(ids[place], payload)
            else:
                unsent.append(place)
        return sorted(unsent) if rest else unsent


def _no_memory() -> LocalProtocolError:
    return LocalProtocolError(Code.TOO_MANY_REQUESTS, "the process has as much in memory for its connections as it may")


class ItemReceiver:
    """Takes ITEMs as far as windows and budget allow. Its methods raise the errors that end the connection."""

    __slots__ = (
        "_frame_max",
        "_inflow",
        "_message_max",
        "_streams",
        "_turns",
    )

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._inflow = streams.inflow
        self._turns = streams.turns
        self._message_max = streams.limits.max_message
        self._frame_max = streams.limits.max_frame

    def receive_item(self, frame: Frame) -> None:
        """An ITEM of either side."""
        streams = self._streams
        inflow = self._inflow
        id_ = frame.stream
        stream = (
            streams.calls.get(id_) or streams.serves.get(id_) or streams.find(frame, call=id_ & 1 == streams.parity)
        )
        cost = ITEM_OVERHEAD + len(frame.metadata) + len(frame.payload)
        if stream is None or stream.sending.decided is _ENDED:
            inflow.spend(cost)
            inflow.drop(None, cost)
            return
        half = stream.receiving
        half.receive(frame)
        if frame.flags:
            check_fragment(frame)
            check_plain(frame, plain=stream.sending.plain)
        inflow.spend(cost)
        inflow.spend_stream(half, cost)
        if half.discarding:
            inflow.drop(half, cost)
            return
        raw_length = 0
        problem = None
        if frame.body_crc != frame.actual_crc or frame.flags & SUSPECT_FLAGS or frame.metadata:
            try:
                _, raw_length = read_body(frame, self._frame_max)
            except RemoteProtocolError as error:
                problem = error.failure("unknown")
        size = (raw_length or len(frame.payload)) + (half.unfinished.size if half.unfinished is not None else 0)
        if problem is None and size > self._message_max:
            problem = streams.too_large("unknown")
        if problem is not None:
            inflow.drop(half, cost)
            streams.spoil(stream, problem)
        elif frame.flags & _OF_SEVERAL:
            self._add_fragment(stream, frame, raw_length, cost)
        else:
            inflow.keep_item(half, cost, None)
            streams.events.append(ItemReceived(stream.id, whole(frame, raw_length)))

    def _add_fragment(self, stream: Stream, frame: Frame, raw_length: int, cost: int) -> None:
        streams = self._streams
        half = stream.receiving
        unfinished = streams.unfinished.add(half, frame, raw_length, streams.now, NO_ENTRIES)
        if not frame.flags & MORE:
            streams.unfinished.drop(half)
            self._inflow.keep_item(half, cost, unfinished)
            streams.events.append(ItemReceived(stream.id, unfinished.joined()))
        elif not self._inflow.keep_fragment(half, unfinished, cost):
            streams.spoil(stream, failure(Code.TOO_MANY_REQUESTS, {"reason": "buffers are full"}, outcome="unknown"))

    def take_item(self, id_: int, item: bytes | PackedItem = b"", *, now: float | None = None) -> bytes | Failure:
        """Say that the application has taken the oldest unread ITEM of a stream: that opens the window again.

        Returns the payload of ``item``, which came with its event; one that was sent compressed is decompressed only
        here. If it is not as its sender announced it, that is a failure with 1010: the stream has been given up, and
        ``take_events`` says so if it was still open. ``now`` is the time at which the window opens.
        """
        streams = self._streams
        if now is not None:
            self._inflow.now = now
        stream = streams.calls.get(id_) or streams.serves.get(id_)
        if stream is not None:
            self._inflow.take(stream.receiving)
            self._inflow.credit_connection()
        if not isinstance(item, PackedItem):
            return item
        try:
            return streams.unpack(item)
        except RemoteProtocolError as error:
            reason = error.failure("unknown")
            if stream is not None:
                streams.spoil(stream, reason)
            return reason

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
            streams.spoil(stream, problem)
            return
        amount = int.from_bytes(frame.payload, "big")
        if not amount:
            raise RemoteProtocolError(Code.MALFORMED_FRAME, "CREDIT of nothing")
        if amount * 4 < (streams.peer_connection_window if stream is None else streams.peer_stream_window):
            streams.charge()
        window = self._turns.credit if stream is None else stream.sending.credit
        if window + amount > _WINDOW_MAX:
            raise RemoteProtocolError(
                Code.FLOW_CONTROL_VIOLATION, "CREDIT opens a window too far", {"limit": _WINDOW_MAX}
            )
        if stream is None:
            self._turns.add_connection_credit(amount)
        else:
            self._turns.add_credit(stream.sending, amount)


def _opens(frame: Frame) -> bool:
    """Whether a CREDIT is sound and opens a window: any other is dropped where its stream has ended."""
    try:
        check_single(frame, _CREDIT_SIZE)
    except RemoteProtocolError:
        return False
    return frame.payload != _NO_CREDIT and problem_of(frame) is None
