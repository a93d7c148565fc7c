"""Long work in slices: a generator that stops where others may have their turn.

`Steps` yields, after each slice, how many *units* of work the slice was; it returns its result. One unit is about a
quarter of a microsecond: the least that is done for one key. Slices are counted in units and not in time, because
the same work must stop at the same places wherever it runs.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

ResultT = TypeVar("ResultT")

Steps = Generator[int, None, ResultT]


def finish(steps: Steps[ResultT]) -> ResultT:
    """Run every slice now, one after the other, and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: ResultT = end.value
            return result
