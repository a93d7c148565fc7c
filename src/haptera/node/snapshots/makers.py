"""Has a snapshot made: by a second process, or by a thread where a test has files that no other process can open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Protocol, TypeVar

from haptera.errors import StorageError
from haptera.node.snapshots.child import SnapshotProcess
from haptera.node.snapshots.errors import SnapshotNotMade
from haptera.node.snapshots.making import make_snapshot
from haptera.node.snapshots.messages import failure_of
from haptera.storage import remove_unfinished_snapshots

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.node.snapshots.messages import Made
    from haptera.storage import DataDirectory, Keyring, LogPoint

_logger = logging.getLogger(__name__)

T = TypeVar("T")


class Maker(Protocol):
    """Makes one snapshot at a time."""

    async def make(self, point: LogPoint) -> Made:
        """Make a snapshot of the log up to ``point``. Raises SnapshotNotMade."""

    def stop(self) -> None:
        """End what is under way, at once and from any thread; `make` then raises."""


class SecondProcess:
    """Has snapshots made by a process of their own. `make` waits for it on a thread of its own.

    The thread is a daemon's: a program that ends without closing its store does not wait for a snapshot, and the end of
    the program ends the process.
    """

    def __init__(self, directory: DataDirectory, keyring: Keyring, events_size: int) -> None:
        self._directory = directory
        self._keyring = keyring
        self._events_size = events_size
        self._run: SnapshotProcess | None = None

    async def make(self, point: LogPoint) -> Made:
        run = self._run = SnapshotProcess(self._directory.path)

        def make() -> Made:
            try:
                return run.make(point, self._keyring, self._events_size)
            except SnapshotNotMade:
                with contextlib.suppress(StorageError):
                    remove_unfinished_snapshots(self._directory.fs, self._directory.snapshots_path)
                raise

        try:
            return await _in_thread(make)
        except asyncio.CancelledError:
            run.stop()
            raise
        finally:
            self._run = None
            if run.said:
                _logger.warning("snapshot_process_said", extra={"text": run.said})

    def stop(self) -> None:
        run = self._run
        if run is not None:
            run.stop()


class ThisProcess:
    """Makes snapshots in this process: of files that are in its memory, in a test."""

    def __init__(self, directory: DataDirectory, keyring: Keyring, events_size: int) -> None:
        self._directory = directory
        self._keyring = keyring
        self._events_size = events_size

    async def make(self, point: LogPoint) -> Made:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self._make, point)

    def stop(self) -> None:
        pass

    def _make(self, point: LogPoint) -> Made:
        directory, damaged = self._directory, list[int]()
        try:
            return make_snapshot(
                directory.fs, directory.path, self._keyring, point, self._events_size, lambda: None, damaged
            )
        except StorageError as error:
            raise SnapshotNotMade(str(error), failure_of(error, damaged)) from error


async def _in_thread(work: Callable[[], T]) -> T:
    """The result of ``work``, which may block for minutes, from a daemon thread."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():  # the caller was cancelled
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # a result where there is no error

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:  # the loop must hear of any error
            error = caught
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            pass  # the loop was closed: no caller waits any more

    try:
        threading.Thread(target=run, name="haptera-snapshot", daemon=True).start()
    except RuntimeError as error:  # no more threads
        raise SnapshotNotMade(f"no thread can be started: {error}") from error
    return await future
