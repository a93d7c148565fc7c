"""Changes over a network that damages, cuts, holds back and delivers late, by callers that give up: each is made once.

Every caller counts with a key of its own. A counter that goes up by one for each change tells everything: an answer
that comes twice or out of order, a change that was made twice, and one that was acknowledged and is missing.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from haptera import ConnectionLost, DeadlineExceeded
from haptera.client import connect
from haptera.testing import node, proxy, run

if TYPE_CHECKING:
    from haptera.client import Database
    from haptera.testing import Proxy

WORKERS = 6
CHANGES = 60


class Counter:
    """One caller: the values that it was given, and how many of its changes may or may not have been made."""

    def __init__(self, key: str, random_: random.Random) -> None:
        self.key = key
        self.given: list[int] = []
        self.unknown = 0
        self._random = random_

    async def work(self, db: Database) -> None:
        for _ in range(CHANGES):
            timeout = self._random.choice([0.05, 30.0, 30.0, 30.0])
            try:
                self.given.append(await db.increment(self.key, timeout=timeout))
            except (ConnectionLost, DeadlineExceeded) as error:
                self.unknown += error.outcome != "not_applied"
            await asyncio.sleep(self._random.choice([0.0, 0.0, 0.003, 0.05]))

    def check(self, total: int) -> None:
        assert self.given == sorted(set(self.given)), "no answer is given twice, none out of order"
        assert len(self.given) <= total <= len(self.given) + self.unknown


async def trouble(ways: list[Proxy], random_: random.Random) -> None:
    while True:
        await asyncio.sleep(random_.random() * 0.2)
        way = random_.choice(ways)
        match random_.randrange(6):
            case 0:
                way.sever()
            case 1 | 2:
                way.to_dialer.corrupt(at=way.to_dialer.sent + random_.randrange(300))
            case 3:
                way.to_acceptor.corrupt(at=way.to_acceptor.sent + random_.randrange(300))
            case 4:
                direction = random_.choice([way.to_acceptor, way.to_dialer])
                direction.chunk = random_.choice([64, 1 << 18])
                direction.pause()
                await asyncio.sleep(random_.choice([0.01, 0.5, 8.0]))
                direction.resume()
            case _:
                way.refuse()
                await asyncio.sleep(random_.random() * 0.1)
                await way.accept()


async def campaign(seed: int) -> None:
    random_ = random.Random(seed)
    async with (
        node(storage="memory", listen="tcp") as url,
        proxy(url) as first,
        proxy(url) as second,
        connect(url) as sound,
        connect(f"{first.url},{second.url.removeprefix('haptera://')}") as db,
    ):
        await db.set("begun", "")
        counters = [Counter(f"n{number}", random_) for number in range(WORKERS)]
        troubling = asyncio.create_task(trouble([first, second], random_))
        await asyncio.gather(*(counter.work(db) for counter in counters))
        troubling.cancel()
        await asyncio.wait([troubling])
        for way in (first, second):
            way.to_acceptor.resume()
            way.to_dialer.resume()
        await asyncio.sleep(1.0)  # what was late has arrived
        for counter in counters:
            entry = await sound.get(counter.key)
            counter.check(0 if entry is None else int(entry.text))


@pytest.mark.parametrize("seed", range(8))
def test_each_change_is_made_once_whatever_the_network_does(seed: int) -> None:
    """Trap: a change applied twice."""
    run(campaign(seed), seed=seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 500))
def test_each_change_is_made_once_in_many_networks(seed: int) -> None:
    run(campaign(seed), seed=seed)
