"""The windows that a connection opens for its peer's ITEMs (spec/protocol.md, section 3, "Flow control").

Two windows bound the ITEMs that a peer may send, the stream's and the connection's. The stream's opens again as the
application takes ITEMs, so that a slow reader stops its own stream. The connection's opens as bytes arrive while there
is budget left, so that it stops no other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from haptera.connection.config import SMALL_CREDITS_PER_S
from haptera.errors import Code, RemoteProtocolError
from haptera.wire import FRAGMENT_SIZE_MIN, ITEM_OVERHEAD, FrameType, encode_frame

if TYPE_CHECKING:
    from haptera.connection.memory_ledger import Ledger
    from haptera.connection.outbox import Outbox
    from haptera.connection.stream_halves import ReceivingHalf
    from haptera.connection.unfinished_messages import UnfinishedMessage, UnfinishedMessages

_CREDIT: Final = int(FrameType.CREDIT)
_ITEM: Final = int(FrameType.ITEM)
#: With less than this a sender cannot go on with an unfinished ITEM.
_FRAGMENT_COST_MIN: Final = ITEM_OVERHEAD + FRAGMENT_SIZE_MIN


class Inflow:
    """The ITEMs that a connection has received, and the credit that it owes for them."""

    __slots__ = (
        "_lacking",
        "_ledger",
        "_outbox",
        "_owed",
        "_small_credit_at",
        "_unfinished",
        "_window",
        "_window_size",
        "_withheld",
        "credit_due",
        "now",
        "stream_window",
    )

    def __init__(
        self, outbox: Outbox, ledger: Ledger, unfinished: UnfinishedMessages, stream_window: int, connection_window: int
    ) -> None:
        self.stream_window: int = stream_window
        self.now: float = 0.0
        self._outbox = outbox
        self._ledger = ledger
        self._unfinished = unfinished
        self._window_size = connection_window
        self._window = connection_window  # bytes that the peer may still send
        self._owed = 0  # bytes that it may be given back at once
        self._withheld = 0  # bytes that it gets back when the application takes its ITEMs
        self._lacking = False  # whether the connection's window is too small for a fragment
        self._small_credit_at = float("-inf")  # when the last one left
        #: When credit that had to wait leaves; None if there is none.
        self.credit_due: float | None = None

    def spend(self, cost: int) -> None:
        """Charge an ITEM frame to the connection's window. Raises 1009 if the window is overrun."""
        self._window -= cost
        if self._window < 0:
            raise RemoteProtocolError(
                Code.FLOW_CONTROL_VIOLATION, "the connection's window is overrun", {"by": -self._window}
            )

    def spend_stream(self, half: ReceivingHalf, cost: int) -> None:
        """Charge an ITEM frame to its half's window. Raises 1009 if the window is overrun."""
        half.window -= cost
        if half.window < 0:
            raise RemoteProtocolError(
                Code.FLOW_CONTROL_VIOLATION, "a stream's window is overrun", {"stream": half.id, "by": -half.window}
            )

    def drop(self, half: ReceivingHalf | None, cost: int) -> None:
        """Give back the cost of a dropped frame to the connection and its half, if its stream is still open."""
        self._owed += cost
        if half is not None:
            half.owed += cost
            self._credit_stream(half)

    def _watch(self, half: ReceivingHalf) -> None:
        """Stop the time of an unfinished ITEM while its sender has to wait for credit (section 2)."""
        unfinished = half.unfinished
        if unfinished is None or unfinished.type != _ITEM:
            return
        if self._lacking or half.window < _FRAGMENT_COST_MIN:
            if unfinished.stalled_at is None:
                unfinished.stalled_at = self.now
        elif unfinished.stalled_at is not None:
            unfinished.since += self.now - unfinished.stalled_at
            unfinished.stalled_at = None
            self._unfinished.stale = True

    def keep_fragment(self, half: ReceivingHalf, unfinished: UnfinishedMessage, cost: int) -> bool:
        """Account for a fragment of an unfinished ITEM; False if that is over the budget.

        While no whole ITEM of the half is unread the fragment counts as taken, so that an ITEM larger than the window
        can arrive.
        """
        self._owed += cost
        unfinished.uncredited += cost
        if not self._ledger.hold_part(half, cost):
            return False
        unfinished.held += cost
        if not half.unread:
            self._credit_unfinished(half, unfinished)
        self._watch(half)
        return True

    def keep_item(self, half: ReceivingHalf, cost: int, fragments: UnfinishedMessage | None) -> None:
        """Account for the frame that completes an ITEM, and for the credit still owed for its earlier ``fragments``."""
        withheld = 0
        if self._ledger.hold(half, cost):
            self._owed += cost
        else:
            # Over the budget the connection's own window is the bound: it opens when the application reads.
            withheld = cost
            self._withheld += cost
            self._ledger.hold_anyway(half, cost)
        if half.unread is None:
            half.unread = deque()
        if fragments is None:
            half.unread.append((cost, withheld, cost))
        else:
            half.unread.append((cost + fragments.uncredited, withheld, cost + fragments.held))

    def cut_short(self, half: ReceivingHalf, unfinished: UnfinishedMessage) -> None:
        """An ERROR takes the place of an unfinished ITEM: give back its bytes and its window."""
        self._ledger.release(half, unfinished.held)
        unfinished.held = 0
        self._credit_unfinished(half, unfinished)

    def take(self, half: ReceivingHalf) -> None:
        """The application has taken a half's oldest unread ITEM."""
        if not half.unread:
            return
        cost, withheld, held = half.unread.popleft()
        half.owed += cost
        if withheld:
            self._withheld -= withheld
            self._owed += withheld
        self._ledger.release(half, held)
        if not half.unread and half.unfinished is not None:
            self._credit_unfinished(half, half.unfinished)
        else:
            self._credit_stream(half)

    def discard(self, half: ReceivingHalf) -> None:
        """An open stream's ITEMs are not wanted, present or future: give back its bytes and its window."""
        if half.unfinished is not None:
            half.owed += half.unfinished.uncredited
        for cost, _, _ in half.unread or ():
            half.owed += cost
        self.end(half)
        self._credit_stream(half)

    def end(self, half: ReceivingHalf) -> None:
        """A stream has ended: give back its bytes, read or not."""
        if half.unread:
            for _, withheld, _ in half.unread:
                self._withheld -= withheld
                self._owed += withheld
            half.unread = None
        if half.held:
            self._ledger.release(half, half.held)

    def _credit_unfinished(self, half: ReceivingHalf, unfinished: UnfinishedMessage) -> None:
        half.owed += unfinished.uncredited
        unfinished.uncredited = 0
        self._credit_stream(half)

    def _credit_stream(self, half: ReceivingHalf) -> None:
        if half.owed * 2 >= self.stream_window:
            self._outbox.add_control(encode_frame(_CREDIT, 0, half.id, b"", half.owed.to_bytes(4, "big")))
            half.window += half.owed
            half.owed = 0
            self._watch(half)

    def credit_connection(self) -> None:
        """Send the connection's credit when it is worth a frame: once per batch of frames, not per ITEM."""
        owed = self._owed
        if owed and owed * 2 >= self._window_size - self._withheld and self._may_credit(owed):
            self._outbox.add_control(encode_frame(_CREDIT, 0, 0, b"", owed.to_bytes(4, "big")))
            self._window += owed
            self._owed = 0
        if (self._window < _FRAGMENT_COST_MIN) is not self._lacking:
            self._lacking = not self._lacking
            for half in self._unfinished.halves.values():
                self._watch(half)

    def _may_credit(self, owed: int) -> bool:
        """Whether that much credit may leave now: a little of it too often would look like a flood (section 8)."""
        self.credit_due = None
        if owed * 4 < self._window_size:
            due = self._small_credit_at + 1 / SMALL_CREDITS_PER_S
            if self.now < due:
                self.credit_due = due
                return False
            self._small_credit_at = self.now
        return True

    def check(self, halves: Iterable[ReceivingHalf]) -> None:
        """Assert that no byte of a window is lost or given twice; ``halves`` are the halves of all open streams."""
        withheld = 0
        for half in halves:
            unread = half.unread or ()
            uncredited = half.unfinished.uncredited if half.unfinished is not None else 0
            assert half.window >= 0
            assert half.window + half.owed + uncredited + sum(cost for cost, _, _ in unread) == self.stream_window
            assert half.owed * 2 < self.stream_window
            assert sum(held for _, _, held in unread) <= half.held
            withheld += sum(each for _, each, _ in unread)
        assert self._window >= 0
        assert self._withheld == withheld
        assert self._window + self._owed + self._withheld == self._window_size
