"""The calls of a database that give recipes. The module of a recipe is imported when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.client.argument_checks import plain_key
from haptera.client.lease_calls import LeaseCalls

if TYPE_CHECKING:
    from haptera.client.recipes.counter import Counter
    from haptera.client.recipes.queue import Queue
    from haptera.client.recipes.rate_limit import RateLimit


class RecipeCalls(LeaseCalls):
    """The recipes of spec/recipes.md. Each has a name, which is a key: its entries stand under it."""

    __slots__ = ()

    def counter(self, name: str) -> Counter:
        """A number that many programs add to, under the key ``name``.

        Args:
            name: The key.

        Returns:
            The counter.
        """
        from haptera.client.recipes.counter import Counter  # noqa: PLC0415

        return Counter(self._database, plain_key(name))

    def queue(self, name: str) -> Queue:
        """Jobs that any program puts and any worker takes, each done at least once and by one worker at a time.

        Args:
            name: The name of the queue.

        Returns:
            The queue.

        Raises:
            InvalidKey: The name is no key, or has more than 4,065 bytes.
        """
        from haptera.client.recipes.queue import Queue  # noqa: PLC0415

        return Queue(self._database, plain_key(name))

    def rate_limit(self, name: str, *, limit: int, per: float) -> RateLimit:
        """Allow something ``limit`` times in ``per`` seconds, for all programs that use the name together.

        Args:
            name: The subject of the limit, such as ``"login/ann"``.
            limit: How often it is allowed.
            per: Seconds of a window, which begins with the first use.

        Returns:
            The limit.
        """
        from haptera.client.recipes.rate_limit import RateLimit  # noqa: PLC0415

        return RateLimit(self._database, plain_key(name), limit, per)
