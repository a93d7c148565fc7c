"""A count of calls under way, for a drain that waits for the last of them."""

from __future__ import annotations

import asyncio


class UnderWay:
    """Calls that have begun and not ended: ``with`` counts one. It is true while there are any."""

    __slots__ = ("_count", "_ended")

    def __init__(self) -> None:
        self._count = 0
        self._ended: asyncio.Event | None = None  # set when the last one ends, while a drain waits

    def __bool__(self) -> bool:
        return self._count > 0

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if self._ended is not None and not self._count:
            self._ended.set()
            self._ended = None

    async def wait(self) -> None:
        """Wait until none is under way."""
        while self._count:
            if self._ended is None:
                self._ended = asyncio.Event()
            await self._ended.wait()
