"""What leaves a connection, and in which order (spec/protocol.md, sections 2 and 3).

Three queues, emptied in this order at each pull:

* *control*: frames of stream 0, CREDIT, and refusals of requests that never began, which may overtake everything;
* *ready*: messages of one frame, in the order in which they were given, and the first frame of each larger request, so
  that requests leave in order of their streams;
* *turns*: streams with ITEMs or large messages, each with one turn of ``TURN_SIZE`` bytes a round.

Bytes are pulled, not pushed: what is not yet in the socket's buffer can still be overtaken. A stream whose REQUEST is
still in *ready* has no turn; one without credit waits until it gets some. An ERROR needs no credit, because it takes
the place of all that its stream has queued.

What waits is bounded by its producers: a stream's queue, the room that all of a connection's share, and the budget of
the process, to which all that waits is charged.

Frames are signed as they are pulled, not as they are queued: a tag covers the frame's place in the order of the wire.
"""

from collections import deque
from typing import Final

from haptera.connection.config import (
    CONNECTION_BUDGET,
    LARGE_MESSAGES_MAX,
    PRODUCED_MAX,
    STREAM_QUEUE_SIZE,
    TURN_SIZE,
    WOKEN_MAX,
    Budget,
)
from haptera.connection.stream import Outgoing, Stream
from haptera.wire.compression import COMPRESSED_SIZE_MIN, Codec
from haptera.wire.frame import (
    COMPRESSED,
    CONTINUED,
    FRAGMENT_SIZE_MIN,
    ITEM_OVERHEAD,
    MORE,
    FrameType,
    encode_head,
)
from haptera.wire.metadata import Tag, encode_entry
from haptera.wire.signature import Signer

_ITEM: Final = int(FrameType.ITEM)
#: What a queued message counts besides its bytes, so that many empty ones are not free.
_OVERHEAD: Final = ITEM_OVERHEAD
_ENDS_STREAM: Final = frozenset({int(FrameType.RESPONSE), int(FrameType.ERROR)})


