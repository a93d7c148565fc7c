"""The external users of a node over time: their file is read again when it changes, or when it is asked for.

A file that cannot be used leaves the users of before in place, because a node that lets no program in helps no one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from haptera.errors import ConfigurationError
from haptera.node.external_users import read_external_users
from haptera.transport import TLS_LOOK_S, signature_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_logger = logging.getLogger(__name__)

#: Seconds between two looks whether the file has changed: as of the files of TLS, whose names it gives a meaning.
LOOK_S: Final = TLS_LOOK_S


class KeptExternalUsers:
    """The users of a file, which is read at once. Raises ConfigurationError. ``on_change`` is called when others stand
    in it.
    """

    def __init__(self, path: str | None, on_change: Callable[[], None]) -> None:
        self._path = path
        self._on_change = on_change
        self._tried = None if path is None else signature_of(path)
        self._current = read_external_users(path)
        self._reading = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[bool] | None = None

    def of_certificate(self, names: Sequence[str]) -> str | None:
        """The user of a certificate, by the file of now."""
        return self._current.of_certificate(names)

    def of_uid(self, uid: int) -> str | None:
        """The user of a process of this machine, by the file of now."""
        return self._current.of_uid(uid)

    def start(self) -> None:
        """Look now and again whether the file has changed, until `stop`."""
        if self._path is not None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def reload(self) -> bool:
        """Read the file again, changed or not, and return whether it can be used; the log says why not."""
        if self._path is None:
            return True
        async with self._reading:
            self._tried = signature_of(self._path)
            try:
                # A file of the largest size takes a second to read.
                self._current = await asyncio.to_thread(read_external_users, self._path)
            except ConfigurationError as error:
                return self._refused(str(error))
            except Exception as error:  # a fault of this program
                return self._refused(f"its reading failed: {type(error).__name__}")
        _logger.info("external_users_loaded", extra={"file": self._path})
        self._on_change()
        return True

    def _look(self) -> None:
        # The next look is certain before this one, which may fail.
        self.start()
        assert self._path is not None
        if signature_of(self._path) != self._tried:
            self._task = asyncio.get_running_loop().create_task(self.reload())

    def _refused(self, reason: str) -> bool:
        """Go on with the users of before."""
        meaning = "certificates and users of this machine stand for the users of before"
        _logger.error("external_users_refused", extra={"reason": reason, "meaning": meaning})
        return False
