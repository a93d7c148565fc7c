"""A node served in this process, for tests that need a whole one: each has its own data directory and free ports."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from haptera.node.config import NodeConfig
from haptera.node.node import Node
from haptera.node.server import NodeServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

ANY_PORT = "haptera://127.0.0.1:0"


@asynccontextmanager
async def served(path: Path, listen: str = ANY_PORT) -> AsyncIterator[str]:
    """Serves the data directory ``path`` on this loop; gives its URL."""
    node = await Node.open(NodeConfig(data_dir=str(path), listen=(listen,)))
    server = NodeServer(node)
    try:
        await server.start()
        yield server.urls[0]
    finally:
        await server.aclose()
        await node.aclose()


@contextmanager
def served_in_thread(path: Path) -> Iterator[str]:
    """Serves ``path`` on the loop of another thread, for code that runs a loop of its own."""
    started: list[str] = []
    failed: list[BaseException] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with served(path) as url:
            started.append(url)
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        ready.wait()
        if failed:
            raise failed[0]
        yield started[0]
    finally:
        if not failed:
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
