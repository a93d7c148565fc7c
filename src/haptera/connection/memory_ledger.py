"""The memory of one connection, charged to its own budget, to its user's and to the process's (spec/protocol.md,
section 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.connection.config import CONNECTION_BUDGET, HELD_MIN, Budget

if TYPE_CHECKING:
    from haptera.connection.stream_halves import ReceivingHalf


class Ledger:
    """The bytes of one connection: the ones that it holds for its application, and the unsent ones.

    ``limit`` is the most of either; ``process`` is shared by all connections of the process, and ``user`` by those of
    one user, once that is known.
    """

    __slots__ = ("charged", "held", "limit", "process", "user")

    def __init__(self, limit: int = CONNECTION_BUDGET, process: Budget | None = None) -> None:
        self.limit: int = limit
        self.process: Budget = Budget() if process is None else process
        self.user: Budget = Budget(self.process.limit)  # its own: the process's is the lower one
        #: Received, and held for the application.
        self.held: int = 0
        #: Bytes of the process's budget that are charged for unsent bytes.
        self.charged: int = 0

    def share(self, user: Budget) -> None:
        """Charge the connection's bytes to the budget of its user from now on."""
        charged = self.held + self.charged
        self.user.used -= charged
        self.user = user
        user.used += charged

    # -- received ---------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Bytes that ``hold`` admits in any case; there may be room for a few more."""
        process, user = self.process, self.user
        return min(self.limit - self.held, process.limit - process.used, user.limit - user.used)

    def take_on(self, size: int) -> None:
        """Charge bytes for which there was ``room``, to streams whose halves are not made."""
        self.held += size
        self.process.used += size
        self.user.used += size

    def hold(self, half: ReceivingHalf, size: int) -> bool:
        """Charge ``size`` bytes to a half; False, and nothing charged, if that is over a budget.

        A connection that holds little is within the user's and the process's.
        """
        process, user = self.process, self.user
        if self.held + size > self.limit:
            return False
        over = process.used + size > process.limit or user.used + size > user.limit
        if over and not self._holds_little(size):
            return False
        self.hold_anyway(half, size)
        return True

    def hold_part(self, half: ReceivingHalf, size: int) -> bool:
        """Charge a fragment of an unfinished message. Such messages may use half of the process's budget.

        They may stay unfinished for minutes; whole ones, which are worked on at once, always have the other half.
        """
        if self.process.used + size > self.process.limit // 2 and not self._holds_little(size):
            return False
        return self.hold(half, size)

    def hold_anyway(self, half: ReceivingHalf, size: int) -> None:
        """Charge ``size`` bytes to a half without asking the budgets: a window bounds them."""
        self.held += size
        self.process.used += size
        self.user.used += size
        half.held += size

    def _holds_little(self, more: int) -> bool:
        return self.held + self.charged + more <= HELD_MIN

    def release(self, half: ReceivingHalf, size: int) -> None:
        """Take ``size`` bytes off a half's charge."""
        self.held -= size
        self.process.used -= size
        self.user.used -= size
        half.held -= size

    def take_off(self, size: int) -> None:
        """Take ``size`` bytes off, the charges of halves that have ended."""
        self.held -= size
        self.process.used -= size
        self.user.used -= size

    def close(self) -> None:
        """Give the connection's bytes back to its user and the process."""
        self.process.used -= self.held
        self.user.used -= self.held
        self.held = 0

    # -- to be sent -------------------------------------------------------------------------------------------------

    @property
    def over_budget(self) -> bool:
        """Whether the process, or the user, has as much in memory for its connections as it may."""
        return self.process.used >= self.process.limit or self.user.used >= self.user.limit

    def has_memory(self, size: int) -> bool:
        """Whether ``size`` bytes more may be queued."""
        return not self.over_budget or self.charged + size <= HELD_MIN

    def messages_room(self, size: int) -> int:
        """How many messages of ``size`` bytes each may be queued at once: as many as one by one."""
        process, user = self.process, self.user
        over = max(process.used - process.limit, user.used - user.limit)
        return max(0, -(over // size), (HELD_MIN - self.charged) // size)

    def charge(self, size: int) -> None:
        """Charge bytes that are queued; a negative ``size`` takes them off."""
        self.process.used += size
        self.user.used += size
        self.charged += size

    def settle(self, waiting: int) -> None:
        """Charge just ``waiting`` bytes as unsent."""
        more = waiting - self.charged
        self.process.used += more
        self.user.used += more
        self.charged = waiting

    def check(self, held: int) -> None:
        """Assert the invariants; all open streams together have ``held`` bytes."""
        assert self.held == held
        assert self.charged >= 0
        assert self.held + self.charged <= self.user.used <= self.process.used
