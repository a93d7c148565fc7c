"""The thread with the event loop of all synchronous objects of a process, and the way of a call to it and back.

The wire machine is asyncio's, and stays so. A thread that calls hands a coroutine over and waits at a lock. The loop is
woken once for all calls that have come meanwhile, so calls of many threads leave together, as those of many tasks do.
The loop has a thread of its own, because leases, copies and watches go on between two calls; and because the handlers
of signals run in the main thread, where an exception of theirs would come in the middle of a turn.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextvars
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

from haptera import forks
from haptera.errors import WrongLoop
from haptera.sync.open_objects import Close, OpenObjects
from haptera.sync.waking_loop import WakingLoop

if TYPE_CHECKING:
    from _thread import LockType
    from contextvars import Context

    from haptera.sync.desk import Desk

T = TypeVar("T")

THREAD_NAME: Final = "haptera-sync"
#: Seconds that the connections which a program has left open have for their end, when the interpreter ends.
CLOSE_S: Final = 2.0
#: Seconds that the tasks which are left on the loop have for their end behind that, when they are cancelled.
CANCEL_S: Final = 1.0
#: Seconds that the thread has to end, with those.
JOIN_S: Final = 2.0


class Notes(Protocol):
    """Something that a thread learns with the end of each call."""

    def now(self) -> int:
        """Return it (on the loop)."""

    def note(self, value: int) -> None:
        """Keep it (in the thread)."""


class CallOfThread(Generic[T]):
    """A coroutine that one thread waits for."""

    __slots__ = (
        "abandoned",
        "begin",
        "context",
        "desk",
        "done",
        "error",
        "home",
        "ident",
        "lock",
        "noted",
        "notes",
        "result",
        "task",
        "undo",
    )

    def __init__(
        self,
        home: LoopThread,
        begin: Callable[[], Awaitable[T]],
        undo: Callable[[T], Awaitable[object]] | None,
        desk: Desk | None,
        notes: Notes | None,
    ) -> None:
        self.home: LoopThread = home
        self.ident: int = threading.get_ident()
        self.begin: Final = begin
        self.undo = undo
        self.desk: Desk | None = desk
        self.notes: Notes | None = notes
        self.noted: int = 0
        self.context: Context = contextvars.copy_context()
        self.lock: LockType = threading.Lock()
        self.lock.acquire()
        self.task: asyncio.Task[None] | None = None
        self.result: T | None = None
        self.error: BaseException | None = None
        self.done: bool = False
        self.abandoned: bool = False

    def wake(self) -> None:
        """Have the thread look (on the loop).

        At the end of the interpreter threads that still wait are daemons. They wait on, because an error that the end
        has caused would only be printed.
        """
        if self.lock.locked() and self.home.ending in {0, self.ident}:
            self.lock.release()

    async def carry_out(self) -> None:
        """Run the coroutine (on the loop)."""
        try:
            self.result = await self.begin()
        except BaseException as error:  # it is the thread's
            self.error = error
        if self.notes is not None:
            self.noted = self.notes.now()
        # The task ends on the loop alone. Its end runs code of weak references, which swallows the exceptions of signal
        # handlers, and so may not run in the main thread.
        task, self.task = self.task, None
        assert task is not None
        self.done = True
        self.wake()
        if self.abandoned and self.error is None:
            await self.take_back()
        self.home.forget(task)  # and not by a callback, for which the loop would make a further turn

    async def take_back(self) -> None:
        """End the result that no one will take."""
        undo, self.undo = self.undo, None
        if undo is not None:
            with suppress(Exception):
                await undo(cast("T", self.result))

    def wait(self) -> None:
        """Wait until it is done, and do meanwhile in this thread the work that the coroutine asks it for."""
        desk = self.desk
        while True:
            if desk is not None:
                desk.work()
            self.lock.acquire()
            if self.done:
                return


class LoopThread:
    """Runs coroutines for any number of threads. Its own begins with the first call, and ends with the interpreter."""

    def __init__(self) -> None:
        self._beginning = threading.Lock()
        self._loop: WakingLoop | None = None
        self._thread: threading.Thread | None = None
        self._ident = 0
        self._calls: deque[CallOfThread[Any]] = deque()  # bounded by the threads that wait, one call each
        self._woken = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._posted: set[asyncio.Task[Any]] = set()  # those of them for which no thread waits
        self._ended = False
        self._last: asyncio.Task[None] | None = None
        self._left: list[WakingLoop] = []  # of the processes that this one was forked from: one each
        #: The thread in which the interpreter ends, once it does.
        self.ending: int = 0
        #: The objects that a program has to close.
        self.open: OpenObjects = OpenObjects()
        forks.watch(self)
        # Hooks of the program come behind this one, and so run before it: they may make calls and close what is open.
        # A forked child inherits all of them in this order, whenever its own thread begins.
        atexit.register(self.end)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, which runs."""
        return self._loop or self._begin()

    def run(
        self,
        begin: Callable[[], Awaitable[T]],
        *,
        undo: Callable[[T], Awaitable[object]] | None = None,
        desk: Desk | None = None,
        notes: Notes | None = None,
    ) -> T:
        """Run a coroutine on the loop, and wait for its result.

        A thread that is interrupted meanwhile, by Ctrl-C for instance, cancels the coroutine and goes on at once.

        Args:
            begin: Gives the coroutine. It is called on the loop: a thread that is interrupted leaves none unbegun.
            undo: Ends a result that the thread did not take, because it was interrupted in that moment.
            desk: Where the coroutine finds the thread for work that has to be done in it.
            notes: Asked on the loop in the instant after the result or the error, and told that in the thread.

        Raises:
            WrongLoop: The thread is that of the loop, and would wait for itself.
        """
        forks.give_up_inherited()  # some servers fork without Python's knowledge, and the loop's thread is not there
        loop = self._loop or self._begin()
        if threading.get_ident() == self._ident:
            raise WrongLoop(
                f"this code runs in the thread {THREAD_NAME}, whose loop answers the call: have another thread make it"
            )
        call = CallOfThread(self, begin, undo, desk, notes)
        try:
            if desk is not None:
                desk.enter(call.wake, loop)
            self._calls.append(call)
            if not self._woken:
                self._woken = True
                loop.wake()
            call.wait()
        except BaseException:
            call.abandoned = True
            with suppress(RuntimeError):  # the interpreter has ended the loop
                loop.call_soon_threadsafe(self._abandon, call)
            raise
        finally:
            if desk is not None:
                desk.leave()
        if notes is not None:
            notes.note(call.noted)
        error, call.error = call.error, None
        if error is None:
            return cast("T", call.result)
        try:
            if isinstance(error, asyncio.CancelledError):
                raise concurrent.futures.CancelledError from error
            raise error
        finally:
            del error, call  # the traceback would hold them, and they the error

    def call(self, function: Callable[[], T]) -> T:
        """Call a plain function on the loop, and wait for its result."""

        async def called() -> T:
            return function()

        return self.run(called)

    def post(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine on the loop, and wait for nothing. Its error is dropped."""
        loop = self._loop
        if loop is None or self._ended:
            coroutine.close()
            return
        try:
            loop.call_soon_threadsafe(self._spawn, _quietly(coroutine))
        except RuntimeError:
            coroutine.close()

    def disown(self, owner: int) -> None:
        """Begin afresh in a forked child: its parent's thread is not there (``haptera.forks`` calls this)."""
        loop = self._loop
        if loop is not None:
            loop.leave_behind()
            self._left.append(loop)
        self._beginning = threading.Lock()  # another thread of the parent may have had it
        self._loop = self._thread = None
        self._ident = 0
        self._calls = deque()
        self._woken = False
        self._tasks = set()
        self._posted = set()

    def end(self) -> None:
        """Close what the program has left open, with a warning, and end the thread. The interpreter calls this."""
        loop, thread, left = self._loop, self._thread, self.open.unclosed()
        self.open.end()
        if loop is None or thread is None or self._ended:
            return
        self.ending = threading.get_ident()
        try:
            for each in left:
                each.warn()
        finally:  # a program may have made errors of warnings
            with suppress(Exception):
                self.run(lambda: _within(CLOSE_S, [each.close for each in left], self._posted))
            self._ended = True
            loop.call_soon_threadsafe(self._stop)
            thread.join(JOIN_S)
            self._loop = None  # so that a later call is told

    # -- on the loop

    def forget(self, task: asyncio.Task[None]) -> None:
        """Hold a task no more, which is about to end."""
        self._tasks.discard(task)

    def _begin_calls(self) -> None:
        self._woken = False  # first: a call that comes from now on wakes the loop again
        calls, loop, tasks = self._calls, self._loop, self._tasks
        assert loop is not None
        while calls:
            call = calls.popleft()
            call.task = loop.create_task(call.carry_out(), context=call.context)
            tasks.add(call.task)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        task = self._loop.create_task(coroutine)
        for tasks in (self._tasks, self._posted):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def _abandon(self, call: CallOfThread[Any]) -> None:
        """Cancel a call whose thread waits no more; end its result, if it has one by now."""
        assert self._loop is not None
        self._begin_calls()  # its thread may have been interrupted between saying that it wakes the loop and doing so
        if call.done:
            if call.error is None:
                self._spawn(call.take_back())
        elif call.task is not None:  # it was not interrupted before it was handed over
            self._loop.call_soon(call.task.cancel)  # behind its first step, so that it releases what it has to

    def _stop(self) -> None:
        assert self._loop is not None
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._last = self._loop.create_task(_stop_behind(left, self._loop))

    # -- from the beginning to the end

    def _begin(self) -> WakingLoop:
        with self._beginning:
            if self._ended:
                raise RuntimeError("the interpreter ends, and has closed everything of haptera.sync")
            if self._loop is not None:
                return self._loop
            loop = WakingLoop()
            loop.when_woken(self._begin_calls)
            running = threading.Event()
            thread = threading.Thread(target=self._drive, args=(loop, running), name=THREAD_NAME, daemon=True)
            thread.start()
            running.wait()
            self._thread = thread
            self._loop = loop  # last: a thread that sees it goes on without the lock
            return loop

    def _drive(self, loop: WakingLoop, running: threading.Event) -> None:
        self._ident = threading.get_ident()
        asyncio.set_event_loop(loop)
        loop.call_soon(running.set)
        try:
            loop.run_forever()
        finally:
            loop.close()


async def _quietly(coroutine: Coroutine[Any, Any, object]) -> None:
    with suppress(Exception):
        await coroutine


async def _within(seconds: float, closing: list[Close], posted: set[asyncio.Task[Any]]) -> None:
    """Close some objects, and wait for that and for what has been posted."""
    if begun := {asyncio.ensure_future(_quietly(close())) for close in closing} | posted:
        await asyncio.wait(begun, timeout=seconds)


async def _stop_behind(tasks: set[asyncio.Task[Any]], loop: WakingLoop) -> None:
    """Stop the loop when some tasks have ended: a pending one would complain when it is collected."""
    if tasks:
        await asyncio.wait(tasks, timeout=CANCEL_S)
    loop.call_soon(loop.stop)


#: The loop of this process.
shared: Final = LoopThread()
