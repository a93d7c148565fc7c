"""A peer that comes back: one connection after another to the same place, behind one object (docs/messaging.md)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from typing import TYPE_CHECKING, Final, Self

from haptera.errors import ConnectionLost, ServerError
from haptera.peer.backoff import Backoff
from haptera.peer.connector import Connector, Dial, Flight
from haptera.peer.kept_connection import KeptConnection
from haptera.peer.lasting_stream import LastingStream
from haptera.peer.limits import DRAIN_S
from haptera.peer.request_scope import current
from haptera.timeouts import DEFAULT, Timeout, check_timeout
from haptera.transport import warn_unclosed

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.peer.peer import Peer
    from haptera.transport import Address

#: Callbacks of one peer. A program has a few; one that adds some with each connection has forgotten them.
CALLBACKS_MAX: Final = 1000


class LastingPeer:
    """A peer that is dialled again whenever its connection has ended. ``haptera.dial(url, reconnect=True)`` makes one.

    Its services are hosted on each connection. A call waits for a connection while there is none, for as long as it has
    time. One that was lost with its connection is sent again only where it was certainly not applied; else it fails
    with ``ConnectionLost``, whose ``outcome`` is ``unknown``. ``async with`` closes it.
    """

    def __init__(self, keeper: KeptConnection, shown: str, call_timeout_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._keeper = keeper
        self._connector = keeper.connector
        self._shown = shown
        self._call_timeout_s = call_timeout_s
        self._home = keeper.home
        self._task = loop.create_task(keeper.run())

    def __del__(self) -> None:
        task: asyncio.Task[None] | None = getattr(self, "_task", None)  # none after an error in __init__
        if task is None or self._connector.closed or self._home.forked_from:
            return
        if not task.done() or self._connector.connection_open:
            warn_unclosed(self, f"haptera.LastingPeer {self._shown}")
        if self._home.present:
            self._home.loop.call_soon_threadsafe(task.cancel)  # the collector may run in any thread

    def __repr__(self) -> str:
        state = "closed" if self.closed else "connected" if self.connected else "not connected"
        return f"<haptera.LastingPeer {self._shown} {state}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- calls ------------------------------------------------------------------------------------------------------

    async def call(
        self,
        service: str,
        method: str,
        payload: bytes = b"",
        *,
        items: AsyncIterable[bytes] | None = None,
        timeout: Timeout = DEFAULT,
    ) -> bytes:
        """Call a method of the other side.

        Args:
            service: The name of the service.
            method: The name of its method.
            payload: The argument.
            items: Items to send behind the request. A call with items is sent once, because they cannot be made again.
            timeout: Seconds, the wait for a connection included; 5 unless the URL says otherwise, None for no limit.

        Returns:
            The result.

        Raises:
            ServerError: The error that the other side has answered with.
            ConnectionLost: There is no connection in time, or one is refused for a reason that stays: the outcome is
                ``not_applied``. Or the connection has ended before the answer: ``unknown``.
            WrongLoop: This is another event loop or process than the one that has dialled.
        """
        deadline = self._keeper.deadline(self._call_timeout_s if timeout is DEFAULT else timeout)
        attempt = 0
        while True:
            peer = await self._keeper.connection(deadline)
            try:
                result = await peer.call(service, method, payload, items=items, timeout=self._keeper.left(deadline))
            except (ConnectionLost, ServerError) as error:
                attempt += 1
                if not self._keeper.passes(peer, error, again=items is None):
                    raise
                await self._keeper.pause(attempt, deadline)
            else:
                self._connector.answered(peer)
                return result

    def stream(
        self,
        service: str,
        method: str,
        payload: bytes = b"",
        *,
        items: AsyncIterable[bytes] | None = None,
        timeout: float | None = None,
    ) -> LastingStream:
        """Call a method that answers with items. While there is no connection it begins with the first of them.

        Args:
            service: The name of the service.
            method: The name of its method.
            payload: The argument.
            items: Items to send behind the request.
            timeout: Seconds that the whole answer may take, the wait for a connection included; None for no limit.

        Returns:
            The items, to iterate over. Iterating raises as ``call`` does. A connection that ends when some items have
            come ends the stream with ``ConnectionLost``: the program knows where to go on.
        """
        return LastingStream(self._keeper, (service, method, payload), items, self._keeper.deadline(timeout))

    # -- the connection ---------------------------------------------------------------------------------------------

    @property
    def peer(self) -> Peer | None:
        """The present connection; None while there is none. It has the names and numbers of the other side."""
        return self._keeper.peer

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self.peer is not None

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is not dialled any more because the other side refuses it for good."""
        return self._connector.closed or self._keeper.refused is not None

    @property
    def error(self) -> ConnectionLost | None:
        """Why it is not dialled any more, where that is a refusal, such as ``AuthenticationFailed``."""
        return self._keeper.refused

    def on_connect(self, callback: Callable[[Peer], object]) -> None:
        """Have a function called with each connection, once the other side has welcomed it; soon if there is one now.

        ``Peer.on_close`` of the connection tells its end. At most 1,000 functions may be registered.

        Args:
            callback: The function. Its exception goes to the exception handler of the event loop.
        """
        self._home.check()
        callbacks = self._keeper.callbacks
        if len(callbacks) >= CALLBACKS_MAX:
            raise ValueError(f"a peer has at most {CALLBACKS_MAX} functions to call")
        callbacks.append(callback)
        if self.peer is not None and self.peer is self._keeper.told:
            self._home.loop.call_soon(callback, self.peer)

    async def ready(self, timeout: float | None = None) -> None:
        """Wait until there is a connection.

        Args:
            timeout: Seconds to wait at most; None for no limit.

        Raises:
            ConnectionLost: There is none in time, or none is dialled any more.
        """
        await self._keeper.connection(self._keeper.deadline(timeout))

    async def drain(self, timeout: float = DRAIN_S) -> None:
        """End in an orderly way, as ``Peer.drain`` does. Calls that wait for a connection are refused.

        Args:
            timeout: Seconds after which the rest is given up.
        """
        if self._home.present:
            self._home.check()
            self._connector.retire()
            self._task.cancel()
            await self._connector.drain(timeout)
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connection and dial no other. Calls under way fail with ``ConnectionLost``."""
        if not self._home.present:
            if not self._home.forked_from:
                self._connector.abandon()  # its loop is closed
            return
        self._home.check()
        self._task.cancel()
        await self._connector.aclose()
        await asyncio.wait((self._task,))


async def dial_lasting(
    address: Address, dial: Dial, *, timeout: float | None, call_timeout_s: float | None
) -> LastingPeer:
    """Dial until there is a connection, for ``timeout`` seconds, and keep one from then on.

    Raises ``ConnectionLost`` as soon as it is refused for a reason that stays, and when the time is over.
    """
    if timeout is not None:
        check_timeout(timeout)
    shown = str(address).partition("?")[0]
    backoff = Backoff()
    connector = Connector(address, shown, backoff, dial)
    deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
    scope = current.set(None)  # its connections are not on behalf of the request in which it is dialled
    try:
        await connector.connected(deadline, Flight.WELCOMED)
        return LastingPeer(KeptConnection(connector, backoff, shown), shown, call_timeout_s)
    except BaseException:
        await connector.aclose()
        raise
    finally:
        current.reset(scope)
