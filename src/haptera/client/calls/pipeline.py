# Generated from client/calls/key_calls.py, client/calls/transaction_calls.py by tools/generate_sync.py (make
# generate). Do not edit.
"""A pipeline: calls of a database that are collected and sent together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, overload

from haptera.client.calls.argument_checks import LeaseLike, Value
from haptera.client.calls.entry import Entry
from haptera.client.calls.pending_calls import Pending, PendingCalls
from haptera.client.calls.transact import Compare, Operation, TransactResult
from haptera.peer import DEFAULT, Timeout

if TYPE_CHECKING:
    from haptera.client.database import Database


class Pipeline(PendingCalls):
    """Calls that are sent together. Made by `Database.pipeline`, for ``async with db.pipeline() as p``.

    Each call gives a `Pending`, whose ``result()`` is there when the block has ended. Arguments are looked
    at when the call is sent. `Pipeline.send` has the results of the calls before it there within the block.
    """

    __slots__ = ("_db",)

    def __init__(self, db: Database, *, check: bool) -> None:
        super().__init__(check=check)
        self._db = db

    def _sends_at_once(self) -> bool:
        return self._db._channel.sends_at_once

    def get(
        self, key: str, *, at_revision: int | None = None, at_time: float | None = None, timeout: Timeout = DEFAULT
    ) -> Pending[Entry | None]:
        """Read one key, as it is or as it was.

        Args:
            key: Its name.
            at_revision: The revision that is read: the store right after the change that made it.
            at_time: The Unix time in seconds that is read, in place of a revision.

        Returns:
            The entry, or None if there is none.

        Raises:
            RevisionCompacted: The node does not keep the change of that moment any more, or it is still to come.
        """
        return self._add(self._db.get(key, at_revision=at_revision, at_time=at_time, timeout=timeout))

    def set(
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
    ) -> Pending[int]:
        """Store a value. Unless ``ttl``, ``keep_ttl`` or ``lease`` says otherwise, the key stays until it is deleted.

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
        return self._add(
            self._db.set(
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
    ) -> Pending[Entry | None]:
        """Store a value as `set` does, and return the entry of before.

        Args:
            key, value, if_version, if_absent, if_present, ttl, keep_ttl, lease, fence: As for `set`.

        Returns:
            The entry of before, or None if there was none.

        Raises:
            VersionMismatch, KeyExists, KeyNotFound, LeaseNotFound, Fenced: As for `set`.
        """
        return self._add(
            self._db.get_and_set(
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

    def delete(
        self, key: str, *, if_version: int | None = None, fence: int | None = None, timeout: Timeout = DEFAULT
    ) -> Pending[bool]:
        """Delete one key.

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
        return self._add(self._db.delete(key, if_version=if_version, fence=fence, timeout=timeout))

    def get_and_delete(
        self, key: str, *, fence: int | None = None, timeout: Timeout = DEFAULT
    ) -> Pending[Entry | None]:
        """Delete one key, and return its entry. The version of the change is in `revision`.

        Args:
            key: Its name.
            fence: As for `set`.

        Returns:
            The entry of before, or None if there was none: then nothing was changed.

        Raises:
            Fenced: As for `set`.
        """
        return self._add(self._db.get_and_delete(key, fence=fence, timeout=timeout))

    def get_and_expire(
        self, key: str, *, ttl: float | None, fence: int | None = None, timeout: Timeout = DEFAULT
    ) -> Pending[Entry | None]:
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
        return self._add(self._db.get_and_expire(key, ttl=ttl, fence=fence, timeout=timeout))

    def expire(self, key: str, ttl: float, *, fence: int | None = None, timeout: Timeout = DEFAULT) -> Pending[int]:
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
        return self._add(self._db.expire(key, ttl, fence=fence, timeout=timeout))

    def persist(self, key: str, *, fence: int | None = None, timeout: Timeout = DEFAULT) -> Pending[int]:
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
        return self._add(self._db.persist(key, fence=fence, timeout=timeout))

    def ttl(self, key: str, *, timeout: Timeout = DEFAULT) -> Pending[float | None]:
        """Ask how long a key has still to live.

        Args:
            key: Its name.

        Returns:
            The seconds that are left; None for a key that does not expire.

        Raises:
            KeyNotFound: The key has no entry.
        """
        return self._add(self._db.ttl(key, timeout=timeout))

    def increment(
        self, key: str, delta: int = 1, *, initial: int = 0, fence: int | None = None, timeout: Timeout = DEFAULT
    ) -> Pending[int]:
        """Add to the number that a key holds as decimal text.

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
        return self._add(self._db.increment(key, delta, initial=initial, fence=fence, timeout=timeout))

    def rename(
        self, key: str, new_key: str, *, if_absent: bool = False, fence: int | None = None, timeout: Timeout = DEFAULT
    ) -> Pending[int]:
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
        return self._add(self._db.rename(key, new_key, if_absent=if_absent, fence=fence, timeout=timeout))

    def exists(self, key: str, *, timeout: Timeout = DEFAULT) -> Pending[bool]:
        """Ask for one key without its value.

        Args:
            key: Its name.

        Returns:
            Whether it has an entry.
        """
        return self._add(self._db.exists(key, timeout=timeout))

    def get_many(
        self,
        keys: Iterable[str],
        *,
        at_revision: int | None = None,
        at_time: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Pending[list[Entry | None]]:
        """Read several keys at one revision.

        Args:
            keys: Their names.
            at_revision, at_time: As for `get`.

        Returns:
            Their entries in the same order; None where there is none.

        Raises:
            RevisionCompacted: As for `get`.
        """
        return self._add(self._db.get_many(keys, at_revision=at_revision, at_time=at_time, timeout=timeout))

    @overload
    def set_many(
        self,
        items: Mapping[str, Value],
        *,
        ttl: float | None = None,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Pending[int]: ...

    @overload
    def set_many(
        self,
        items: Iterable[tuple[str, Value]],
        *,
        ttl: float | None = None,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Pending[int]: ...

    def set_many(
        self,
        items: Mapping[str, Value] | Iterable[tuple[str, Value]],
        *,
        ttl: float | None = None,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Pending[int]:
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
        return self._add(self._db.set_many(items, ttl=ttl, lease=lease, fence=fence, timeout=timeout))

    def delete_many(self, keys: Iterable[str], *, fence: int | None = None, timeout: Timeout = DEFAULT) -> Pending[int]:
        """Delete several keys at once.

        Args:
            keys: Their names.
            fence: As for `set`.

        Returns:
            How many entries there were.

        Raises:
            Fenced: As for `set`.
        """
        return self._add(self._db.delete_many(keys, fence=fence, timeout=timeout))

    def count(
        self,
        *,
        prefix: str | None = None,
        start: str | None = None,
        end: str | None = None,
        glob: str | None = None,
        at_revision: int | None = None,
        at_time: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Pending[int]:
        """Count the keys of a range.

        Args:
            prefix, start, end, glob: As for `scan`.
            at_revision, at_time: As for `get`.

        Returns:
            How many keys there are.

        Raises:
            RevisionCompacted: As for `get`.
        """
        return self._add(
            self._db.count(
                prefix=prefix,
                start=start,
                end=end,
                glob=glob,
                at_revision=at_revision,
                at_time=at_time,
                timeout=timeout,
            )
        )

    def clear(self, *, prefix: str, fence: int | None = None, timeout: Timeout = DEFAULT) -> Pending[int]:
        """Delete every key with a prefix.

        Args:
            prefix: The beginning of the keys; ``""``: every key.
            fence: As for `set`.

        Returns:
            How many entries there were.

        Raises:
            Fenced: As for `set`.
        """
        return self._add(self._db.clear(prefix=prefix, fence=fence, timeout=timeout))

    def transact(
        self,
        *,
        compare: Iterable[Compare] = (),
        then: Iterable[Operation] = (),
        otherwise: Iterable[Operation] = (),
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Pending[TransactResult]:
        """Make the operations of ``then`` if all compares hold, and else those of ``otherwise``: all of them, or none.

        The operations are made in their order with one version, and each sees what the ones before it have done. Each
        of the three lists has at most 128 elements.

        Args:
            compare: Tuples such as ``("a", "version", "=", 3)``: a key, ``version``, ``value``, ``exists`` or
                ``lease``, ``=``, ``!=``, ``<`` or ``>`` (``exists`` and ``lease``: ``=`` or ``!=``), and a version (0:
                no entry), a value, a bool or the id of a lease (0: none). A compare of the value of a key without an
                entry does not hold.
            then: Tuples such as ``("set", ["a", b"2"])``: get, exists, ttl, set, delete, increment, rename,
                get_and_delete, get_and_expire or expire, and its arguments: the key, the value, the new key, the delta
                or the milliseconds, and a dict of the options ``if_version``, ``if`` (``"absent"`` or ``"present"``),
                ``return_previous``, ``ttl_ms``, ``keep_ttl``, ``lease``, ``initial``, ``if_absent``, ``persist``.
            otherwise: As ``then``.
            fence: As for `set`; it is for the whole.

        Returns:
            Whether the compares held, the version, and a result for each operation.

        Raises:
            VersionMismatch, KeyExists, KeyNotFound, NotAnInteger, IntegerOverflow, LeaseNotFound: An operation failed,
                and so nothing was changed. The ``details`` have its ``branch`` and its place there, ``operation``.
            TransactionTooLarge: A list has more than 128 elements.
            Fenced: As for `set`. Nothing was changed.
        """
        return self._add(
            self._db.transact(compare=compare, then=then, otherwise=otherwise, fence=fence, timeout=timeout)
        )
