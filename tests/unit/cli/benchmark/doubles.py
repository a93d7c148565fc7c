"""A clock of whole nanoseconds that moves only when something waits for it."""

from __future__ import annotations

import asyncio

IDLE_TURNS = 5
"""Turns of the loop in which whatever can run has run: waking a worker and what that wakes takes two."""


class FakeClock:
    """Moves to the earliest time that is waited for as soon as nothing else can run."""

    def __init__(self) -> None:
        self.time = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._made = 0
        self._turns = 0
        self._moving = False

    def now(self) -> int:
        return self.time

    async def sleep_until(self, time: int) -> None:
        if time <= self.time:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._made += 1
        self._sleepers.append((time, self._made, future))
        self._turns = IDLE_TURNS
        if not self._moving:
            self._moving = True
            loop.call_soon(self._move)
        await future

    def _move(self) -> None:
        if self._turns:
            self._turns -= 1
        else:
            self._sleepers.sort()
            time, _, future = self._sleepers.pop(0)
            self.time = max(self.time, time)
            if not future.done():
                future.set_result(None)
            self._turns = IDLE_TURNS
        self._moving = bool(self._sleepers)
        if self._moving:
            asyncio.get_running_loop().call_soon(self._move)
