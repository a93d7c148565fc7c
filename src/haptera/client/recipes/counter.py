"""A counter: a number under a key (spec/recipes.md, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.errors import Code, failure
from haptera.key_rules import number_of
from haptera.peer import DEFAULT, Timeout

if TYPE_CHECKING:
    from haptera.client.calls.transact import Operation
    from haptera.client.database import Database


class Counter:
    """A number that many programs add to. Made by `Database.counter`."""

    __slots__ = ("_db", "_key")

    def __init__(self, db: Database, key: str) -> None:
        self._db = db
        self._key = key

    async def get(self, *, timeout: Timeout = DEFAULT) -> int:
        """Read the number.

        Returns:
            The number; 0 for a counter that was never added to.

        Raises:
            NotAnInteger: The key holds something else.
        """
        entry = await self._db.get(self._key, timeout=timeout)
        if entry is None:
            return 0
        number = number_of(entry.value)
        if number is None:
            raise failure(Code.NOT_AN_INTEGER, {"key": self._key}).exception()
        return number

    async def add(self, delta: int = 1, *, timeout: Timeout = DEFAULT) -> int:
        """Add to the number.

        Args:
            delta: The number to add; it may be negative.

        Returns:
            The sum.

        Raises:
            NotAnInteger: The key holds something else.
            IntegerOverflow: The sum has more than 64 bits with sign.
        """
        return await self._db.increment(self._key, delta, timeout=timeout)

    async def reset(self, *, timeout: Timeout = DEFAULT) -> int:
        """Set the number to 0, and say which it was. Of all that was added nothing is lost, and nothing told twice.

        Returns:
            The number of before.

        Raises:
            NotAnInteger: The key holds something else, and keeps it.
        """
        read_and_set: list[Operation] = [("increment", [self._key, 0]), ("set", [self._key, b"0"])]
        result = await self._db.transact(then=read_and_set, timeout=timeout)
        number = result.results[0]
        assert isinstance(number, int)
        return number
