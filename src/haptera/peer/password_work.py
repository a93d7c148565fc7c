"""The work that passwords make: a sixth of a second of CPU for each, in threads and never on a loop.

The threads are few, and so is the work that may wait for them: a stranger causes it with one message.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from haptera import forks
from haptera.security import SaltedPasswords

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

T = TypeVar("T")

#: Threads: the derivation of a key lets the others run, and two of them leave the rest of the machine to the program.
THREADS: Final = 2
#: Passwords that are worked on or wait: at six a second and thread, as many as are done within the time that a
#: connection has to authenticate.
WORK_MAX: Final = 64


class PasswordWork:
    """Runs functions that derive keys, a bounded number of them at once."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._under_way = 0
        forks.watch(self)

    @property
    def full(self) -> bool:
        """Whether too many wait already."""
        return self._under_way >= WORK_MAX

    def run(self, loop: asyncio.AbstractEventLoop, function: Callable[[], T]) -> asyncio.Future[T] | None:
        """Run a function in a thread; return the future of its result, or None where too many wait already."""
        with self._lock:
            if self._under_way >= WORK_MAX:
                return None
            self._under_way += 1
            if self._threads is None:
                self._threads = ThreadPoolExecutor(THREADS, "haptera-passwords")
        return loop.run_in_executor(self._threads, self._run, function)

    def _run(self, function: Callable[[], T]) -> T:
        try:
            return function()
        finally:
            with self._lock:
                self._under_way -= 1

    def disown(self, owner: int) -> None:
        """Leave the threads to the process that this one was forked from: they do not run here."""
        self._threads = None
        self._lock = threading.Lock()
        self._under_way = 0


#: The work of this process, and the keys that it has derived for its own logins.
WORK: Final = PasswordWork()
SALTED_PASSWORDS: Final = SaltedPasswords(os.urandom)
