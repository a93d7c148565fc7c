"""A node in memory on a virtual clock, and the faults that its machine may have.

Its process ends and starts again, orderly or not. It makes snapshots, and its retention removes the oldest files. Its
keys are changed, backups of it are read, and its archive is out of reach for a while. It loses power, and then unsynced
data is lost, torn or out of order. Its disk is full, slow or broken for a while. Its clock is put forward and back, by
more than the time for which answers are remembered, too.
"""

from __future__ import annotations

import asyncio
import errno
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import Failure, HapteraError, StorageError, WrongKey
from haptera.storage.open_end import OPEN_END_NAME
from haptera.testing import Crashed, MemoryFileSystem, node
from haptera.testing.nodes import EPOCH_MS, MEMORY_DATA_DIR
from tests.simulation.backups import ARCHIVE_DIR, Taken, take
from tests.simulation.promises import PromiseBroken

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Sequence

    from haptera.node.key_rotation import CurrentKeys
    from haptera.node.snapshots.keeper import Current
    from haptera.state import StateMachine
    from haptera.testing import NodeUrl
    from haptera.testing.filesystem import Unsynced
    from tests.simulation.keys import MasterKeys

CLOCK_STEPS_MS: Final = (-3_600_000, -1000, 1000, 60_000, 660_000, 3_600_000)
WRITE_DELAYS_S: Final = (0.0, 0.0005, 0.003)
UNSYNCED: Final[tuple[Unsynced, ...]] = ("drop", "keep", "tear", "reorder")

#: The smallest segment, so that a run of some hundred changes fills several.
SEGMENT_SIZE: Final = 64 * 1024
#: Bytes and seconds of history: with some seeds so few that the oldest files go while the node runs.
RETAIN_BYTES: Final = (4 * SEGMENT_SIZE, 1 << 32)
RETAIN_S: Final = (1.0, 604_800.0)


