"""A log and a maker of snapshots that do what a test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from haptera.node.metrics import Metrics
from haptera.node.snapshots.keeper import SnapshotKeeper
from haptera.node.snapshots.messages import Made
from haptera.node.snapshots.retention import Retention
from haptera.node.snapshots.schedule import Schedule
from haptera.storage import LogPoint
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.nodes import ImmediateWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.node.snapshots.decision import Snapshot
    from haptera.node.snapshots.keeper import OnWriter
    from haptera.replication import Writer
    from haptera.state import StateMachine
    from haptera.storage import Log

LOG_PATH = "/data/log"
SNAPSHOTS_PATH = "/data/snapshots"
SEGMENT_SIZE = 1000


@dataclass
class FakeSegment:
    number: int
    size_bytes: int = SEGMENT_SIZE


@dataclass
class FakeLog:
    """Has segments of 1,000 bytes and ten entries each, and their files."""

    fs: MemoryFileSystem = field(default_factory=MemoryFileSystem)
    segments: list[FakeSegment] = field(default_factory=list)
    index: int = 0
    unsealed: int = 0
    reserved_bytes: int = 0
    segment_size: int = 0
    rolls: int = 0
    on_roll: Callable[[], None] | None = None
    error: Exception | None = None

    def __post_init__(self) -> None:
        for path in ("/data", LOG_PATH, SNAPSHOTS_PATH):
            self.fs.mkdir(path)
        self.fs.sync_directory("/data")

    def grow(self, segments: int = 1) -> None:
        """Write some segments full."""
        for _ in range(segments):
            number = self.next_number
            self.segments.append(FakeSegment(number))
            self.fs.open(f"{LOG_PATH}/{number:016x}.seg", "x").close()
            self.fs.sync_directory(LOG_PATH)
            self.index = number * 10
            if self.on_roll is not None:
                self.on_roll()

    @property
    def next_number(self) -> int:
        return self.segments[-1].number + 1 if self.segments else 1

    def roll(self) -> LogPoint:
        self.rolls += 1
        if self.error is not None:
            raise self.error
        return LogPoint(
            index=self.index, term=1, time_ms=self.index * 100, tag=bytes(16), next_segment=self.next_number
        )

    def size_after(self, number: int) -> int:
        return sum(each.size_bytes for each in self.segments if each.number >= number)

    def forget_before(self, number: int) -> None:
        while self.segments and self.segments[0].number < number:
            self.fs.unlink(f"{LOG_PATH}/{self.segments[0].number:016x}.seg")
            self.fs.sync_directory(LOG_PATH)
            del self.segments[0]


@dataclass
class ManualMaker:
    """Makes the snapshot that it was asked for when the test says so."""

    log: FakeLog
    points: list[LogPoint] = field(default_factory=list)
    stopped: bool = False
    pending: asyncio.Future[Made] | None = None

    async def make(self, point: LogPoint) -> Made:
        self.points.append(point)
        self.pending = asyncio.get_running_loop().create_future()
        try:
            return await self.pending
        finally:
            self.pending = None

    def done(self, size: int = 100) -> None:
        assert self.pending is not None
        point = self.points[-1]
        self.log.fs.open(f"{SNAPSHOTS_PATH}/{point.index:016x}.snap", "x").close()
        self.log.fs.sync_directory(SNAPSHOTS_PATH)
        made = Made(point.index, point.index, point.time_ms, point.next_segment, 1, size, 0.5, 1 << 20)
        self.pending.set_result(made)

    def fail(self, error: Exception) -> None:
        assert self.pending is not None
        self.pending.set_exception(error)

    def stop(self) -> None:
        self.stopped = True
        if self.pending is not None and not self.pending.done():
            from haptera.node.snapshots.errors import SnapshotNotMade

            self.pending.set_exception(SnapshotNotMade("the node stops"))


def on(writer: Writer) -> OnWriter:
    """Run jobs on a writer, as the pipeline does."""
    loop = asyncio.get_running_loop()

    def on_writer(job: Callable[[], LogPoint], told: Callable[[LogPoint], None]) -> asyncio.Future[LogPoint]:
        result: asyncio.Future[LogPoint] = loop.create_future()

        def run() -> None:
            try:
                point = job()
            except Exception as error:
                loop.call_soon(result.set_exception, error)
            else:
                loop.call_soon(told, point)
                loop.call_soon(result.set_result, point)

        writer.submit(run)
        return result

    return on_writer


class Kept:
    """A keeper with all that it needs, on the loop that runs."""

    def __init__(
        self,
        *,
        writer: Writer | None = None,
        snapshot_after: int = 3000,
        retain_bytes: int = 20_000,
        retain_for: float = 700.0,
        snapshots: list[Snapshot] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.log = FakeLog()
        self.maker = ManualMaker(self.log)
        self.metrics = Metrics()
        self.time_ms = 0
        self.held_back: int | None = None
        self.machine = SimpleNamespace(
            index=0, size=1000, kv=SimpleNamespace(events=SimpleNamespace(size=0)), requests=SimpleNamespace(size=10)
        )
        self.keys_dropped = 0
        self.keys_error: Exception | None = None
        log = cast("Log", self.log)
        self.retention = Retention(
            self.log.fs,
            log,
            SNAPSHOTS_PATH,
            snapshots or [],
            retain_bytes=retain_bytes,
            retain_ms=int(retain_for * 1000),
            time_ms=lambda: self.time_ms,
            held_back=lambda: self.held_back,
        )
        self.schedule = Schedule(
            snapshot_after=snapshot_after, retain_bytes=retain_bytes, retain_for=retain_for, now=loop.time()
        )
        self.keeper = SnapshotKeeper(
            log=log,
            machine=cast("StateMachine", self.machine),
            retention=self.retention,
            schedule=self.schedule,
            maker=self.maker,
            on_writer=on(writer or ImmediateWriter()),
            loop=loop,
            metrics=self.metrics,
            drop_keys=self._drop_keys,
        )
        self.keeper.start()

    def _drop_keys(self) -> list[bytes]:
        self.keys_dropped += 1
        if self.keys_error is not None:
            raise self.keys_error
        return []

    def write(self, segments: int = 1) -> None:
        """Write, and apply what is written."""
        self.machine.index = (self.log.next_number + segments - 1) * 10
        self.log.grow(segments)

    @property
    def files(self) -> tuple[list[int], list[int]]:
        """The indexes of the snapshots and the numbers of the segments that are on the disk."""
        fs = self.log.fs
        return (
            sorted(int(name.partition(".")[0], 16) for name in fs.listdir(SNAPSHOTS_PATH)),
            sorted(int(name.partition(".")[0], 16) for name in fs.listdir(LOG_PATH)),
        )


async def settle() -> None:
    """Let the loop and its threads do what is ready."""
    for _ in range(20):
        await asyncio.sleep(0)
