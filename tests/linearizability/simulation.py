"""A node in memory on a virtual clock. A history under faults takes a fifth of a second, and repeats by its seed.

The node and the faults of its machine are those of `tests.simulation`.

With half of the seeds a change or a read of two keys is a large one: it is taken in slices of one key, and other
requests are answered between any two.
"""

from __future__ import annotations

import random
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

from haptera.node import slice_queue
from haptera.node.services import large_requests
from haptera.state import get_many, limits
from haptera.testing import run
from tests.linearizability.faults import record
from tests.simulation.keys import MasterKeys
from tests.simulation.node import SimulatedNode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.linearizability.history import History

#: A slice on a clock that stands still while the node works: about as long as a message is under way.
TURN_S: Final = 0.0005

#: Planted faults that no order of the calls explains, and the seeds within which each of them shows.
FAULTS_OF_THE_STORE: Final = (
    "a repeated change is applied again",
    "a read is stale",
    "an increment is lost",
    "a change is answered and not made",
    "the end of a lease leaves a key",
    "a key stays in a lease that it has left",
    "a fence is not judged",
    "a fence that stands is refused",
)
FOUND_WITHIN: Final = 20


def simulate(seed: int) -> tuple[History, list[str]]:
    """A history under faults, and the kinds of the faults, both by their seed."""
    choices = random.Random(seed)

    async def main() -> tuple[History, list[str]]:
        return await record(SimulatedNode(choices, keys), choices)

    with MasterKeys() as keys, slices_of_one_key() if choices.random() < 0.5 else nullcontext():
        return run(main(), seed=seed)


@contextmanager
def slices_of_one_key() -> Iterator[None]:
    """Have every request with a list of keys do its work key by key, with time for others after each."""

    def rest(self: slice_queue.Turns) -> None:
        self._loop.call_later(TURN_S, self._turn)

    with ExitStack() as stack:
        stack.enter_context(patch.object(limits, "SLICE_WORK_MAX", 1))
        stack.enter_context(patch.object(get_many, "_PIECE", 1))
        stack.enter_context(patch.object(slice_queue, "TURN_WORK_MAX", 1))
        stack.enter_context(patch.object(slice_queue.Turns, "_rest", rest))
        stack.enter_context(patch.object(large_requests, "SMALL_LIST_SIZE", 0))
        stack.enter_context(patch.object(large_requests, "LARGE_LIST_SIZE", 0))
        yield
