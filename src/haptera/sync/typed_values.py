# Generated from client/typed/typed_cache.py, client/typed/typed_database.py, client/typed/typed_streams.py,
# client/typed/typed_transaction.py by tools/generate_sync.py (make generate). Do not edit.
"""The calls of a database whose values are of a type of the program, for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Generic, Self, TypeVar, overload

from haptera.client import LeaseLike, TypedEntry, TypedEvent
from haptera.peer import DEFAULT, Timeout
from haptera.sync.batches import Transaction
from haptera.sync.facade import Facade

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client import TypedCache as AsyncTypedCache
    from haptera.client import TypedChanges as AsyncTypedChanges
    from haptera.client import TypedDatabase as AsyncTypedDatabase
    from haptera.client import TypedScan as AsyncTypedScan
    from haptera.client import TypedTransaction as AsyncTypedTransaction
    from haptera.client import TypedWatch as AsyncTypedWatch


T = TypeVar("T")


class TypedScan(Facade["AsyncTypedScan[T]"], Generic[T]):
    """A `Scan` that gives each entry with its type."""

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TypedEntry[T]:
        try:
            return self._run(self._inner.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    @property
    def revision(self) -> int | None:
        """The revision of the store that all of it is of; None before the end."""
        return self._inner.revision

    @property
    def count(self) -> int | None:
        """The number of entries; None before the end."""
        return self._inner.count

    @property
    def last_key(self) -> str | None:
        """The key of the last entry; None before the end, and where there was none."""
        return self._inner.last_key

    def aclose(self) -> None:
        """End the scan, at the server too. Harmless after the end."""
        self._run(self._inner.aclose)

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))

    def close(self) -> None:
        """As `aclose`, by the name that ``contextlib.closing`` knows."""
        self.aclose()


class TypedChanges(Facade["AsyncTypedChanges[T]"], Generic[T]):
    """The changes of a copy, as `TypedCache.changes` gives them."""

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TypedEvent[T]:
        try:
            return self._run(self._inner.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def aclose(self) -> None:
        """End the iteration."""
        self._run(self._inner.aclose)

    def close(self) -> None:
        """As `aclose`, by the name that ``contextlib.closing`` knows."""
        self.aclose()


class TypedWatch(Facade["AsyncTypedWatch[T]"], Generic[T]):
    """A `Watch` that gives each event with its type. After an error of a value it goes on."""

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TypedEvent[T]:
        try:
            return self._run(self._inner.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    @property
    def revision(self) -> int | None:
        """The newest revision of which every change has arrived; None before the watch has begun."""
        return self._inner.revision

    @property
    def server_id(self) -> bytes | None:
        """The server whose revisions they are, by its id of 16 bytes; None before the watch has begun."""
        return self._inner.server_id

    @property
    def ready(self) -> bool:
        """Whether the next event has arrived."""
        return self._inner.ready

    def aclose(self) -> None:
        """End the watch, at the server too."""
        self._run(self._inner.aclose)

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))

    def close(self) -> None:
        """As `aclose`, by the name that ``contextlib.closing`` knows."""
        self.aclose()


class TypedCache(Facade["AsyncTypedCache[T]"], Generic[T]):
    """A `Cache` whose values have a type. It keeps their bytes, so each reader gets an object of its own."""

    __slots__ = ()

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
        return self._inner.get(key)

    def __contains__(self, key: object) -> bool:
        return self._inner.__contains__(key)

    def __len__(self) -> int:
        return self._inner.__len__()

    def __iter__(self) -> Iterator[str]:
        return iter(self._on_loop(lambda: list(self._inner)))

    @property
    def fresh_at(self) -> float:
        """Unix time in seconds of the latest moment of which it is known that each change from before it is here."""
        return self._inner.fresh_at

    @property
    def revision(self) -> int | None:
        """The newest revision of which every change is here; None while the entries are read again."""
        return self._inner.revision

    @property
    def ended(self) -> bool:
        """Whether the copy is not kept any more."""
        return self._inner.ended

    @property
    def error(self) -> BaseException | None:
        """Why the copy is not kept at this moment."""
        return self._inner.error

    def on_change(self, callback: Callable[[TypedEvent[T]], None]) -> None:
        """Have ``callback`` called with each change, after the copy has it.

        Args:
            callback: It is called on the loop, and must not wait. An error that it raises is logged, and so is a change
                whose value does not fit the type.
        """
        self._inner.on_change(callback)

    def changes(self) -> TypedChanges[T]:
        """Iterate over the changes from this call on, as `Cache.changes` does.

        Returns:
            An iterator of events. A value that does not fit raises ``UnexpectedValue`` in its turn.
        """
        return TypedChanges(self._on_loop(self._inner.changes), self)

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))


class TypedTransaction(Facade["AsyncTypedTransaction[T]"], Generic[T]):
    """A view of a `Transaction`: values of several types, and of none, may be read and written in one."""

    __slots__ = ()

    def get(self, key: str) -> TypedEntry[T] | None:
        """Read one key, as `Transaction.get` does.

        Args:
            key: Its name.

        Returns:
            The entry, or None if there is none.

        Raises:
            UnexpectedValue: The value does not fit the type.
        """
        return self._run(lambda: self._inner.get(key))

    def get_many(self, keys: Iterable[str]) -> list[TypedEntry[T] | None]:
        """Read several keys in one call, as `Transaction.get_many` does.

        Args:
            keys: Their names.

        Returns:
            As `get`, in the same order.
        """
        return self._run(lambda: self._inner.get_many(keys))

    def set(
        self, key: str, value: T, *, ttl: float | None = None, keep_ttl: bool = False, lease: LeaseLike | None = None
    ) -> None:
        """Store a value with the commit.

        Args:
            key: Its name.
            value: A value of the type.
            ttl, keep_ttl, lease: As for `Transaction.set`.

        Raises:
            UnexpectedValue: A part of the value is of another type. Nothing of it is written.
        """
        self._inner.set(key, value, ttl=ttl, keep_ttl=keep_ttl, lease=lease)


class TypedDatabase(Facade["AsyncTypedDatabase[T]"], Generic[T]):
    """A database whose values are of one type. Made by `Database.typed`.

    Its calls take the arguments of the calls of `Database` that have their names, and raise their errors. A stored
    value that does not fit the type is ``haptera.errors.UnexpectedValue``, with its ``key`` and the ``reason``. Calls
    without a value, such as ``delete``, are made with the `Database`.
    """

    __slots__ = ()

    def get(
        self, key: str, *, at_revision: int | None = None, at_time: float | None = None, timeout: Timeout = DEFAULT
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
        return self._run(lambda: self._inner.get(key, at_revision=at_revision, at_time=at_time, timeout=timeout))

    def get_many(
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
        return self._run(lambda: self._inner.get_many(keys, at_revision=at_revision, at_time=at_time, timeout=timeout))

    def set(
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
        return self._run(
            lambda: self._inner.set(
                key,
                value,
                if_version=if_version,
                if_absent=if_absent,
                if_present=if_present,
                ttl=ttl,
                keep_ttl=keep_ttl,
                lease=lease,
                fence=fence,
                timeout=timeout,
            )
        )

    def get_and_set(
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
        return self._run(
            lambda: self._inner.get_and_set(
                key,
                value,
                if_version=if_version,
                if_absent=if_absent,
                if_present=if_present,
                ttl=ttl,
                keep_ttl=keep_ttl,
                lease=lease,
                fence=fence,
                timeout=timeout,
            )
        )

    def get_and_delete(self, key: str, *, fence: int | None = None, timeout: Timeout = DEFAULT) -> TypedEntry[T] | None:
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
        return self._run(lambda: self._inner.get_and_delete(key, fence=fence, timeout=timeout))

    def get_and_expire(
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
        return self._run(lambda: self._inner.get_and_expire(key, ttl=ttl, fence=fence, timeout=timeout))

    @overload
    def set_many(
        self,
        items: Mapping[str, T],
        *,
        ttl: float | None = None,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> int: ...

    @overload
    def set_many(
        self,
        items: Iterable[tuple[str, T]],
        *,
        ttl: float | None = None,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> int: ...

    def set_many(
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
        return self._run(lambda: self._inner.set_many(items, ttl=ttl, lease=lease, fence=fence, timeout=timeout))

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
            An iterator of entries. A value that does not fit raises ``UnexpectedValue`` in its turn, and the next
            ``anext`` gives the entry behind it.
        """
        return TypedScan(
            self._inner.scan(
                prefix=prefix,
                start=start,
                end=end,
                glob=glob,
                limit=limit,
                reverse=reverse,
                at_revision=at_revision,
                at_time=at_time,
                timeout=timeout,
            ),
            self,
        )

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
            An iterator of events. A value that does not fit raises ``UnexpectedValue`` in its turn, and the next
            ``anext`` gives the event behind it.
        """
        return TypedWatch(
            self._inner.watch(
                key,
                prefix=prefix,
                start_revision=start_revision,
                initial=initial,
                previous=previous,
                progress_interval=progress_interval,
                timeout=timeout,
            ),
            self,
        )

    def cached(self, *, prefix: str, max_staleness: float | None = None, timeout: Timeout = DEFAULT) -> TypedCache[T]:
        """Keep the entries with a prefix in this process.

        Args:
            prefix, max_staleness: As for `Database.cached`.
            timeout: As for `Database.cached`.

        Returns:
            The copy, which is whole when ``with`` has entered it.
        """
        return TypedCache(self._inner.cached(prefix=prefix, max_staleness=max_staleness, timeout=timeout), self)

    def within(self, transaction: Transaction) -> TypedTransaction[T]:
        """Read and write values of this type in a transaction: ``configs.within(tx).set(key, config)``.

        Args:
            transaction: A transaction of the same database. It is committed as it would be without this.

        Returns:
            The view of it.
        """
        return TypedTransaction(self._inner.within(transaction._inner), self)
