"""Entries and events whose values are of a type of the program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from haptera.client.watches.event import Event, EventKind
from haptera.errors import Outcome, UnexpectedValue
from haptera.value_codecs import Misfit, ValueCodec

if TYPE_CHECKING:
    from haptera.client.calls.entry import Entry

T = TypeVar("T")


class TypedEntry(msgspec.Struct, Generic[T], frozen=True):
    """An `Entry` whose ``value`` is of the program's type. The other fields are the same."""

    key: str
    value: T
    version: int
    expires_at: float | None = None


class TypedEvent(msgspec.Struct, Generic[T], frozen=True):
    """An `Event` whose ``value`` is of the program's type, as is that of ``previous``. The other fields are the same.

    Where ``previous_omitted`` is true, ``previous`` is None, because its value is not there.
    """

    kind: EventKind
    key: str
    value: T | None
    version: int
    previous: TypedEntry[T] | None = None
    expires_at: float | None = None
    time: float | None = None
    user: str | None = None
    previous_omitted: bool = False


class EntryCodec(Generic[T]):
    """Gives the values of entries their type, and values their bytes. Raises ``UnexpectedValue`` with the key."""

    __slots__ = ("_codec",)

    def __init__(self, codec: ValueCodec[T]) -> None:
        self._codec = codec

    @property
    def name(self) -> str:
        """The name of the type."""
        return self._codec.name

    def encoded(self, key: str, value: T) -> bytes:
        """The bytes of a value that is to be written."""
        try:
            return self._codec.encode(value)
        except Misfit as misfit:
            raise self._unexpected(key, misfit, "not_applied") from None

    def encoded_items(self, items: list[tuple[str, T]]) -> list[tuple[str, bytes]]:
        """The bytes of several values."""
        return [(key, self.encoded(key, value)) for key, value in items]

    def entry(self, entry: Entry, outcome: Outcome = "not_applied") -> TypedEntry[T]:
        """An entry with its type. ``outcome`` is that of the call which has read it."""
        return TypedEntry(entry.key, self._decoded(entry.key, entry.value, outcome), entry.version, entry.expires_at)

    def present(self, entry: Entry | None, outcome: Outcome = "not_applied") -> TypedEntry[T] | None:
        """As `entry`, of an entry if there is one."""
        return None if entry is None else self.entry(entry, outcome)

    def entries(self, entries: list[Entry | None]) -> list[TypedEntry[T] | None]:
        """As `present`, of several."""
        return [self.present(entry) for entry in entries]

    def event(self, event: Event) -> TypedEvent[T]:
        """An event with its type."""
        value = None if event.value is None else self._decoded(event.key, event.value, "not_applied")
        return TypedEvent(
            event.kind,
            event.key,
            value,
            event.version,
            None if event.previous_omitted else self.present(event.previous),
            event.expires_at,
            event.time,
            event.user,
            event.previous_omitted,
        )

    def _decoded(self, key: str, value: bytes, outcome: Outcome) -> T:
        try:
            return self._codec.decode(value)
        except Misfit as misfit:
            raise self._unexpected(key, misfit, outcome) from None

    def _unexpected(self, key: str, misfit: Misfit, outcome: Outcome) -> UnexpectedValue:
        return UnexpectedValue(f"the value of {key!r}", self.name, str(misfit), outcome, key=key)
