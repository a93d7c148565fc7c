"""A line on the terminal that says how far a run is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

INTERVAL_SECONDS: Final = 0.5

#: Work that takes longer than this is reported, because an empty screen looks like a program that hangs.
LONG_SECONDS: Final = 1.0


@contextmanager
def shown(text: Callable[[], str], *, after: float) -> Iterator[None]:
    """Keep ``text()`` on the last line of standard error, from ``after`` seconds on, and take it away at the end.

    Nothing is written where that is no terminal.
    """
    if not sys.stderr.isatty():
        yield
        return
    task = asyncio.create_task(_keep(text, after))
    try:
        yield
    finally:
        task.cancel()
        _rewrite("")


async def _keep(text: Callable[[], str], after: float) -> None:
    await asyncio.sleep(after)
    while True:
        _rewrite(text())
        await asyncio.sleep(INTERVAL_SECONDS)


def _rewrite(text: str) -> None:
    sys.stderr.write(f"\r\x1b[K{text}")
    sys.stderr.flush()
