"""A node that is stopped under load and started again: whoever uses it sees slow calls, and no failed one."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

import haptera
from tests.unit.node.process import Serving, serving

if TYPE_CHECKING:
    from pathlib import Path

WORKERS = 20
ENOUGH = 300


class Load:
    """Workers that write, read and count over one client until they are told to stop."""

    def __init__(self, db: haptera.Database) -> None:
        self.answered = 0
        self._db = db
        self._stop = False
        self._progress = asyncio.Event()
        self._tasks = [asyncio.ensure_future(self._work(number)) for number in range(WORKERS)]

    async def _work(self, number: int) -> int:
        """How many increments were answered."""
        counted = 0
        while not self._stop:
            key = f"k{number}"
            version = await self._db.set(key, b"%d" % counted)
            entry = await self._db.get(key)
            assert entry is not None
            assert (entry.value, entry.version) == (b"%d" % counted, version)
            counted += 1
            assert await self._db.increment(f"count{number}") == counted, "made once, whatever was restarted"
            self.answered += 3
            self._progress.set()
        return counted

    async def more(self) -> None:
        """Wait until a good many more calls were answered."""
        enough = self.answered + ENOUGH
        while self.answered < enough:
            self._progress.clear()
            waiting = asyncio.ensure_future(self._progress.wait())
            done, _ = await asyncio.wait({waiting, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            for task in done - {waiting}:
                await task  # it has failed

    async def end(self) -> int:
        """Stop, and give how many increments were answered."""
        self._stop = True
        return sum(await asyncio.gather(*self._tasks))


async def restarted_under_load(path: Path, url: str, first: Serving) -> tuple[int, int]:
    """The number of increments, and of calls that were answered while the second node ran."""
    async with haptera.connect(url, timeout=60.0) as db:
        load = Load(db)
        await load.more()
        first.signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.end) == 0
        before = load.answered
        with serving(path, "--listen", url) as second:
            await asyncio.to_thread(second.ready)
            await load.more()
            counted, after = await load.end(), load.answered
            assert [(await db.get(f"count{number}")) is not None for number in range(WORKERS)] == [True] * WORKERS
            second.signal(signal.SIGTERM)
            assert await asyncio.to_thread(second.end) == 0
        return counted, after - before


def test_no_call_fails_when_a_node_is_restarted_under_load(short_path: Path) -> None:
    path, url = short_path / "d", f"haptera+unix://{quote(str(short_path))}/s"
    with serving(path, "--listen", url) as first:
        first.ready()
        counted, after = asyncio.run(restarted_under_load(path, url, first))
    assert counted * 3 >= 2 * ENOUGH
    assert after >= ENOUGH
    stopped = first.events[-1]
    assert stopped["event"] == "stopped"


def test_a_node_of_durability_os_that_is_killed_goes_on_with_the_next_version_and_under_its_id(
    short_path: Path,
) -> None:
    """The machine has not lost power, and says so by the id of its boot."""
    path, url = short_path / "d", f"haptera+unix://{quote(str(short_path))}/s"
    versions = []
    for _ in range(3):
        with serving(path, "--listen", url, "--durability", "os") as node:
            node.ready()
            versions.append(asyncio.run(set_once(url)))
            node.signal(signal.SIGKILL)
            node.end()
            assert (path / "open-end").exists()
    if sys.platform == "linux":
        assert versions == [1, 2, 3]
    (path / "open-end").write_text("another boot\n")
    with serving(path, "--listen", url, "--durability", "os") as node:
        node.ready()
        assert asyncio.run(set_once(url)) > 2**32
        node.signal()
        assert node.end() == 0
        assert "gap_left" in node.names()
    assert not (path / "open-end").exists()


async def set_once(url: str) -> int:
    async with haptera.connect(url) as db:
        return await db.set("a", "1")
