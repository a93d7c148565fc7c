"""Nodes for tests: over a file system in memory, with a disk that works when it is told to."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from haptera.errors import Failure
from haptera.node.commands import ANONYMOUS, Envelope, Submitter
from haptera.node.config import NodeConfig
from haptera.node.node import Node
from haptera.state.operations import Set
from haptera.testing.filesystem import MemoryFileSystem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from haptera.replication import Writer
    from haptera.state import Read, Result, Write

CONFIG = NodeConfig(data_dir="/data", listen=(), segment_size=64 * 1024)


class ManualWriter:
    """A disk that does one job when the test says so."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], None]] = deque()

    def submit(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def close(self) -> None:
        assert not self.jobs

    async def write(self) -> None:
        """Write the batch that is with the disk, and let the loop take its result."""
        self.jobs.popleft()()
        await turn()

    async def write_all(self) -> None:
        """Write until nothing is left to write."""
        await turn()
        while self.jobs:
            await self.write()


class ImmediateWriter:
    """A disk that writes at once, on the loop's thread."""

    def submit(self, job: Callable[[], None]) -> None:
        job()

    def close(self) -> None:
        pass


class Asked:
    """One submission and what came of it."""

    def __init__(self, node: Node, *ops: Read | Write | Envelope, submitter: Submitter = ANONYMOUS) -> None:
        self.calls: list[list[Result]] = []
        commands = [op if isinstance(op, Envelope) else Envelope(op) for op in ops]
        self.submission = node.commands.submit(submitter, commands, self.calls.append)

    @property
    def answered(self) -> bool:
        return bool(self.calls)

    @property
    def results(self) -> list[Result]:
        assert len(self.calls) == 1, "done is called exactly once"
        return self.calls[0]

    @property
    def result(self) -> Result:
        (result,) = self.results
        return result

    @property
    def failures(self) -> list[tuple[int, str]]:
        """(code, outcome) of each result, all of which are failures."""
        failed: list[tuple[int, str]] = []
        for result in self.results:
            assert isinstance(result, Failure), result
            failed.append((result.code, result.outcome))
        return failed


def fill_segment(node: Node, left: int = 100) -> None:
    """Write a value that leaves so many bytes in the segment that is appended to: nothing else fits."""
    active = node._storage.log._active
    assert active is not None
    Asked(node, Set("fill", bytes(active.header.capacity - active.offset - left - 100)))


async def done(store: Node, *ops: object) -> list[object]:
    """Submit commands and wait for their results."""
    asked = Asked(store, *ops)  # type: ignore[arg-type]
    await store.drain()
    return list(asked.results)


async def fill_disk(store: Node, fs: MemoryFileSystem) -> None:
    """Leave no room: a write that needs some is refused from here on, until nothing of ``fs`` fails any more."""
    fill_segment(store)
    await store.drain()
    fs.failing, fs.fail_with = frozenset({"allocate"}), errno.ENOSPC
    [refused] = await done(store, Set("b", bytes(200)))
    assert isinstance(refused, Failure)
    assert refused.code == 5002


async def turn() -> None:
    """Let the loop do what is ready, and what that makes ready."""
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def opened(
    fs: MemoryFileSystem | None = None, *, writer: Writer | None = None, config: NodeConfig = CONFIG, **options: Any
) -> AsyncIterator[Node]:
    """An open node; with a `ManualWriter` the test has to leave nothing unwritten."""
    node = await Node.open(config, filesystem=fs or MemoryFileSystem(), writer=writer or ImmediateWriter(), **options)
    try:
        yield node
    finally:
        await node.aclose()