class SimulatedNode:
    """A node whose process and disk change while its address stays. Each of its ``kinds`` of faults is a method.

    ``keys`` are its master keys. One that ``leaves_gaps`` may have lost changes, as far as it knows, whenever it was
    killed: it goes on with a much higher revision, as another server. ``told`` is called with a line for each fault, as
    it happens.
    """

    kinds: Sequence[str] = ("clock", "restart", "kill", "lose_power")
    freezes_s: Sequence[float] = (0.001, 0.02, 1.0, 60.0, 200.0)
    late_s = 600.0

    def __init__(
        self,
        choices: random.Random,
        keys: MasterKeys,
        *,
        archives: bool = False,
        leaves_gaps: bool = False,
        segment_size: int = SEGMENT_SIZE,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.url = "haptera://node:7457"
        self.disk = MemoryFileSystem()
        self._choices = choices
        self._options: dict[str, Any] = {
            "segment_size": segment_size,
            "snapshot_after": segment_size,
            "retain_bytes": max(choices.choice(RETAIN_BYTES), 4 * segment_size),
            "retain_for": choices.choice(RETAIN_S),
            "master_key_file": keys.path,
            # The time that a request takes here is the machine's, and the same seed gives the same run.
            "audit_slow": 0.0,
        }
        if archives:
            self._options["archive_dir"] = ARCHIVE_DIR
        self.keys = keys
        self.archives = archives
        self.leaves_gaps = leaves_gaps
        #: The backups that were read to their end.
        self.backups: list[Taken] = []
        self._tasks: set[asyncio.Task[None]] = set()
        #: The digests of the keys at some revisions, for a look back.
        self.noted: dict[int, bytes] = {}
        self._write_delay = choices.choice(WRITE_DELAYS_S)
        self._clock_offset_ms = 0
        #: Whether its clock was ever set.
        self.clock_was_set = False
        self._stack = AsyncExitStack()
        self._loop = asyncio.get_running_loop()
        self._told = told
        self._running: NodeUrl | None = None
        self._machines: list[StateMachine] = []  # of all processes

    @property
    def running(self) -> NodeUrl:
        """The node as it is now."""
        assert self._running is not None
        return self._running

    @property
    def revision(self) -> int:
        """The newest revision that any process of the node has come to."""
        return max((machine.revision for machine in self._machines), default=0)

    @property
    def failed(self) -> bool:
        """Whether the node has given up, as after a failed write."""
        return self._running is not None and self._running.node.failed.done()

    @property
    def newest_segment(self) -> int:
        """The number of the segment that is appended to."""
        return self.running.node._storage.log.point.next_segment

    async def start(self) -> None:
        """Open the node on its disk. Where a change of the master key was interrupted, the older key may be needed."""
        for path in self.keys.possible[::-1]:
            self.keys.give(path)
            try:
                await self._open()
            except WrongKey:
                self._told("has its last master key again")
            else:
                self.keys.opened(path)
                return
        raise PromiseBroken("no master key opens the node's keyring")

    async def _open(self) -> None:
        self._running = await self._stack.enter_async_context(
            node(
                listen=[self.url],
                storage=self.disk,
                write_delay=self._write_delay,
                clock_ms=self._clock_ms,
                **self._options,
            )
        )
        self._machines.append(self._running.node._machine)

    async def stop(self) -> None:
        """End in an orderly way."""
        self._running = None
        await self._stack.aclose()

    async def restart(self) -> None:
        """End in an orderly way, and start again."""
        self._told("restarts")
        await self.stop()
        self.disk = self.disk.restart()
        await self.start()

    async def kill(self) -> None:
        """End at once. The next process finds everything that was written."""
        disk = self.disk.power_failure("keep")
        if self.leaves_gaps:
            self._told("is killed, and may have lost changes")
            disk.write(f"{MEMORY_DATA_DIR}/{OPEN_END_NAME}", b"")
        else:
            self._told("is killed")
        await self._start_from(disk)

    async def lose_power(self) -> None:
        """End at once. The next process finds what was synced, and a part of the rest."""
        unsynced = self._choices.choice(UNSYNCED)
        self._told(f"loses power; unsynced changes: {unsynced}")
        await self._start_from(self.disk.power_failure(unsynced, self._choices.randrange(2**32)))

    async def break_disk(self) -> None:
        """Fail the next writes or syncs, until the node has given up or meets none; then start again, on a disk that
        works and has lost what was not synced.
        """
        call = self._choices.choice(("pwrite", "fdatasync", "fsync", "rename", "truncate", "sync_directory"))
        self._told(f"has a disk that fails each {call}")
        self.disk.failing, self.disk.fail_with = frozenset({call}), errno.EIO
        await asyncio.sleep(self._choices.uniform(0.0, 0.05))
        self._told("gave up" if self.failed else "did not notice")
        await self._start_from(self.disk.power_failure("drop"))

    async def fill_disk(self) -> None:
        """Leave no room for new files and segments for a while."""
        self._told("has a full disk")
        self.disk.failing, self.disk.fail_with = frozenset({"allocate"}), errno.ENOSPC
        await asyncio.sleep(self._choices.uniform(0.0, 0.2))
        self.disk.failing = frozenset()
        self._told("has room again")

    async def slow_disk(self) -> None:
        """Take another time for each write, from the next start on."""
        self._write_delay = self._choices.choice(WRITE_DELAYS_S)
        self._told(f"has a disk that takes {self._write_delay} s")
        await self.restart()

    async def snapshot(self) -> None:
        """Ask for a snapshot, and for the digest of the state that it holds."""
        self._told("is asked for a snapshot")
        made = self.running.node.snapshots.request()
        made.add_done_callback(lambda answer: self._told(_shown(answer.result())))
        machine = self.running.node._machine
        if not machine.changing:
            self.noted[machine.revision] = machine.kv.digest()

    async def rotate_data_key(self) -> None:
        """Ask for another data key."""
        self._told("is asked for another data key")
        self._begin(self._rotated("data key", self.running.node.key_rotation.rotate_data_key()))

    async def rotate_master_key(self) -> None:
        """Give another master key, and ask the node to change to it. Its process may end meanwhile."""
        if len(self.keys.possible) > 1:
            return  # the change before is not finished
        self._told("is asked for another master key")
        self.keys.change()
        self._begin(self._rotated("master key", self.running.node.key_rotation.change_master_key()))
        if self._choices.random() < 0.5:
            await asyncio.sleep(self._choices.uniform(0.0, self._write_delay))
            await self.kill()

    async def backup(self) -> None:
        """Begin to read a backup."""
        self._told("is asked for a backup")
        self._begin(self._back_up())

    async def lose_archive(self) -> None:
        """Have the archive out of reach for a while, or until the next start."""
        number = self._choices.choice((errno.EIO, errno.ENOSPC, errno.ENOENT))
        self._told(f"cannot reach its archive: {errno.errorcode[number]}")
        disk = self.disk
        disk.unreachable[ARCHIVE_DIR] = number
        self._loop.call_later(self._choices.uniform(0.0, 3.0), disk.unreachable.clear)

    async def _rotated(self, kind: str, change: Coroutine[Any, Any, CurrentKeys]) -> None:
        try:
            await change
        except StorageError as error:
            self._told(f"may have its last {kind}: {type(error).__name__}")
        except Crashed:
            pass  # the next process tells
        else:
            self._told(f"has another {kind}")
            if kind == "master key":
                self.keys.opened(self.keys.possible[-1])

    async def _back_up(self) -> None:
        try:
            taken = await take(self.url)
        except HapteraError as error:
            self._told(f"gives no backup: {type(error).__name__}")
        else:
            self._told(f"has given a backup of revision {taken.revision}")
            self.backups.append(taken)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def clock(self) -> None:
        """Put the node's clock forward or back."""
        step_ms = self._choices.choice(CLOCK_STEPS_MS)
        self._told(f"has its clock set by {step_ms / 1000:+g} s")
        self._clock_offset_ms += step_ms
        self.clock_was_set = True

    async def _start_from(self, disk: MemoryFileSystem) -> None:
        # Neither the old disk nor a client hears from the old process again.
        self.disk.stop_after = len(self.disk.calls)
        self._loop.network.sever()  # type: ignore[attr-defined]
        try:
            await self.stop()
        except Crashed:
            pass
        self.disk = disk
        await self.start()

    def _clock_ms(self) -> int:
        return EPOCH_MS + int(self._loop.time() * 1000) + self._clock_offset_ms


def _shown(answer: Current | Failure) -> str:
    """The answer for a snapshot, without the time and the directory, which are real."""
    if isinstance(answer, Failure):
        return f"makes no snapshot: {answer.name}"
    return f"has a snapshot of index {answer.index}, revision {answer.revision}, {answer.bytes} bytes"
