"""The changes of keys for one connection: a watch of the node, whose ITEMs become messages of RESP.

A connection that takes its messages too slowly is no burden: its watch falls behind and reads the event history on as
far as there is room (`haptera.node.watches`), and ends when it makes no progress, or when its events are gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from haptera.errors import Code, Failure, failure

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from haptera.dialects.resp.resp_session import RespSession
    from haptera.node.commands import operations

#: The kinds of changes (spec/protocol.md, section 7).
PUT: Final = 1
DELETE: Final = 2
EXPIRE: Final = 3


class Change(NamedTuple):
    """One change of a key: its value and its end of after, and the entry of before where there was one.

    ``previous`` is the value, the version and the end of before; its value is None where both are very large.
    """

    kind: int
    key: str
    value: bytes | None
    version: int
    previous: tuple[bytes | None, int, int | None] | None
    expires_at_ms: int | None


_decode: Final = msgspec.msgpack.Decoder(tuple[int, list[Change], bool]).decode


class DecodedItems:
    """The changes of the ITEM that was decoded last: the connections that watch the same keys get the same ITEM."""

    __slots__ = ("_changes", "_item")

    def __init__(self) -> None:
        self._item = b""
        self._changes: list[Change] = []

    def changes_of(self, item: bytes) -> list[Change]:
        """The changes in an ITEM of a watch."""
        if item is not self._item:
            self._item, self._changes = item, _decode(item)[1]
        return self._changes


class ChangeFeed:
    """The feed of one watch of a connection (`haptera.node.watches.Feed`).

    ``take`` is called with the changes as they come, and ``ended`` with the reason if the watch ends by itself.
    """

    __slots__ = ("_closed", "_ended", "_follower", "_room", "_session", "_take")

    def __init__(
        self, session: RespSession, take: Callable[[list[Change]], None], ended: Callable[[Failure], None]
    ) -> None:
        self._session = session
        self._take = take
        self._ended = ended
        self._closed = False
        self._follower: Any = None
        self._room: list[asyncio.Future[None]] = []  # of the one task of the watch

    def open(self, op: operations.OpenWatch) -> Failure | None:
        """Begin the watch, or tell why it is refused."""
        opened = self._session.caller.watch(op, self)
        if isinstance(opened, Failure):
            return opened
        self._follower = opened
        self._session.at_room.append(self._wake)
        return None

    def close(self) -> None:
        """End the watch."""
        if not self._closed:
            self._leave()
            if self._follower is not None:
                self._session.caller.close_watch(self._follower, failure(Code.CANCELLED, outcome="not_applied"))

    def _leave(self) -> None:
        self._closed = True
        if self._wake in self._session.at_room:
            self._session.at_room.remove(self._wake)
        self._wake()

    # -- called by the node -----------------------------------------------------------------------------------------

    def try_send(self, item: bytes) -> bool:
        """Take an ITEM, if there is room for its messages."""
        if self._session.connection.full:
            return False
        changes = self._session.state.items.changes_of(item)
        if changes and not self._closed:
            self._session.connection.guarded(self._take, changes)
        return True

    @staticmethod
    def try_send_all(feeds: Sequence[Any], item: bytes) -> list[int]:
        """Hand an ITEM to several feeds; the places of those that have no room."""
        return [place for place, feed in enumerate(feeds) if not feed.try_send(item)]

    async def send(self, item: bytes) -> None:
        """Take an ITEM as soon as there is room."""
        while not self.try_send(item):
            await self.room()

    async def room(self) -> None:
        """Wait until there is room."""
        while self._session.connection.full and not self._closed:
            waiter = self._session.connection.loop.create_future()
            self._room.append(waiter)
            await waiter

    async def left(self) -> None:
        """Wait until there is room: messages that were written leave in their order."""
        await self.room()

    def fail(self, reason: Failure) -> None:
        """The watch has ended."""
        if not self._closed:
            self._leave()
            self._session.connection.guarded(self._ended, reason)

    def _wake(self) -> None:
        waiting, self._room = self._room, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
