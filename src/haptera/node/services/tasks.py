"""The tasks of the kv service: one for each scan and count, and one for the large requests of a connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from haptera.node.slice_queue import Turns
    from haptera.peer import Peer
    from haptera.state import Steps

#: Units of work (`haptera.state.sliced_work`) of the first step of a scan's or count's task, and of its last.
TASK_WORK: Final = 128


class Tasks:
    """Starts tasks, and holds them until they end. Many that begin or end together do so in several turns."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, peer: Peer, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a task for a request: now, or where many begin or end in this turn of the loop, in a later one."""
        if self._turns.admits(TASK_WORK):
            self.start(work())
        else:
            self._turns.start(peer, self._begin_steps(work))

    def _begin_steps(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Steps[None]:
        self.start(work())
        yield TASK_WORK

    def stop(self, peer: Peer, task: asyncio.Task[None]) -> None:
        """Cancel a task, in a later turn of the loop where many begin or end in this one."""
        if self._turns.admits(TASK_WORK):
            task.cancel()
        else:
            self._turns.start(peer, self._stop_steps(task))

    @staticmethod
    def _stop_steps(task: asyncio.Task[None]) -> Steps[None]:
        task.cancel()
        yield TASK_WORK

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task now."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
