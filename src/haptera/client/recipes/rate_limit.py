"""A rate limit: so many times in so many seconds, for all programs together (spec/recipes.md, section 3)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from haptera.client.calls.argument_checks import checked_int, ttl_ms_of
from haptera.key_rules import INT64_MAX
from haptera.peer import DEFAULT, Timeout

if TYPE_CHECKING:
    from haptera.client.calls.transact import Operation
    from haptera.client.database import Database

#: The end of the key of a limit, behind the name.
RATE: Final = "/.rate"


class RateLimit:
    """Counts how often something is done, and says when it was done often enough. Made by `Database.rate_limit`.

    A window of ``per`` seconds begins with the first use, by the clock of the store, and ends by it. All programs that
    use the name should name the same limit: each goes by its own.
    """

    __slots__ = ("_db", "_key", "_limit", "_per_ms", "_refused_until")

    def __init__(self, db: Database, name: str, limit: int, per: float) -> None:
        self._db = db
        self._key = name + RATE
        self._limit = checked_int("limit", limit, 1, INT64_MAX)
        self._per_ms = ttl_ms_of(per)
        self._refused_until = 0.0  # monotonic

    async def take(self, *, timeout: Timeout = DEFAULT) -> float:
        """Count one use, if the limit allows it.

        After a refusal this object does not ask again before the window ends, because the count only grows.

        Returns:
            0.0 if it is allowed; otherwise the seconds until the window ends.
        """
        refused_for = self._refused_until - time.monotonic()
        if refused_for > 0:
            return refused_for
        go_on: list[Operation] = [("increment", [self._key, 1]), ("ttl", [self._key])]
        begin: list[Operation] = [("set", [self._key, b"1", {"ttl_ms": self._per_ms}])]
        result = await self._db.transact(
            compare=[(self._key, "exists", "=", True)], then=go_on, otherwise=begin, timeout=timeout
        )
        if not result.succeeded:
            return 0.0
        used, left = result.results
        assert isinstance(used, int)
        if used <= self._limit:
            return 0.0
        if left is None:  # another program stored the key without an end
            await self._db.expire(self._key, self._per_ms / 1000, timeout=timeout)
            left = self._per_ms / 1000
        assert isinstance(left, int | float)
        self._refused_until = time.monotonic() + left
        return left

    async def wait(self, *, timeout: Timeout = DEFAULT) -> None:
        """Count one use, as soon as the limit allows it. ``timeout`` is for each call to the store."""
        while refused_for := await self.take(timeout=timeout):  # noqa: ASYNC110 - the store has said how long
            await asyncio.sleep(refused_for)
