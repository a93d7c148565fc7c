"""Waiting for the work of a node in this process: its time, its loop, and its end."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from haptera.errors import Code, ConnectionLost, Failure, HapteraError, StorageError, failure
from haptera.transport import running_loop, wrong_loop

if TYPE_CHECKING:
    from haptera.errors import Outcome

T = TypeVar("T")

_logger = logging.getLogger(__name__)

#: What a long read has found: its result array, and the revision that it is of.
LongAnswer = tuple[tuple[Any, ...], int] | Failure


async def in_time(work: Awaitable[T], timeout: float | None, *, outcome: Outcome = "not_applied") -> T:
    """Wait for work, ``timeout`` seconds at most; ``outcome`` is its own where it ends then. By default it changes
    nothing.
    """
    try:
        async with asyncio.timeout(timeout):
            return await work
    except TimeoutError:
        raise failure(Code.DEADLINE_EXCEEDED, outcome=outcome).exception() from None


def end_of(timeout: float | None) -> Callable[[], bool]:
    """Return the function that says whether ``timeout`` seconds have passed since now."""
    time = asyncio.get_running_loop().time
    deadline = math.inf if timeout is None else time() + timeout
    return lambda: time() >= deadline


def check_home(home: asyncio.AbstractEventLoop | None, work: str) -> None:
    """Raise ``WrongLoop`` where work that has begun is gone on with on another loop."""
    if running_loop() is not home:
        assert home is not None
        raise wrong_loop(work, home)


async def close_failed(closing: Awaitable[None]) -> None:
    """Wait for the end of a node that has failed. A further failure on the way changes nothing, and is logged."""
    try:
        await closing
    except StorageError:
        _logger.exception("close_failed")


def end_error(*, failed: bool = False) -> HapteraError:
    """Return the error of a call to a database that is closed, or whose node has failed."""
    if not failed:
        return ConnectionLost("the database is closed", outcome="not_applied")
    message = "the database has failed and is closed; open it again to read and write on"
    return failure(Code.STORAGE_FAILED, outcome="not_applied", message=message).exception()
