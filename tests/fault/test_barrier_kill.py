"""Barriers whose parties are killed: a party that is dead does not count, and the one that takes its place does."""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.testing import node
from tests.support.processes import end_group, start

if TYPE_CHECKING:
    import subprocess

    from haptera import Database

PARTIES = 3
#: Seconds of the lease of a party.
TTL_S = 1.0

#: A party passes one barrier after the other. It says once at each that it has come, and once that it has passed.
PARTY = f"""
import asyncio, sys
from contextlib import suppress
import haptera
from haptera.errors import KeyExists

async def main(url, party, first, steps):
    async with haptera.connect(url, timeout=20) as db:
        for step in range(first, steps):
            with suppress(KeyExists):
                await db.set(f"came/{{step:04}}/{{party}}", "", if_absent=True)
            await db.barrier(f"step-{{step}}", parties={PARTIES}, ttl={TTL_S}).wait()
            await db.set(f"passed/{{step:04}}/{{party}}", "", if_absent=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


class Parties:
    """Processes, each a party: they are killed, and others take their places."""

    def __init__(self, url: str, db: Database, steps: int) -> None:
        self._url = url
        self._db = db
        self._steps = steps
        self._processes = [self._begin(party, 0) for party in range(PARTIES)]

    def _begin(self, party: int, first: int) -> subprocess.Popen[str]:
        return start([sys.executable, "-c", PARTY, self._url, str(party), str(first), str(self._steps)])

    async def replace(self, party: int, pause: float) -> None:
        """Kill a party, and begin again where it was."""
        end_group(self._processes[party].pid)
        await asyncio.to_thread(self._processes[party].communicate)
        await asyncio.sleep(pause)
        passed = await self._db.count(glob=f"passed/*/{party}")
        self._processes[party] = self._begin(party, passed)

    async def finish(self) -> None:
        for process in self._processes:
            output = await asyncio.to_thread(process.communicate)
            assert process.returncode == 0, output

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                end_group(process.pid)
            process.communicate()


async def versions(db: Database, prefix: str) -> list[int]:
    return [entry.version async for entry in db.scan(prefix=prefix)]


async def trial(steps: int, kills: int, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    async with node(storage="memory") as url, haptera.connect(url) as db:
        with ExitStack() as stack:
            parties = Parties(url, db, steps)
            stack.callback(parties.end)
            for _ in range(kills):
                await asyncio.sleep(chance.uniform(0.2, 0.8))
                await parties.replace(chance.randrange(PARTIES), chance.choice([0.0, 1.5 * TTL_S]))
            await parties.finish()
        for step in range(steps):
            came, passed = await versions(db, f"came/{step:04}/"), await versions(db, f"passed/{step:04}/")
            assert len(came) == len(passed) == PARTIES
            assert max(came) < min(passed), "no one passes before all have come"


async def test_parties_pass_together_though_some_are_killed() -> None:
    await trial(steps=60, kills=1, seed=random.randrange(1 << 32))


@pytest.mark.long
async def test_parties_pass_together_over_fifty_kills() -> None:
    await trial(steps=3_000, kills=50, seed=random.randrange(1 << 32))
