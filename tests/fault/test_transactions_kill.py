"""Trap: lost updates. Clients transfer between accounts, and the sum is the same at each moment, `kill -9` included.

Each transfer also counts in a key of its client's own, in the same transaction. So a transfer that was answered and is
not there is seen, and so is one that was made twice.
"""

from __future__ import annotations

import asyncio
import random
import signal
from typing import TYPE_CHECKING, cast

import pytest

import haptera
from haptera.errors import ConnectionLost, DeadlineExceeded
from tests.unit.node.process import serving

if TYPE_CHECKING:
    from pathlib import Path

    from haptera import Database, Entry, Transaction
    from tests.unit.node.process import Serving

ACCOUNTS = [f"account/{number}" for number in range(4)]
START = 1000
TOTAL = START * len(ACCOUNTS)
CLIENTS = 6
#: Seconds that a call of a client may take: after the kill nothing answers any more.
TIMEOUT_S = 1.0


class Client:
    """Makes transfers, and knows how many were begun and how many were answered."""

    def __init__(self, name: str, seed: int) -> None:
        self.count_key = f"count/{name}"
        self.begun = 0
        self.answered = 0
        self._choices = random.Random(seed)

    async def transfer_on(self, db: Database) -> None:
        """Transfer until the node is gone."""
        try:
            while True:
                self.begun += 1
                await db.run(self._transfer, attempts=10_000, timeout=TIMEOUT_S)
                self.answered += 1
        except (ConnectionLost, DeadlineExceeded):
            pass

    async def _transfer(self, tx: Transaction) -> None:
        source, target = self._choices.sample(ACCOUNTS, 2)
        amount = self._choices.randint(1, 50)
        left, right, count = await tx.get_many([source, target, self.count_key])
        tx.set(source, str(number_of(left) - amount))
        tx.set(target, str(number_of(right) + amount))
        tx.set(self.count_key, str(number_of(count) + 1))

    def check(self, count: int) -> None:
        """What was answered is there, and nothing twice. Go on from what is found."""
        assert self.answered <= count <= self.begun
        self.answered = self.begun = count


def number_of(entry: Entry | None) -> int:
    return 0 if entry is None else int(entry.value)


async def sum_of(db: Database) -> int:
    """The sum at one moment."""
    result = await db.transact(then=[("get", [key]) for key in ACCOUNTS])
    return sum(number_of(cast("Entry", entry)) for entry in result.results)


async def round_of(node: Serving, clients: list[Client], enough: int) -> None:
    """Check what is there, transfer on, and kill the node in the middle of it."""
    async with haptera.connect(node.ready().url) as db:
        if await db.set_many({}) == 0:
            await db.set_many(dict.fromkeys(ACCOUNTS, str(START)))
        assert await sum_of(db) == TOTAL
        for client in clients:
            client.check(number_of(await db.get(client.count_key)))
        made = sum(client.answered for client in clients)
        running = [asyncio.ensure_future(client.transfer_on(db)) for client in clients]
        while sum(client.answered for client in clients) < made + enough:
            await asyncio.sleep(0.002)
            assert not any(task.done() for task in running), "the node goes on until it is killed"
            assert await sum_of(db) == TOTAL
        node.signal(signal.SIGKILL)
        await asyncio.gather(*running)


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.long)])
def test_the_sum_of_all_accounts_survives_kills(tmp_path: Path, kills: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    choices = random.Random(seed)
    clients = [Client(str(number), seed + number) for number in range(CLIENTS)]
    for _ in range(kills):
        with serving(tmp_path / "d") as node:
            asyncio.run(round_of(node, clients, choices.randrange(1, 60)))
            assert node.end() == -signal.SIGKILL
