"""A node in memory on a virtual clock. A history under faults takes a fifth of a second, and repeats by its seed.

The node is restarted and killed. It loses power, and then unsynced data is lost, torn or out of order. Its clock is put
forward and back, by more than the time for which answers are remembered, too.

With half of the seeds a change or a read of two keys is a large one: it is taken in slices of one key, and other
requests are answered between any two.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

from haptera.node import turns
from haptera.node.services import large_requests
from haptera.state import get_many, limits
from haptera.testing import Crashed, MemoryFileSystem, node, run
from haptera.testing.nodes import EPOCH_MS
from tests.linearizability.faults import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from haptera.testing.filesystem import Unsynced
    from tests.linearizability.history import History

CLOCK_STEPS_MS: Final = (-3_600_000, -1000, 1000, 60_000, 660_000, 3_600_000)
#: A slice on a clock that stands still while the node works: about as long as a message is under way.
TURN_S: Final = 0.0005

WRITE_DELAYS_S: Final = (0.0, 0.0005, 0.003)
UNSYNCED: Final[tuple[Unsynced, ...]] = ("drop", "keep", "tear", "reorder")


class SimulatedNode:
    """A node in memory; see `faults.Node`."""

    kinds: Sequence[str] = ("clock", "restart", "kill", "lose_power")
    freezes_s: Sequence[float] = (0.001, 0.02, 1.0, 60.0, 200.0)
    late_s = 600.0

    def __init__(self, choices: random.Random) -> None:
        self.url = "haptera://node:7457"
        self._choices = choices
        self._disk = MemoryFileSystem()
        self._write_delay = choices.choice(WRITE_DELAYS_S)
        self._clock_offset_ms = 0
        self._stack = AsyncExitStack()
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        await self._stack.enter_async_context(
            node(listen=[self.url], storage=self._disk, write_delay=self._write_delay, clock_ms=self._clock_ms)
        )

    async def stop(self) -> None:
        await self._stack.aclose()

    async def restart(self) -> None:
        """End in an orderly way, and start again."""
        await self.stop()
        self._disk = self._disk.restart()
        await self.start()

    async def kill(self) -> None:
        """End at once. The next process finds everything that was written."""
        await self._start_from(self._disk.power_failure("keep"))

    async def lose_power(self) -> None:
        """End at once. The next process finds what was synced, and a part of the rest."""
        unsynced = self._choices.choice(UNSYNCED)
        await self._start_from(self._disk.power_failure(unsynced, self._choices.randrange(2**32)))

    async def clock(self) -> None:
        """Put the node's clock forward or back."""
        self._clock_offset_ms += self._choices.choice(CLOCK_STEPS_MS)

    async def _start_from(self, disk: MemoryFileSystem) -> None:
        # Neither the old disk nor a client hears from the old process again.
        self._disk.stop_after = len(self._disk.calls)
        self._loop.network.sever()  # type: ignore[attr-defined]
        try:
            await self.stop()
        except Crashed:
            pass
        self._disk = disk
        await self.start()

    def _clock_ms(self) -> int:
        return EPOCH_MS + int(self._loop.time() * 1000) + self._clock_offset_ms


def simulate(seed: int) -> tuple[History, list[str]]:
    """A history under faults, and the kinds of the faults, both by their seed."""
    choices = random.Random(seed)

    async def main() -> tuple[History, list[str]]:
        return await record(SimulatedNode(choices), choices)

    with slices_of_one_key() if choices.random() < 0.5 else nullcontext():
        return run(main(), seed=seed)


@contextmanager
def slices_of_one_key() -> Iterator[None]:
    """Have every request with a list of keys do its work key by key, with time for others after each."""

    def rest(self: turns.Turns) -> None:
        self._loop.call_later(TURN_S, self._turn)

    with ExitStack() as stack:
        stack.enter_context(patch.object(limits, "SLICE_WORK_MAX", 1))
        stack.enter_context(patch.object(get_many, "_PIECE", 1))
        stack.enter_context(patch.object(turns, "TURN_WORK_MAX", 1))
        stack.enter_context(patch.object(turns.Turns, "_rest", rest))
        stack.enter_context(patch.object(large_requests, "SMALL_LIST_SIZE", 0))
        stack.enter_context(patch.object(large_requests, "LARGE_LIST_SIZE", 0))
        yield
