"""A lost connection of the shell is told, and made again before the next command needs it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from haptera.cli import output
from haptera.cli.failures import described
from haptera.cli.library_warnings import TOLD
from haptera.errors import Code, ConnectionLost, HapteraError, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.client import Database

#: Seconds that one attempt to reach the node may take, and seconds between two that failed.
ATTEMPT_S: Final = 5.0
PAUSE_S: Final = 0.5


class ConnectionNotes(logging.Handler):
    """Hears the library say that a connection has ended, and calls the node until it answers.

    ``tell`` takes the notes as lines.
    """

    def __init__(self, db: Database, tell: Callable[[bytes], None]) -> None:
        super().__init__(logging.WARNING)
        self._db = db
        self._tell = tell
        self._calling: asyncio.Task[Any] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Begin to call the node, if a connection has ended and no call is under way."""
        if record.getMessage() not in TOLD or (self._calling is not None and not self._calling.done()):
            return
        try:
            self._calling = asyncio.get_running_loop().create_task(self._call())
        except RuntimeError:  # the shell ends
            return
        self._note(f"the connection to {self._db.reached} is lost; it is made again")

    def stop(self) -> None:
        """Call no more."""
        if self._calling is not None:
            self._calling.cancel()

    async def _call(self) -> None:
        while True:
            try:
                await self._db.whoami(timeout=ATTEMPT_S)
            except HapteraError as error:
                if not _passes(error):
                    self._note(described(error))
                    return
                await asyncio.sleep(PAUSE_S)
            else:
                self._note(f"connected again to {self._db.reached}, revision {self._db.revision}")
                return

    def _note(self, text: str) -> None:
        self._tell(f"haptera: {output.shown(text)}\n".encode())


def _passes(error: HapteraError) -> bool:
    """Whether a node that is started again may answer."""
    if isinstance(error, ConnectionLost):
        return True
    return isinstance(error, ServerError) and error.code in {Code.DEADLINE_EXCEEDED, Code.SHUTTING_DOWN}
