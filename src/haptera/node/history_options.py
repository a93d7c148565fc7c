"""The options that bound the changes which a node keeps in memory for watches and reads of the past."""

from __future__ import annotations

from typing import Annotated, Final

from haptera.connection import Bound
from haptera.node.option_kinds import amount

#: As many changes as a watcher may be behind for a second, on a busy node, without a loss.
HISTORY_EVENTS_MIN: Final = 10_000
#: More than memory has room for.
HISTORY_EVENTS_MAX: Final = 1_000_000_000
HISTORY_BYTES_MIN: Final = 4 * 1024 * 1024
#: More memory than any machine has.
MEMORY_MAX_MAX: Final = 1 << 50

HistoryEvents = Annotated[
    int,
    amount(
        "Data",
        "COUNT",
        Bound(low=HISTORY_EVENTS_MIN, high=HISTORY_EVENTS_MAX),
        "Keep this many changes of keys at most, for watches that begin in the past. The newest change always stays.",
    ),
]
HistoryBytes = Annotated[
    int,
    amount(
        "Data",
        "BYTES",
        Bound(low=HISTORY_BYTES_MIN, high=MEMORY_MAX_MAX),
        "Memory that these changes may take, with the values that they replaced. It is beside memory_max.",
    ),
]
