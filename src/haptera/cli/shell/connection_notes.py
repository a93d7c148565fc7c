"""A lost connection of the shell is told, and made again before the next command needs it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from haptera.cli import output
from haptera.cli.failures import described
from haptera.errors import Code, ConnectionLost, HapteraError, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from haptera.client import Database

#: Events of the library's log about the end of a connection, and about the beginning of one.
ENDS: Final = frozenset({"connection_ended", "connection_failed", "connection_ended_by_peer"})
BEGINNING: Final = "connection_opened"
#: Seconds after which a node that does not answer is told to be lost: one that is restarted in them is told once.
PATIENCE_S: Final = 0.3
#: Seconds that each further attempt to reach the node may take, and seconds between two.
ATTEMPT_S: Final = 5.0
PAUSE_S: Final = 0.5


class ConnectionNotes(logging.Handler):
    """Hears in the library's log that a connection has ended, and calls the node until it answers.

    A connection that one command has for itself ends too; the node then answers on that of the shell, and there is
    nothing to tell. ``tell`` takes the notes as lines.
    """

    def __init__(self, db: Database, tell: Callable[[bytes], None]) -> None:
        super().__init__(logging.DEBUG)
        self._db = db
        self._tell = tell
        self._calling: asyncio.Task[Any] | None = None
        self._opened = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hear the log for as long as the block lasts."""
        logger = logging.getLogger("haptera")
        level = logger.level
        logger.addHandler(self)
        logger.setLevel(logging.DEBUG)  # ends of connections are no warnings
        try:
            yield
        finally:
            logger.setLevel(level)
            logger.removeHandler(self)
            if self._calling is not None:
                self._calling.cancel()

    def emit(self, record: logging.LogRecord) -> None:
        """Begin to call the node, if a connection has ended and no call is under way."""
        event = record.getMessage()
        if event == BEGINNING:
            self._opened = True
        if event not in ENDS or (self._calling is not None and not self._calling.done()):
            return
        self._opened = False
        try:
            self._calling = asyncio.get_running_loop().create_task(self._call())
        except RuntimeError:  # the shell ends
            return

    async def _call(self) -> None:
        told = False
        while True:
            try:
                await self._db.whoami(timeout=ATTEMPT_S if told else PATIENCE_S)
            except HapteraError as error:
                if not _passes(error):
                    self._note(described(error))
                    return
                if not told:
                    self._note(f"the connection to {self._db.reached} is lost; it is made again")
                    told = True
                await asyncio.sleep(PAUSE_S)
            else:
                if self._opened:
                    self._note(f"connected again to {self._db.reached}")
                return

    def _note(self, text: str) -> None:
        self._tell(f"haptera: {output.shown(text)}\n".encode())


def _passes(error: HapteraError) -> bool:
    """Whether a node that is started again may answer."""
    if isinstance(error, ConnectionLost):
        return error.failure is None or error.failure.code not in range(2000, 3000)
    return isinstance(error, ServerError) and error.code in {Code.DEADLINE_EXCEEDED, Code.SHUTTING_DOWN}
