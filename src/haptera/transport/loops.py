"""Where an object belongs: to one event loop, and so to one thread of one process."""

import asyncio
import os
import threading
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from typing import Any, Final

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


def let_go(sock: Any, *, may_be_stale: bool) -> None:
    """Close a socket whose loop cannot: the loop is its parent's, in a forked child, or is closed.

    Nothing is shut down, so that the parent's connection goes on. The descriptor's number stays taken, by
    ``/dev/null``: asyncio's transport still means to close it, and must not close the file that would get the number
    next. ``may_be_stale`` says that the transport has closed: uvloop's then still names a number that may be another
    file's by now.
    """
    if not hasattr(sock, "fileno") or (may_be_stale and not isinstance(sock, TransportSocket)):
        return  # a transport in memory has none
    descriptor = sock.fileno()
    if descriptor >= 0:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.dup2(nothing, descriptor, inheritable=False)
        finally:
            os.close(nothing)
