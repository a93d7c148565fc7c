"""A node that is a process of its own: killed with SIGKILL, stopped and continued, and started again."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.unit.node.process import Serving

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from pathlib import Path


class ServedNode:
    """``haptera serve`` with the data directory ``path``, reached through its socket; see `faults.Node`."""

    kinds: Sequence[str] = ("restart", "kill", "stand_still")
    freezes_s: Sequence[float] = (0.001, 0.02, 0.5)
    late_s = 1.0

    def __init__(self, path: Path, choices: random.Random) -> None:
        self.url = f"haptera+unix://{quote(str(path / 'haptera.sock'))}"
        self._path = path
        self._choices = choices
        self._process: Serving | None = None

    async def start(self) -> None:
        self._process = await asyncio.to_thread(lambda: Serving(self._path).ready())

    async def stop(self) -> None:
        await self._end(signal.SIGTERM)

    async def restart(self) -> None:
        """End in an orderly way, and start again."""
        await self.stop()
        await self.start()

    async def kill(self) -> None:
        """End at once, and start again."""
        await self._end(signal.SIGKILL)
        await self.start()

    async def stand_still(self) -> None:
        """Let the process do nothing for a while."""
        assert self._process is not None
        self._process.signal(signal.SIGSTOP)
        await asyncio.sleep(self._choices.uniform(0.0, self._choices.choice(self.freezes_s)))
        self._process.signal(signal.SIGCONT)

    async def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.signal(number)
            await asyncio.to_thread(process.end)
            process.process.communicate()
