"""Which jobs of a queue are free, followed by one worker: pages of the first ones, and one watch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from haptera.client.recipes.candidates import PAGE_JOBS, Candidates
from haptera.client.recipes.queue_keys import READY, are_digits, ready_numbers
from haptera.client.trouble import ends_watch_alone, passes
from haptera.errors import HapteraError
from haptera.peer import Pauses

if TYPE_CHECKING:
    from haptera.client.recipes.job_claims import JobClaims
    from haptera.client.watches.event import Event

_logger = logging.getLogger(__name__)


class FreeJobs:
    """Keeps the `Candidates` of a worker, and calls ``changed`` when there may be more of them.

    ``ended`` is called when the queue is not followed any more, with the reason: a refusal of the store, or a defect.
    """

    def __init__(self, claims: JobClaims, changed: Callable[[], None], ended: Callable[[Exception], None]) -> None:
        self.candidates: Candidates = Candidates()
        self._claims = claims
        self._db = claims.db
        self._keys = claims.keys
        self._changed = changed
        self._ended = ended
        self._watching = False
        self._reading: asyncio.Task[None] | None = None
        self._order = asyncio.Lock()  # a page and the changes since it was read are taken over one after the other

    def pick(self, place: int) -> str | None:
        """Take one of the first candidates, and read more where few are left."""
        digits = self.candidates.pick(place)
        self._read_more()
        return digits

    async def follow(self) -> None:
        """Follow the queue over any number of watches, with all pages read again for each."""
        pauses = Pauses()
        while True:
            try:
                await self._follow_one_watch(pauses)
            except HapteraError as error:
                if self._db.closed or not ends_watch_alone(error):
                    self._ended(error)
                    return
            except Exception as defect:
                _logger.exception("queue_failed")
                self._ended(defect)
                return
            await pauses.wait()

    async def _follow_one_watch(self, pauses: Pauses) -> None:
        """Take over the changes since the watch began. All pages are read later than that."""
        async with self._db.watch(prefix=self._keys.claims, timeout=None) as events:
            pauses.begin_anew()
            self.candidates.begin()
            self._watching = True
            try:
                while True:
                    self._read_more()
                    self._changed()
                    changes = await events.next_events()
                    async with self._order:
                        for event in changes:
                            self._note(event)
            finally:
                self._watching = False
                if self._reading is not None:
                    self._reading.cancel()
                    await asyncio.wait([self._reading])
                    self._reading = None  # it may never have begun

    def _read_more(self) -> None:
        """Have pages read where few candidates are left."""
        if self._watching and self.candidates.wanting and self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read_pages())

    async def _read_pages(self) -> None:
        try:
            while self.candidates.wanting:
                async with self._order:
                    await self._read_page()
                self._changed()
        except HapteraError as error:
            self._ended(error)
        except Exception as defect:
            _logger.exception("queue_failed")
            self._ended(defect)
        finally:
            self._reading = None

    def _note(self, event: Event) -> None:
        """Take over a change among the claims. One that is deleted is that of a job that is done."""
        digits = event.key.removeprefix(self._keys.claims)
        if event.kind == "put" and digits == READY:
            numbers = ready_numbers(event.value or b"")
            if numbers is not None:
                self.candidates.free(*numbers)
        elif not are_digits(digits):
            pass  # another program's
        elif event.kind == "put":
            self.candidates.taken(digits)
        elif event.kind == "expire":
            self.candidates.free(int(digits), int(digits))

    async def _read_page(self) -> None:
        pauses = Pauses()
        while True:
            try:
                free, cursor, last = await self._page(self.candidates.cursor)
            except HapteraError as error:
                if self._db.closed or not passes(error):
                    raise
                await pauses.wait()
            else:
                self.candidates.read(free, cursor, last=last)
                return

    async def _page(self, cursor: str) -> tuple[list[str], str, bool]:
        """The free jobs of the page behind a cursor, the cursor at its end, and whether it is the last page."""
        start = f"{self._keys.items}{cursor}\0" if cursor else self._keys.items
        page = self._db.scan(prefix=self._keys.items, start=start, limit=PAGE_JOBS, keys_only=True)
        jobs = [item.key.removeprefix(self._keys.items) async for item in page]
        if not jobs:
            return [], cursor, True
        free = dict.fromkeys(filter(are_digits, jobs))
        start, end = self._keys.claims + jobs[0], f"{self._keys.claims}{jobs[-1]}\0"
        async for claim in self._db.scan(start=start, end=end):
            digits = claim.key.removeprefix(self._keys.claims)
            if not self._claims.forgotten(digits, claim):
                free.pop(digits, None)
        return list(free), jobs[-1], len(jobs) < PAGE_JOBS
