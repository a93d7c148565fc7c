"""A local copy whose values are of a type of the program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from haptera.client.typed.typed_streams import TypedChanges

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client.typed.typed_entries import EntryCodec, TypedEntry, TypedEvent
    from haptera.client.watches.cache import Cache
    from haptera.client.watches.event import Event

T = TypeVar("T")


class TypedCache(Generic[T]):
    """A `Cache` whose values have a type. It keeps their bytes, so each reader gets an object of its own."""

    __slots__ = ("_cache", "_codec")

    def __init__(self, cache: Cache, codec: EntryCodec[T]) -> None:
        self._cache = cache
        self._codec = codec

    def get(self, key: str) -> TypedEntry[T] | None:
        """Look a key up.

        Args:
            key: Its name.

        Returns:
            The entry, or None if there is none.

        Raises:
            UnexpectedValue: The value does not fit the type.
            ConnectionLost: The copy is older than ``max_staleness`` seconds.
        """
        return self._codec.present(self._cache.get(key))

    def __contains__(self, key: object) -> bool:
        return key in self._cache

    def __len__(self) -> int:
        return len(self._cache)

    def __iter__(self) -> Iterator[str]:
        return iter(self._cache)

    @property
    def fresh_at(self) -> float:
        """Unix time in seconds of the latest moment of which it is known that each change from before it is here."""
        return self._cache.fresh_at

    @property
    def revision(self) -> int | None:
        """The newest revision of which every change is here; None while the entries are read again."""
        return self._cache.revision

    @property
    def ended(self) -> bool:
        """Whether the copy is not kept any more."""
        return self._cache.ended

    @property
    def error(self) -> BaseException | None:
        """Why the copy is not kept at this moment."""
        return self._cache.error

    def on_change(self, callback: Callable[[TypedEvent[T]], None]) -> None:
        """Have ``callback`` called with each change, after the copy has it.

        Args:
            callback: It is called on the loop, and must not wait. An error that it raises is logged, and so is a change
                whose value does not fit the type.
        """

        def told(event: Event) -> None:
            callback(self._codec.event(event))

        self._cache.on_change(told)

    def changes(self) -> TypedChanges[T]:
        """Iterate over the changes from this call on, as `Cache.changes` does.

        Returns:
            An asynchronous iterator of events. A value that does not fit raises ``UnexpectedValue`` in its turn.
        """
        return TypedChanges(self._cache.changes(), self._codec)

    async def __aenter__(self) -> Self:
        await self._cache.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._cache.__aexit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<haptera TypedCache of {self._codec.name}: {len(self)} keys>"
