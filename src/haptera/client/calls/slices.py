"""Long lists of a call, converted in slices with a turn of the event loop between two."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

A = TypeVar("A")
B = TypeVar("B")

#: Elements that are converted in one turn of the loop: about a millisecond. The longest lists, of 131,072 elements,
#: would stop the program for 30 ms at once.
SLICE_LENGTH: Final = 4096


async def in_slices(elements: list[A], convert: Callable[[list[A]], list[B]]) -> list[B]:
    """Return ``convert(elements)``, of a long list in slices. Raises the errors of ``convert``."""
    if len(elements) <= SLICE_LENGTH:
        return convert(elements)
    converted: list[B] = []
    for first in range(0, len(elements), SLICE_LENGTH):
        if first:
            await asyncio.sleep(0)
        converted += convert(elements[first : first + SLICE_LENGTH])
    return converted
