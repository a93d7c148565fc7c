"""The calls of a database that read and change keys: one, several, or those of a range."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar, overload

from haptera.client.calls.argument_checks import (
    LeaseLike,
    Value,
    change_options,
    checked_int,
    checked_timeout,
    condition,
    key_list,
    past_options,
    plain_items,
    plain_key,
    plain_keys,
    range_options,
    set_argument,
    set_options,
    text_option,
    ttl_ms_of,
    with_fence,
)
from haptera.client.calls.calling import Calling
from haptera.client.calls.entry import Entry, entry_of
from haptera.client.calls.methods import (
    Counted,
    Deleted,
    Existing,
    Found,
    FoundMany,
    Incremented,
    Method,
    Removed,
    Scanned,
    Stored,
    Taken,
    TimeLeft,
    Transacted,
    Written,
)
from haptera.client.calls.scan import Scan
from haptera.client.calls.slices import in_slices
from haptera.client.channels.channel import StreamEnd
from haptera.errors import Code, Failure, RemoteProtocolError
from haptera.key_rules import INT64_MAX, INT64_MIN, VERSION_MAX
from haptera.peer import DEFAULT, Timeout

R = TypeVar("R")


class KvMethods:
    """The methods of the service ``kv`` that read and change keys, each with the shape of its answer."""

    get: ClassVar[Method[Found]] = Method(Found, of_one_key=True)
    set: ClassVar[Method[Stored]] = Method(Stored, write=True, of_one_key=True)
    delete: ClassVar[Method[Deleted]] = Method(Deleted, write=True, of_one_key=True)
    exists: ClassVar[Method[Existing]] = Method(Existing, of_one_key=True)
    get_many: ClassVar[Method[FoundMany]] = Method(FoundMany)
    set_many: ClassVar[Method[Written]] = Method(Written, write=True)
    delete_many: ClassVar[Method[Removed]] = Method(Removed, write=True)
    increment: ClassVar[Method[Incremented]] = Method(Incremented, write=True, of_one_key=True)
    rename: ClassVar[Method[Written]] = Method(Written, write=True, of_one_key=True)
    scan: ClassVar[Method[Scanned]] = Method(Scanned)
    count: ClassVar[Method[Counted]] = Method(Counted)
    clear: ClassVar[Method[Removed]] = Method(Removed, write=True)
    get_and_delete: ClassVar[Method[Taken]] = Method(Taken, write=True, of_one_key=True)
    get_and_expire: ClassVar[Method[Found]] = Method(Found, write=True, of_one_key=True)
    expire: ClassVar[Method[Written]] = Method(Written, write=True, of_one_key=True)
    ttl: ClassVar[Method[TimeLeft]] = Method(TimeLeft, of_one_key=True)
    transact: ClassVar[Method[Transacted]] = Method(Transacted, write=True)


class KeyCalls(Calling):
    """The calls about keys and values."""

    # -- one key

    async def get(
        self,
        key: str,
        *,
        at_revision: int | None = None,
        at_time: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Entry | None:
        """Read one key, as it is or as it was.

            >>> version = await db.set("config/env", "prod")
            >>> entry = await db.get("config/env")
            >>> entry.text, entry.version == version
            ('prod', True)
            >>> await db.get("config/none") is None
            True

        Args:
            key: Its name.
            at_revision: The revision that is read: the store right after the change that made it.
            at_time: The Unix time in seconds that is read, in place of a revision.

        Returns:
            The entry, or None if there is none.

        Raises:
            RevisionCompacted: The node does not keep the change of that moment any more, or it is still to come.
        """
        if type(key) is not str:
            key = plain_key(key)
        argument: tuple[Any, ...] = (key,)
        if at_revision is not None or at_time is not None:
            argument = (key, past_options(at_revision, at_time))
        found = await self._channel.call(
            KvMethods.get, argument, self._timeout if timeout is DEFAULT else checked_timeout(timeout)
        )
        if type(found) is Found:
            return entry_of(key, found.value, found.version, found.expires_at_ms)
        assert isinstance(found, Failure)
        if found.code == Code.KEY_NOT_FOUND:
            return None
        raise found.exception()

    async def set(
        self,
        key: str,
        value: Value,
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
        """Store a value. Unless ``ttl``, ``keep_ttl`` or ``lease`` says otherwise, the key stays until it is deleted.

            >>> version = await db.set("config/env", "prod")
            >>> _ = await db.set("config/env", "staging", if_version=version)
            >>> await db.set("config/env", "test", if_version=version)
            Traceback (most recent call last):
            haptera.errors.VersionMismatch: VERSION_MISMATCH (4002): ...

        Args:
            key: Its name.
            value: Text, stored as UTF-8, or bytes.
            if_version: The version that the key must have; 0: it must be absent.
            if_absent: Whether the key must be absent.
            if_present: Whether the key must have an entry.
            ttl: Seconds after which the key expires.
            keep_ttl: Whether the key keeps the time at which it expires.
            lease: The lease with which the key ends, or its id.
            fence: A token: the version of an entry that belongs to a lease. The change is made only while that very
                entry is there.

        Returns:
            The new version.

        Raises:
            VersionMismatch: The key has another version than ``if_version``.
            KeyExists: The key has an entry, with ``if_absent``.
            KeyNotFound: The key has no entry, with ``if_present``.
            LeaseNotFound: The lease has ended.
            Fenced: The entry of ``fence`` is gone, or written again.
        """
        options = set_options(if_version, if_absent, if_present, ttl, keep_ttl, lease, fence)
        argument = set_argument(key, value, options)
        stored = await self._channel.call(
            KvMethods.set, argument, self._timeout if timeout is DEFAULT else checked_timeout(timeout)
        )
        if type(stored) is Stored:
            return stored.version
        assert isinstance(stored, Failure)
        raise stored.exception()

    async def get_and_set(
        self,
        key: str,
        value: Value,
        *,
        if_version: int | None = None,
        if_absent: bool = False,
        if_present: bool = False,
        ttl: float | None = None,
        keep_ttl: bool = False,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Entry | None:
        """Store a value as `set` does, and return the entry of before. The new version is in `revision`.

        Args:
            key, value, if_version, if_absent, if_present, ttl, keep_ttl, lease, fence: As for `set`.

        Returns:
            The entry of before, or None if there was none.

        Raises:
            VersionMismatch, KeyExists, KeyNotFound, LeaseNotFound, Fenced: As for `set`.
        """
        options = set_options(if_version, if_absent, if_present, ttl, keep_ttl, lease, fence)
        options["return_previous"] = True
        stored = await self._call(KvMethods.set, set_argument(key, value, options), timeout)
        self._channel.revision = stored.version
        before = stored.previous
        return None if before is None else entry_of(key, before.value, before.version, before.expires_at_ms)

    async def delete(
        self, key: str, *, if_version: int | None = None, fence: int | None = None, timeout: Timeout = DEFAULT
    ) -> bool:
        """Delete one key.

            >>> _ = await db.set("session/7", "ann")
            >>> await db.delete("session/7"), await db.delete("session/7")
            (True, False)

        Args:
            key: Its name.
            if_version: The version that the key must have.
            fence: As for `set`.

        Returns:
            Whether there was an entry.

        Raises:
            VersionMismatch: The key has another version than ``if_version``.
            Fenced: As for `set`.
        """
        key = plain_key(key)
        options = with_fence(condition(if_version, False, False), fence)
        deleted = await self._call(KvMethods.delete, (key, options) if options else (key,), timeout)
        return deleted.deleted

    async def get_and_delete(self, key: str, *, fence: int | None = None, timeout: Timeout = DEFAULT) -> Entry | None:
        """Delete one key, and return its entry. The version of the change is in `revision`.

        Args:
            key: Its name.
            fence: As for `set`.

        Returns:
            The entry of before, or None if there was none: then nothing was changed.

        Raises:
            Fenced: As for `set`.
        """
        taken = await self._found(KvMethods.get_and_delete, (plain_key(key), *change_options(fence)), timeout)
        if taken is None:
            return None
        self._channel.revision = taken.deleted_at
        return entry_of(key, taken.value, taken.version, taken.expires_at_ms)

    async def get_and_expire(
        self, key: str, *, ttl: float | None, fence: int | None = None, timeout: Timeout = DEFAULT
    ) -> Entry | None:
        """Read one key, and give it another time to live, in one step.

        Args:
            key: Its name.
            ttl: Seconds after which it expires; None: it does not expire any more.
            fence: As for `set`.

        Returns:
            The entry with its new version and time, or None if there is none: then nothing was changed.

        Raises:
            Fenced: As for `set`.
        """
        options = with_fence({"persist": True} if ttl is None else {"ttl_ms": ttl_ms_of(ttl)}, fence)
        found = await self._found(KvMethods.get_and_expire, (plain_key(key), options), timeout)
        return None if found is None else entry_of(key, found.value, found.version, found.expires_at_ms)

    async def expire(self, key: str, ttl: float, *, fence: int | None = None, timeout: Timeout = DEFAULT) -> int:
        """Give a key another time to live. Its value stays; it belongs to no lease any more.

        Args:
            key: Its name.
            ttl: Seconds after which it expires, from now on.
            fence: As for `set`.

        Returns:
            The new version.

        Raises:
            KeyNotFound: The key has no entry.
            Fenced: As for `set`.
        """
        argument = (plain_key(key), ttl_ms_of(ttl), *change_options(fence))
        return (await self._call(KvMethods.expire, argument, timeout)).version

    async def persist(self, key: str, *, fence: int | None = None, timeout: Timeout = DEFAULT) -> int:
        """Have a key not expire any more, nor belong to a lease. Its value stays.

        Args:
            key: Its name.
            fence: As for `set`.

        Returns:
            The new version.

        Raises:
            KeyNotFound: The key has no entry.
            Fenced: As for `set`.
        """
        return (await self._call(KvMethods.expire, (plain_key(key), None, *change_options(fence)), timeout)).version

    async def ttl(self, key: str, *, timeout: Timeout = DEFAULT) -> float | None:
        """Ask how long a key has still to live.

        Args:
            key: Its name.

        Returns:
            The seconds that are left; None for a key that does not expire.

        Raises:
            KeyNotFound: The key has no entry.
        """
        left = (await self._call(KvMethods.ttl, (plain_key(key),), timeout)).ttl_ms
        return None if left is None else left / 1000

    async def increment(
        self, key: str, delta: int = 1, *, initial: int = 0, fence: int | None = None, timeout: Timeout = DEFAULT
    ) -> int:
        """Add to the number that a key holds as decimal text.

            >>> await db.increment("hits"), await db.increment("hits", 5)
            (1, 6)

        Args:
            key: Its name.
            delta: The number to add; it may be negative.
            initial: The number that a key without an entry starts from.
            fence: As for `set`.

        Returns:
            The sum.

        Raises:
            NotAnInteger: The value is no number.
            IntegerOverflow: The sum has more than 64 bits with sign.
            Fenced: As for `set`.
        """
        argument: tuple[Any, ...] = (plain_key(key), checked_int("delta", delta, INT64_MIN, INT64_MAX))
        options = {"initial": checked_int("initial", initial, INT64_MIN, INT64_MAX)} if initial != 0 else {}
        argument += change_options(fence, options)
        return (await self._call(KvMethods.increment, argument, timeout)).value

    async def rename(
        self,
        key: str,
        new_key: str,
        *,
        if_absent: bool = False,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> int:
        """Move an entry to another key, in place of an entry there.

        Args:
            key: The name that it has.
            new_key: The name that it gets.
            if_absent: Whether ``new_key`` must be absent.
            fence: As for `set`.

        Returns:
            The entry's new version.

        Raises:
            KeyNotFound: ``key`` has no entry.
            KeyExists: ``new_key`` has an entry, with ``if_absent``.
            Fenced: As for `set`.
        """
        options: dict[str, Any] = {"if_absent": True} if if_absent else {}
        argument = (plain_key(key), plain_key(new_key), *change_options(fence, options))
        return (await self._call(KvMethods.rename, argument, timeout)).version

    async def exists(self, key: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Ask for one key without its value.

        Args:
            key: Its name.

        Returns:
            Whether it has an entry.
        """
        return (await self._call(KvMethods.exists, (plain_key(key),), timeout)).exists

    # -- many keys

    async def get_many(
        self,
        keys: Iterable[str],
        *,
        at_revision: int | None = None,
        at_time: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> list[Entry | None]:
        """Read several keys at one revision.

            >>> _ = await db.set_many({"fruit/apple": "red", "fruit/plum": "blue"})
            >>> [entry and entry.text for entry in await db.get_many(["fruit/plum", "fruit/pear"])]
            ['blue', None]

        Args:
            keys: Their names.
            at_revision, at_time: As for `get`.

        Returns:
            Their entries in the same order; None where there is none.

        Raises:
            RevisionCompacted: As for `get`.
        """
        options = past_options(at_revision, at_time)
        with self._channel.converting:
            names = await in_slices(key_list(keys), plain_keys)
        argument = (names, options) if options else (names,)
        found = (await self._call(KvMethods.get_many, argument, timeout)).entries
        if len(found) != len(names):
            raise RemoteProtocolError(
                Code.MALFORMED_FRAME,
                f"the server's answer to kv.get_many has {len(found)} entries for {len(names)} keys",
            )
        return await in_slices(list(zip(names, found, strict=True)), _entries)

    @overload
    async def set_many(
        self,
        items: Mapping[str, Value],
        *,
        ttl: float | None = None,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> int: ...

    @overload
    async def set_many(
        self,
        items: Iterable[tuple[str, Value]],
        *,
        ttl: float | None = None,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> int: ...

    async def set_many(
        self,
        items: Mapping[str, Value] | Iterable[tuple[str, Value]],
        *,
        ttl: float | None = None,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> int:
        """Store several values with one version, all or none.

        Args:
            items: Keys and values. Of a key that stands in it twice the last value counts.
            ttl: Seconds after which all of them expire; unless given, none of them expires any more.
            lease: The lease with which all of them end, or its id.
            fence: As for `set`.

        Returns:
            The new version.

        Raises:
            LeaseNotFound, Fenced: As for `set`.
        """
        options = set_options(ttl=ttl, lease=lease, fence=fence)
        pairs = list(items.items() if isinstance(items, Mapping) else items)
        with self._channel.converting:
            rows = await in_slices(pairs, plain_items)
        argument: tuple[Any, ...] = (rows, options) if options else (rows,)
        return (await self._call(KvMethods.set_many, argument, timeout)).version

    async def delete_many(self, keys: Iterable[str], *, fence: int | None = None, timeout: Timeout = DEFAULT) -> int:
        """Delete several keys at once.

        Args:
            keys: Their names.
            fence: As for `set`.

        Returns:
            How many entries there were.

        Raises:
            Fenced: As for `set`.
        """
        options = change_options(fence)
        with self._channel.converting:
            names = await in_slices(key_list(keys), plain_keys)
        return (await self._call(KvMethods.delete_many, (names, *options), timeout)).count

    async def count(
        self,
        *,
        prefix: str | None = None,
        start: str | None = None,
        end: str | None = None,
        glob: str | None = None,
        at_revision: int | None = None,
        at_time: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> int:
        """Count the keys of a range.

        Args:
            prefix, start, end, glob: As for `scan`.
            at_revision, at_time: As for `get`.

        Returns:
            How many keys there are.

        Raises:
            RevisionCompacted: As for `get`.
        """
        options = range_options(prefix, start, end, glob) | past_options(at_revision, at_time)
        return (await self._call(KvMethods.count, (options,) if options else (), timeout)).count

    async def clear(self, *, prefix: str, fence: int | None = None, timeout: Timeout = DEFAULT) -> int:
        """Delete every key with a prefix.

        Args:
            prefix: The beginning of the keys; ``""``: every key.
            fence: As for `set`.

        Returns:
            How many entries there were.

        Raises:
            Fenced: As for `set`.
        """
        text = text_option("prefix", prefix)  # None is a mistake, and must not mean every key
        argument = change_options(fence, {"prefix": text} if text else {})
        return (await self._call(KvMethods.clear, argument, timeout)).count

    def scan(
        self,
        *,
        prefix: str | None = None,
        start: str | None = None,
        end: str | None = None,
        glob: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
        at_revision: int | None = None,
        at_time: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Scan:
        """Iterate over the entries of a range in the order of their keys' bytes, all of one revision.

        Of several conditions all must hold. A connection that is lost after the first entries ends the scan with
        ``ConnectionLost``, because the rest would be of another revision. At the server a scan that makes no progress
        for 60 seconds ends with ``RevisionCompacted``.

            >>> _ = await db.set_many({"fruit/apple": "red", "fruit/plum": "blue"})
            >>> [entry.key async for entry in db.scan(prefix="fruit/")]
            ['fruit/apple', 'fruit/plum']

        Args:
            prefix: The beginning of the keys.
            start: The first key, inclusive.
            end: The key at which the range ends, itself excluded.
            glob: A pattern that the keys match.
            limit: The largest number of entries.
            reverse: Whether to begin with the last.
            keys_only: Whether to leave the values empty.
            at_revision, at_time: As for `get`; with ``RevisionCompacted`` from the iteration.
            timeout: Seconds for the whole scan, the caller's own work between entries included. Unless given, the wait
                for each page is limited by the database's own timeout, and the whole scan by nothing.

        Returns:
            An asynchronous iterator of entries.
        """
        options = range_options(prefix, start, end, glob) | past_options(at_revision, at_time)
        if limit is not None:
            options["limit"] = checked_int("limit", limit, 0, VERSION_MAX)
        if reverse:
            options["reverse"] = True
        if keys_only:
            options["keys_only"] = True
        end_of_scan: StreamEnd[Scanned] = StreamEnd()
        whole = None if timeout is DEFAULT else checked_timeout(timeout)
        page = self._timeout if timeout is DEFAULT else None
        return Scan(self._channel.scan(options, end_of_scan, page, whole), end_of_scan)

    async def _found(self, method: Method[R], argument: tuple[Any, ...], timeout: Timeout) -> R | None:
        """As `_call`; None for a key without an entry."""
        result = await self._channel.call(
            method, argument, self._timeout if timeout is DEFAULT else checked_timeout(timeout)
        )
        if not isinstance(result, Failure):
            return result
        if result.code == Code.KEY_NOT_FOUND:
            return None
        raise result.exception()


def _entries(found: list[tuple[str, Found | None]]) -> list[Entry | None]:
    return [
        None if entry is None else entry_of(key, entry.value, entry.version, entry.expires_at_ms)
        for key, entry in found
    ]
