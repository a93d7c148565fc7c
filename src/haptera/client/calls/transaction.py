"""Optimistic transactions: what was read is compared when the writes are made.

A transaction asks for each key when it is first read, and remembers the version. Its writes stay here until it is
committed by one transact, which compares the versions of all that was read: so the reads and the writes happen at one
moment, or the transaction conflicts with another change and has done nothing. The transact is sent to no other server
than the reads, because the same version of another store is another change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from haptera.client.calls.argument_checks import (
    LeaseLike,
    Value,
    key_list,
    plain_key,
    plain_keys,
    plain_value,
    set_options,
)
from haptera.client.calls.entry import Entry
from haptera.errors import RevisionCompacted, TransactionConflict
from haptera.peer import Backoff

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client.calls.transact import Compare, Operation, TransactResult


T = TypeVar("T")

#: How often `Database.run` begins: of so many that fight for one key, one ends with each round.
RUN_ATTEMPTS_MAX: Final = 64

#: The waits between two attempts, in seconds: a conflict is over when the other change is, within a sync of the disk.
CONFLICT_FIRST_S: Final = 0.002
CONFLICT_LONGEST_S: Final = 0.25

_backoff: Final = Backoff(first=CONFLICT_FIRST_S, longest=CONFLICT_LONGEST_S)


class Transaction:
    """Reads and writes of several keys that take effect at one moment, or not at all.

    Made by `Database.transaction` and `Database.run`. Reads see the transaction's own writes. Writes are sent when the
    block of ``async with`` ends; an exception in it drops them. One task uses a transaction at a time.
    """

    __slots__ = ("_answered_by", "_ended", "_get_many", "_read", "_servers", "_transact", "_version", "_written")

    def __init__(
        self,
        get_many: Callable[[list[str]], Awaitable[list[Entry | None]]],
        transact: Callable[[list[Compare], list[Operation], bytes | None], Awaitable[TransactResult]],
        answered_by: Callable[[], bytes | None],
    ) -> None:
        self._get_many = get_many
        self._transact = transact
        self._answered_by = answered_by
        self._servers: set[bytes | None] = set()  # that have answered reads
        self._read: dict[str, Entry | None] = {}
        self._written: dict[str, tuple[Any, ...] | None] = {}
        self._version: int | None = None
        self._ended = False

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open"
        return f"<haptera.Transaction {state}: {len(self._read)} read, {len(self._written)} written>"

    @property
    def version(self) -> int | None:
        """The version of what was written; None before the commit, and where nothing was written."""
        return self._version

    async def get(self, key: str) -> Entry | None:
        """Read one key.

        Args:
            key: Its name.

        Returns:
            The entry, or None if there is none. One that this transaction has written has the version 0 and no time.
        """
        return (await self.get_many([key]))[0]

    async def get_many(self, keys: Iterable[str]) -> list[Entry | None]:
        """Read several keys in one call.

        Args:
            keys: Their names.

        Returns:
            As `get`, in the same order.
        """
        self._check()
        names = plain_keys(key_list(keys))
        missing = [key for key in dict.fromkeys(names) if key not in self._written and key not in self._read]
        if missing:
            found = await self._get_many(missing)
            self._servers.add(self._answered_by())
            self._check()
            for key, entry in zip(missing, found, strict=True):
                self._read.setdefault(key, entry)  # of two reads at once the first counts, and is compared
        return [self._own(key) if key in self._written else self._read[key] for key in names]

    async def exists(self, key: str) -> bool:
        """Ask for one key.

        Args:
            key: Its name.

        Returns:
            Whether it has an entry.
        """
        return await self.get(key) is not None

    def set(
        self,
        key: str,
        value: Value,
        *,
        ttl: float | None = None,
        keep_ttl: bool = False,
        lease: LeaseLike | None = None,
    ) -> None:
        """Store a value with the commit.

        Args:
            key: Its name.
            value: Text, stored as UTF-8, or bytes.
            ttl: Seconds after which the key expires, from the commit on. Unless given, it does not expire any more.
            keep_ttl: Whether it expires when it would have expired before.
            lease: The lease with which the key ends, or its id.
        """
        self._check()
        options = set_options(ttl=ttl, keep_ttl=keep_ttl, lease=lease)
        plain = bytes(plain_value(value))
        self._written[plain_key(key)] = (plain, options) if options else (plain,)

    def delete(self, key: str) -> None:
        """Delete a key with the commit, if it has an entry then.

        Args:
            key: Its name.
        """
        self._check()
        self._written[plain_key(key)] = None

    async def commit(self) -> None:
        """Make the writes if all that was read is as it was, and end the transaction.

        The end of the block does it. Nothing is sent where nothing was written and no more than one key was read.

        Raises:
            TransactionConflict: A key that was read has changed, or another server answers now, where the versions that
                were read are of other changes. Nothing was written.
            TransactionTooLarge: More than 128 keys were read, or written.
        """
        self._check()
        self._ended = True
        if not self._written and len(self._read) <= 1:
            return
        compares: list[Compare] = [
            (key, "version", "=", 0 if entry is None else entry.version) for key, entry in self._read.items()
        ]
        operations: list[Operation] = [
            ("delete", [key]) if written is None else ("set", [key, *written]) for key, written in self._written.items()
        ]
        if len(self._servers) > 1:
            raise TransactionConflict
        try:
            result = await self._transact(compares, operations, next(iter(self._servers), None))
        except RevisionCompacted as another_server:
            raise TransactionConflict from another_server
        if not result.succeeded:
            raise TransactionConflict
        self._version = result.version

    def _own(self, key: str) -> Entry | None:
        written = self._written[key]
        return None if written is None else Entry(key, written[0], 0)

    def _check(self) -> None:
        if self._ended:
            raise ValueError("the transaction has ended")

    async def __aenter__(self) -> Self:
        self._check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and not self._ended:
            await self.commit()
        self._ended = True


async def run_until_committed(
    begin: Callable[[], Transaction], function: Callable[[Transaction], Awaitable[T]], attempts: int
) -> T:
    """Call ``function`` with a new transaction, and commit that, until it conflicts no more."""
    attempt = 0
    while True:
        attempt += 1
        transaction = begin()
        result = await function(transaction)
        try:
            await transaction.commit()
        except TransactionConflict:
            if attempt >= attempts:
                raise
        else:
            return result
        await _backoff.wait(attempt)
