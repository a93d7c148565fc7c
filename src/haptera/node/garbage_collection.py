"""Python's garbage collector in a process that is a node and nothing else.

A full collection looks at every object that is not frozen. Thousands of scans that are under way are 90,000 objects,
and 0.1 s for one look; a list of a million keys that were written since the start is as much. So the number of objects
does not decide when the process collects, because scans make many and leave none. Connections leave garbage that only a
full collection finds, because their parts refer to each other. So the ended connections decide: they are counted.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Connections that may end before the next full collection: some 16 MiB of garbage.
ENDED_CONNECTIONS_MAX = 1000

#: Collections of the youngest objects before the survivors are looked at: 2,800 objects, a millisecond. By Python's own
#: 10 it is up to 6 ms.
YOUNG_COLLECTIONS = 4

#: Collections of the survivors before a full one, in case that something else leaves garbage: hours of the heaviest
#: load.
MIDDLE_COLLECTIONS = 10_000


class Collector:
    """Decides when all objects are looked at, once it has taken over. Before that Python does."""

    def __init__(self) -> None:
        self._in_charge = False
        self._ended = 0

    def take_over(self, prepare: Callable[[], None]) -> None:
        """Take all objects out of the collector's sight, for good, and decide from now on when it looks at new ones.

        ``prepare`` is called between a full collection and the freezing.
        """
        gc.collect()
        prepare()
        gc.freeze()
        # Has the collector forget how much there was: it looks for old garbage when it expects a quarter more.
        gc.collect()
        youngest, _, _ = gc.get_threshold()
        gc.set_threshold(youngest, YOUNG_COLLECTIONS, MIDDLE_COLLECTIONS)
        self._in_charge = True

    def connection_ended(self) -> None:
        """Look at all objects if enough connections have ended."""
        self._ended += 1
        if self._in_charge and self._ended >= ENDED_CONNECTIONS_MAX:
            self._ended = 0
            gc.collect()
