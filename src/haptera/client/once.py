"""Something that happens once, and that any number of tasks may await."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Once(Awaitable[T]):
    """Awaiting it waits until it has happened, and gives its result. A task that is cancelled meanwhile takes nothing
    from the others.
    """

    __slots__ = ("_future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[T] = loop.create_future()

    @property
    def happened(self) -> bool:
        """Whether it has happened."""
        return self._future.done()

    @property
    def result(self) -> T:
        """Its result, once it has happened."""
        return self._future.result()

    def happen(self, result: T) -> None:
        """Let it happen, unless it has: the first result counts."""
        if not self._future.done():
            self._future.set_result(result)

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.shield(self._future).__await__()
