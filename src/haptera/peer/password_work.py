"""The work that passwords make: a sixth of a second of CPU for each, in threads and never on a loop.

The threads are few, and so is the work that may wait for them: a stranger causes it with one message. Places have a
share of it and take turns, so that one place does not keep the others out, and the logins of this process at other ones
wait for no stranger.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from haptera import forks
from haptera.security import SaltedPasswords

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: Threads: the derivation of a key lets the others run, and two of them leave the rest of the machine to the program.
THREADS: Final = 2
#: Passwords that are worked on or wait, of all places: in turns, eight places that use their shares up leave another
#: one a wait of less than a second.
WORK_MAX: Final = 256
#: The checks of one place: at six a second and thread, as many as are done within a third of the time that a connection
#: has to authenticate.
SHARE_MAX: Final = 32
#: The work for logins of this process at other ones.
OWN_WORK_MAX: Final = 64


class _Work(NamedTuple):
    place: str
    function: Callable[[], Any]
    done: Future[Any]


class PasswordWork:
    """Runs functions that derive keys: a bounded number of them at once, and of each place."""

    def __init__(self, work_max: int, share_max: int) -> None:
        self._work_max = work_max
        self._share_max = share_max
        self._threads: ThreadPoolExecutor | None = None
        forks.watch(self)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._busy = 0  # threads
        # The work that waits, by its place; the first place is the next one.
        self._waiting: dict[str, deque[_Work]] = {}
        # How much work there is, waiting or being done, and how much of it each place has.
        self._size = 0
        self._shares: dict[str, int] = {}

    def has_room(self, place: str) -> bool:
        """Whether a place may have one more function run."""
        return self._size < self._work_max and self._shares.get(place, 0) < self._share_max

    def run(self, loop: asyncio.AbstractEventLoop, place: str, function: Callable[[], T]) -> asyncio.Future[T] | None:
        """Run a function in a thread for a place; return the future of its result, or None where it has no room.

        Where the future is cancelled before a thread has begun, the function does not run.
        """
        work = _Work(place, function, Future())
        with self._lock:
            if not self.has_room(place):
                return None
            self._size += 1
            self._shares[place] = self._shares.get(place, 0) + 1
            self._waiting.setdefault(place, deque()).append(work)
            wakes = self._busy < THREADS
            self._busy += wakes
            if self._threads is None:
                self._threads = ThreadPoolExecutor(THREADS, "haptera-passwords")
        work.done.add_done_callback(lambda done: self._drop(work) if done.cancelled() else None)
        result = asyncio.wrap_future(work.done, loop=loop)
        if wakes:
            _ = loop.run_in_executor(self._threads, self._run)  # it ends by itself, and never fails
        return result

    def _run(self) -> None:
        """Work in a thread, as long as there is some."""
        while (work := self._next()) is not None:
            try:
                result = work.function()
            except Exception as error:
                self._release(work)
                work.done.set_exception(error)
            else:
                self._release(work)
                work.done.set_result(result)

    def _next(self) -> _Work | None:
        """Take the first work of the next place, which then waits behind the others."""
        with self._lock:
            while self._waiting:
                place = next(iter(self._waiting))
                works = self._waiting.pop(place)
                work = works.popleft()
                if works:
                    self._waiting[place] = works
                if work.done.set_running_or_notify_cancel():
                    return work
                self._count_down(place)
            self._busy -= 1
            return None

    def _drop(self, work: _Work) -> None:
        """The result is not waited for any more."""
        with self._lock:
            works = self._waiting.get(work.place)
            if works is not None and work in works:  # else a thread has just taken it out
                works.remove(work)
                if not works:
                    del self._waiting[work.place]
                self._count_down(work.place)

    def _release(self, work: _Work) -> None:
        with self._lock:
            self._count_down(work.place)

    def _count_down(self, place: str) -> None:
        self._size -= 1
        left = self._shares[place] - 1
        if left > 0:
            self._shares[place] = left
        else:
            del self._shares[place]

    def disown(self, owner: int) -> None:
        """Leave the threads to the process that this one was forked from: they do not run here."""
        self._threads = None
        self._reset()


#: The work that others cause at the listeners of this process, and that of its own logins.
WORK: Final = PasswordWork(WORK_MAX, SHARE_MAX)
OWN_WORK: Final = PasswordWork(OWN_WORK_MAX, OWN_WORK_MAX)
#: The keys that this process has derived for its own logins.
SALTED_PASSWORDS: Final = SaltedPasswords(os.urandom)
