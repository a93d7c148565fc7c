"""Lines, which locks, elections and semaphores share (spec/recipes.md, "Lines").

All claimants of a database follow the line of a name by one watch, however many they are.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from haptera.client.trouble import ends_watch_alone
from haptera.errors import HapteraError
from haptera.peer import Pauses

if TYPE_CHECKING:
    from haptera.client.database import Database
    from haptera.client.recipes.line_place import LinePlace
    from haptera.client.watches.watch import Watch
    from haptera.peer import Timeout

#: The part of the keys of a line behind its name. The id of the claimant's lease follows.
LINE: Final = "/.line/"

_logger = logging.getLogger(__name__)


class LineFollower:
    """The places of a name that stand, and the claimants of one database who are told of them."""

    def __init__(self, db: Database, name: str, timeout: Timeout) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.name = name
        self._db = db
        self._timeout: Timeout = timeout
        self._claimants: dict[str, LinePlace] = {}
        self._standing: dict[str, int] = {}  # bounded by the places of the line
        self._versions: list[int] = []  # of those that stand, rising
        self._seen = 0  # the revision of which every change is known
        self._server_id: bytes | None = None  # of the store whose places these are
        self._task: asyncio.Task[None] | None = None

    @property
    def empty(self) -> bool:
        """Whether there is no claimant."""
        return not self._claimants

    def join(self, place: LinePlace) -> None:
        """Tell a claimant from now on how many stand ahead of its place."""
        self._claimants[place.key] = place
        if self._task is None:
            self._task = self.loop.create_task(self._follow())
        self._judge(place)

    def leave(self, place: LinePlace) -> None:
        """Tell it no more. The line is followed as long as there is a claimant."""
        self._claimants.pop(place.key, None)
        if not self._claimants and self._task is not None:
            self._task.cancel()
            self._task = None
            self._seen = 0
            self._server_id = None

    async def _follow(self) -> None:
        """Follow the line over any number of watches: places stand as long as their leases, not as a watch.

        A claimant who has not seen the line is told of a watch that did not begin in the time of a call. All are told
        of a defect, because a claimant that waits for ever blocks the line with its lease.
        """
        pauses = Pauses()
        while True:
            waiting = [place for place in self._claimants.values() if not place.seen]
            try:
                async with self._db.watch(prefix=self.name + LINE, initial=True, timeout=self._timeout) as events:
                    waiting.clear()
                    await self._read(events, pauses)
            except HapteraError as error:
                lost = waiting if ends_watch_alone(error) else list(self._claimants.values())
                for place in lost:
                    place.fail(error)
            except Exception as defect:
                _logger.exception("line_failed", extra={"key": self.name})
                for place in list(self._claimants.values()):
                    place.fail(defect)
            await pauses.wait()

    async def _read(self, events: Watch, pauses: Pauses) -> None:
        """Follow the line from the places that stand now."""
        standing: dict[str, int] = {}
        while True:
            for event in await events.next_events():
                if event.value is None:
                    standing.pop(event.key, None)
                else:
                    standing[event.key] = event.version
            if events.revision is not None:  # all that stood at the beginning has been given
                pauses.begin_anew()
                self._meet(events.server_id)
                self._standing, self._versions = standing, sorted(standing.values())
                self._seen = events.revision
                for place in list(self._claimants.values()):
                    self._judge(place)

    def _meet(self, server_id: bytes | None) -> None:
        """Take another server's places for those of others: its store may have lost changes since they were seen."""
        if self._server_id not in {None, server_id}:
            for place in [place for place in self._claimants.values() if place.seen]:
                place.lose("another server answers now, and its places are those of others")
        self._server_id = server_id

    def _judge(self, place: LinePlace) -> None:
        """Tell a claimant where its place stands, once the line is known up to the moment in which it was taken."""
        if self._seen < place.token:
            return
        version = self._standing.get(place.key)
        if version == place.token:
            place.see(bisect_left(self._versions, place.token))
        else:
            place.lose(f"its place in the line was {'deleted' if version is None else 'written again'}")


class LineFollowers:
    """The lines that the claimants of a database follow."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._by_name: dict[str, LineFollower] = {}

    def of(self, name: str, timeout: Timeout) -> LineFollower:
        """The line of a name."""
        line = self._by_name.get(name)
        if line is None or line.loop is not asyncio.get_running_loop():  # a database begins afresh under the next loop
            line = self._by_name[name] = LineFollower(self._db, name, timeout)
        return line

    def drop(self, line: LineFollower) -> None:
        """Forget a line without claimants."""
        if line.empty and self._by_name.get(line.name) is line:
            del self._by_name[line.name]
