"""Clocks of the load generator, for tests."""

from __future__ import annotations

import asyncio

from haptera.cli.benchmark.load import NS


class LoopClock:
    """The loop's time in whole nanoseconds: on a virtual clock, a load generator's time is virtual as well."""

    def now(self) -> int:
        return round(asyncio.get_running_loop().time() * NS)

    async def sleep_until(self, time: int) -> None:
        await asyncio.sleep((time - self.now()) / NS)
