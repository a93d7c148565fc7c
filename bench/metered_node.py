"""A node in a process of its own that says how long the turns of its event loop are.

A turn is the work between two waits of the loop, and its length is the processor time that the loop's thread takes for
it. So it holds on a machine with other work, where the waits of a client do not. The node has asyncio's own loop, whose
waits can be seen; `haptera serve` has uvloop's where that is installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from array import array
from typing import TYPE_CHECKING, Any, Final

from haptera.node import Node, NodeConfig, NodeServer, raise_limit, return_large_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Milliseconds that no turn is to take.
AIM_MS: Final = 10.0


class MeteredSelector(selectors.EpollSelector):
    """Notes the processor time between two calls of `select`: ``turns`` are the times in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = array("d")
        self._begun: float | None = None

    def select(self, timeout: float | None = None) -> Any:
        """Wait, and begin another turn."""
        if self._begun is not None:
            self.turns.append(time.thread_time() - self._begun)
        ready = super().select(timeout)
        self._begun = time.thread_time()
        return ready


class MeteredNode:
    """A running node: `url` is where, `pid` its process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        self.url: str = self._said()["url"]

    def begin(self) -> None:
        """Begin to measure: the turns before are forgotten."""
        self._ask()

    def turns(self) -> dict[str, Any]:
        """The turns since `begin`: how many, and in milliseconds their 99.9th percentile and the longest; those above
        the aim; and ``cpu_s``, the seconds that the whole process took, and ``seconds``, those that passed.
        """
        return self._ask()

    def _ask(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._said()

    def _said(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


@contextlib.contextmanager
def metered_node(data_dir: Path) -> Iterator[MeteredNode]:
    """A node with its defaults (durability sync, encrypted) on a free port."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HAPTERA_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.metered_node", str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    try:
        yield MeteredNode(process)
    finally:
        process.communicate()  # the end of its standard input ends it


def _figures(turns: array[float], cpu_s: float, seconds: float) -> dict[str, Any]:
    ordered = sorted(turns) or [0.0]
    return {
        "turns": len(turns),
        "p999_ms": ordered[len(ordered) * 999 // 1000] * 1000,
        "longest_ms": ordered[-1] * 1000,
        "above_aim": sum(turn * 1000 > AIM_MS for turn in turns),
        "cpu_s": cpu_s,
        "seconds": seconds,
    }


async def _serve(data_dir: str, selector: MeteredSelector) -> None:
    """Serve, and answer each line of standard input with the figures since the one before, until it ends."""
    node = await Node.open(NodeConfig(data_dir=data_dir, listen=("haptera://127.0.0.1:0",), no_auth=True))
    server = NodeServer(node)
    try:
        node.freeze()
        await server.start()
        print(json.dumps({"url": server.urls[0]}), flush=True)
        ended = asyncio.get_running_loop().create_future()
        cpu, clock = time.process_time(), time.perf_counter()

        def asked() -> None:
            nonlocal cpu, clock
            if not sys.stdin.readline():
                asyncio.get_running_loop().remove_reader(sys.stdin)
                ended.set_result(None)
                return
            found = _figures(selector.turns, time.process_time() - cpu, time.perf_counter() - clock)
            print(json.dumps(found), flush=True)
            del selector.turns[:]
            cpu, clock = time.process_time(), time.perf_counter()

        asyncio.get_running_loop().add_reader(sys.stdin, asked)
        await ended
    finally:
        await server.aclose()
        await node.aclose()


def main(argv: list[str]) -> int:
    """Serve the data directory that is named."""
    raise_limit()
    return_large_blocks()
    selector = MeteredSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(_serve(argv[0], selector))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
