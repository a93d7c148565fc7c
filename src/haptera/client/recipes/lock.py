"""A lock: one holder at a time, in the order in which they came (spec/recipes.md, section 6)."""

from __future__ import annotations

from haptera.client.recipes.holding import HeldBlock


class Lock(HeldBlock):
    """A claim to a lock. Made by `Database.lock`; ``async with`` waits for the lock and gives a `Holding`."""

    __slots__ = ()
