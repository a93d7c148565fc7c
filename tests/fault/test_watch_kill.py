"""Watches while their node is killed again and again: each is held against the whole history, which the node keeps.

What the writer was answered is a record of its own: every answered change is in the history at its revision.
"""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera.client import ServerMethods
from haptera.errors import ConnectionLost, DeadlineExceeded
from tests.unit.node.process import serving

if TYPE_CHECKING:
    from pathlib import Path

    from haptera import Database, Event

FILTERS: list[dict[str, Any]] = [{}, {"prefix": "a/"}, {"prefix": "b/1"}, {"key": "a/last"}]

Told = tuple[int, str, str, bytes | None, bytes | None]


def told(event: Event) -> Told:
    previous = None if event.previous is None else event.previous.value
    return event.version, event.kind, event.key, event.value, previous


async def follow(db: Database, options: dict[str, Any], pause: float) -> list[Told]:
    """All that a watch is told from the first revision up to the end."""
    found = []
    async for event in db.watch(start_revision=1, previous=True, **options):
        found.append(told(event))
        if event.key == ("b/1last" if options.get("prefix") == "b/1" else "a/last"):
            return found
        if pause and len(found) % 300 == 0:
            await asyncio.sleep(pause)
    raise AssertionError


class Writer:
    """Changes keys, and knows what was answered: by revision, the key and the value that it set. It rests ``pause``
    seconds after each change, so that the history of the whole test is less than a snapshot keeps.
    """

    def __init__(self, db: Database, chance: random.Random, pause: float) -> None:
        self._db = db
        self._chance = chance
        self._pause = pause
        self.answered: dict[int, tuple[str, bytes]] = {}

    async def write(self) -> None:
        db, chance = self._db, self._chance
        while True:
            await asyncio.sleep(self._pause)
            key, value = f"{chance.choice('abc')}/{chance.randrange(30)}", b"%d" % chance.randrange(1000)
            step = chance.random()
            with suppress(ConnectionLost, DeadlineExceeded):
                if step < 0.7:
                    self.answered[await db.set(key, value)] = key, value
                elif step < 0.85:
                    await db.delete(key)
                elif step < 0.95:
                    await db.set_many({f"{chance.choice('abc')}/{number}": value for number in range(100)})
                else:
                    await db.clear(prefix=chance.choice(["", "a", "b/1"]))


async def kill_under_watches(path: Path, kills: int, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    url = f"haptera+unix://{path}/haptera.sock"
    async with (
        haptera.connect(url, timeout=20) as db,
        haptera.connect(url, timeout=20) as one,
        haptera.connect(url, timeout=20) as other,
    ):
        writer = Writer(db, chance, pause=0.0005 * kills)
        tasks: list[asyncio.Task[list[Told]]] = []
        writing: asyncio.Task[None] | None = None
        for _ in range(kills):
            with serving(path, "--snapshot-after", "1000000") as node:
                await asyncio.to_thread(node.ready)
                if writing is None:
                    writing = asyncio.create_task(writer.write())
                    tasks = [
                        asyncio.create_task(follow(reader, options, pause))
                        for reader, pause in ((one, 0.0), (other, 0.01))
                        for options in FILTERS
                    ]
                await asyncio.sleep(chance.uniform(0.3, 1.2))
                if chance.random() < 0.5:
                    with suppress(haptera.HapteraError):
                        await db._channel.call(ServerMethods.snapshot, (), 10)
                assert not any(task.done() for task in (*tasks, writing))
                node.signal(signal.SIGKILL)
                assert await asyncio.to_thread(node.end) == -signal.SIGKILL
        assert writing is not None
        with serving(path) as node:
            await asyncio.to_thread(node.ready)
            writing.cancel()
            await asyncio.wait([writing])
            await db.set("b/1last", b"")
            await db.set("a/last", b"")
            found = await asyncio.wait_for(asyncio.gather(*tasks), 60)
            history = await follow(db, {}, 0.0)
            node.signal()
            assert await asyncio.to_thread(node.end) == 0
    check(found, history, writer.answered)


def check(found: list[list[Told]], history: list[Told], answered: dict[int, tuple[str, bytes]]) -> None:
    """The validator: every event once and in order, and the events lead from each value to the next."""
    values: dict[str, bytes] = {}
    for revision, kind, key, value, previous in history:
        assert previous == values.pop(key, None), (revision, key)
        assert (kind == "put") is (value is not None)
        if value is not None:
            values[key] = value
    revisions = [event[0] for event in history]
    assert revisions == sorted(revisions)
    assert set(revisions) == set(range(1, revisions[-1] + 1)), "each revision has events"
    puts = {(revision, key): value for revision, _, key, value, _ in history}
    assert all(puts[revision, key] == value for revision, (key, value) in answered.items())
    for events, options in zip(found, FILTERS * 2, strict=True):
        wanted, prefix = options.get("key"), options.get("prefix", "")
        assert events == [
            event for event in history if event[2] == (wanted or event[2]) and event[2].startswith(prefix)
        ]


async def test_watches_over_kills_of_their_node_miss_and_repeat_nothing(tmp_path: Path) -> None:
    await kill_under_watches(tmp_path / "d", kills=4, seed=random.randrange(1 << 32))


@pytest.mark.long
async def test_watches_over_fifty_kills_of_their_node(tmp_path: Path) -> None:
    await kill_under_watches(tmp_path / "d", kills=50, seed=random.randrange(1 << 32))
