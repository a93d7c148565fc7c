"""A watch: the changes of some keys, as an asynchronous iterator."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final, Literal, Self

import msgspec

from haptera.client.entry import Entry, entry_of
from haptera.errors import Code, RemoteProtocolError

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client.watched import Happened, WatchPosition

EventKind = Literal["present", "put", "delete", "expire", "synced"]

_KINDS: Final[tuple[EventKind, ...]] = ("present", "put", "delete", "expire")


class Event(msgspec.Struct, frozen=True):
    """One change of a key.

    ``kind`` is ``"put"``, ``"delete"`` or ``"expire"``. A watch with ``initial`` begins with ``"present"`` for each
    entry that is there, and then once ``"synced"``, with an empty key: all that was there has been given. ``value`` is
    the new value, None where there is none. ``version`` is the store's revision of the change, for ``"present"`` that
    of the entry. ``previous`` is the entry of before, if it was asked for and there was one. ``expires_at`` is Unix
    time in seconds, or None for a key that does not expire.
    """

    kind: EventKind
    key: str
    value: bytes | None
    version: int
    previous: Entry | None = None
    expires_at: float | None = None

    @property
    def text(self) -> str:
        """The value as text, empty where there is none; raises ``UnicodeDecodeError`` if it is not UTF-8."""
        return (self.value or b"").decode()


class Watch:
    """The changes of some keys, each once and in the order of their revisions (spec/protocol.md, section 7).

    ``async for event in db.watch(...)``. It begins with the first event that is waited for, or, as
    ``async with db.watch(...) as events``, before the block. It goes on over lost connections from where it was, until
    it is closed: a loop that is left early ends it as soon as the object is dropped, `aclose` at a known place.
    """

    __slots__ = ("_events", "_items", "_position")

    def __init__(self, items: AsyncGenerator[list[Happened], None], position: WatchPosition) -> None:
        self._items = items
        self._position = position
        self._events: deque[Event] = deque()  # of one ITEM

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            await self._next_item()
        return self._events.popleft()

    @property
    def revision(self) -> int | None:
        """The newest revision of which every change has arrived; None before the watch has begun. Progress marks raise
        it although nothing has changed.
        """
        return self._position.seen

    @property
    def ready(self) -> bool:
        """Whether the next event has arrived."""
        return bool(self._events)

    async def aclose(self) -> None:
        """End the watch, at the server too."""
        self._events.clear()
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        while not self._position.begun:
            await self._next_item()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _next_item(self) -> None:
        was_synced = self._position.synced
        self._events.extend(map(_event_of, await anext(self._items)))
        if self._position.synced and not was_synced:
            assert self._position.seen is not None
            self._events.append(Event("synced", "", None, self._position.seen))


def _event_of(event: Happened) -> Event:
    if event.kind >= len(_KINDS):
        raise RemoteProtocolError(Code.MALFORMED_FRAME, f"the server's event is of the unknown kind {event.kind}")
    previous, expires = event.previous, event.expires_at_ms
    before = None if previous is None else entry_of(event.key, previous.value, previous.version, previous.expires_at_ms)
    expires_at = None if expires is None else expires / 1000
    return Event(_KINDS[event.kind], event.key, event.value, event.version, before, expires_at)
