"""`kill -9` of claimants and of the node, at random moments: no two hold together by the order of their tokens, and no
one is stuck longer than the leases of those ahead.
"""

from __future__ import annotations

import asyncio
import random
import signal
import tempfile
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.claimant import LIMITS, check, started, writes_of
from tests.support.processes import end_group
from tests.unit.node.process import serving

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

    from tests.unit.node.process import Serving

#: Seconds that a claimant may go without holding, on a machine that has other work: many times its lease.
PATIENCE_S = 60.0


class Claimants:
    """Processes that contend, each restarted when it is killed, and what they say."""

    def __init__(self, url: str, kinds: Sequence[str], choices: random.Random) -> None:
        self._url = url
        self._choices = choices
        self._said: dict[str, list[str]] = {kind: [] for kind in kinds}
        self._running: list[tuple[str, subprocess.Popen[str], threading.Thread]] = []

    def add(self, kind: str) -> None:
        process = started(self._url, kind, self._choices.randrange(1 << 32))
        reader = threading.Thread(target=self._read, args=(kind, process))
        reader.start()
        self._running.append((kind, process, reader))

    def _read(self, kind: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._said[kind].extend(line for line in process.stdout if line.endswith("\n"))

    def kill_one(self) -> str:
        """Kill one of them, and say of which kind it was."""
        kind, process, reader = self._running.pop(self._choices.randrange(len(self._running)))
        end_group(process.pid)
        reader.join()
        process.communicate()
        return kind

    def go_on(self) -> None:
        """Wait until each kind has a new holder."""
        before = {kind: len(lines) for kind, lines in self._said.items()}
        by = time.monotonic() + PATIENCE_S
        while any(len(lines) <= before[kind] for kind, lines in self._said.items()):
            assert time.monotonic() < by, before
            time.sleep(0.02)

    def end(self) -> None:
        while self._running:
            self.kill_one()

    def check(self, url: str) -> None:
        for kind, lines in self._said.items():
            asyncio.run(check(url, kind, writes_of("".join(lines))))


@pytest.mark.parametrize(
    ("kind_count", "kills"), [(1, 3), pytest.param(3, 60, marks=pytest.mark.long)], ids=["short", "long"]
)
def test_locks_elections_and_semaphores_survive_kills_of_all_who_take_part(
    tmp_path: Path, kind_count: int, kills: int
) -> None:
    """The short form tries one of the three, whichever it is."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    choices = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="haptera-") as directory, ExitStack() as stack:
        url = f"haptera+unix://{directory}/s.sock"

        def serve() -> Serving:
            return stack.enter_context(serving(tmp_path / "d", "--listen", url)).ready()

        node = serve()
        kinds = choices.sample(sorted(LIMITS), kind_count)
        claimants = Claimants(url, kinds, choices)
        stack.callback(claimants.end)
        for kind in kinds:
            for _ in range(3):
                claimants.add(kind)
        for number in range(kills):
            claimants.go_on()
            time.sleep(choices.random() * 0.3)
            if number % 3 == 1:
                node.signal(signal.SIGKILL)
                assert node.end() == -signal.SIGKILL
                node = serve()
            else:
                claimants.add(claimants.kill_one())
        claimants.go_on()
        claimants.end()
        claimants.check(url)
