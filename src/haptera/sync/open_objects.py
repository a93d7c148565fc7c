"""The objects that a program has to close: the end of the interpreter names the ones that are forgotten."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Final

from haptera.transport import warn_unclosed

#: The ways to close an object of a program without an event loop.
REMEDY: Final = "use it with 'with', or call its aclose()"

Close = Callable[[], Coroutine[Any, Any, object]]


class OpenObject:
    """A client, a peer or a server, as far as its end goes. The object itself holds this one, and so ends before it.

    Args:
        name: Says its name in a warning.
        is_open: Whether something is open that stays open until it is closed.
        close: Closes it, on the loop.
        forkable: Whether a forked child goes on with it, by connections of its own.
    """

    __slots__ = ("__weakref__", "_forkable", "_is_open", "_name", "_pid", "close", "closed", "over")

    def __init__(
        self, name: Callable[[], str], is_open: Callable[[], bool], close: Close, *, forkable: bool = False
    ) -> None:
        self._name = name
        self._is_open = is_open
        self._pid = os.getpid()
        self._forkable = forkable
        self.close: Final = close
        #: Whether the program has closed it.
        self.closed: bool = False
        #: Whether the interpreter ends, and the object may outlive the names that its end needs.
        self.over: bool = False

    @property
    def unclosed(self) -> bool:
        """Whether it has to be closed, if this process ends now."""
        return not self.closed and (self._forkable or not self._inherited) and self._is_open()

    @property
    def _inherited(self) -> bool:
        return self._pid != os.getpid()

    def warn(self) -> None:
        """Warn that nothing has closed it. Code of a forked child need not close the objects of its parent."""
        if not self._inherited:
            warn_unclosed(self, self._name(), remedy=REMEDY)


class OpenObjects:
    """The objects of one process. It holds none of them: each ends when the program drops it."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[OpenObject] = weakref.WeakSet()

    def add(self, opened: OpenObject) -> OpenObject:
        """Know an object."""
        self._all.add(opened)
        return opened

    def end(self) -> None:
        """Have the objects end without a further word, because the interpreter ends."""
        for each in list(self._all):
            each.over = True

    def unclosed(self) -> list[OpenObject]:
        """Return those that are open."""
        return [each for each in list(self._all) if each.unclosed]
