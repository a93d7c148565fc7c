"""Long work in slices: a generator that stops where others may have their turn.

`Steps` yields, after each slice, how many *units* of work the slice was; it returns its result. One unit is about a
quarter of a microsecond: the least that is done for one key. Slices are counted in units and not in time, because
the same work must stop at the same places wherever it runs.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, TypeVar

ResultT = TypeVar("ResultT")

Steps = Generator[int, None, ResultT]

#: Elements of a long list that are freed in one slice: a third of a millisecond.
_FREED_MAX: Final = 2048


def finish(steps: Steps[ResultT]) -> ResultT:
    """Run every slice now, one after the other, and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: ResultT = end.value
            return result


def free_steps(elements: list[Any]) -> Steps[None]:
    """Empty a long list. All elements of the longest at once are a pause of 20 ms."""
    while elements:
        del elements[-_FREED_MAX:]
        yield _FREED_MAX
