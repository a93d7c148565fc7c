"""Scans and watches whose values are of a type of the program.

A value that does not fit raises ``UnexpectedValue`` in its turn, and ends nothing: the next ``anext`` gives the next
one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client.calls.scan import Scan
    from haptera.client.typed.typed_entries import EntryCodec, TypedEntry, TypedEvent
    from haptera.client.watches.event import Event
    from haptera.client.watches.watch import Watch

T = TypeVar("T")


class TypedScan(Generic[T]):
    """A `Scan` that gives each entry with its type."""

    __slots__ = ("_codec", "_scan")

    def __init__(self, scan: Scan, codec: EntryCodec[T]) -> None:
        self._scan = scan
        self._codec = codec

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TypedEntry[T]:
        return self._codec.entry(await anext(self._scan))

    @property
    def revision(self) -> int | None:
        """The revision of the store that all of it is of; None before the end."""
        return self._scan.revision

    @property
    def count(self) -> int | None:
        """The number of entries; None before the end."""
        return self._scan.count

    @property
    def last_key(self) -> str | None:
        """The key of the last entry; None before the end, and where there was none."""
        return self._scan.last_key

    async def aclose(self) -> None:
        """End the scan, at the server too. Harmless after the end."""
        await self._scan.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<haptera TypedScan of {self._codec.name}>"


class TypedChanges(Generic[T]):
    """The changes of a copy, as `TypedCache.changes` gives them."""

    __slots__ = ("_codec", "_events")

    def __init__(self, events: AsyncGenerator[Event, None], codec: EntryCodec[T]) -> None:
        self._events = events
        self._codec = codec

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TypedEvent[T]:
        return self._codec.event(await anext(self._events))

    async def aclose(self) -> None:
        """End the iteration."""
        await self._events.aclose()


class TypedWatch(Generic[T]):
    """A `Watch` that gives each event with its type. After an error of a value it goes on."""

    __slots__ = ("_codec", "_watch")

    def __init__(self, watch: Watch, codec: EntryCodec[T]) -> None:
        self._watch = watch
        self._codec = codec

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TypedEvent[T]:
        return self._codec.event(await anext(self._watch))

    @property
    def revision(self) -> int | None:
        """The newest revision of which every change has arrived; None before the watch has begun."""
        return self._watch.revision

    @property
    def server_id(self) -> bytes | None:
        """The server whose revisions they are, by its id of 16 bytes; None before the watch has begun."""
        return self._watch.server_id

    @property
    def ready(self) -> bool:
        """Whether the next event has arrived."""
        return self._watch.ready

    async def aclose(self) -> None:
        """End the watch, at the server too."""
        await self._watch.aclose()

    async def __aenter__(self) -> Self:
        await self._watch.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<haptera TypedWatch of {self._codec.name}>"
