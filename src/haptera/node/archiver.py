"""Copies each sealed segment of a node to its archive, before retention may remove it.

A thread of its own does the copying, because a disk on a network may answer after minutes or never. Neither the loop
nor the writer waits for it. A failure is told, and tried again after a while, without end; retention is held back
meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from haptera.errors import ForeignArchive
from haptera.replication import ThreadWriter
from haptera.storage import Archive, sealed_segments

if TYPE_CHECKING:
    from haptera.replication import Writer
    from haptera.storage import DataDirectory

_logger = logging.getLogger(__name__)

#: Seconds between two looks for segments that were sealed. A segment takes minutes to fill.
LOOK_INTERVAL_S: Final = 1.0
#: Seconds from a failure to the next attempt: at first, and at most.
RETRY_S_MIN: Final = 1.0
RETRY_S_MAX: Final = 60.0
#: The next step of the operator where the archive is another node's, and after any other failure.
_OF_FOREIGN: Final = "it belongs to another node: start this one with an --archive-dir of its own"
_OF_OTHERS: Final = "see that its disk is mounted, has room and can be written; the node tries again by itself"
#: Seconds that the end of a node waits for the copy of a segment to be left.
END_WAIT_S: Final = 2.0


class Archiver:
    """Keeps the archive of an open data directory up to date.

    ``through`` is the number of the last segment up to which all are archived: retention keeps the later ones.
    ``lag`` is how many sealed segments are not archived yet, and ``trouble`` why the last attempt failed, or "": then
    ``help`` is the next step of the operator, and ``trouble_since`` the time of the loop at which it began.
    """

    def __init__(
        self, directory: DataDirectory, archive: Archive, worker: Writer, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.through: int = 0
        self.lag: int = 0
        self.trouble: str = ""
        self.help: str = ""
        self.trouble_since: float = 0.0
        self._directory = directory
        self._archive = archive
        self._worker = worker
        self._loop = loop
        self._retry_s = RETRY_S_MIN
        self._stopping = False
        self._busy = False
        self._created = False
        self._keyring = b""  # as it was archived last
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()

    @classmethod
    def of(
        cls, directory: DataDirectory, path: str | None, loop: asyncio.AbstractEventLoop, worker: Writer | None
    ) -> Archiver | None:
        """The archiver for the archive in the directory ``path``; None without one. Its ``worker`` is a thread unless
        one is given.
        """
        if path is None:
            return None
        archive = Archive(directory.fs, path, directory.node_id)
        return cls(directory, archive, worker or ThreadWriter("haptera-archive"), loop)

    def start(self) -> None:
        """Begin to look for segments."""
        self._look()

    async def aclose(self) -> None:
        """Copy no more. A copy that is under way is left, and begun again at the next start."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        try:
            async with asyncio.timeout(END_WAIT_S):
                while self._busy:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:  # the disk hangs, and with it the thread, which ends with the process
            _logger.warning("archive_left", extra={"archive": self._archive.path})
        else:
            self._worker.close()

    def _look(self) -> None:
        self._busy = True
        self._worker.submit(self._work)

    def _work(self) -> None:
        """On the worker's thread: archive all that is sealed."""
        error: Exception | None = None
        try:
            self._archive_all()
        except Exception as caught:  # the loop must hear of any error
            error = caught
        try:
            self._loop.call_soon_threadsafe(self._worked, error)
        except RuntimeError:
            pass  # the loop was closed meanwhile

    def _archive_all(self) -> None:
        archive, directory = self._archive, self._directory
        sealed = sealed_segments(directory.fs, directory.log_path)
        waiting = [number for number in sealed if number > self.through]
        self.lag = len(waiting)
        keyring = directory.read_keyring()
        if not waiting and keyring == self._keyring:
            return
        if self._created:
            archive.check()  # another disk may be mounted there by now, or none
        else:
            archive.create()
            self._created = True
        archive.add_keyring(keyring)  # before the first segment that needs it
        self._keyring = keyring
        for number in waiting:
            if not archive.holds(number, sealed[number]):
                archive.add(number, sealed[number], lambda: self._stopping)
            self.through = number
            self.lag -= 1

    def _worked(self, error: Exception | None) -> None:
        self._busy = False
        self._idle.set()
        if self._stopping:
            return
        delay = LOOK_INTERVAL_S
        if error is not None:
            delay, self._retry_s = self._retry_s, min(self._retry_s * 2, RETRY_S_MAX)
            self._tell(error, delay)
        elif self.trouble:
            self.trouble = self.help = ""
            self._retry_s = RETRY_S_MIN
            _logger.info("archive_resumed", extra={"archive": self._archive.path, "segment": self.through})
        self._timer = self._loop.call_later(delay, self._look)

    def _tell(self, error: Exception, delay: float) -> None:
        if not self.trouble:
            self.trouble_since = self._loop.time()
        foreign = isinstance(error, ForeignArchive)
        self.trouble, self.help = str(error), _OF_FOREIGN if foreign else _OF_OTHERS
        _logger.warning(
            "archive_failed",
            extra={
                "archive": self._archive.path,
                "reason": self.trouble,
                **({} if foreign else {"retry_in_seconds": delay}),  # another attempt would find the same
                "waiting_segments": self.lag,
                "meaning": "segments that are not archived stay in the log, beyond the bounds of retention too",
                "help": self.help,
            },
        )
