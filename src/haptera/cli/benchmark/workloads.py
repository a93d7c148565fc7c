"""The workloads: the keys and values that are stored for one, and the work of one operation.

Each worker has its own random numbers, so that a seed gives each the same keys again, however the workers take turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Final

from haptera.cli.benchmark.service import SERVICE, encode_order
from haptera.errors import Code, RemoteProtocolError

if TYPE_CHECKING:
    from haptera.cli.benchmark.key_choice import Keys
    from haptera.cli.benchmark.load import Operation
    from haptera.cli.benchmark.settings import Settings
    from haptera.client import Database
    from haptera.peer import Peer

VALUES_MAX: Final = 64
#: Different values that a run writes, and their bytes together: enough that no two neighbours are the same.
VALUES_SIZE_MAX: Final = 16 * 1024 * 1024

BATCH_KEYS: Final = 1000
BATCH_SIZE: Final = 1024 * 1024
#: How keys are stored before a run that reads them: some thousand small ones at a time, or some megabytes.
BATCHES_IN_FLIGHT: Final = 4

READ, WRITE = range(2)
ONLY: Final = 0


def kinds_of(settings: Settings) -> tuple[str, ...]:
    """The names of the kinds of operation of a workload, whose durations are kept apart."""
    return ("read", "write") if settings.workload == "mixed" else (settings.workload,)


def store_operations(settings: Settings, keys: Keys, databases: Sequence[Database]) -> list[Operation]:
    """An operation for each worker of a workload on a store: ``in_flight`` of them for each of ``databases``."""
    values = _values(settings)
    made: list[Operation] = []
    for turn in range(settings.in_flight):
        for number, database in enumerate(databases):
            random = _random(settings, turn * len(databases) + number)
            match settings.workload:
                case "read":
                    made.append(_read(database, keys, random))
                case "write":
                    made.append(_write(database, keys, random, values, ONLY))
                case "mixed":
                    read = _read(database, keys, random)
                    write = _write(database, keys, random, values, WRITE)
                    made.append(_mixed(read, write, random, settings.read_ratio))
                case _:
                    made.append(_scan(database, keys, random, settings.rows))
    return made


def message_operations(settings: Settings, peers: Sequence[Peer]) -> list[Operation]:
    """An operation for each worker of a messaging workload: ``in_flight`` of them for each of ``peers``."""
    make = _echo if settings.workload == "echo" else _stream
    return [make(peer, settings) for _ in range(settings.in_flight) for peer in peers]


async def store_keys(settings: Settings, keys: Keys, database: Database, stored: Callable[[int], None]) -> None:
    """Store a value under each of ``keys``; ``stored`` is told of so many at a time."""
    values = _values(settings)
    batches = _batches(keys, values)

    async def store() -> None:
        for batch in batches:
            await database.set_many(batch)
            stored(len(batch))

    await asyncio.gather(*(store() for _ in range(BATCHES_IN_FLIGHT)))


def _batches(keys: Keys, values: Sequence[bytes]) -> Iterator[list[tuple[str, bytes]]]:
    size = max(1, min(BATCH_KEYS, BATCH_SIZE // (len(values[0]) + 1)))
    for first in range(0, keys.count, size):
        numbers = range(first, min(first + size, keys.count))
        yield [(keys.key(number), values[number % len(values)]) for number in numbers]


def _values(settings: Settings) -> list[bytes]:
    count = max(1, min(VALUES_MAX, VALUES_SIZE_MAX // max(settings.value_size, 1)))
    random = Random(settings.seed)
    return [random.randbytes(settings.value_size) for _ in range(count)]


def _random(settings: Settings, worker: int) -> Random:
    return Random(f"{settings.seed}/{worker}")


def _read(database: Database, keys: Keys, random: Random) -> Operation:
    async def read() -> tuple[int, int, int]:
        entry = await database.get(keys.draw(random))
        return (READ, 0, 0) if entry is None else (READ, len(entry.value), 1)

    return read


def _write(database: Database, keys: Keys, random: Random, values: Sequence[bytes], kind: int) -> Operation:
    async def write() -> tuple[int, int, int]:
        value = values[int(random.random() * len(values))]
        await database.set(keys.draw(random), value)
        return kind, len(value), 1

    return write


def _mixed(read: Operation, write: Operation, random: Random, read_ratio: float) -> Operation:
    async def mixed() -> tuple[int, int, int]:
        return await (read() if random.random() < read_ratio else write())

    return mixed


def _scan(database: Database, keys: Keys, random: Random, limit: int) -> Operation:
    async def scan() -> tuple[int, int, int]:
        size = rows = 0
        async with database.scan(prefix=keys.prefix, start=keys.draw(random), limit=limit) as entries:
            async for entry in entries:
                size += len(entry.value)
                rows += 1
        return ONLY, size, rows

    return scan


def _echo(peer: Peer, settings: Settings) -> Operation:
    payload = _values(settings)[0]

    async def echo() -> tuple[int, int, int]:
        answer = await peer.call(SERVICE, "echo", payload, timeout=settings.timeout_s)
        if answer != payload:
            raise RemoteProtocolError(Code.MALFORMED_FRAME, "the echo differs from the payload")
        return ONLY, len(answer), 1

    return echo


def _stream(peer: Peer, settings: Settings) -> Operation:
    order = encode_order((settings.rows, settings.value_size))

    async def stream() -> tuple[int, int, int]:
        size = rows = 0
        async with peer.stream(SERVICE, "stream", order, timeout=settings.timeout_s) as items:
            async for item in items:
                size += len(item)
                rows += 1
        if rows != settings.rows or size != rows * settings.value_size:
            raise RemoteProtocolError(Code.MALFORMED_FRAME, "the stream differs from the request")
        return ONLY, size, rows

    return stream
