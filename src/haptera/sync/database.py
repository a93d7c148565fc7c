# Generated from client/calls/access_calls.py, client/calls/change_calls.py, client/calls/key_calls.py,
# client/calls/lease_calls.py, client/calls/pipeline_calls.py, client/calls/recipe_calls.py,
# client/calls/store_calls.py, client/calls/transaction_calls.py, client/database.py by tools/generate_sync.py (make
# generate). Do not edit.
"""The database, for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from haptera.client import (
    Compare,
    Entry,
    Event,
    LeaseInfo,
    LeaseLike,
    Maintenance,
    Operation,
    TransactResult,
    Value,
    Whoami,
)
from haptera.peer import DEFAULT, Timeout
from haptera.sync.answers import Backup, Cache, Scan, Watch
from haptera.sync.batches import Pipeline, Transaction
from haptera.sync.desk import Desk
from haptera.sync.facade import Items, Store
from haptera.sync.recipes import Barrier, Counter, Election, Lease, Lock, Queue, RateLimit, Semaphore
from haptera.sync.typed_values import TypedDatabase
from haptera.sync.users import Administration
from haptera.value_codecs import CodecName

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client import Transaction as AsyncTransaction


T = TypeVar("T")


class Database(Store):
    """A key-value store. Made by :func:`haptera.sync.connect` or :func:`haptera.sync.open`, for ``with … as db``.

    Any number of threads may use it at once. All of them share one connection, and their calls leave together. Keys are
    ``str``, values ``str`` (stored as UTF-8) or bytes. Each call takes ``timeout`` in seconds: the database's own
    unless given, None for no limit. Ctrl-C in a call raises ``KeyboardInterrupt`` and leaves the database usable; a
    change that was under way may have been applied.

    Every call may raise ``ServerError`` (one subclass for each code, such as ``VersionMismatch``), ``DeadlineExceeded``
    when its time is over, ``ConnectionLost`` when the server cannot be reached or was lost and sending the call again
    might apply it twice, and ``RemoteProtocolError`` when the answer is malformed. ``outcome`` of the first three says
    whether a change was applied. ``TypeError`` and ``ValueError`` mean a mistake in the call. A served and an embedded
    store refuse the same call with the same error. Where a server refuses the connection the ``ConnectionLost`` is of
    the class of its reason, too: ``TooManyConnections``, for instance.

    A database may be made before a fork: each child then has a connection of its own. A function that is called on the
    loop of this package, such as one that `Cache.on_change` was given, makes no calls: they raise ``WrongLoop``.
    """

    __slots__ = ()

    def get(
        self, key: str, *, at_revision: int | None = None, at_time: float | None = None, timeout: Timeout = DEFAULT
    ) -> Entry | None:
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
        return self._run(lambda: self._inner.get(key, at_revision=at_revision, at_time=at_time, timeout=timeout))

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
    ) -> int:
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

    def delete(
        self, key: str, *, if_version: int | None = None, fence: int | None = None, timeout: Timeout = DEFAULT
    ) -> bool:
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
        return self._run(lambda: self._inner.delete(key, if_version=if_version, fence=fence, timeout=timeout))

    def get_and_delete(self, key: str, *, fence: int | None = None, timeout: Timeout = DEFAULT) -> Entry | None:
        """Delete one key, and return its entry. The version of the change is in `revision`.

        Args:
            key: Its name.
            fence: As for `set`.

        Returns:
            The entry of before, or None if there was none: then nothing was changed.

        Raises:
            Fenced: As for `set`.
        """
        return self._run(lambda: self._inner.get_and_delete(key, fence=fence, timeout=timeout))

    def get_and_expire(
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
        return self._run(lambda: self._inner.get_and_expire(key, ttl=ttl, fence=fence, timeout=timeout))

    def expire(self, key: str, ttl: float, *, fence: int | None = None, timeout: Timeout = DEFAULT) -> int:
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
        return self._run(lambda: self._inner.expire(key, ttl, fence=fence, timeout=timeout))

    def persist(self, key: str, *, fence: int | None = None, timeout: Timeout = DEFAULT) -> int:
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
        return self._run(lambda: self._inner.persist(key, fence=fence, timeout=timeout))

    def ttl(self, key: str, *, timeout: Timeout = DEFAULT) -> float | None:
        """Ask how long a key has still to live.

        Args:
            key: Its name.

        Returns:
            The seconds that are left; None for a key that does not expire.

        Raises:
            KeyNotFound: The key has no entry.
        """
        return self._run(lambda: self._inner.ttl(key, timeout=timeout))

    def increment(
        self, key: str, delta: int = 1, *, initial: int = 0, fence: int | None = None, timeout: Timeout = DEFAULT
    ) -> int:
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
        return self._run(lambda: self._inner.increment(key, delta, initial=initial, fence=fence, timeout=timeout))

    def rename(
        self, key: str, new_key: str, *, if_absent: bool = False, fence: int | None = None, timeout: Timeout = DEFAULT
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
        return self._run(lambda: self._inner.rename(key, new_key, if_absent=if_absent, fence=fence, timeout=timeout))

    def exists(self, key: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Ask for one key without its value.

        Args:
            key: Its name.

        Returns:
            Whether it has an entry.
        """
        return self._run(lambda: self._inner.exists(key, timeout=timeout))

    def get_many(
        self,
        keys: Iterable[str],
        *,
        at_revision: int | None = None,
        at_time: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> list[Entry | None]:
        """Read several keys at one revision.

        Args:
            keys: Their names.
            at_revision, at_time: As for `get`.

        Returns:
            Their entries in the same order; None where there is none.

        Raises:
            RevisionCompacted: As for `get`.
        """
        return self._run(lambda: self._inner.get_many(keys, at_revision=at_revision, at_time=at_time, timeout=timeout))

    @overload
    def set_many(
        self,
        items: Mapping[str, Value],
        *,
        ttl: float | None = None,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> int: ...

    @overload
    def set_many(
        self,
        items: Iterable[tuple[str, Value]],
        *,
        ttl: float | None = None,
        lease: LeaseLike | None = None,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> int: ...

    def set_many(
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
        return self._run(lambda: self._inner.set_many(items, ttl=ttl, lease=lease, fence=fence, timeout=timeout))

    def delete_many(self, keys: Iterable[str], *, fence: int | None = None, timeout: Timeout = DEFAULT) -> int:
        """Delete several keys at once.

        Args:
            keys: Their names.
            fence: As for `set`.

        Returns:
            How many entries there were.

        Raises:
            Fenced: As for `set`.
        """
        return self._run(lambda: self._inner.delete_many(keys, fence=fence, timeout=timeout))

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
        return self._run(
            lambda: self._inner.count(
                prefix=prefix,
                start=start,
                end=end,
                glob=glob,
                at_revision=at_revision,
                at_time=at_time,
                timeout=timeout,
            )
        )

    def clear(self, *, prefix: str, fence: int | None = None, timeout: Timeout = DEFAULT) -> int:
        """Delete every key with a prefix.

        Args:
            prefix: The beginning of the keys; ``""``: every key.
            fence: As for `set`.

        Returns:
            How many entries there were.

        Raises:
            Fenced: As for `set`.
        """
        return self._run(lambda: self._inner.clear(prefix=prefix, fence=fence, timeout=timeout))

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
            An iterator of entries.
        """
        return Scan(
            self._inner.scan(
                prefix=prefix,
                start=start,
                end=end,
                glob=glob,
                limit=limit,
                reverse=reverse,
                keys_only=keys_only,
                at_revision=at_revision,
                at_time=at_time,
                timeout=timeout,
            ),
            self,
        )

    def transact(
        self,
        *,
        compare: Iterable[Compare] = (),
        then: Iterable[Operation] = (),
        otherwise: Iterable[Operation] = (),
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> TransactResult:
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
        return self._run(
            lambda: self._inner.transact(compare=compare, then=then, otherwise=otherwise, fence=fence, timeout=timeout)
        )

    def transaction(self, *, fence: int | None = None, timeout: Timeout = DEFAULT) -> Transaction:
        """Begin a transaction: ``with db.transaction() as tx``. The end of the block commits it.

        It is optimistic: it locks nothing, and what it has read is compared when its writes are made. Ranges cannot be
        read in it. The timeout is for each of its calls.

        Args:
            fence: As for `set`, judged when the writes are made.

        Returns:
            The transaction, which has sent nothing yet.
        """
        return Transaction(self._inner.transaction(fence=fence, timeout=timeout), self)

    def run(
        self,
        function: Callable[[Transaction], T],
        *,
        attempts: int = 64,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> T:
        """Call a function with a transaction and commit that, again after each conflict.

        A change whose outcome is unknown is not repeated: ``ConnectionLost`` and ``DeadlineExceeded`` reach the caller.

        Args:
            function: A function of one argument, the `Transaction`. It may be called more than once.
            attempts: How often it is called at most.
            fence: As for `transaction`.
            timeout: Seconds for each call to the store.

        Returns:
            The function's result.

        Raises:
            TransactionConflict: The last attempt met a conflict too.
        """
        desk = Desk()

        async def asked(transaction: AsyncTransaction) -> T:
            return await desk.ask(lambda: function(Transaction(transaction, self)))

        return self._thread.run(
            lambda: self._inner.run(asked, attempts=attempts, fence=fence, timeout=timeout), desk=desk
        )

    def pipeline(self, *, check: bool = True) -> Pipeline:
        """Collect calls and send them together: ``with db.pipeline() as p``.

        Each call of the block, such as ``p.get("a")``, gives a `Pending`, whose ``result()`` is there behind the block.
        The calls leave in their order, all together, and are answered one by one: they are no transaction. For changes
        that have to happen together, or not at all, there are `transact` and `transaction`.

        Args:
            check: Whether the end of the block raises the error of the first call that has failed.

        Returns:
            The pipeline, which has sent nothing yet.
        """
        return Pipeline(self._inner.pipeline(check=check), self)

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
    ) -> Watch:
        """Follow the changes of one key, of the keys with a prefix, or of all keys.

        Every change is given once, in the order of the revisions. A connection that is lost is made again, and the
        watch goes on behind the last change that was given, so long as the node still keeps the changes since then
        (``--history-events`` and ``--history-bytes`` of ``haptera serve``); ``RevisionCompacted`` says that it does
        not, or that another server answers now, whose revisions are of another history. A watch with ``initial`` that
        is lost before the present entries are all given raises ``ConnectionLost``, because the rest would be of another
        revision.

        A reader that is slow holds up no one: the node keeps its place. One that takes nothing for 60 seconds loses its
        stream, and goes on from where it was when it reads again. So does one whose wait was cancelled.

        Args:
            key: The key. Without one, and without ``prefix``, every key.
            prefix: The beginning of the keys.
            start_revision: The first revision whose changes are given; 1 above the present one unless given.
            initial: Whether to begin with the entries that are there, as events of the kind ``"present"`` and then one
                ``"synced"``, behind which every change since comes.
            previous: Whether each event has the entry of before.
            progress_interval: Seconds, at least 1, after which the node says how far it is where nothing has changed;
                `Watch.revision` shows it. Never unless given.
            timeout: Seconds that the beginning may take.

        Returns:
            An iterator of events.

        Raises:
            RevisionCompacted: The changes from ``start_revision`` on are not kept any more, or it is above the next
                revision, or the watch would go on at another server than it has begun at.
        """
        return Watch(
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

    def cached(self, *, prefix: str, max_staleness: float | None = None, timeout: Timeout = DEFAULT) -> Cache:
        """Keep the entries with a prefix in this process: ``with db.cached(prefix="flags/") as cache``.

        A watch keeps the copy, so ``cache.get(key)`` is a look-up in a dict. The copy takes the memory of its entries.
        Twice a second it asks the store for its revision, and so knows its age.

        Args:
            prefix: The beginning of the keys; ``""``: every key.
            max_staleness: Seconds, at least 3: the age of a copy that is not read any more. Unless given, it is read
                however old it is; `Cache.fresh_at` says how old.
            timeout: Seconds that the beginning of a watch may take, and each question for the age.

        Returns:
            The copy, which is whole when ``with`` has entered it.

        Raises:
            ConnectionLost: The store cannot be reached, on entering.
        """
        return Cache(self._inner.cached(prefix=prefix, max_staleness=max_staleness, timeout=timeout), self)

    def history(
        self, key: str, *, after: int = 0, limit: int | None = None, timeout: Timeout = DEFAULT
    ) -> Items[Event]:
        """Iterate over the versions of a key that the node still has, oldest first.

        The node keeps the last changes of all keys (``--history-events`` and ``--history-bytes`` of ``haptera serve``).
        An entry that was written before them is the first, as a change of the kind ``"present"``, without a time.

        Args:
            key: Its name.
            after: Only versions above this one.
            limit: The largest number of versions.
            timeout: Seconds for each page of them.

        Returns:
            An iterator of changes.

        Raises:
            RevisionCompacted: The history was overtaken while it was read, or another server answers the next page.
        """
        return Items(self._inner.history(key, after=after, limit=limit, timeout=timeout), self)

    def lease(self, ttl: float, *, timeout: Timeout = DEFAULT) -> Lease:
        """Grant a lease, and keep it alive until it is closed: ``with db.lease(10.0) as lease``.

        It is renewed at each third of its time, all leases of this database together, until it is closed or lost or the
        database is closed. Its ``lost`` says when it is not there any more.

        Args:
            ttl: Seconds that it goes on without a renewal: 1 to 86,400. Keys that belong to it stay for so long when
                this program ends without a word; a program that stands still for so long has lost them.

        Returns:
            The lease.

        Raises:
            TooManyRequests: There are 100,000 leases.
        """
        return Lease(self._run(lambda: self._inner.lease(ttl, timeout=timeout), undo=lambda found: found.close()), self)

    def grant_lease(self, ttl: float, *, timeout: Timeout = DEFAULT) -> int:
        """Grant a lease: keys that are written with it end when it does.

        It ends when it is not renewed for ``ttl`` seconds, or when it is revoked. The node counts from the last renewal
        that it has taken, so it never ends a lease early; a holder counts from before it sent that renewal.

        Args:
            ttl: Seconds that it goes on without a renewal: 1 to 86,400, in steps of a millisecond.

        Returns:
            The id of the lease.

        Raises:
            TooManyRequests: There are 100,000 leases.
        """
        return self._run(lambda: self._inner.grant_lease(ttl, timeout=timeout))

    def renew_leases(self, leases: Iterable[LeaseLike], *, timeout: Timeout = DEFAULT) -> list[float | None]:
        """Give leases their whole time again, from now on. Nothing is written for it.

        Args:
            leases: The leases, or their ids: 10,000 at most.

        Returns:
            For each the seconds that it goes on without another renewal; None for one that has ended, or is about to.
        """
        return self._run(lambda: self._inner.renew_leases(leases, timeout=timeout))

    def revoke_lease(self, lease: LeaseLike, *, timeout: Timeout = DEFAULT) -> int:
        """End a lease, and delete the keys that belong to it, all at once.

        Args:
            lease: The lease, or its id.

        Returns:
            How many keys there were.

        Raises:
            LeaseNotFound: The lease has ended before.
        """
        return self._run(lambda: self._inner.revoke_lease(lease, timeout=timeout))

    def leases(self, *, after: int = 0, limit: int | None = None, timeout: Timeout = DEFAULT) -> Items[LeaseInfo]:
        """Iterate over the leases in the order of their ids. The node gives 1,000 with each call.

        Args:
            after: Only leases whose id is above this one.
            limit: The largest number of leases.
            timeout: Seconds for each call.

        Returns:
            An iterator of leases.
        """
        return Items(self._inner.leases(after=after, limit=limit, timeout=timeout), self)

    def barrier(
        self, name: str, *, parties: int, ttl: float = 10.0, wait: float | None = None, timeout: Timeout = DEFAULT
    ) -> Barrier:
        """Hold parties back until all of them have come: ``db.barrier("step-1", parties=3).wait()``.

        Args:
            name: The name of the barrier, which all parties use.
            parties: How many wait before it opens: 127 at most. All programs that use the name name the same number.
            ttl: Seconds for which a party that is not heard of counts: 1 to 86,400.
            wait: Seconds to wait for the others; 0: pass only if it is open. No bound unless given.
            timeout: Seconds for each call to the store.

        Returns:
            The barrier.

        Raises:
            InvalidKey: The name is no key, or has more than 4,070 bytes.
        """
        return Barrier(self._inner.barrier(name, parties=parties, ttl=ttl, wait=wait, timeout=timeout), self)

    def counter(self, name: str) -> Counter:
        """A number that many programs add to, under the key ``name``.

        Args:
            name: The key.

        Returns:
            The counter.
        """
        return Counter(self._inner.counter(name), self)

    def queue(self, name: str) -> Queue:
        """Jobs that any program puts and any worker takes, each done at least once and by one worker at a time.

        Args:
            name: The name of the queue.

        Returns:
            The queue.

        Raises:
            InvalidKey: The name is no key, or has more than 4,065 bytes.
        """
        return Queue(self._inner.queue(name), self)

    def rate_limit(self, name: str, *, limit: int, per: float) -> RateLimit:
        """Allow something ``limit`` times in ``per`` seconds, for all programs that use the name together.

        Args:
            name: The subject of the limit, such as ``"login/ann"``.
            limit: How often it is allowed.
            per: Seconds of a window, which begins with the first use.

        Returns:
            The limit.
        """
        return RateLimit(self._inner.rate_limit(name, limit=limit, per=per), self)

    def lock(
        self,
        name: str,
        *,
        value: Value | None = None,
        ttl: float = 10.0,
        wait: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Lock:
        """Hold a lock: ``with db.lock("jobs/nightly") as lock``.

        Claimants have it one after the other, in the order in which they came. No one can end the block of a thread, so
        a lock that is lost in it shows by ``lock.held``, and the end of the block raises ``LockLost``. Pass
        ``lock.token`` as ``fence=`` to the changes of the block, and none of them is made after the loss.

        Args:
            name: The name of the lock, which all claimants use.
            value: The text or bytes that say who the claimant is; the host and the process unless given.
            ttl: Seconds for which the lock stays with a holder that is not heard of: 1 to 86,400.
            wait: Seconds to wait for others, when the place in the line is taken; 0: none. No bound unless given.
            timeout: Seconds for each call to the store.

        Returns:
            The claim. Entering it raises ``WaitTimeout`` when others have held the lock all that time.
        """
        return Lock(
            self._on_loop(lambda: self._inner.lock(name, value=value, ttl=ttl, wait=wait, timeout=timeout)), self
        )

    def semaphore(
        self,
        name: str,
        *,
        limit: int,
        value: Value | None = None,
        ttl: float = 10.0,
        wait: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Semaphore:
        """Hold one of several permits: ``with db.semaphore("printers", limit=3) as permit``.

        As `lock`, but for ``limit`` holders at a time. All programs that use the name name the same limit.

        Args:
            name: The name of the semaphore, which all claimants use.
            limit: How many hold a permit at a time.
            value, ttl, wait, timeout: As for `lock`.

        Returns:
            The claim. Entering it raises ``WaitTimeout`` when others have held all permits all that time.
        """
        return Semaphore(
            self._on_loop(
                lambda: self._inner.semaphore(name, limit=limit, value=value, ttl=ttl, wait=wait, timeout=timeout)
            ),
            self,
        )

    def election(
        self,
        name: str,
        *,
        value: Value | None = None,
        ttl: float = 10.0,
        wait: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Election:
        """Lead: ``with db.election("leader", value=b"me") as leader`` waits for it; others see who leads.

        As `lock`; the entry of the holder is there for all: `Election.leader` and `Election.changes`.

        Args:
            name: The name of the election, which all claimants use.
            value: The text or bytes that the leader tells the others; the host and the process unless given.
            ttl, wait, timeout: As for `lock`.

        Returns:
            The claim. Entering it raises ``WaitTimeout`` when others have led all that time.
        """
        return Election(
            self._on_loop(lambda: self._inner.election(name, value=value, ttl=ttl, wait=wait, timeout=timeout)), self
        )

    @property
    def revision(self) -> int:
        """The store's revision in the last answer to a call of this thread. A thread that has made none sees that of
        the last answer at all; 0 before the first. Right after a call it is that call's: for a read of the past, the
        revision that it is of.
        """
        assert self._revisions is not None
        return self._revisions.own

    @property
    def reached(self) -> str | None:
        """The node that has answered last, as a URL without options; None before the first answer.

        Of several hosts it says which one. For an embedded store it is the path of the data directory.
        """
        return self._inner.reached

    @property
    def connected_once(self) -> bool:
        """Whether there has ever been a connection, or an embedded store was opened.

        Until then nothing was sent: a change that is interrupted meanwhile was certainly not applied.
        """
        return self._inner.connected_once

    @property
    def closed(self) -> bool:
        """Whether it takes no more calls: it is closed or about to be, or the node of an embedded store has failed."""
        return self._inner.closed

    def status(self, *, timeout: Timeout = DEFAULT) -> dict[str, Any]:
        """The status of the node: version, node_id, uptime_ms, durability, revision, keys and more."""
        return self._run(lambda: self._inner.status(timeout=timeout))

    def maintenance(self, *, timeout: Timeout = DEFAULT) -> Maintenance:
        """Whether the store is closed to changes (`begin_maintenance`). Needs the permission ``admin``.

        Args:
            timeout: Seconds; the database's own unless given.

        Returns:
            Whether it is, why, and since when.

        Raises:
            PermissionDenied: The user may not ask.
        """
        return self._run(lambda: self._inner.maintenance(timeout=timeout))

    def begin_maintenance(self, reason: str, *, timeout: Timeout = DEFAULT) -> Maintenance:
        """Close the store to changes until `end_maintenance`, over restarts too. Needs the permission ``admin``.

        Each change is refused with ``MaintenanceMode`` and the reason. Reads, watches and renewals of leases go on.
        Keys expire and leases end at their time (spec/storage-format.md, section 12.4).

        Args:
            reason: 1 to 256 bytes without a control character, told to each caller whose change is refused. It takes
                the place of the reason of a maintenance that has begun.
            timeout: Seconds; the database's own unless given.

        Returns:
            The maintenance.

        Raises:
            InvalidArgument: The reason is empty, too long, or has a control character.
            PermissionDenied: The user may not do this.
        """
        return self._run(lambda: self._inner.begin_maintenance(reason, timeout=timeout))

    def end_maintenance(self, *, timeout: Timeout = DEFAULT) -> Maintenance:
        """Have the store take changes again. Needs the permission ``admin``.

        Args:
            timeout: Seconds; the database's own unless given.

        Returns:
            That there is no maintenance.

        Raises:
            PermissionDenied: The user may not do this.
        """
        return self._run(lambda: self._inner.end_maintenance(timeout=timeout))

    def backup(self, *, timeout: Timeout = DEFAULT) -> Backup:
        """Read a backup of the whole store as it is now: one revision, which the node keeps while the backup is read.

        A backup is encrypted, and ``haptera restore`` makes a data directory of it with the node's master key. Writes
        go on meanwhile. At the server a backup of which no piece is taken for 300 seconds ends with
        ``DeadlineExceeded``.

        Args:
            timeout: Seconds for the whole backup. Unless given, the wait for each piece is limited by the database's
                own timeout, and the whole backup by nothing.

        Returns:
            An iterator of bytes.
        """
        return Backup(self._inner.backup(timeout=timeout), self)

    @property
    def admin(self) -> Administration:
        """The users, roles, grants and tokens of the store, and the calls that change them."""
        return Administration(self._inner.admin, self)

    def whoami(self, *, timeout: Timeout = DEFAULT) -> Whoami:
        """The identity that the store takes this database for: its user, the roles of that, and the mechanism by which
        it was proved.
        """
        return self._run(lambda: self._inner.whoami(timeout=timeout))

    def typed(self, of: type[T], *, codec: CodecName = "json") -> TypedDatabase[T]:
        """Give the values of some calls a type: ``configs = db.typed(Config)``.

        Args:
            of: The type of the values: a Struct of msgspec, a dataclass, a model of pydantic, or a type made of the
                plain ones, ``list[int]`` for instance.
            codec: The form in which they are stored, ``"json"`` or ``"msgpack"``.

        Returns:
            The calls that have values, with that type.

        Raises:
            TypeError: Values of the type cannot be stored.
            ValueError: There is no such codec.
        """
        return TypedDatabase(self._inner.typed(of, codec=codec), self)

    def drain(self, *, timeout: float = 30.0) -> None:
        """Take no more calls, wait for the ones under way, and close.

        Args:
            timeout: Seconds to wait at most.
        """
        self._open.closed = True
        self._run(lambda: self._inner.drain(timeout=timeout))

    def aclose(self) -> None:
        """Close. Calls under way end with ``ConnectionLost``, and leases that are open are lost. Harmless when closed
        already.
        """
        self._open.closed = True
        self._run(self._inner.aclose)

    def __enter__(self) -> Self:
        _ = self._run(self._inner.__aenter__, undo=lambda _: self._inner.aclose())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.aclose()

    def close(self) -> None:
        """As `aclose`, by the name that ``contextlib.closing`` knows."""
        self.aclose()
