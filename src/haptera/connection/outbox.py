"""What leaves a connection, and in which order (spec/protocol.md, sections 2 and 3).

Three queues, emptied in this order at each pull:

* *control*: frames of stream 0 and CREDIT, which may overtake everything;
* *ready*: messages of one frame, in the order in which they were given, and the first frame of each larger request, so
  that requests leave in order of their streams;
* *turns*: streams with ITEMs or large messages, each with one turn of ``TURN_SIZE`` bytes a round.

Bytes are pulled, not pushed: what is not yet in the socket's buffer can still be overtaken.
"""

from collections import deque
from typing import Final

from haptera.connection.config import LARGE_MESSAGES_MAX, STREAM_QUEUE_SIZE, TURN_SIZE
from haptera.connection.stream import Outgoing, Stream
from haptera.wire.frame import CONTINUED, FRAGMENT_SIZE_MIN, ITEM_OVERHEAD, MORE, FrameType, encode_head

_ITEM: Final = int(FrameType.ITEM)
_ENDS_STREAM: Final = frozenset({int(FrameType.RESPONSE), int(FrameType.ERROR)})


class Outbox:
    """The outgoing side of one connection."""

    def __init__(self) -> None:
        self.max_frame = 0  # the peer's, once it is known
        self.credit = 0  # the connection's window, as the peer opened it
        #: Streams whose last frame has left in a pull, until their owner takes them.
        self.ended: list[Stream] = []
        #: Streams whose producer may go on, until their owner takes them.
        self.writable: list[Stream] = []
        self._control: list[bytes] = []
        self._ready: deque[bytes] = deque()
        self._ready_size = 0
        self._turns: deque[Stream] = deque()
        self._starved: deque[Stream] = deque()  # wait for the connection's window
        self._large_waiting: deque[Stream] = deque()
        self._large = 0
        self._queued = 0

    @property
    def size(self) -> int:
        """Bytes that wait to be pulled, what waits for credit included."""
        return self._ready_size + self._queued

    @property
    def pending(self) -> bool:
        """Whether a pull would give anything now."""
        return bool(self._control or self._ready or self._turns)

    @property
    def large_free(self) -> bool:
        """Whether one more message of several frames may begin."""
        return self._large < LARGE_MESSAGES_MAX and not self._large_waiting

    def add_control(self, frame: bytes) -> None:
        """Queue a frame that may overtake every other."""
        self._control.append(frame)

    def add_ready(self, head: bytes, payload: bytes = b"") -> None:
        """Queue a message of one frame."""
        self._ready.append(head)
        self._ready.append(payload)
        self._ready_size += len(head) + len(payload)

    def add(self, stream: Stream, message: Outgoing) -> None:
        """Queue a message that takes turns: an ITEM, one of several frames, or one behind such on its stream."""
        if stream.outbox is None:
            stream.outbox = deque()
        stream.outbox.append(message)
        stream.queued += len(message.payload)
        self._queued += len(message.payload)
        if stream.queued >= STREAM_QUEUE_SIZE:
            stream.throttled = True
        if not stream.turning and not stream.starved:
            self._enter(stream)

    def begin_request(self, stream: Stream, message: Outgoing) -> None:
        """Queue a request of several frames; its first keeps its place among the other requests."""
        self._large += 1
        stream.outbox = deque((message,))
        stream.queued = len(message.payload)
        self._queued += stream.queued
        for part in self._next_frame(stream, message, TURN_SIZE):
            self._ready.append(part)
            self._ready_size += len(part)
        self._enter(stream)

    def drop(self, stream: Stream) -> None:
        """Forget what a stream has queued: its answer is cut short or no longer wanted."""
        self._queued -= stream.queued
        stream.queued = 0
        if stream.outbox:
            if stream.outbox[0].begun and stream.outbox[0].type != _ITEM:
                self._end_large()
            stream.outbox.clear()

    def add_credit(self, stream: Stream, amount: int) -> None:
        """Open a stream's window by ``amount`` bytes."""
        stream.send_credit += amount
        if stream.starved:
            stream.starved = False
            self._enter(stream)

    def add_connection_credit(self, amount: int) -> None:
        """Open the connection's window by ``amount`` bytes."""
        self.credit += amount
        while self._starved:
            stream = self._starved.popleft()
            if stream.starved:
                stream.starved = False
                self._enter(stream)

    def clear(self) -> None:
        """Forget everything but whole messages that are ready: the connection ends."""
        self._turns.clear()
        self._starved.clear()
        self._large_waiting.clear()
        self._queued = 0

    def pull(self, size: int) -> bytes:
        """Return about ``size`` bytes to send, fairly chosen; nothing only if nothing can be sent now."""
        parts = self._control
        self._control = []
        taken = self._take_ready(parts, size)
        # Each pull gives at least one turn, so that small messages without end cannot starve a large one.
        while self._turns:
            stream = self._turns.popleft()
            stream.turning = False
            if stream.outbox:
                taken += self._take_turn(parts, stream)
                if taken >= size:
                    break
        return b"".join(parts)

    def _take_ready(self, parts: list[bytes], size: int) -> int:
        ready = self._ready
        if self._ready_size <= size:
            taken = self._ready_size
            parts.extend(ready)
            ready.clear()
            self._ready_size = 0
            return taken
        taken = 0
        while ready and taken < size:
            part = ready.popleft()
            parts.append(part)
            taken += len(part)
        # A head is never left without its payload's place: control frames go between messages only.
        while ready and len(ready) % 2:
            part = ready.popleft()
            parts.append(part)
            taken += len(part)
        self._ready_size -= taken
        return taken

    def _enter(self, stream: Stream) -> None:
        stream.turning = True
        self._turns.append(stream)

    def _take_turn(self, parts: list[bytes], stream: Stream) -> int:
        """Append up to a turn's worth of a stream's frames and return their payload's size."""
        outbox = stream.outbox
        assert outbox is not None
        taken = 0
        while outbox and taken < TURN_SIZE:
            message = outbox[0]
            if message.type != _ITEM and not message.begun and not self._may_begin(stream, message):
                return taken
            before = message.sent
            frame = self._next_frame(stream, message, TURN_SIZE - taken)
            if not frame:
                return taken
            parts.extend(frame)
            taken += message.sent - before + ITEM_OVERHEAD
        if outbox:
            self._enter(stream)
        return taken

    def _may_begin(self, stream: Stream, message: Outgoing) -> bool:
        if len(message.payload) <= min(self.max_frame, TURN_SIZE):
            return True
        if self._large >= LARGE_MESSAGES_MAX:
            self._large_waiting.append(stream)
            return False
        self._large += 1
        return True

    def _end_large(self) -> None:
        self._large -= 1
        while self._large_waiting:
            stream = self._large_waiting.popleft()
            if stream.outbox and not stream.turning:
                self._enter(stream)
                break

    def _next_frame(self, stream: Stream, message: Outgoing, room: int) -> tuple[bytes, bytes] | None:
        """Return the next frame of a stream's first message as head and payload, or None if it has no credit."""
        metadata = b"" if message.begun else message.metadata
        rest = len(message.payload) - message.sent
        size = min(rest, self.max_frame, TURN_SIZE)
        if message.type == _ITEM:
            # A large message fills its turn with one frame; ITEMs share what is left of it.
            size = min(size, max(room, FRAGMENT_SIZE_MIN))
            available = min(stream.send_credit, self.credit) - ITEM_OVERHEAD - len(metadata)
            if size > available:
                size = available
            if size < 0 or (size < rest and size < FRAGMENT_SIZE_MIN):
                stream.starved = True
                # One that lacks its own window as well is woken by whichever comes first and looks again.
                if self.credit <= stream.send_credit:
                    self._starved.append(stream)
                return None
            cost = ITEM_OVERHEAD + len(metadata) + size
            stream.send_credit -= cost
            self.credit -= cost
        last = size == rest
        flags = (CONTINUED if message.begun else message.flags) | (0 if last else MORE)
        payload = message.payload if size == len(message.payload) else message.payload[message.sent : message.sent + size]
        head = encode_head(message.type, flags, stream.id, metadata, payload)
        message.sent += size
        large = message.begun or not last
        message.begun = True
        stream.queued -= size
        self._queued -= size
        if last:
            self._finish(stream, message, large)
        if stream.throttled and stream.queued < STREAM_QUEUE_SIZE:
            stream.throttled = False
            self.writable.append(stream)
        return head, payload

    def _finish(self, stream: Stream, message: Outgoing, large: bool) -> None:
        assert stream.outbox is not None
        stream.outbox.popleft()
        if large and message.type != _ITEM:
            self._end_large()
        if message.type in _ENDS_STREAM:
            self.ended.append(stream)
