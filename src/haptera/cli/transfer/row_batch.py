"""A batch of rows: one call to the store, and its place in the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BATCH_ROWS_MAX: Final = 500
#: Bytes of keys and values in one call: large enough that the calls cost little beside their rows, small enough that
#: many in flight are few megabytes, and that few rows are uncertain after a lost connection.
BATCH_SIZE_MAX: Final = 128 * 1024


@dataclass
class RowBatch:
    """Rows for one call. ``first`` and ``last`` are where they stood in the file."""

    items: list[tuple[str, bytes]]
    first: int
    last: int
    #: Bytes of the file read so far, before decompression.
    position: int
