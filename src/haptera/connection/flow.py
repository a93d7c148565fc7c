"""What a connection has received and still holds: windows, credit and the budget (spec/protocol.md, section 3).

Two windows bound what a peer may send as ITEMs, the stream's and the connection's. The stream's opens again as the
application takes ITEMs, so that a slow reader stops its own stream. The connection's opens as bytes arrive while there
is budget left, so that it stops no other.
"""

from collections import deque
from typing import Final

from haptera.connection.config import HELD_MIN, SMALL_CREDITS_PER_S, Budget
from haptera.connection.outbox import Outbox
from haptera.connection.stream import Partial, Stream
from haptera.errors import RemoteProtocolError
from haptera.wire.frame import FRAGMENT_SIZE_MIN, ITEM_OVERHEAD, FrameType, encode_frame

_CREDIT: Final = int(FrameType.CREDIT)
_ITEM: Final = int(FrameType.ITEM)
#: With less than this a sender cannot go on with an unfinished ITEM.
_FRAGMENT_COST_MIN: Final = ITEM_OVERHEAD + FRAGMENT_SIZE_MIN


class Inflow:
    """The receiving side's accounts of one connection."""

    def __init__(self, outbox: Outbox, stream_window: int, connection_window: int, limit: int, process: Budget) -> None:
        self.stream_window = stream_window
        self._outbox = outbox
        self._window_size = connection_window
        self._window = connection_window  # what the peer may still send
        self._owed = 0  # what it may be given back at once
        self._withheld = 0  # what it gets back when the application takes what it sent
        self._limit = limit
        self._process = process
        self.held = 0
        self.now = 0.0
        #: Streams with a message of which only some frames have arrived.
        self.unfinished: dict[int, Stream] = {}
        #: Whether the sender of an unfinished ITEM has got credit again: its time goes on.
        self.resumed = False
        self._lacking = False  # whether the connection's window is too small for a fragment
        self._small_credit_at = float("-inf")  # when the last one left
        self._small_credit_due: float | None = None  # when the next one leaves, if one waits

    # -- the budget ---------------------------------------------------------------------------------------------

    def hold(self, stream: Stream, size: int) -> bool:
        """Charge ``size`` bytes to a stream; False, and nothing charged, if that is over a budget.

        What a connection holds that holds little is not over the process's.
        """
        if self.held + size > self._limit:
            return False
        if self._process.used + size > self._process.limit and not self._holds_little(size):
            return False
        self.held += size
        self._process.used += size
        stream.held += size
        return True

    def hold_part(self, stream: Stream, size: int) -> bool:
        """Charge a fragment of a message that is not whole. Such messages may use half of the process's budget.

        They may stay unfinished for minutes; whole ones, which are worked on at once, always have the other half.
        """
        if self._process.used + size > self._process.limit // 2 and not self._holds_little(size):
            return False
        return self.hold(stream, size)

    def _holds_little(self, more: int) -> bool:
        return self.held + self._outbox.charged + more <= HELD_MIN

    def release(self, stream: Stream, size: int) -> None:
        """Take ``size`` bytes off a stream's charge."""
        self.held -= size
        self._process.used -= size
        stream.held -= size

    def close(self) -> None:
        """Give back to the process what the connection holds."""
        self._process.used -= self.held
        self.held = 0

    # -- windows ------------------------------------------------------------------------------------------------

    def spend(self, cost: int) -> None:
        """Charge an ITEM frame to the connection's window. Raises 1009 if the window is overrun."""
        self._window -= cost
        if self._window < 0:
            raise RemoteProtocolError(1009, "the connection's window is overrun", {"by": -self._window})

    def spend_stream(self, stream: Stream, cost: int) -> None:
        """Charge an ITEM frame to its stream's window. Raises 1009 if the window is overrun."""
        stream.receive_window -= cost
        if stream.receive_window < 0:
            raise RemoteProtocolError(
                1009, "a stream's window is overrun", {"stream": stream.id, "by": -stream.receive_window}
            )

    def drop(self, stream: Stream | None, cost: int) -> None:
        """Give back what a dropped frame cost the connection and its stream, if that is still open."""
        self._owed += cost
        if stream is not None:
            stream.owed += cost
            self._credit_stream(stream)

    def _watch(self, stream: Stream) -> None:
        """Stop the time of an unfinished ITEM while its sender has to wait for credit (section 2)."""
        partial = stream.partial
        if partial is None or partial.type != _ITEM:
            return
        if self._lacking or stream.receive_window < _FRAGMENT_COST_MIN:
            if partial.stalled_at is None:
                partial.stalled_at = self.now
        elif partial.stalled_at is not None:
            partial.since += self.now - partial.stalled_at
            partial.stalled_at = None
            self.resumed = True

    def keep_fragment(self, stream: Stream, partial: Partial, cost: int) -> bool:
        """Account for a fragment of an unfinished ITEM; False if that is over the budget.

        While no whole ITEM of the stream is unread the fragment counts as taken, so that an ITEM larger than the
        window can arrive.
        """
        self._owed += cost
        partial.uncredited += cost
        if not self.hold_part(stream, cost):
            return False
        partial.held += cost
        if not stream.unread:
            self._credit_partial(stream, partial)
        self._watch(stream)
        return True

    def keep_item(self, stream: Stream, cost: int, fragments: Partial | None) -> None:
        """Account for the frame that completes an ITEM, and for what is still owed for its earlier ``fragments``."""
        if self.hold(stream, cost):
            self._owed += cost
            withheld = 0
        else:
            # Over the budget the connection's own window is the bound: it opens when the application reads.
            withheld = cost
            self._withheld += cost
            self.held += cost
            self._process.used += cost
            stream.held += cost
        if stream.unread is None:
            stream.unread = deque()
        if fragments is None:
            stream.unread.append((cost, withheld, cost))
        else:
            stream.unread.append((cost + fragments.uncredited, withheld, cost + fragments.held))

    def take(self, stream: Stream) -> None:
        """The application has taken a stream's oldest unread ITEM."""
        if not stream.unread:
            return
        cost, withheld, held = stream.unread.popleft()
        stream.owed += cost
        if withheld:
            self._withheld -= withheld
            self._owed += withheld
        self.release(stream, held)
        if not stream.unread and stream.partial is not None:
            self._credit_partial(stream, stream.partial)
        else:
            self._credit_stream(stream)

    def discard(self, stream: Stream) -> None:
        """What an open stream received is not wanted, nor what still comes: give back what it holds and its window."""
        if stream.partial is not None:
            stream.owed += stream.partial.uncredited
        for cost, _, _ in stream.unread or ():
            stream.owed += cost
        self.end(stream)
        self._credit_stream(stream)

    def end(self, stream: Stream) -> None:
        """A stream has ended: give back what it holds, read or not."""
        if stream.unread:
            for _, withheld, _ in stream.unread:
                self._withheld -= withheld
                self._owed += withheld
            stream.unread = None
        if stream.held:
            self.release(stream, stream.held)

    def _credit_partial(self, stream: Stream, partial: Partial) -> None:
        stream.owed += partial.uncredited
        partial.uncredited = 0
        self._credit_stream(stream)

    def _credit_stream(self, stream: Stream) -> None:
        if stream.owed * 2 >= self.stream_window:
            self._outbox.add_control(encode_frame(_CREDIT, 0, stream.id, b"", stream.owed.to_bytes(4, "big")))
            stream.receive_window += stream.owed
            stream.owed = 0
            self._watch(stream)

    def credit_connection(self) -> None:
        """Send the connection's credit when it is worth a frame: once per batch of frames, not per ITEM."""
        owed = self._owed
        if owed and owed * 2 >= self._window_size - self._withheld and self._may_credit(owed):
            self._outbox.add_control(encode_frame(_CREDIT, 0, 0, b"", owed.to_bytes(4, "big")))
            self._window += owed
            self._owed = 0
        if (self._window < _FRAGMENT_COST_MIN) is not self._lacking:
            self._lacking = not self._lacking
            for stream in self.unfinished.values():
                self._watch(stream)

    @property
    def credit_due(self) -> float | None:
        """When credit that had to wait leaves; None if there is none."""
        return self._small_credit_due

    def _may_credit(self, owed: int) -> bool:
        """Whether that much credit may leave now: a little of it too often would look like a flood (section 8)."""
        self._small_credit_due = None
        if owed * 4 < self._window_size:
            due = self._small_credit_at + 1 / SMALL_CREDITS_PER_S
            if self.now < due:
                self._small_credit_due = due
                return False
            self._small_credit_at = self.now
        return True
