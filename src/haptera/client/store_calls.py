"""The calls of a database about the node and the store as a whole, its beginning and end, and what each call needs."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Self, TypeVar

from haptera.client.argument_checks import checked_timeout
from haptera.client.backup_pieces import Backup
from haptera.client.channel import Channel, StreamEnd
from haptera.client.methods import BackedUp, Method, ServerMethods
from haptera.errors import Failure
from haptera.peer import DEFAULT, Timeout

if TYPE_CHECKING:
    from types import TracebackType

R = TypeVar("R")


class StoreCalls:
    """The calls about the store, over a channel."""

    __slots__ = ("_channel", "_timeout")

    def __init__(self, channel: Channel, timeout: float | None) -> None:
        self._channel = channel
        self._timeout = checked_timeout(timeout)

    @property
    def revision(self) -> int:
        """The store's revision in the last answer; 0 before the first. Right after a call it is that call's: for a read
        of the past, the revision that it is of.
        """
        return self._channel.revision

    @property
    def reached(self) -> str | None:
        """The node that has answered last, as a URL without options; None before the first answer.

        Of several hosts it says which one. For an embedded store it is the path of the data directory.
        """
        return self._channel.reached

    @property
    def connected_once(self) -> bool:
        """Whether there has ever been a connection, or an embedded store was opened.

        Until then nothing was sent: a change that is cancelled meanwhile was certainly not applied.
        """
        return self._channel.connected_once

    @property
    def closed(self) -> bool:
        """Whether it takes no more calls: it is closed or about to be, or the node of an embedded store has failed."""
        return self._channel.closed

    async def status(self, *, timeout: Timeout = DEFAULT) -> dict[str, Any]:
        """The status of the node: version, node_id, uptime_ms, durability, revision, keys and more."""
        return await self._call(ServerMethods.status, (), timeout)

    def backup(self, *, timeout: Timeout = DEFAULT) -> Backup:
        """Read a backup of the whole store as it is now: one revision, which the node keeps while the backup is read.

        A backup is encrypted, and ``haptera restore`` makes a data directory of it with the node's master key. Writes
        go on meanwhile. At the server a backup of which no piece is taken for 300 seconds ends with
        ``DeadlineExceeded``.

        Args:
            timeout: Seconds for the whole backup. Unless given, the wait for each piece is limited by the database's
                own timeout, and the whole backup by nothing.

        Returns:
            An asynchronous iterator of bytes.
        """
        end: StreamEnd[BackedUp] = StreamEnd()
        whole = None if timeout is DEFAULT else checked_timeout(timeout)
        piece = self._timeout if timeout is DEFAULT else None
        return Backup(self._channel.backup(end, piece, whole), end)

    async def drain(self, *, timeout: float = 30.0) -> None:
        """Take no more calls, wait for the ones under way, and close.

        Args:
            timeout: Seconds to wait at most.
        """
        await self._channel.drain(timeout)

    async def aclose(self) -> None:
        """Close. Calls under way end with ``ConnectionLost``. Harmless when closed already."""
        await self._channel.aclose()

    def __await__(self) -> Generator[Any, Any, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        await self._channel.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _call(
        self, method: Method[R], argument: tuple[Any, ...], timeout: Timeout, server_id: bytes | None = None
    ) -> R:
        result = await self._channel.call(
            method, argument, self._timeout if timeout is DEFAULT else checked_timeout(timeout), server_id
        )
        if isinstance(result, Failure):
            raise result.exception()
        return result
