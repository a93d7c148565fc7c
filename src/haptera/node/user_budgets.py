"""The memory that all connections of one user may use together, so that none takes that of all others.

A connection has a budget of its own, and the process one for all of its connections. Sixteen connections of one user
could fill the second by the defaults. So those of a user hold a part of it at most, and what is beyond is refused to
this user alone (spec/protocol.md, section 5.4).
"""

from __future__ import annotations

from typing import Final

from haptera.connection import Budget

#: The part of the process's budget that one user may fill: a quarter. Four users that do their worst leave none to the
#: others, and one leaves most of it. A node of one user needs less than a quarter, unless it reads no answers.
USER_PART: Final = 4


class UserBudgets:
    """The budgets of the users that have a connection, each of a part of ``process_budget`` bytes, and no less than one
    connection may hold: the largest message of a user has room in any configuration.
    """

    __slots__ = ("_budgets", "limit")

    def __init__(self, process_budget: int, connection_budget: int) -> None:
        self.limit: int = max(process_budget // USER_PART, connection_budget)
        #: With the number of connections that each is for; bounded as these are.
        self._budgets: dict[str, tuple[Budget, int]] = {}

    def take(self, user: str) -> Budget:
        """Return the budget of a user, for one connection more."""
        budget, connections = self._budgets.get(user) or (Budget(self.limit), 0)
        self._budgets[user] = budget, connections + 1
        return budget

    def give_back(self, user: str) -> None:
        """A connection that took the budget is gone, with its bytes."""
        budget, connections = self._budgets.pop(user)
        if connections > 1:
            self._budgets[user] = budget, connections - 1

    def used(self, user: str) -> int:
        """Bytes that the connections of a user hold together."""
        found = self._budgets.get(user)
        return 0 if found is None else found[0].used
