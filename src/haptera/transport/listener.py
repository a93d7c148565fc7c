"""A listener: the sockets of one address, from the first connection that they take to the last."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from haptera import forks
from haptera.transport.bind_sockets import cannot_listen, check_single, group_id
from haptera.transport.loop_network import Accept, BoundSockets, network_here
from haptera.transport.loop_ownership import after_turns, running_loop, wrong_loop
from haptera.transport.sockets import let_go

if TYPE_CHECKING:
    from haptera.transport.address import Address

#: Turns of the loop after which a listener is closed. A connection that the kernel has accepted until then would be
#: reset, and its first flight lost without a word: one turn to see it, one to accept it, one to hand it over.
_CLOSING_TURNS: Final = 3


class Listener:
    """The sockets that one URL is listened on by, until ``close``. ``open_listener`` makes it.

    ``url`` has the real port. ``disowned`` says that it was left to the process that this one was forked from.
    """

    def __init__(self, address: Address, bound: BoundSockets) -> None:
        self.url: str = bound.url
        self.disowned: bool = False
        self._address = address
        self._path = bound.path
        self._inode = 0 if bound.path is None else os.stat(bound.path).st_ino
        self._servers = bound.servers  # none once it is closed
        self._loop = asyncio.get_running_loop()
        forks.watch(self)

    @property
    def is_open(self) -> bool:
        """Whether nothing has closed it."""
        return bool(self._servers)

    async def start(self) -> None:
        """Take connections. Raises ``ConfigurationError`` where the system refuses.

        After an error or a cancellation nothing is listened on, because its caller will never have this listener.
        """
        started = False
        try:
            for server in self._servers:
                await server.start_serving()
            started = True
        except OSError as error:
            raise cannot_listen(self._address, error) from error
        finally:
            if not started:
                for server in self._servers:
                    server.close()
                self._servers = ()
                self._remove_file()

    def close(self) -> None:
        """Take no more connections. A forked child closes nothing of its parent's.

        Raises ``WrongLoop`` if another loop than the listener's runs here. Where that one is closed, the sockets
        are closed at once.
        """
        if self.disowned:
            return
        if self._loop.is_closed():
            self._let_go()
            self._remove_file()
        elif running_loop() is not self._loop:
            raise wrong_loop(f"the listener at {self.url}", self._loop)
        elif self._servers:
            for server in self._servers:
                after_turns(self._loop, _CLOSING_TURNS, server.close)
            self._servers = ()
            self._remove_file()

    async def wait_closed(self) -> None:
        """Wait, after ``close``, until each connection that the kernel had accepted has been handed over."""
        for _ in range(_CLOSING_TURNS + 1):
            await asyncio.sleep(0)

    def disown(self, owner: int) -> None:
        """Leave the sockets and their file to the process ``owner`` that this one was forked from (``haptera.forks``
        calls this).

        Here they are closed: the address is free as soon as the parent closes it, and no connection waits in a queue
        that nothing takes from.
        """
        self.disowned = True
        self._path = None
        self._let_go()

    def _let_go(self) -> None:
        servers, self._servers = self._servers, ()
        for server in servers:
            for sock in cast("asyncio.Server", server).sockets:
                let_go(sock, may_be_stale=self._loop.is_closed())

    def _remove_file(self) -> None:
        with suppress(FileNotFoundError):
            # Another process may have put its own socket in this place.
            if self._path is not None and os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)


async def open_listener(address: Address, *, mode: int, group: str | int | None, accept: Accept) -> Listener:
    """Return a listener that takes no connections before its ``start``.

    ``mode`` is the file mode of a Unix socket, ``group`` the name or number of its group. ``accept`` makes the protocol
    of each connection. Raises ``ConfigurationError``.
    """
    check_single(address)
    number = None if group is None else group_id(group)
    try:
        bound = await network_here().listen(address, mode, number, accept)
        try:
            return Listener(address, bound)
        except OSError:  # its file is gone already
            for server in bound.servers:
                server.close()
            raise
    except OSError as error:
        raise cannot_listen(address, error) from error
