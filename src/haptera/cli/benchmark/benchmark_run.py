"""The order of a run, from the first connection to the report: store keys, warm up, measure, remove keys."""

from __future__ import annotations

import asyncio
import gc
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final, Literal

from haptera.cli import output
from haptera.cli.benchmark.key_choice import Keys
from haptera.cli.benchmark.load import NS, Operation, Plan, RealClock, Recorder, run_load
from haptera.cli.benchmark.progress import INTERVAL_SECONDS, LONG_SECONDS, shown
from haptera.cli.benchmark.result import Report, report
from haptera.cli.benchmark.settings import MESSAGING, Settings
from haptera.cli.benchmark.target import embedded_store, hosted_service, served_store
from haptera.cli.benchmark.workloads import kinds_of, message_operations, store_keys, store_operations
from haptera.cli.failures import described
from haptera.errors import HapteraError

if TYPE_CHECKING:
    from haptera.cli.client_command import Client
    from haptera.client import Database

#: Removing the keys of a run is one change, however many there are.
CLEAR_SECONDS_MAX: Final = 60.0

#: The same for a run that is interrupted, because Ctrl-C means now.
INTERRUPTED_SECONDS_MAX: Final = 1.0


async def measure(
    settings: Settings, client: Client, *, embedded: Literal["sync", "os"] | None
) -> tuple[Report, HapteraError | None]:
    """Make a run. Returns its report, and of the most frequent kind of error the last, if there was any.

    ``client`` connects to the store or the server of the workload. With ``embedded`` a store is made in this process
    for the run, with that durability. Raises a client's errors where the run cannot begin.
    """
    async with _operations(settings, client, embedded) as operations:
        clock = RealClock()
        if settings.warmup_s:
            plan = Plan(clock, end=clock.now() + round(settings.warmup_s * NS), count=None, rate=settings.rate)
            await run_load(operations, plan, Recorder(kinds_of(settings), clock.now()), clock)
        with _collected():
            recorder = await _measured(settings, operations, clock)
    made = report(settings, recorder)
    worst = recorder.errors.most_common(1)
    return made, recorder.last_error[worst[0][0]] if worst else None


async def _measured(settings: Settings, operations: Sequence[Operation], clock: RealClock) -> Recorder:
    now = clock.now()
    end = None if settings.duration_s is None else now + round(settings.duration_s * NS)
    plan = Plan(clock, end=end, count=settings.count, rate=settings.rate)
    recorder = Recorder(kinds_of(settings), now)
    with shown(_Progress(recorder, clock).text, after=INTERVAL_SECONDS):
        await run_load(operations, plan, recorder, clock)
    return recorder


@contextmanager
def _collected() -> Iterator[None]:
    """Keep objects that are older than the run out of the garbage collector's sight."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@asynccontextmanager
async def _operations(
    settings: Settings, client: Client, embedded: Literal["sync", "os"] | None
) -> AsyncIterator[list[Operation]]:
    if settings.workload in MESSAGING:
        async with hosted_service(settings, client) as peers:
            yield message_operations(settings, peers)
    elif embedded is not None:
        with tempfile.TemporaryDirectory(prefix="haptera-bench-") as directory:
            async with embedded_store(settings, directory, embedded) as databases:
                keys = _keys(settings)
                await _prepare(settings, keys, databases[0])
                yield store_operations(settings, keys, databases)
    else:
        async with served_store(settings, client) as databases:
            keys = _keys(settings)
            patience = CLEAR_SECONDS_MAX
            try:
                await _prepare(settings, keys, databases[0])
                yield store_operations(settings, keys, databases)
            except asyncio.CancelledError:
                patience = INTERRUPTED_SECONDS_MAX
                raise
            finally:
                await _clear(databases[0], keys, patience)


def _keys(settings: Settings) -> Keys:
    """Keys that no other program has, because the store may hold valuable data."""
    return Keys(f"bench/{secrets.token_hex(8)}/", settings.keys, settings.distribution, settings.theta)


async def _prepare(settings: Settings, keys: Keys, database: Database) -> None:
    if settings.workload == "write":
        return
    stored = 0

    def count(batch: int) -> None:
        nonlocal stored
        stored += batch

    with shown(lambda: f"preparing {keys.count:,} keys: {stored:,} are stored", after=LONG_SECONDS):
        await store_keys(settings, keys, database, count)


async def _clear(database: Database, keys: Keys, patience: float) -> None:
    """Remove the keys of a run. Where the store is gone the run has its result all the same, and is not kept waiting:
    whether anybody answers is asked first, within the time of any call.
    """
    left = f"keys under {keys.prefix} may have stayed behind"
    try:
        with shown(lambda: f"removing {keys.count:,} keys", after=LONG_SECONDS):
            async with asyncio.timeout(patience):
                await database.exists(keys.prefix)
                await database.clear(prefix=keys.prefix, timeout=None)
    except HapteraError as error:
        output.error_line(f"{left}: {described(error)}")
    except TimeoutError:
        output.error_line(f"interrupted: {left}" if patience < CLEAR_SECONDS_MAX else f"{left}: they take too long")
    except asyncio.CancelledError:
        output.error_line(f"interrupted: {left}")
        raise


class _Progress:
    """How far the measurement is."""

    def __init__(self, recorder: Recorder, clock: RealClock) -> None:
        self._recorder = recorder
        self._clock = clock
        self._operations, self._since = 0, recorder.start

    def text(self) -> str:
        recorder, now = self._recorder, self._clock.now()
        rate = (recorder.operations - self._operations) * NS / (now - self._since)
        self._operations, self._since = recorder.operations, now
        failed = sum(recorder.errors.values())
        errors = f", {failed:,} failed" if failed else ""
        seconds = (now - recorder.start) / NS
        return f"{seconds:.0f} s  {recorder.operations:,} operations{errors}  {rate:,.0f}/s"
