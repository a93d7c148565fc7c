"""The event loop of a connection, and with it the one thread of one process that may use it."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING

from haptera.transport import running_loop, wrong_loop

if TYPE_CHECKING:
    import asyncio

    from haptera.errors import WrongLoop


class Home:
    """Tells whether code runs where a connection belongs."""

    __slots__ = ("forked_from", "loop", "name", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: The object, as its error names it.
        self.name = "the connection to a peer"
        #: The thread in which the loop runs; 0 in a forked child.
        self.thread = get_ident()
        #: In a forked child the process that has the connection, else 0.
        self.forked_from = 0

    @property
    def present(self) -> bool:
        """Whether the loop is one of this process, and open."""
        return not (self.forked_from or self.loop.is_closed())

    def check(self) -> None:
        """Raise ``WrongLoop`` unless the connection's own loop runs here."""
        if running_loop() is not self.loop or self.forked_from:
            raise self.wrong_loop()
        self.thread = get_ident()

    def wrong_loop(self) -> WrongLoop:
        """Return the error for a use from another place."""
        return wrong_loop(self.name, self.loop, self.forked_from)

    def disown(self, owner: int) -> None:
        """Leave the connection to the process ``owner`` that this one was forked from."""
        self.forked_from = self.forked_from or owner
        self.thread = 0
