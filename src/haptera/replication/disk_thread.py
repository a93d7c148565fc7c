"""The thread that waits for the disk."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Writer(Protocol):
    """Runs blocking jobs one after the other, in order, beside the loop."""

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` after all that were submitted before it."""

    def close(self) -> None:
        """Return when every job has run."""


class ThreadWriter:
    """One thread fed through a queue. At most one job is ever in it, because one entry is with the disk at a time."""

    def __init__(self, name: str = "haptera-log") -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A daemon, so that a disk that hangs for ever cannot keep a process alive that was told to end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` on the thread."""
        self._jobs.put(job)

    def close(self) -> None:
        """End the thread when its jobs are done. Safe to call again."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
