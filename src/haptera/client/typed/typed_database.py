"""The calls of a database that have values, with a type for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from haptera.client.calls.slices import in_slices
from haptera.client.typed.typed_cache import TypedCache
from haptera.client.typed.typed_entries import EntryCodec, TypedEntry
from haptera.client.typed.typed_streams import TypedScan, TypedWatch
from haptera.client.typed.typed_transaction import TypedTransaction
from haptera.peer import DEFAULT, Timeout

if TYPE_CHECKING:
    from haptera.client.calls.argument_checks import LeaseLike
    from haptera.client.calls.transaction import Transaction
    from haptera.client.database import Database
    from haptera.value_codecs import ValueCodec

T = TypeVar("T")


class TypedDatabase(Generic[T]):
    """A database whose values are of one type. Made by `Database.typed`.

    Its calls take the arguments of the calls of `Database` that have their names, and raise their errors. A stored
    value that does not fit the type is ``haptera.errors.UnexpectedValue``, with its ``key`` and the ``reason``. Calls
    without a value, such as ``delete``, are made with the `Database`.
    """

    __slots__ = ("_codec", "_database")

    def __init__(self, database: Database, codec: ValueCodec[T]) -> None:
        self._database = database
        self._codec = EntryCodec(codec)

    async def get(
        self,
        key: str,
        *,
        at_revision: int | None = None,
        at_time: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> TypedEntry[T] | None:
        """Read one key.

        Args:
            key: Its name.
            at_revision, at_time: As for `Database.get`.

        Returns:
            The entry, or None if there is none.

        Raises:
            UnexpectedValue: The value does not fit the type.
        """
        found = await self._database.get(key, at_revision=at_revision, at_time=at_time, timeout=timeout)
        return self._codec.present(found)

    async def get_many(
        self,
        keys: Iterable[str],
        *,
        at_revision: int | None = None,
        at_time: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> list[TypedEntry[T] | None]:
        """Read several keys at one revision.

        Args:
            keys: Their names.
            at_revision, at_time: As for `Database.get`.

        Returns:
            Their entries in the same order; None where there is none.

        Raises:
            UnexpectedValue: A value does not fit the type.
        """
        found = await self._database.get_many(keys, at_revision=at_revision, at_time=at_time, timeout=timeout)
        return await in_slices(found, self._codec.entries)

    async def set(
        self,
        key: str,
        value: T,
        *,
        if_version: int | None = None,
        if_absent: bool = False,
        if_present: bool = False,
        ttl: float | None = None,
        keep_ttl: bool = False,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> int:
        """Store a value.

        Args:
            key: Its name.
            value: A value of the type.
            if_version, if_absent, if_present, ttl, keep_ttl, lease, fence: As for `Database.set`.

        Returns:
            The new version.

        Raises:
            UnexpectedValue: A part of the value is of another type. Nothing was sent.
            VersionMismatch, KeyExists, KeyNotFound, LeaseNotFound, Fenced: As for `Database.set`.
        """
        return await self._database.set(
            key,
            self._codec.encoded(key, value),
            if_version=if_version,
            if_absent=if_absent,
            if_present=if_present,
            ttl=ttl,
            keep_ttl=keep_ttl,
            lease=lease,
            fence=fence,
            timeout=timeout,
        )

    async def get_and_set(
        self,
        key: str,
        value: T,
        *,
        if_version: int | None = None,
        if_absent: bool = False,
        if_present: bool = False,
        ttl: float | None = None,
        keep_ttl: bool = False,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> TypedEntry[T] | None:
        """Store a value as `set` does, and return the entry of before.

        Args:
            key, value, if_version, if_absent, if_present, ttl, keep_ttl, lease, fence: As for `set`.

        Returns:
            The entry of before, or None if there was none.

        Raises:
            UnexpectedValue: A part of the value is of another type (its outcome is ``not_applied``), or the value of
                before is (``applied``: the new one is stored).
            VersionMismatch, KeyExists, KeyNotFound, LeaseNotFound, Fenced: As for `Database.set`.
        """
        before = await self._database.get_and_set(
            key,
            self._codec.encoded(key, value),
            if_version=if_version,
            if_absent=if_absent,
            if_present=if_present,
            ttl=ttl,
            keep_ttl=keep_ttl,
            lease=lease,
            fence=fence,
            timeout=timeout,
        )
        return self._codec.present(before, "applied")

    async def get_and_delete(
        self, key: str, *, fence: int | None = None, timeout: Timeout = DEFAULT
    ) -> TypedEntry[T] | None:
        """Delete one key, and return its entry.

        Args:
            key: Its name.
            fence: As for `Database.set`.

        Returns:
            The entry of before, or None if there was none.

        Raises:
            UnexpectedValue: The value did not fit the type. The key is deleted: the outcome is ``applied``.
            Fenced: As for `Database.set`.
        """
        before = await self._database.get_and_delete(key, fence=fence, timeout=timeout)
        return self._codec.present(before, "applied")

    async def get_and_expire(
        self, key: str, *, ttl: float | None, fence: int | None = None, timeout: Timeout = DEFAULT
    ) -> TypedEntry[T] | None:
        """Read one key, and give it another time to live, in one step.

        Args:
            key: Its name.
            ttl: Seconds after which it expires; None: it does not expire any more.
            fence: As for `Database.set`.

        Returns:
            The entry with its new version and time, or None if there is none.

        Raises:
            UnexpectedValue: The value does not fit the type. The time is changed: the outcome is ``applied``.
            Fenced: As for `Database.set`.
        """
        found = await self._database.get_and_expire(key, ttl=ttl, fence=fence, timeout=timeout)
        return self._codec.present(found, "applied")

    @overload
    async def set_many(
        self,
        items: Mapping[str, T],
        *,
        ttl: float | None = None,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> int: ...

    @overload
    async def set_many(
        self,
        items: Iterable[tuple[str, T]],
        *,
        ttl: float | None = None,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> int: ...

    async def set_many(
        self,
        items: Mapping[str, T] | Iterable[tuple[str, T]],
        *,
        ttl: float | None = None,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> int:
        """Store several values with one version, all or none.

        Args:
            items: Keys and values of the type.
            ttl, lease, fence: As for `Database.set_many`.

        Returns:
            The new version.

        Raises:
            UnexpectedValue: A part of a value is of another type. Nothing was sent.
            LeaseNotFound, Fenced: As for `Database.set`.
        """
        pairs = list(items.items() if isinstance(items, Mapping) else items)
        encoded = await in_slices(pairs, self._codec.encoded_items)
        return await self._database.set_many(encoded, ttl=ttl, lease=lease, fence=fence, timeout=timeout)

    def scan(
        self,
        *,
        prefix: str | None = None,
        start: str | None = None,
        end: str | None = None,
        glob: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        at_revision: int | None = None,
        at_time: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> TypedScan[T]:
        """Iterate over the entries of a range.

        Args:
            prefix, start, end, glob, limit, reverse, at_revision, at_time: As for `Database.scan`.
            timeout: As for `Database.scan`.

        Returns:
            An asynchronous iterator of entries. A value that does not fit raises ``UnexpectedValue`` in its turn, and
            the next ``anext`` gives the entry behind it.
        """
        entries = self._database.scan(
            prefix=prefix,
            start=start,
            end=end,
            glob=glob,
            limit=limit,
            reverse=reverse,
            at_revision=at_revision,
            at_time=at_time,
            timeout=timeout,
        )
        return TypedScan(entries, self._codec)

    def watch(
        self,
        key: str | None = None,
        *,
        prefix: str | None = None,
        start_revision: int | None = None,
        initial: bool = False,
        previous: bool = False,
        progress_interval: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> TypedWatch[T]:
        """Follow the changes of one key, of the keys with a prefix, or of all keys.

        Args:
            key, prefix, start_revision, initial, previous, progress_interval: As for `Database.watch`.
            timeout: As for `Database.watch`.

        Returns:
            An asynchronous iterator of events. A value that does not fit raises ``UnexpectedValue`` in its turn, and
            the next ``anext`` gives the event behind it.
        """
        events = self._database.watch(
            key,
            prefix=prefix,
            start_revision=start_revision,
            initial=initial,
            previous=previous,
            progress_interval=progress_interval,
            timeout=timeout,
        )
        return TypedWatch(events, self._codec)

    def cached(self, *, prefix: str, max_staleness: float | None = None, timeout: Timeout = DEFAULT) -> TypedCache[T]:
        """Keep the entries with a prefix in this process.

        Args:
            prefix, max_staleness: As for `Database.cached`.
            timeout: As for `Database.cached`.

        Returns:
            The copy, which is whole when ``async with`` has entered it.
        """
        cache = self._database.cached(prefix=prefix, max_staleness=max_staleness, timeout=timeout)
        return TypedCache(cache, self._codec)

    def within(self, transaction: Transaction) -> TypedTransaction[T]:
        """Read and write values of this type in a transaction: ``configs.within(tx).set(key, config)``.

        Args:
            transaction: A transaction of the same database. It is committed as it would be without this.

        Returns:
            The view of it.
        """
        return TypedTransaction(transaction, self._codec)

    def __repr__(self) -> str:
        return f"<haptera TypedDatabase of {self._codec.name}>"
