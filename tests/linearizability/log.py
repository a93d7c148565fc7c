"""The changes of a store as one watch tells them under all faults, from the first revision on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from haptera import Database, Event, Watch
    from tests.linearizability.history import History

#: Seconds after which the node says how far the watch has come although nothing has changed.
PROGRESS_S: Final = 1.0
#: Seconds between two looks at how far it has come.
LOOK_S: Final = 0.05


class Log:
    """Each change with the number of the moment at which it was told, on the clock of a history. As ``async with`` it
    follows the store from its beginning on.
    """

    def __init__(self, history: History, db: Database) -> None:
        self.events: list[tuple[int, Event]] = []
        self._tick = history.tick
        self._watch: Watch = db.watch(start_revision=1, previous=True, progress_interval=PROGRESS_S)
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Log:
        await self._watch.__aenter__()
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._following is not None
        self._following.cancel()
        await asyncio.wait([self._following])
        await self._watch.aclose()

    async def _follow(self) -> None:
        async for event in self._watch:
            self.events.append((self._tick(), event))

    async def reach(self, revision: int) -> None:
        """Wait until every change up to a revision has been told. Raises the error that the watch has ended with."""
        assert self._following is not None
        while self._watch.ready or (self._watch.revision or 0) < revision:
            await asyncio.wait([self._following], timeout=LOOK_S)
            if self._following.done():
                self._following.result()
