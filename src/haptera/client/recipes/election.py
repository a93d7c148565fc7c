"""An election: one leader at a time, whom all others can see (spec/recipes.md, section 6)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING

from haptera.client.calls.entry import Entry
from haptera.client.recipes.holding import HeldBlock
from haptera.client.recipes.line import LINE
from haptera.client.trouble import ends_watch_alone
from haptera.errors import HapteraError
from haptera.peer import DEFAULT, Pauses, Timeout

if TYPE_CHECKING:
    from haptera.client.watches.watch import Watch


class Election(HeldBlock):
    """A claim to leadership. Made by `Database.election`; ``async with`` waits for it and gives a `Holding`.

    An object that is never entered only looks at who leads.
    """

    __slots__ = ()

    async def leader(self, *, timeout: Timeout = DEFAULT) -> Entry | None:
        """Ask who leads.

        Returns:
            The leader's entry, whose ``value`` is the leader's own and whose ``version`` is its token; None if no one
            leads.
        """
        async with self._db.scan(prefix=self._name + LINE, timeout=timeout) as places:
            return _first([place async for place in places])

    async def changes(self) -> AsyncGenerator[Entry | None, None]:
        """Follow who leads: the leader of now, and then each that follows, also one who led for a moment only.

        Returns:
            An asynchronous iterator of entries as `leader` gives them; None where no one leads.
        """
        told: Entry | None = None
        begun = False
        pauses = Pauses()
        while True:
            try:
                async with self._db.watch(prefix=self._name + LINE, initial=True, timeout=self._timeout) as events:
                    async for leader in _leaders(events):
                        pauses.begin_anew()
                        if leader != told or not begun:
                            begun, told = True, leader
                            yield leader
            except HapteraError as error:
                if not begun or self._db.closed or not ends_watch_alone(error):
                    raise
            await pauses.wait()


async def _leaders(events: Watch) -> AsyncGenerator[Entry | None, None]:
    """The leader after each event."""
    places: dict[str, Entry] = {}
    synced = False
    async for event in events:
        if event.kind == "synced":
            synced = True
        elif event.value is None:
            places.pop(event.key, None)
        else:
            places[event.key] = Entry(event.key, event.value, event.version, event.expires_at)
        if synced:
            yield _first(places.values())


def _first(places: Iterable[Entry]) -> Entry | None:
    return min(places, key=lambda place: place.version, default=None)
