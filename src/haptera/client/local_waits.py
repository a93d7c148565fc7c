"""Waiting for the work of a node in this process: its time, its loop, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from haptera.errors import Code, ConnectionLost, Failure, HapteraError, failure
from haptera.transport import running_loop, wrong_loop

T = TypeVar("T")

#: What a long read has found: its result array, and the revision that it is of.
LongAnswer = tuple[tuple[Any, ...], int] | Failure


async def in_time(work: Awaitable[T], timeout: float | None) -> T:
    """Wait for work that changes nothing, ``timeout`` seconds at most."""
    try:
        async with asyncio.timeout(timeout):
            return await work
    except TimeoutError:
        raise failure(Code.DEADLINE_EXCEEDED, outcome="not_applied").exception() from None


def check_home(home: asyncio.AbstractEventLoop | None, work: str) -> None:
    """Raise ``WrongLoop`` where work that has begun is gone on with on another loop."""
    if running_loop() is not home:
        assert home is not None
        raise wrong_loop(work, home)


def closed_error() -> ConnectionLost:
    """Return the error of a call to a database that is closed."""
    return ConnectionLost("the database is closed", outcome="not_applied")


def failed_error() -> HapteraError:
    """Return the error of a call to a database whose node has failed."""
    message = "the database has failed and is closed; open it again to read and write on"
    return failure(Code.STORAGE_FAILED, outcome="not_applied", message=message).exception()
