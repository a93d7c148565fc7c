"""The halves that wait for a turn, and the frames that a turn makes (spec/protocol.md, sections 2 and 3).

Each half with ITEMs or a large message has one turn of ``TURN_SIZE`` bytes a round. A half whose REQUEST, or an ITEM,
is still in the ready queue has no turn; one without credit waits until it gets some. An ERROR needs no credit, because
it takes the place of all that its half has queued.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from haptera.connection.compressed_payloads import pack
from haptera.connection.config import LARGE_MESSAGES_MAX, QUEUED_FREELY_MAX, STREAM_QUEUE_SIZE, TURN_SIZE
from haptera.connection.stream_law import HalfState
from haptera.wire import CONTINUED, FRAGMENT_SIZE_MIN, ITEM_OVERHEAD, MORE, FrameType, encode_head

if TYPE_CHECKING:
    from haptera.connection.memory_ledger import Ledger
    from haptera.connection.stream_halves import Outgoing, SendingHalf
    from haptera.wire import Codec

_ITEM: Final = int(FrameType.ITEM)
#: Bytes that a queued message counts besides its own, so that many empty ones are not free.
_OVERHEAD: Final = ITEM_OVERHEAD
_ENDS_STREAM: Final = frozenset({int(FrameType.RESPONSE), int(FrameType.ERROR)})


class SendingTurns:
    """Sending halves with queued messages, each in its turn, as far as their credit and the connection's go."""

    __slots__ = (
        "_large",
        "_large_waiting",
        "_ledger",
        "_starved",
        "blocked",
        "codec",
        "credit",
        "ended",
        "frame_max",
        "passed",
        "queued",
        "queued_answers",
        "stuck",
        "waiting",
        "whole_cost_max",
        "writable",
    )

    def __init__(self, ledger: Ledger) -> None:
        self.frame_max: int = 0  # the largest payload of a frame, once the peer has told: until then no half has credit
        self.credit: int = 0  # the connection's window, as the peer opened it
        #: The most that the first frame of an ITEM costs that waits, whole, though its window has room for a part: 0
        #: where that would leave a long link unused.
        self.whole_cost_max: int = 0
        #: The codec of payloads, where both sides agreed on it.
        self.codec: Codec | None = None
        #: Bytes that have left the ready queue, ever: a half that has a frame behind them has no turn.
        self.passed: int = 0
        self.queued: int = 0  # bytes that take turns
        self.queued_answers: int = 0  # the answers among them
        self.stuck: int = 0  # the ones whose half waits for credit
        #: Halves whose last frame has been made, until their owner takes them.
        self.ended: list[SendingHalf] = []
        #: Halves whose producer may go on, until their owner takes them.
        self.writable: list[SendingHalf] = []
        #: The halves whose turn comes, in order.
        self.waiting: deque[SendingHalf] = deque()
        #: The halves that have a frame in the ready queue still.
        self.blocked: list[SendingHalf] = []
        self._ledger = ledger
        self._starved: dict[int, SendingHalf] = {}  # wait for the connection's window
        self._large_waiting: deque[SendingHalf] = deque()
        self._large = 0  # messages of several frames under way, besides ITEMs

    @property
    def large_free(self) -> bool:
        """Whether one more message of several frames may begin."""
        return self._large < LARGE_MESSAGES_MAX and not self._large_waiting

    # -- queueing ---------------------------------------------------------------------------------------------------

    def add(self, half: SendingHalf, message: Outgoing) -> None:
        """Queue a message: an ITEM, one of several frames, or one behind such on its half."""
        if half.queue is None:
            half.queue = deque()
        half.queue.append(message)
        size = _OVERHEAD + message.waiting
        half.queued += size
        self._charge(size)
        if message.type in _ENDS_STREAM:
            self.queued_answers += size
        if half.starved:
            self.stuck += size
        elif not half.turning:
            self._enter(half)
        if half.queued >= STREAM_QUEUE_SIZE and not half.wakes_below and not self._has_room(half):
            half.wakes_below = STREAM_QUEUE_SIZE

    def _has_room(self, half: SendingHalf) -> bool:
        """Whether a half with a turn's worth in its queue may have more there: as far as that can leave at once."""
        if self.queued - self.stuck >= QUEUED_FREELY_MAX:
            return False
        return half.queued < STREAM_QUEUE_SIZE + min(half.credit, self.credit)

    def begin_request(self, half: SendingHalf, message: Outgoing, after: int) -> tuple[bytes, bytes]:
        """Queue a request of several frames and return the first, which keeps its place among the other requests.

        The others have turns when ``after`` bytes, and the first frame, have left the ready queue.
        """
        self._large += 1
        half.queue = deque((message,))
        half.queued = _OVERHEAD + message.waiting
        self._charge(half.queued)
        frame = self._next_frame(half, message, TURN_SIZE)
        assert frame is not None  # only ITEMs need credit
        head, payload = frame
        half.after = after + len(head) + len(payload)
        self._enter(half)
        return frame

    def _charge(self, size: int) -> None:
        """Account for bytes that take turns: more of them, or with a negative ``size`` fewer.

        The budget is told at once and not when it is settled, because many may be made in one turn of the loop.
        """
        self.queued += size
        self._ledger.charge(size)

    def drop(self, half: SendingHalf) -> None:
        """Forget a half's queue: an ERROR cuts it short, or it is no longer wanted.

        No answer is among it, because nothing is queued behind an answer and no call has one to send.
        """
        if half.starved:
            half.starved = False
            self.stuck -= half.queued
            self._starved.pop(half.id, None)
        self._charge(-half.queued)
        half.queued = 0
        half.wakes_below = 0
        if half.queue:
            if half.queue[0].sent and half.queue[0].type != _ITEM:
                self._end_large()
            half.queue.clear()

    def clear(self) -> None:
        """Forget all of them: the connection ends."""
        self.waiting.clear()
        self.blocked.clear()
        self._starved.clear()
        self._large_waiting.clear()
        self.queued = 0
        self.queued_answers = 0
        self.stuck = 0

    # -- credit -----------------------------------------------------------------------------------------------------

    def add_credit(self, half: SendingHalf, amount: int) -> None:
        """Open a half's window by ``amount`` bytes."""
        half.credit += amount
        if half.starved:
            self._wake(half)

    def add_connection_credit(self, amount: int) -> None:
        """Open the connection's window by ``amount`` bytes."""
        self.credit += amount
        starved, self._starved = self._starved, {}
        for half in starved.values():
            if half.starved:
                self._wake(half)

    def _wake(self, half: SendingHalf) -> None:
        half.starved = False
        self.stuck -= half.queued
        self._enter(half)

    def _starve(self, half: SendingHalf) -> None:
        half.starved = True
        self.stuck += half.queued
        # One that lacks its own window as well is woken by whichever comes first and looks again.
        if self.credit <= half.credit:
            self._starved[half.id] = half

    # -- turns ------------------------------------------------------------------------------------------------------

    def _enter(self, half: SendingHalf) -> None:
        half.turning = True
        if half.after > self.passed:
            self.blocked.append(half)
        else:
            self.waiting.append(half)

    def unblock(self) -> None:
        """Give a turn to the halves whose frames in the ready queue have left."""
        blocked, self.blocked = self.blocked, []
        for half in blocked:
            self._enter(half)

    def take(self, parts: list[bytes]) -> int:
        """Append up to a turn's worth of the next half's frames and return their size before compression."""
        while self.waiting:
            half = self.waiting.popleft()
            half.turning = False
            if half.queue:
                return self._take(parts, half, half.queue)
        return 0

    def _take(self, parts: list[bytes], half: SendingHalf, queue: deque[Outgoing]) -> int:
        before_turn = taken = half.overrun
        half.overrun = 0
        while queue and taken < TURN_SIZE:
            message = queue[0]
            if message.type != _ITEM and not message.sent and not self._may_begin(half, message):
                return taken - before_turn
            before = message.sent
            frame = self._next_frame(half, message, TURN_SIZE - taken)
            if not frame:
                return taken - before_turn
            parts.extend(frame)
            # A compressed message counts with its raw size: a turn is a bound for the work of compressing, too.
            taken += len(frame[0]) + message.sent - before
        if queue:
            # The least that a fragment may be can be more than was left of the turn: the next one is the shorter.
            half.overrun = taken - TURN_SIZE
            self._enter(half)
        return taken - before_turn

    def _may_begin(self, half: SendingHalf, message: Outgoing) -> bool:
        if len(message.payload) <= self.frame_max:
            return True
        if self._large >= LARGE_MESSAGES_MAX:
            self._large_waiting.append(half)
            return False
        self._large += 1
        return True

    def _end_large(self) -> None:
        self._large -= 1
        while self._large_waiting:
            half = self._large_waiting.popleft()
            if half.queue and not half.turning:
                self._enter(half)
                break

    def _next_frame(self, half: SendingHalf, message: Outgoing, room: int) -> tuple[bytes, bytes] | None:
        """Return the next frame of a half's first message as head and payload, or None if it has no credit."""
        type_ = message.type
        sent = message.sent
        metadata = b"" if sent else message.metadata
        rest = len(message.payload) - sent
        size = min(rest, self.frame_max)
        if type_ == _ITEM:
            size = self._item_size(half, size, ITEM_OVERHEAD + len(metadata), room, begun=sent > 0)
            if size < 0:
                self._starve(half)
                return None
        last = size == rest
        flags = (CONTINUED if sent else message.flags) | (0 if last else MORE)
        payload = message.payload
        if size < len(payload):
            payload = payload[sent : sent + size]
        gone = len(metadata) + size + (_OVERHEAD if last else 0)
        half.send(type_, flags)
        if self.codec is not None:
            flags, metadata, payload = pack(self.codec, half, flags, metadata, payload)
        if type_ == _ITEM:
            cost = ITEM_OVERHEAD + len(metadata) + len(payload)
            half.credit -= cost
            self.credit -= cost
        head = encode_head(type_, flags, half.id, metadata, payload)
        message.sent += size
        half.queued -= gone
        self.queued -= gone
        if type_ in _ENDS_STREAM:
            self.queued_answers -= gone
        if last:
            self._finish(half, message, large=sent > 0)
        if half.queued < half.wakes_below:
            half.wakes_below = 0
            self.writable.append(half)
        return head, payload

    def _item_size(self, half: SendingHalf, size: int, overhead: int, room: int, *, begun: bool) -> int:
        """Return how much of an ITEM its next frame carries, ``size`` at most; below 0 if it has to wait for credit.

        A frame is cut only where there is need, because its receiver has to join the parts. An ITEM waits for its
        half's window instead, up to ``whole_cost_max``. One that has begun does not, because its receiver gives it a
        time to become whole (section 2), nor does any for the connection's window, which slow readers of other streams
        may keep narrow.
        """
        # A large message fills its turn with one frame; ITEMs share the rest of it.
        if size - room >= FRAGMENT_SIZE_MIN:
            size = max(room, FRAGMENT_SIZE_MIN)
        cost = overhead + size
        if cost <= half.credit and cost <= self.credit:
            return size
        if not begun and half.credit < cost <= self.whole_cost_max:
            return -1
        size = min(half.credit, self.credit) - overhead
        return size if size >= FRAGMENT_SIZE_MIN else -1

    def _finish(self, half: SendingHalf, message: Outgoing, *, large: bool) -> None:
        assert half.queue is not None
        half.queue.popleft()
        if large and message.type != _ITEM:
            self._end_large()
        if message.type in _ENDS_STREAM:
            self.ended.append(half)

    def check(self, halves: Collection[SendingHalf]) -> None:
        """Assert the invariants; ``halves`` are the halves of all open streams."""
        assert self.credit >= 0
        large = 0
        for half in halves:
            queue = half.queue or deque()
            assert half.credit >= 0
            assert half.queued == sum(_OVERHEAD + message.waiting for message in queue)
            # Frames make the state; with none to come it is the one that was decided.
            assert queue or half.state is half.decided
            assert not (half.starved and half.turning)
            assert half.decided is not HalfState.UNUSED
            large += bool(queue) and queue[0].sent > 0 and queue[0].type != _ITEM
        assert self.queued == sum(half.queued for half in halves)
        assert self.stuck == sum(half.queued for half in halves if half.starved)
        assert self._large == large <= LARGE_MESSAGES_MAX
        answers = sum(
            _OVERHEAD + message.waiting
            for half in halves
            for message in half.queue or ()
            if message.type in _ENDS_STREAM
        )
        assert self.queued_answers == answers
