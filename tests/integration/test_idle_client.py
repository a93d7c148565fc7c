"""The cost of a client that does nothing: the modules that it loads, its memory, and its wake-ups."""

from __future__ import annotations

import asyncio
import contextlib
import json
import selectors
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import haptera
from haptera.testing import VirtualClockLoop, node_in_thread, virtual_clock
from tests.support import virtual

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS_MAX: Final = 60
#: Modules that a connected client has beside the ones that the interpreter itself and asyncio have loaded.
HAPTERA_MODULES_MAX: Final = 185
OTHER_MODULES_MAX: Final = 50
RESIDENT_MAX: Final = 32 * 1024 * 1024
#: Packages of an extra, parts of a node, the exchange of a password, which this client has not, and large parts of
#: Python that a client has no use for.
UNUSED: Final = {
    "click",
    "cryptography",
    "email",
    "haptera.cli",
    "haptera.dialects",
    "haptera.node",
    "haptera.peer.entrance",
    "haptera.peer.proof",
    "haptera.replication",
    "haptera.security.scram",
    "haptera.state",
    "haptera.storage",
    "haptera.testing",
    "http",
    "importlib.metadata",
    "multiprocessing",
    "opentelemetry",
    "prompt_toolkit",
    "pydantic",
    "rich",
    "sortedcontainers",
    "sqlite3",
    "tempfile",
    "unittest",
    "uvloop",
    "xml",
    "zstandard",
}
#: Modules that the client for threads has, for its workers, and that one without threads can do without.
UNUSED_BY_ONE_LOOP: Final = {"dataclasses", "hashlib", "hmac", "random"}

ASYNC: Final = """
import asyncio, json, sys
before = set(sys.modules)
import haptera

async def main(url):
    async with haptera.connect(url) as db:
        await db.set("k", "v")
        await db.get("k")
        report()
"""
THREADS: Final = """
import asyncio, json, sys
before = set(sys.modules)
import haptera.sync

def main(url):
    with haptera.sync.connect(url) as db:
        db.set("k", "v")
        db.get("k")
        report()
"""
REPORT: Final = """
def report():
    with open("/proc/self/status") as status:
        (resident,) = (int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))
    print(json.dumps({"modules": sorted(set(sys.modules) - before), "resident": resident}))

if asyncio.iscoroutinefunction(main):
    asyncio.run(main(sys.argv[1]))
else:
    main(sys.argv[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell what a process takes")
@pytest.mark.parametrize(
    ("program", "unused"),
    [(ASYNC, UNUSED | UNUSED_BY_ONE_LOOP), (THREADS, UNUSED)],
    ids=["haptera", "haptera.sync"],
)
def test_a_connected_client_loads_few_modules_and_takes_little_memory(program: str, unused: set[str]) -> None:
    with node_in_thread(listen="tcp", storage="memory") as url:
        command = [sys.executable, "-P", "-c", program + REPORT, url]
        # Twice: the first compiles the modules if they are not, which takes memory.
        _, found = (json.loads(subprocess.check_output(command, timeout=SECONDS_MAX)) for _ in range(2))
    loaded = set(found["modules"])
    assert {name for name in unused if name in loaded or any(each.startswith(f"{name}.") for each in loaded)} == set()
    ours = {name for name in loaded if name.partition(".")[0] == "haptera"}
    assert len(ours) <= HAPTERA_MODULES_MAX
    assert len(loaded - ours) <= OTHER_MODULES_MAX
    assert found["resident"] <= RESIDENT_MAX


class CountingSelector(selectors.DefaultSelector):
    """Counts the returns from waits; polls, which do not wait, are none."""

    returns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(timeout)
        if timeout is None or timeout > 0:
            self.returns += 1
        return ready


def test_an_idle_client_does_not_wake_its_process_between_pings() -> None:
    selector = CountingSelector()
    idle = 0

    async def main(url: str) -> None:
        nonlocal idle
        async with haptera.connect(url, timeout=None) as db:
            await db.set("k", "v")
            await asyncio.sleep(0.1)  # what the last answer has left is done
            before = selector.returns
            await asyncio.sleep(1)
            idle = selector.returns - before

    with (
        node_in_thread(listen="tcp", storage="memory") as url,
        asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner,
    ):
        runner.run(main(url))
    # The end of the sleep, whose timer a clock may find a moment too early.
    assert 1 <= idle <= 2


@contextlib.contextmanager
def wakings(loop: VirtualClockLoop) -> Iterator[list[float]]:
    """The times at which the loop wakes up after a wait."""
    times: list[float] = []
    turn = loop.turn

    def noted(timeout: float | None) -> None:
        turn(timeout)
        if timeout is not None and timeout > 0:
            times.append(loop.time())

    loop.turn = noted  # type: ignore[method-assign]
    try:
        yield times
    finally:
        loop.turn = turn  # type: ignore[method-assign]


class Echo(haptera.Service):
    name = "echo"

    @haptera.method
    async def say(self, request: haptera.Request) -> bytes:
        return request.payload


@virtual_clock
async def test_an_idle_connection_wakes_both_sides_for_pings_alone() -> None:
    loop = virtual.loop()
    url = "haptera://127.0.0.1:0"
    async with haptera.listen(url, services=[Echo()]) as server, haptera.dial(server.url) as peer:
        assert await peer.call("echo", "say", b"x", timeout=2.0) == b"x"
        await asyncio.sleep(5)  # the time of the call is over
        (link,) = loop.network.links
        sent = [link.to_acceptor.writes, link.to_dialer.writes]
        with wakings(loop) as times:
            await asyncio.sleep(600)
        writes = [link.to_acceptor.writes - sent[0], link.to_dialer.writes - sent[1]]
    # Each half minute a ping of each side, and its answer, all at one time; and the end of the sleep.
    assert writes == [40, 40]
    assert len(times) <= 20 + 1
