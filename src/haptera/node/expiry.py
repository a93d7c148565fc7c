"""Has the keys removed whose time has come.

A dead key is absent for every caller from its very millisecond on; it is removed a little later, by a command in the
log, so that each replay and each replica does the same and every watcher sees it. The node logs such a command when
there is something to remove, with as many keys as are applied in a few milliseconds, and the next one when that is
applied. While nothing is due there is one timer, and nothing is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.errors import Failure
from haptera.node.commit import RETRY_S
from haptera.state import NEVER, Logged, operations

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from haptera.node.commit import CommitPipeline
    from haptera.node.metrics import Metrics
    from haptera.node.slice_queue import Turns
    from haptera.state import Result, StateMachine, Steps

#: Keys that are removed together: about 3 ms to apply. With the largest keys they are as many bytes as a batch.
EXPIRED_TOGETHER_MAX: Final = 1024

#: Seconds that a timer runs at most. It does not go on while the machine sleeps, and entry time may run faster.
TIMER_MAX_S: Final = 60.0


class Expiry:
    """One timer for the next key that expires. ``now_ms`` gives the time of an entry of this moment."""

    __slots__ = (
        "_loop",
        "_machine",
        "_metrics",
        "_now_ms",
        "_pipeline",
        "_removing",
        "_stopped",
        "_timer",
        "_turns",
        "_wakes_at_ms",
    )

    def __init__(
        self,
        machine: StateMachine,
        pipeline: CommitPipeline,
        turns: Turns,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._machine = machine
        self._pipeline = pipeline
        self._turns = turns
        self._loop = loop
        self._metrics = metrics
        self._now_ms = now_ms
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at_ms = NEVER
        self._removing = False  # dead keys are looked for, or a command that removes some is on its way
        self._stopped = False

    def look(self) -> None:
        """Set the timer for the next key, if it is earlier than the one that is set."""
        if self._machine.expires_next_ms < self._wakes_at_ms and not self._removing and not self._stopped:
            self._set_timer(self._machine.expires_next_ms)

    def stop(self) -> None:
        """Remove nothing more: the node ends."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, time_ms: int) -> None:
        self._wakes_at_ms = time_ms
        self._wake_in(min(max(0, time_ms - self._now_ms()) / 1000, TIMER_MAX_S))

    def _wake_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._wakes_at_ms = NEVER
        if not self._stopped and not self._removing and self._machine.abandoned is None:
            self._removing = True
            self._turns.start(self, self._steps())

    def _steps(self) -> Steps[None]:
        keys = yield from self._machine.dead_steps(self._now_ms(), EXPIRED_TOGETHER_MAX)
        if self._stopped:
            return
        if not keys:
            self._removing = False
            self.look()
            return
        refused = self._pipeline.append_own(Logged(operations.ExpireDue(keys)), self._done)
        if refused is not None:
            self._done([refused])

    def _done(self, results: list[Result]) -> None:
        self._removing = False
        [result] = results
        if isinstance(result, Failure):
            if not self._stopped:
                self._wakes_at_ms = 0  # before any key that `look` may find
                self._wake_in(RETRY_S)
            return
        assert isinstance(result, tuple)
        self._metrics.keys_expired_total += result[0]
        self._wake()