class Outbox:
    """The outgoing side of one connection.

    ``limit`` is how many bytes may wait for turns and credit before no more are produced; ``budget`` is the process's.
    """

    def __init__(self, limit: int = CONNECTION_BUDGET, budget: Budget | None = None) -> None:
        self.max_frame = 0  # the peer's, once it is known: until then only REQUESTs leave
        self.credit = 0  # the connection's window, as the peer opened it
        #: Streams whose last frame has left in a pull, until their owner takes them.
        self.ended: list[Stream] = []
        #: Streams whose producer may go on, until their owner takes them.
        self.writable: list[Stream] = []
        #: Frames that have left in pulls, ever.
        self.frames_sent = 0
        #: Bytes of the control queue: what the peer caused and has not read.
        self.control_size = 0
        self._control: list[bytes] = []
        self._ready: deque[bytes] = deque()
        self._ready_size = 0
        self._ready_out = 0  # bytes that have left the ready queue, ever
        self._behind_handshake: list[bytes] = []
        self._turns: deque[Stream] = deque()
        self._blocked: list[Stream] = []  # their REQUEST is still in the ready queue
        self._starved: dict[int, Stream] = {}  # wait for the connection's window
        self._large_waiting: deque[Stream] = deque()
        self._large = 0
        self._queued = 0  # bytes that take turns
        self._queued_answers = 0  # those of them that are answers
        self._stuck = 0  # those of them whose stream waits for credit
        self._wanting: deque[Stream] = deque()  # streams whose producers wait for the connection's room
        self._limit = limit
        self._budget = Budget() if budget is None else budget
        #: What of the process's budget is charged to this connection for what waits to be sent.
        self.charged = 0
        self._codec: Codec | None = None
        self._signer: Signer | None = None
        self._unsigned = 0  # of the control queue, how many of its first frames leave unsigned

    def sign(self, signer: Signer) -> None:
        """Sign every frame that is queued from now on. The handshake's own leaves as it is, if it is still here."""
        self._signer = signer
        self._unsigned = len(self._control)

    def compress(self, codec: Codec) -> None:
        """Compress the payloads that are queued from now on, where that makes them smaller."""
        self._codec = codec

    def open(self, max_frame: int, credit: int) -> None:
        """Take over what the peer accepts; what had to wait for that may leave."""
        self.max_frame = max_frame
        for frame in self._behind_handshake:
            self.add_ready(frame)
        self._behind_handshake.clear()
        self.add_connection_credit(credit)

    @property
    def size(self) -> int:
        """Bytes that wait to be pulled, what waits for credit included."""
        return self._ready_size + self._queued

    @property
    def unwritten(self) -> int:
        """Bytes of answers that wait to be pulled.

        ITEMs are not among them: each stream's own queue bounds those, and they may wait for credit for ever without
        holding up anything else.
        """
        return self._ready_size + self._queued_answers

    @property
    def over_budget(self) -> bool:
        """Whether the process has as much in memory for its connections as it may."""
        return self._budget.used >= self._budget.limit

    @property
    def has_room(self) -> bool:
        """Whether a producer may make more: little waits for the socket, and not too much for credit."""
        waiting = self._ready_size + self._queued - self._stuck
        return waiting < PRODUCED_MAX and self._queued < self._limit

    def ask_room(self, stream: Stream) -> bool:
        """Whether a stream's producer may make its next ITEM; else the stream will be among ``writable``."""
        if stream.throttled:
            return False
        if self.has_room:
            return True
        self._wanting.append(stream)
        return False

    def settle(self, unsent: int = 0) -> int:
        """Charge what waits to the process's budget, with the bytes that were pulled and are ``unsent``; return it."""
        waiting = self._ready_size + self._queued + self.control_size + unsent
        self._budget.used += waiting - self.charged
        self.charged = waiting
        return waiting

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
        self.control_size += len(frame)

    def add_frame(self, frame: bytes) -> None:
        """Queue a frame that belongs behind its stream's REQUEST, and is none: it leaves after the handshake."""
        if self.max_frame:
            self.add_ready(frame)
        else:
            self._behind_handshake.append(frame)

    def add_ready(self, head: bytes, payload: bytes = b"") -> None:
        """Queue a message of one frame."""
        self._ready.append(head)
        self._ready.append(payload)
        self._ready_size += len(head) + len(payload)

    def add_whole(self, type_: int, flags: int, stream: Stream, metadata: bytes, payload: bytes) -> None:
        """Queue a message of one frame whose payload may be compressed."""
        flags, metadata, payload = self._packed(stream, flags, metadata, payload)
        self.add_ready(encode_head(type_, flags, stream.id, metadata, payload), payload)

    def add(self, stream: Stream, message: Outgoing) -> None:
        """Queue a message that takes turns: an ITEM, one of several frames, or one behind such on its stream."""
        if stream.outbox is None:
            stream.outbox = deque()
        stream.outbox.append(message)
        size = _waiting_size(message)
        stream.queued += size
        self._charge(size)
        if message.type in _ENDS_STREAM:
            self._queued_answers += size
        if stream.starved:
            self._stuck += size
        elif not stream.turning:
            self._enter(stream)
        if stream.queued >= STREAM_QUEUE_SIZE:
            stream.throttled = True

    def hold_turns(self, stream: Stream) -> None:
        """Let a stream have turns only when what is in the ready queue now has left: its REQUEST is the last there."""
        stream.after = self._ready_out + self._ready_size

    def begin_request(self, stream: Stream, message: Outgoing) -> None:
        """Queue a request of several frames; its first keeps its place among the other requests."""
        self._large += 1
        stream.outbox = deque((message,))
        stream.queued = _waiting_size(message)
        self._charge(stream.queued)
        frame = self._next_frame(stream, message, TURN_SIZE)
        assert frame is not None  # only ITEMs need credit
        self.add_ready(*frame)
        self.hold_turns(stream)
        self._enter(stream)

    def _charge(self, size: int) -> None:
        """Account for bytes that take turns: more of them, or with a negative ``size`` fewer.

        The budget is told at once and not when it is settled, because many may be made in one turn of the loop.
        """
        self._queued += size
        self._budget.used += size
        self.charged += size

    def drop(self, stream: Stream) -> None:
        """Forget what a stream has queued: an ERROR cuts it short, or it is no longer wanted.

        No answer is among it, because nothing is queued behind an answer and no call has one to send.
        """
        if stream.starved:
            stream.starved = False
            self._stuck -= stream.queued
            self._starved.pop(stream.id, None)
        self._charge(-stream.queued)
        stream.queued = 0
        stream.throttled = False
        if stream.outbox:
            if stream.outbox[0].begun and stream.outbox[0].type != _ITEM:
                self._end_large()
            stream.outbox.clear()

    def add_credit(self, stream: Stream, amount: int) -> None:
        """Open a stream's window by ``amount`` bytes."""
        stream.send_credit += amount
        if stream.starved:
            self._wake(stream)

    def add_connection_credit(self, amount: int) -> None:
        """Open the connection's window by ``amount`` bytes."""
        self.credit += amount
        starved, self._starved = self._starved, {}
        for stream in starved.values():
            if stream.starved:
                self._wake(stream)

    def _wake(self, stream: Stream) -> None:
        stream.starved = False
        self._stuck -= stream.queued
        self._enter(stream)

    def _starve(self, stream: Stream) -> None:
        stream.starved = True
        self._stuck += stream.queued
        # One that lacks its own window as well is woken by whichever comes first and looks again.
        if self.credit <= stream.send_credit:
            self._starved[stream.id] = stream

    def clear(self) -> None:
        """Forget everything but whole messages that are ready: the connection ends."""
        self._turns.clear()
        self._blocked.clear()
        self._starved.clear()
        self._behind_handshake.clear()
        self._large_waiting.clear()
        self._wanting.clear()
        self._queued = 0
        self._queued_answers = 0
        self._stuck = 0

    def close(self) -> None:
        """Forget everything: nothing leaves any more. What is left of the connection keeps none of its messages."""
        self.clear()
        self._control.clear()
        self.control_size = 0
        self._ready.clear()
        self._ready_size = 0
        self.ended.clear()
        self.writable.clear()
        self.settle()

    def pull(self, size: int) -> bytes:
        """Return about ``size`` bytes to send, fairly chosen; nothing only if nothing can be sent now."""
        parts = self._control
        self._control = []
        self.control_size = 0
        controls = len(parts)
        taken = self._take_ready(parts, size)
        if self._blocked:
            self._unblock()
        # Each pull gives at least one turn, so that small messages without end cannot starve a large one.
        while self._turns:
            stream = self._turns.popleft()
            stream.turning = False
            if stream.outbox:
                taken += self._take_turn(parts, stream)
                if taken >= size:
                    break
        self.frames_sent += controls + (len(parts) - controls) // 2
        if self._signer is not None:
            parts = self._seal(self._signer, parts, controls)
        if self._wanting and self.has_room:
            for _ in range(min(len(self._wanting), WOKEN_MAX)):
                self.writable.append(self._wanting.popleft())
        return b"".join(parts)

    def _seal(self, signer: Signer, parts: list[bytes], controls: int) -> list[bytes]:
        """Sign frames that are about to leave: ``controls`` whole ones, and heads with their payloads behind them."""
        sealed = parts[: self._unsigned]
        for frame in parts[self._unsigned : controls]:
            sealed.extend(signer.seal(frame, b""))
        for head, payload in zip(parts[controls::2], parts[controls + 1 :: 2], strict=True):
            sealed.extend(signer.seal(head, payload))
        self._unsigned = 0
        return sealed

    def _take_ready(self, parts: list[bytes], size: int) -> int:
        ready = self._ready
        if self._ready_size <= size:
            taken = self._ready_size
            parts.extend(ready)
            ready.clear()
            self._ready_size = 0
            self._ready_out += taken
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
        self._ready_out += taken
        return taken

    def _enter(self, stream: Stream) -> None:
        stream.turning = True
        if stream.after > self._ready_out:
            self._blocked.append(stream)
        else:
            self._turns.append(stream)

    def _unblock(self) -> None:
        blocked, self._blocked = self._blocked, []
        for stream in blocked:
            self._enter(stream)

    def _take_turn(self, parts: list[bytes], stream: Stream) -> int:
        """Append up to a turn's worth of a stream's frames and return their size before compression."""
        outbox = stream.outbox
        assert outbox is not None
        before_turn = taken = stream.overrun
        stream.overrun = 0
        while outbox and taken < TURN_SIZE:
            message = outbox[0]
            if message.type != _ITEM and not message.begun and not self._may_begin(stream, message):
                return taken - before_turn
            before = message.sent
            frame = self._next_frame(stream, message, TURN_SIZE - taken)
            if not frame:
                return taken - before_turn
            parts.extend(frame)
            # What is compressed counts as what it was: a turn is a bound for the work of compressing, too.
            taken += len(frame[0]) + message.sent - before
        if outbox:
            # The least that a fragment may be can be more than was left of the turn: the next one is the shorter.
            stream.overrun = taken - TURN_SIZE
            self._enter(stream)
        return taken - before_turn

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
            size = min(size, available)
            if size < 0 or (size < rest and size < FRAGMENT_SIZE_MIN):
                self._starve(stream)
                return None
        last = size == rest
        flags = (CONTINUED if message.begun else message.flags) | (0 if last else MORE)
        payload = message.payload
        if size < len(payload):
            payload = payload[message.sent : message.sent + size]
        gone = len(metadata) + size + (_OVERHEAD if last else 0)
        if self._codec is not None:
            flags, metadata, payload = self._packed(stream, flags, metadata, payload)
        if message.type == _ITEM:
            cost = ITEM_OVERHEAD + len(metadata) + len(payload)
            stream.send_credit -= cost
            self.credit -= cost
        head = encode_head(message.type, flags, stream.id, metadata, payload)
        message.sent += size
        large = message.begun or not last
        message.begun = True
        stream.queued -= gone
        self._queued -= gone
        if message.type in _ENDS_STREAM:
            self._queued_answers -= gone
        if last:
            self._finish(stream, message, large)
        if stream.throttled and stream.queued < STREAM_QUEUE_SIZE:
            stream.throttled = False
            self.writable.append(stream)
        return head, payload

    def _packed(self, stream: Stream, flags: int, metadata: bytes, payload: bytes) -> tuple[int, bytes, bytes]:
        """Return a frame's flags, metadata and payload, compressed if that makes the frame smaller."""
        size = len(payload)
        if self._codec is not None and size >= COMPRESSED_SIZE_MIN and not stream.of_session:
            packed = self._codec.compress(payload)
            entry = encode_entry(Tag.RAW_LENGTH, size.to_bytes(4, "big"))
            if len(packed) + len(entry) < size:
                return flags | COMPRESSED, metadata + entry, packed
        return flags, metadata, payload

    def _finish(self, stream: Stream, message: Outgoing, large: bool) -> None:
        assert stream.outbox is not None
        stream.outbox.popleft()
        if large and message.type != _ITEM:
            self._end_large()
        if message.type in _ENDS_STREAM:
            self.ended.append(stream)


def _waiting_size(message: Outgoing) -> int:
    metadata_size = 0 if message.begun else len(message.metadata)
    return _OVERHEAD + metadata_size + len(message.payload) - message.sent
