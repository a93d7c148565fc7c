"""A semaphore: so many holders at a time, in the order in which they came (spec/recipes.md, section 6)."""

from __future__ import annotations

from haptera.client.recipes.holding import HeldBlock


class Semaphore(HeldBlock):
    """A claim to a permit. Made by `Database.semaphore`; ``async with`` waits for the permit and gives a `Holding`."""

    __slots__ = ()
