"""Work of the calling thread for the loop: the function of a transaction is called there, and items are taken there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

T = TypeVar("T")

_END: Final = object()


class Desk:
    """Where a coroutine finds the thread that waits for it.

    Programs expect that their functions run in the thread that makes the call: there are its locals, its locks, and the
    cursor of its other database. One thread at a time stands at a desk.
    """

    __slots__ = ("_jobs", "_loop", "_wake")

    def __init__(self) -> None:
        self._jobs: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()  # one for each task that asks
        self._wake: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self, wake: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """A thread begins to wait; ``wake`` has it look."""
        self._loop = loop
        self._wake = wake

    def leave(self) -> None:
        """It waits no more."""
        self._wake = None

    def work(self) -> None:
        """Do what is asked for, in this thread. An error of the work goes to the coroutine that has asked.

        One that is no `Exception`, such as that of Ctrl-C, is raised here too, because it is for the thread.
        """
        while self._jobs:
            function, asked = self._jobs.popleft()
            try:
                result = function()
            except BaseException as error:
                self._answer(asked, None, error)
                if not isinstance(error, Exception):
                    raise
            else:
                self._answer(asked, result, None)

    async def ask(self, function: Callable[[], T]) -> T:
        """Have the thread call a function, as soon as it waits here (on the loop)."""
        asked: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.append((function, asked))
        if self._wake is not None:
            self._wake()
        return await asked

    def pulled(self, items: Iterable[T]) -> AsyncGenerator[T, None]:
        """The items of an iterable of the program, taken one by one in the thread that waits."""
        return self._pull(iter(items))

    async def _pull(self, iterator: Iterator[T]) -> AsyncGenerator[T, None]:
        while True:
            item: Any = await self.ask(lambda: next(iterator, _END))
            if item is _END:
                return
            yield item

    def _answer(self, asked: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_set, asked, result, error)


def _set(asked: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if asked.done():
        return
    if error is None:
        asked.set_result(result)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        asked.set_exception(error)
    else:
        asked.cancel()
