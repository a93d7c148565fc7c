"""An address on a virtual clock, and the nodes that stand there one after the other."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from haptera.testing import MemoryFileSystem, node

if TYPE_CHECKING:
    from haptera.testing import NodeUrl

URL: Final = "haptera://node:7000"


class Place:
    """The address ``URL``, at which one node takes the place of another. ``disk`` is that of the last one."""

    def __init__(self) -> None:
        self.disk = MemoryFileSystem()
        self._stack = AsyncExitStack()

    async def start(self, disk: MemoryFileSystem | None = None) -> NodeUrl:
        """End the node that is there, and start one on ``disk``, or on the same disk again."""
        await self._stack.aclose()
        self.disk = disk or self.disk.restart()
        return await self._stack.enter_async_context(node(listen=URL, storage=self.disk))

    async def __aenter__(self) -> Place:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
