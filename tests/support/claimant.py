"""A claimant in a process of its own: `python -m tests.support.claimant URL KIND SEED`.

It holds, counts under its token, and says what it did, again and again. `holding` starts one, and `check` holds the
lines of all claimants against the store.
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import TYPE_CHECKING, NamedTuple

import haptera
from haptera.errors import HapteraError
from tests.support.processes import start

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable

    from haptera import Database
    from haptera.recipes import Election, Lock, Semaphore

NAME = "contest"
LIMITS = {"lock": 1, "election": 1, "semaphore": 2}
#: Seconds that a lease lasts: the shortest time, so that a test need not wait long for its end.
TTL_S = 1.0
#: Writes whose place in the line is looked up, of each kind: each is a read of the past.
LOOKED_UP_MAX = 100


class Write(NamedTuple):
    """A write that was answered: its holder's token, the sum that it stored, and its version."""

    token: int
    total: int
    version: int


def claim(db: Database, kind: str) -> Lock | Election | Semaphore:
    if kind == "lock":
        return db.lock(f"{NAME}/{kind}", ttl=TTL_S)
    if kind == "election":
        return db.election(f"{NAME}/{kind}", ttl=TTL_S)
    return db.semaphore(f"{NAME}/{kind}", limit=LIMITS[kind], ttl=TTL_S)


async def contend(url: str, kind: str, seed: int) -> None:
    choices = random.Random(seed)
    async with haptera.connect(url) as db:
        while True:
            try:
                async with claim(db, kind) as holding:
                    found = await db.get(f"total/{kind}")
                    total = 1 + (0 if found is None else int(found.value))
                    await asyncio.sleep(choices.random() * 0.02)
                    version = await db.set(f"total/{kind}", str(total), fence=holding.token)
                    print(holding.token, total, version, flush=True)
            except HapteraError:
                await asyncio.sleep(0.01)


def started(url: str, kind: str, seed: int) -> subprocess.Popen[str]:
    return start([sys.executable, "-m", __name__, url, kind, str(seed)])


def writes_of(said: str) -> list[Write]:
    """The writes in the lines of a claimant; the last one may be cut off."""
    whole = said.rpartition("\n")[0]
    return [Write(*map(int, line.split())) for line in whole.splitlines()]


async def check(url: str, kind: str, writes: Iterable[Write]) -> None:
    """Hold what claimants say against the store: at the version of each write its place was one of the first; and where
    there is one holder at a time, no write was made from a sum that another had overwritten.
    """
    by_version = sorted(writes, key=lambda write: write.version)
    async with haptera.connect(url) as db:
        for write in by_version[-LOOKED_UP_MAX:]:
            line = db.scan(prefix=f"{NAME}/{kind}/.line/", at_revision=write.version)
            tokens = sorted([place.version async for place in line])
            assert write.token in tokens[: LIMITS[kind]]
        if LIMITS[kind] == 1:
            assert by_version == sorted(writes), "tokens rise with the versions, and sums with the tokens"
            totals = [write.total for write in by_version]
            assert len(set(totals)) == len(totals)
            found = await db.get(f"total/{kind}")
            assert found is not None
            assert int(found.value) >= totals[-1]


if __name__ == "__main__":
    asyncio.run(contend(sys.argv[1], sys.argv[2], int(sys.argv[3])))
