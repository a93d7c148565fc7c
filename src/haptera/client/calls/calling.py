"""The needs of each call of a database: the channel to the store, and the time that the call may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from haptera.client.calls.argument_checks import checked_timeout
from haptera.errors import Failure
from haptera.peer import DEFAULT, Timeout

if TYPE_CHECKING:
    from haptera.client.calls.methods import Method
    from haptera.client.channels.channel import Channel
    from haptera.client.database import Database

R = TypeVar("R")


class Calling:
    """Makes calls over a channel, which take ``timeout`` seconds unless they say otherwise.

    The calls of a `Database` are classes beside each other, one for each subject, which extend this one.
    """

    def __init__(self, channel: Channel, timeout: float | None) -> None:
        self._channel = channel
        self._timeout = checked_timeout(timeout)

    @property
    def _database(self) -> Database:
        """The database that these calls are part of."""
        return cast("Database", self)

    async def _call(
        self, method: Method[R], argument: tuple[Any, ...], timeout: Timeout, server_id: bytes | None = None
    ) -> R:
        result = await self._channel.call(
            method, argument, self._timeout if timeout is DEFAULT else checked_timeout(timeout), server_id
        )
        if isinstance(result, Failure):
            raise result.exception()
        return result
