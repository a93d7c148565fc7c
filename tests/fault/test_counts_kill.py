"""Counters and rate limits whose users and whose node are killed: nothing is counted twice, no answered addition is
lost, and no window lasts for ever.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

import haptera
from tests.support.processes import end_group, start
from tests.unit.node.process import serving

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from haptera import Database
    from tests.unit.node.process import Serving

USERS = 3
LIMIT = 5
WINDOW_S = 0.2
#: Seconds that the users may go without an allowed use, on a machine that has other work: many times a window.
PATIENCE_S = 60.0

#: A user adds and resets, and says each sum and each number that it took out. Beside that it uses a limit, and says
#: when it was allowed to.
USER = f"""
import asyncio, random, sys
import haptera

async def add(db, choices):
    while True:
        if choices.random() < 0.05:
            print("taken", await db.counter("count").reset(), flush=True)
        else:
            print("added", await db.counter("count").add(), flush=True)
        await asyncio.sleep(0.005)  # the history has all that they do

async def use(db):
    limit = db.rate_limit("use", limit={LIMIT}, per={WINDOW_S})
    while True:
        await limit.wait()
        print("used", 1, flush=True)

async def main(url, seed):
    async with haptera.connect(url, timeout=60) as db:
        await asyncio.gather(add(db, random.Random(seed)), use(db))

sys.stdout = open(sys.argv[3], "w")
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


class Users:
    """Processes that count, each replaced when it is killed. Their words go into a file for each."""

    def __init__(self, url: str, directory: Path, choices: random.Random) -> None:
        self._url = url
        self._directory = directory
        self._choices = choices
        self._running: list[subprocess.Popen[str]] = []
        self._ended = 0

    def add(self) -> None:
        said = self._directory / f"user-{self._ended + len(self._running)}"
        seed = self._choices.randrange(1 << 32)
        self._running.append(start([sys.executable, "-c", USER, self._url, str(seed), str(said)]))

    def kill_one(self) -> None:
        process = self._running.pop(self._choices.randrange(len(self._running)))
        assert process.poll() is None, process.communicate()
        end_group(process.pid)
        process.communicate()
        self._ended += 1

    def end(self) -> None:
        while self._running:
            self.kill_one()

    def said(self, word: str) -> list[int]:
        """The numbers behind a word, of all users; a line that was cut off does not count."""
        texts = [file.read_text() for file in self._directory.glob("user-*")]
        lines = [line.split() for text in texts for line in text.rpartition("\n")[0].splitlines()]
        return [int(number) for found, number in lines if found == word]

    def go_on(self) -> None:
        """Wait until somebody has added, and was allowed to use the limit, after this call."""
        before = {word: len(self.said(word)) for word in ("added", "used")}
        by = time.monotonic() + PATIENCE_S
        while any(len(self.said(word)) <= count for word, count in before.items()):
            assert time.monotonic() < by, before
            time.sleep(0.05)


async def check(url: str, users: Users, killed: int) -> None:
    async with haptera.connect(url) as db:
        left = await db.counter("count").get()
        added = len(users.said("added"))
        unheard = await taken_unheard(db, users, killed)
        total = sum(users.said("taken")) + unheard + left
        assert added <= total <= added + killed, "each kill leaves one addition, at most, of which nobody heard"
        await check_limit(db, users, killed)


async def taken_unheard(db: Database, users: Users, killed: int) -> int:
    """The sum of the numbers of resets whose users were killed before they heard of them."""
    numbers = [int(event.value or b"0") async for event in db.history("count")]
    resets = [before for before, after in pairwise(numbers) if after < before]
    heard = [number for number in users.said("taken") if number]
    for number in heard:
        resets.remove(number)  # no number was taken out twice
    assert len(resets) <= killed
    return sum(resets)


async def check_limit(db: Database, users: Users, killed: int) -> None:
    events = [event async for event in db.history("use/.rate") if event.kind == "put"]
    begins = [place for place, event in enumerate(events) if event.value == b"1"] + [len(events)]
    windows = [events[begin:end] for begin, end in pairwise(begins)]
    allowed = sum(min(LIMIT, len(window)) for window in windows)
    assert allowed - killed <= len(users.said("used")) <= allowed
    for window in windows:
        assert [event.value for event in window] == [str(use).encode() for use in range(1, len(window) + 1)]
        assert len({event.expires_at for event in window}) == 1
        assert window[0].expires_at is not None


@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=pytest.mark.long)], ids=["short", "long"])
def test_counters_and_rate_limits_survive_kills_of_all_who_take_part(tmp_path: Path, kills: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    choices = random.Random(seed)
    (tmp_path / "said").mkdir()
    with tempfile.TemporaryDirectory(prefix="haptera-") as directory, ExitStack() as stack:
        url = f"haptera+unix://{directory}/s.sock"

        def serve() -> Serving:
            return stack.enter_context(serving(tmp_path / "d", "--listen", url)).ready()

        node = serve()
        users = Users(url, tmp_path / "said", choices)
        stack.callback(users.end)
        for _ in range(USERS):
            users.add()
        killed = USERS
        for number in range(kills):
            users.go_on()
            time.sleep(choices.random() * 0.2)
            if number % 2:
                node.signal(signal.SIGKILL)
                assert node.end() == -signal.SIGKILL
                node = serve()
            else:
                users.kill_one()
                users.add()
                killed += 1
        users.go_on()
        users.end()
        asyncio.run(check(url, users, killed))
