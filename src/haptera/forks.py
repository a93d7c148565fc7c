"""Forked processes: a child of ``os.fork`` has a copy of every object, and shares every open file with its parent.

A layer registers here the objects that must not be shared. In a forked child each registered object then gives its
copy up: it closes the child's descriptors, which leaves the parent's alone, and draws its identity again or refuses to
be used.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from typing import Final, Protocol


class Forkable(Protocol):
    """An object that does not survive a fork as it is."""

    def disown(self, owner: int) -> None:
        """Give up this copy: the process is a forked child, and the original belongs to the process ``owner``.

        It runs before any other code of the child, with no other thread, perhaps in the middle of a turn of the
        parent's event loop. It must neither wait, nor use that loop, nor write to a shared file.
        """


class _Process:
    """The process that this code runs in, and the objects that it gives up in its children. There is one object."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        # Weak, so that it is bounded by the objects that are in use.
        self.held: weakref.WeakSet[Forkable] = weakref.WeakSet()

    def begin_child(self) -> None:
        for held in list(self.held):
            # An error in one must not keep the others from the same, and there is no one to tell.
            with suppress(Exception):
                held.disown(self.pid)
        self.pid = os.getpid()  # last: another thread that sees it relies on the rest


_process: Final = _Process()
#: Held by a thread of a child that has everything given up late. Its parent never takes it.
_late: Final = threading.Lock()


def watch(held: Forkable) -> None:
    """Have ``held`` give up its copy in each child that is forked from now on, for as long as it exists."""
    _process.held.add(held)


def inherits() -> bool:
    """Whether the process was forked without Python's knowledge, as some servers do: nothing has been given up."""
    return os.getpid() != _process.pid


def give_up_inherited() -> None:
    """Have each object give its copy up, if the process was forked without Python's knowledge and none has yet."""
    if inherits():
        with _late:
            if inherits():
                _process.begin_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.begin_child)
