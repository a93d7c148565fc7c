"""The queues of a connection's unsent frames, and the order in which they leave (spec/protocol.md, sections 2 and 3).

Three queues, emptied in this order at each pull:

* *control*: frames of stream 0, CREDIT, and refusals of requests that never began, which may overtake everything;
* *ready*: messages of one frame, in the order in which they were given, and the first frame of each larger request, so
  that requests leave in order of their streams; among them an ITEM for many streams at once, while the bytes are few;
* *turns*: the halves with ITEMs or large messages, each with one turn a round (``haptera.connection.send_turns``).

Bytes are pulled, not pushed: frames that are not yet in the socket's buffer can still be overtaken.

The producers bound the unsent bytes: a half's queue, the room that all of a connection's share, and the budget of
the process, to which all unsent bytes are charged.

Frames are signed as they are pulled, not as they are queued: a tag covers the frame's place in the order of the wire.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from haptera.connection.compressed_payloads import pack
from haptera.connection.config import FIRST_FLIGHT_SIZE_MAX, PRODUCED_MAX, READY_ITEMS_MAX, TURN_SIZE, WOKEN_MAX
from haptera.connection.send_turns import SendingTurns
from haptera.wire import (
    HEADER_SIZE,
    ITEM_OVERHEAD,
    TYPE_PLACE,
    Codec,
    FrameType,
    Signer,
    encode_frame,
    encode_head,
    encode_heads,
)

if TYPE_CHECKING:
    from haptera.connection.memory_ledger import Ledger
    from haptera.connection.stream_halves import Outgoing, SendingHalf


_ITEM: Final = int(FrameType.ITEM)
#: A payload of this many bytes leaves as a piece of its own, because to copy it into one with others takes longer than
#: to have one piece more in the system call.
PIECE_SIZE_MIN: Final = 16 * 1024

#: A payload of less is copied behind its head at once, because one checksum over both and one piece to join later cost
#: less than the copy.
JOINED_SIZE_MAX: Final = 1024


def gathered(parts: list[bytes]) -> list[bytes]:
    """Return the same bytes in few pieces: the large parts as they are, the small ones between them joined."""
    if max(map(len, parts), default=0) < PIECE_SIZE_MIN:
        return [b"".join(parts)] if parts else []
    pieces = []
    begun = 0
    for place, part in enumerate(parts):
        if len(part) >= PIECE_SIZE_MIN:
            if place > begun:
                pieces.append(b"".join(parts[begun:place]))
            pieces.append(part)
            begun = place + 1
    if begun < len(parts):
        pieces.append(b"".join(parts[begun:]))
    return pieces


class Outbox:
    """The outgoing side of one connection."""

    __slots__ = (
        "_behind_handshake",
        "_codec",
        "_control",
        "_ledger",
        "_ready",
        "_ready_items",
        "_ready_size",
        "_signer",
        "_unsigned",
        "_unsigned_ready",
        "_wanting",
        "control_size",
        "frames_sent",
        "joined_max",
        "near",
        "opened",
        "turns",
        "whole_max",
        "writable",
    )

    def __init__(self, ledger: Ledger) -> None:
        #: The halves that have turns, and their credit.
        self.turns: SendingTurns = SendingTurns(ledger)
        #: Halves whose producer may go on, until ``take_writable``.
        self.writable: list[SendingHalf] = self.turns.writable
        #: Whether the handshake is done: until then only it and REQUESTs leave.
        self.opened: bool = False
        #: Whether the peer is so near that its credit comes at once. Its owner sets it before the handshake.
        self.near: bool = False
        #: The largest payload that leaves in one frame.
        self.whole_max: int = FIRST_FLIGHT_SIZE_MAX
        #: The largest payload that leaves in one frame with its head, as it is: -1 before the handshake is done, and
        #: where payloads are compressed.
        self.joined_max: int = -1
        #: Frames that have left in pulls, ever.
        self.frames_sent: int = 0
        #: Bytes of the control queue: frames that the peer caused and has not read.
        self.control_size: int = 0
        self._ledger = ledger
        self._control: list[bytes] = []
        self._ready: deque[bytes] = deque()
        self._ready_size = 0
        self._ready_items = 0  # bytes of the ready queue that are ITEMs
        self._behind_handshake: list[bytes] = []
        self._wanting: deque[SendingHalf] = deque()  # halves whose producers wait for the connection's room
        self._codec: Codec | None = None
        self._signer: Signer | None = None
        # How many of the first frames of the control queue, and of the ready queue, leave unsigned.
        self._unsigned = self._unsigned_ready = 0

    def sign(self, signer: Signer) -> None:
        """Sign every frame that is queued from now on. Frames that are still here, the handshake's own and the steps of
        an exchange, leave as they are.
        """
        self._signer = signer
        self._unsigned = len(self._control)
        self._unsigned_ready = len(self._ready) // 2

    def compress(self, codec: Codec) -> None:
        """Compress the payloads that are queued from now on, where that makes them smaller."""
        self._codec = self.turns.codec = codec
        self.joined_max = -1

    def open(self, max_frame: int, connection_window: int, stream_window: int) -> None:
        """Take over the peer's limits; frames that had to wait for them may leave."""
        self.opened = True
        self.whole_max = self.turns.frame_max = min(max_frame, TURN_SIZE)
        if self.near:
            # Half of a window opens again by itself, as its receiver takes ITEMs; more may never do (section 3).
            self.turns.whole_cost_max = stream_window // 2
        if self._codec is None:
            self.joined_max = min(self.whole_max, JOINED_SIZE_MAX - 1)
        for frame in self._behind_handshake:
            self.add_ready(frame)
        self._behind_handshake.clear()
        self.turns.add_connection_credit(connection_window)

    # -- how much waits ---------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes that wait to be pulled, including ITEMs that wait for credit."""
        return self._ready_size + self.turns.queued

    @property
    def unwritten(self) -> int:
        """Bytes of answers that wait to be pulled.

        ITEMs are not among them, in either queue: their producers' room bounds them, and they may wait for credit for
        ever without holding up anything else.
        """
        return self._ready_size - self._ready_items + self.turns.queued_answers

    @property
    def over_budget(self) -> bool:
        """Whether the process has as much in memory for its connections as it may."""
        return self._ledger.over_budget

    @property
    def has_room(self) -> bool:
        """Whether a producer may make more: little waits for the socket, and not too much for credit."""
        queued = self.turns.queued
        waiting = self._ready_size + queued - self.turns.stuck
        return waiting < PRODUCED_MAX and queued < self._ledger.limit

    def ask_room(self, half: SendingHalf) -> bool:
        """Whether a half's producer may make its next ITEM; else ``take_writable`` will name it."""
        if half.wakes_below:
            return False
        if self.has_room:
            return True
        self._wanting.append(half)
        return False

    def ask_left(self, half: SendingHalf) -> bool:
        """Whether a half has queued nothing, and its producer may make an ITEM; else ``take_writable`` will name it."""
        if half.queue:
            half.wakes_below = 1
        return self.ask_room(half)

    def take_writable(self) -> list[int]:
        """Return the streams whose producers may go on, once each."""
        if not self.writable:
            return []
        streams = [half.id for half in self.writable]
        self.writable.clear()
        return streams

    def settle(self, unsent: int = 0) -> int:
        """Charge the waiting bytes to the process's budget, with the bytes that were pulled and are ``unsent``;
        return it.
        """
        waiting = self._ready_size + self.turns.queued + self.control_size + unsent
        self._ledger.settle(waiting)
        return waiting

    @property
    def pending(self) -> bool:
        """Whether a pull would give anything now."""
        return bool(self._control or self._ready or self.turns.waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing is kept or charged and no producer waits: a pull and a settlement would change nothing."""
        return not (
            self._control or self._ready or self.turns.waiting or self._wanting or self.writable or self._ledger.charged
        )

    # -- queueing ---------------------------------------------------------------------------------------------------

    def add_control(self, frame: bytes) -> None:
        """Queue a frame that may overtake every other."""
        self._control.append(frame)
        self.control_size += len(frame)

    def add_frame(self, frame: bytes) -> None:
        """Queue a frame that belongs behind its stream's REQUEST, and is none: it leaves after the handshake."""
        if self.opened:
            self.add_ready(frame)
        else:
            self._behind_handshake.append(frame)

    def add_ready(self, head: bytes, payload: bytes = b"") -> None:
        """Queue a frame behind all messages of one frame."""
        self._ready.append(head)
        self._ready.append(payload)
        self._ready_size += len(head) + len(payload)

    def add_joined(self, frames: list[bytes]) -> None:
        """Queue frames whose payloads are joined to their heads, behind all messages of one frame."""
        for frame in frames:
            self._ready += (frame, b"")
        self._ready_size += sum(map(len, frames))

    def add_whole(self, type_: int, flags: int, half: SendingHalf, metadata: bytes, payload: bytes) -> None:
        """Queue a message of one frame, compressed where that makes it smaller."""
        if self._codec is not None:
            flags, metadata, payload = pack(self._codec, half, flags, metadata, payload)
        if len(payload) < JOINED_SIZE_MAX:
            self.add_ready(encode_frame(type_, flags, half.id, metadata, payload))
        else:
            self.add_ready(encode_head(type_, flags, half.id, metadata, payload), payload)

    def whole_room(self, size: int) -> int:
        """How many ITEMs of this size may be made as ``add_items`` does: few, because answers wait for them, and no
        more than the budget of the process takes.
        """
        if size > self.whole_max:
            return 0
        cost = HEADER_SIZE + size
        return min(max(0, READY_ITEMS_MAX - self._ready_size) // cost, self._ledger.messages_room(cost))

    def add_items(self, halves: Sequence[SendingHalf], payload: bytes) -> None:
        """Make the same ITEM of one frame for halves that have queued nothing and have the credit for it.

        It is compressed once. No half is plain.
        """
        flags, metadata = 0, b""
        if self._codec is not None:
            flags, metadata, payload = pack(self._codec, halves[0], flags, metadata, payload)
        ready = self._ready
        for head in encode_heads(_ITEM, flags, [half.id for half in halves], metadata, payload):
            ready.append(head)
            ready.append(payload)
        size = len(metadata) + len(payload)
        added = (HEADER_SIZE + size) * len(halves)
        self._ready_size += added
        self._ready_items += added
        self._ledger.charge(added)  # at once: many may be made before it is settled
        self.turns.credit -= (ITEM_OVERHEAD + size) * len(halves)
        after = self.turns.passed + self._ready_size
        for half in halves:
            half.credit -= ITEM_OVERHEAD + size
            half.after = after  # a pull that does not take them gives turns all the same

    def hold_turns(self, half: SendingHalf) -> None:
        """Let a half have turns only when the present ready queue has left: its REQUEST is the last there."""
        half.after = self.turns.passed + self._ready_size

    def begin_request(self, half: SendingHalf, message: Outgoing) -> None:
        """Queue a request of several frames; its first keeps its place among the other requests."""
        self.add_ready(*self.turns.begin_request(half, message, self.turns.passed + self._ready_size))

    def clear(self) -> None:
        """Forget everything but whole messages that are ready: the connection ends."""
        self.turns.clear()
        self._behind_handshake.clear()
        self._wanting.clear()

    def close(self) -> None:
        """Forget everything: nothing leaves any more. The rest of the connection keeps none of its messages."""
        self.clear()
        self._control.clear()
        self.control_size = 0
        self._ready.clear()
        self._ready_size = self._ready_items = 0
        self.turns.ended.clear()
        self.writable.clear()
        self.settle()

    # -- leaving ----------------------------------------------------------------------------------------------------

    def pull(self, size: int) -> list[bytes]:
        """Return about ``size`` bytes to send, in pieces, fairly chosen; none only if nothing can be sent now."""
        parts = self._control
        self._control = []
        self.control_size = 0
        controls = len(parts)
        turns = self.turns
        if self._ready_size <= size:
            taken = self._ready_size
            parts += self._ready
            self._ready.clear()
            self._ready_size = self._ready_items = 0
        else:
            taken = self._take_ready(parts, size)
        turns.passed += taken
        if turns.blocked:
            turns.unblock()
        # Each pull gives at least one turn, so that small messages without end cannot starve a large one.
        while turns.waiting:
            taken += turns.take(parts)
            if taken >= size:
                break
        self.frames_sent += controls + (len(parts) - controls) // 2
        if self._signer is not None:
            parts = self._seal(self._signer, parts, controls)
        if self._wanting and self.has_room:
            for _ in range(min(len(self._wanting), WOKEN_MAX)):
                self.writable.append(self._wanting.popleft())
        return [b"".join(parts)] if taken < PIECE_SIZE_MIN else gathered(parts)

    def _seal(self, signer: Signer, parts: list[bytes], controls: int) -> list[bytes]:
        """Sign frames that are about to leave: ``controls`` whole ones, and heads with their payloads behind them."""
        sealed = parts[: self._unsigned]
        for frame in parts[self._unsigned : controls]:
            sealed.extend(signer.seal(frame, b""))
        unsigned = min(self._unsigned_ready, (len(parts) - controls) // 2)
        behind = controls + 2 * unsigned
        sealed.extend(parts[controls:behind])
        for head, payload in zip(parts[behind::2], parts[behind + 1 :: 2], strict=True):
            sealed.extend(signer.seal(head, payload))
        self._unsigned = 0
        self._unsigned_ready -= unsigned
        return sealed

    def _take_ready(self, parts: list[bytes], size: int) -> int:
        ready = self._ready
        taken = 0
        while ready and taken < size:
            # A head is never left without its payload's place: control frames go between messages only.
            head, payload = ready.popleft(), ready.popleft()
            parts += (head, payload)
            taken += len(head) + len(payload)
            if head[TYPE_PLACE] == _ITEM:
                self._ready_items -= len(head) + len(payload)
        self._ready_size -= taken
        return taken

    def check(self, halves: Collection[SendingHalf]) -> None:
        """Assert the invariants; ``halves`` are the halves of all open streams."""
        assert self.control_size == sum(map(len, self._control))
        assert self._ready_size == sum(map(len, self._ready))
        assert len(self._ready) % 2 == 0
        frames = [(self._ready[place], self._ready[place + 1]) for place in range(0, len(self._ready), 2)]
        items = [head + payload for head, payload in frames if head[TYPE_PLACE] == _ITEM]
        assert self._ready_items == sum(map(len, items))
        self.turns.check(halves)
