"""The event loop that an object belongs to, and with it one thread of one process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Final

from haptera.errors import WrongLoop

#: The loop that runs here, or None: the cheapest way to tell an object's own loop, thread and process from others.
running_loop: Final[Callable[[], asyncio.AbstractEventLoop | None]] = asyncio._get_running_loop


def wrong_loop(
    what: str, loop: asyncio.AbstractEventLoop, owner: int = 0, *, advice: str = "make one for each loop"
) -> WrongLoop:
    """Return the error for an object that is used outside its ``loop``.

    ``what`` names the object. ``owner`` is the process that it belongs to, where this one was forked from that.
    """
    if owner:
        return WrongLoop(
            f"{what} belongs to process {owner}, and this is process {os.getpid()}, forked from it;"
            " make one in each process"
        )
    running = running_loop()
    here = "no event loop runs" if running is None else f"the event loop {describe_loop(running)} runs"
    return WrongLoop(f"{what} belongs to the event loop {describe_loop(loop)}, and here {here}; {advice}")


def describe_loop(loop: asyncio.AbstractEventLoop) -> str:
    """Return a loop's address, and the thread that it runs in where that is known."""
    if loop.is_closed():
        state = "closed"
    elif not loop.is_running():
        state = "not running"
    else:
        # asyncio's own loop knows its thread; uvloop's does not tell.
        ident = getattr(loop, "_thread_id", None)
        names = [thread.name for thread in threading.enumerate() if thread.ident == ident]
        state = f"in thread {names[0]}" if names else "running"
    return f"{id(loop):#x} ({state})"


def after_turns(loop: asyncio.AbstractEventLoop, turns: int, callback: Callable[[], None]) -> None:
    """Call ``callback`` after ``turns`` further turns of the loop; at once for 0."""
    if turns:
        loop.call_soon(after_turns, loop, turns - 1, callback)
    else:
        callback()


class Home:
    """Tells whether code runs where a connection belongs: on its event loop, so in one thread of one process."""

    __slots__ = ("forked_from", "loop", "name", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        #: The object, as its error names it.
        self.name: str = "the connection to a peer"
        #: The thread in which the loop runs; 0 in a forked child.
        self.thread: int = threading.get_ident()
        #: In a forked child the process that has the connection, else 0.
        self.forked_from: int = 0

    @property
    def present(self) -> bool:
        """Whether the loop is one of this process, and open."""
        return not (self.forked_from or self.loop.is_closed())

    def check(self) -> None:
        """Raise ``WrongLoop`` unless the connection's own loop runs here."""
        if running_loop() is not self.loop or self.forked_from:
            raise self.wrong_loop()
        self.thread = threading.get_ident()

    def wrong_loop(self) -> WrongLoop:
        """Return the error for a use from another place."""
        return wrong_loop(self.name, self.loop, self.forked_from)

    def disown(self, owner: int) -> None:
        """Leave the connection to the process ``owner`` that this one was forked from."""
        self.forked_from = self.forked_from or owner
        self.thread = 0
