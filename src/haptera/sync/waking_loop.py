"""The event loop of the thread of `haptera.sync`."""

from __future__ import annotations

import asyncio
import os
import selectors
from collections.abc import Callable
from contextlib import suppress
from typing import Final

#: Bytes that are read from the pipe at once: it has one, and another for each thread that was interrupted meanwhile.
WAKES_READ: Final = 4096


class WakingLoop(asyncio.SelectorEventLoop):
    """A loop that a forked child can leave behind, and that is woken by a pipe of its own.

    ``call_soon_threadsafe`` does more than wake it, which takes half as long again.
    """

    def __init__(self) -> None:
        self._chosen = selectors.DefaultSelector()
        self._left_behind = False
        super().__init__(self._chosen)
        self._reader, self._writer = os.pipe()

    def when_woken(self, callback: Callable[[], None]) -> None:
        """Have a function called when the loop was woken (before the loop runs)."""
        self.add_reader(self._reader, self._woken, callback)

    def wake(self) -> None:
        """Wake the loop, from any thread. The pipe has room: nothing more is written before it was read."""
        os.write(self._writer, b"\0")

    def _woken(self, callback: Callable[[], None]) -> None:
        os.read(self._reader, WAKES_READ)
        callback()

    def close(self) -> None:
        """Close it, and the pipe."""
        if not self.is_closed():
            self.remove_reader(self._reader)
            self._close_pipe()
        super().close()

    def leave_behind(self) -> None:
        """Close the descriptors of a forked child, which its parent's loop uses on, and say nothing of it later."""
        self._left_behind = True
        with suppress(OSError):
            self._chosen.close()
        self._close_pipe()

    def _close_pipe(self) -> None:
        for descriptor in (self._reader, self._writer):
            with suppress(OSError):
                os.close(descriptor)

    def __del__(self) -> None:
        if not self._left_behind:
            super().__del__()
