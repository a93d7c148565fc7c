"""The end of tests that hang: one thread of a process watches them, where pytest-timeout starts one for each test.

To start and join a thread takes as long as a short test, and there are thousands of those.
"""

from __future__ import annotations

import threading

# Bound here, because some tests replace them in their modules.
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest_timeout  # type: ignore[import-untyped]

if TYPE_CHECKING:
    import pytest

LOOK_EVERY_S: Final = 1.0


class _Watched(NamedTuple):
    until: float
    item: pytest.Item
    settings: Any


class Watchdog:
    """Has pytest-timeout end the process of a test whose time is over, with the traceback of every thread."""

    def __init__(self) -> None:
        self._watched: _Watched | None = None
        self._thread: threading.Thread | None = None

    def begin(self, item: pytest.Item, settings: Any) -> None:
        """Watch a test from now on."""
        self._watched = _Watched(monotonic() + settings.timeout, item, settings)
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Watch nothing until the next test."""
        self._watched = None

    def look(self) -> None:
        """End the test whose time is over, if there is one."""
        watched = self._watched
        if watched is not None and monotonic() > watched.until:
            self._watched = None
            pytest_timeout.timeout_timer(watched.item, watched.settings)

    def _watch(self) -> None:
        while True:
            sleep(LOOK_EVERY_S)
            self.look()
