"""A rate limit: so many times in so many seconds, for all programs together (spec/recipes.md, section 3)."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

from haptera.client.calls.argument_checks import checked_int, ttl_ms_of
from haptera.client.trouble import passes
from haptera.errors import HapteraError
from haptera.key_rules import INT64_MAX
from haptera.peer import DEFAULT, Pauses, Timeout

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
        self._refused_until = -math.inf  # the time of the loop

    async def take(self, *, timeout: Timeout = DEFAULT) -> float:
        """Count one use, if the limit allows it.

        After a refusal this object does not ask again before the window ends, because the count only grows.

        Returns:
            0.0 if it is allowed; otherwise the seconds until the window ends.
        """
        time = asyncio.get_running_loop().time
        refused_for = self._refused_until - time()
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
        self._refused_until = time() + left
        return left

    async def wait(self, *, timeout: Timeout = DEFAULT) -> None:
        """Count one use, as soon as the limit allows it. ``timeout`` is for each call to the store.

        Once the store has said how long to wait, one that cannot be reached, or refuses for a reason that passes, is
        waited for. An attempt that may have been counted is not taken for allowed.
        """
        pauses, refused = Pauses(), False
        while True:
            try:
                refused_for = await self.take(timeout=timeout)
            except HapteraError as error:
                if not refused or self._db.closed or not passes(error):
                    raise
                await pauses.wait()
                continue
            if not refused_for:
                return
            refused = True
            pauses.begin_anew()
            await asyncio.sleep(refused_for)
