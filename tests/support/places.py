"""An address on a virtual clock, and the nodes that stand there one after the other."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from haptera.testing import MemoryFileSystem, node

if TYPE_CHECKING:
    from haptera.testing import NodeUrl

URL: Final = "haptera://node:7000"


class Place:
    """The address ``URL``, at which one node takes the place of another. ``disk`` is that of the last one."""

    def __init__(self) -> None:
        self.disk = MemoryFileSystem()
        self._stack = AsyncExitStack()

    async def start(self, disk: MemoryFileSystem | None = None, **options: Any) -> NodeUrl:
        """End the node that is there, and start one on ``disk``, or on the same disk again."""
        await self._stack.aclose()
        self.disk = disk or self.disk.restart()
        return await self._stack.enter_async_context(node(listen=URL, storage=self.disk, **options))

    async def lose_power(self, **options: Any) -> NodeUrl:
        """As `start`, with the disk as it is when the power fails now: all that was not synced is lost."""
        return await self.start(self.disk.power_failure("drop"), **options)

    async def __aenter__(self) -> Place:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
