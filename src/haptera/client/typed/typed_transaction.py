"""The reads and writes of a transaction whose values are of a type of the program."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from haptera.client.calls.argument_checks import LeaseLike
    from haptera.client.calls.transaction import Transaction
    from haptera.client.typed.typed_entries import EntryCodec, TypedEntry

T = TypeVar("T")


class TypedTransaction(Generic[T]):
    """A view of a `Transaction`: values of several types, and of none, may be read and written in one."""

    __slots__ = ("_codec", "_transaction")

    def __init__(self, transaction: Transaction, codec: EntryCodec[T]) -> None:
        self._transaction = transaction
        self._codec = codec

    async def get(self, key: str) -> TypedEntry[T] | None:
        """Read one key, as `Transaction.get` does.

        Args:
            key: Its name.

        Returns:
            The entry, or None if there is none.

        Raises:
            UnexpectedValue: The value does not fit the type.
        """
        return self._codec.present(await self._transaction.get(key))

    async def get_many(self, keys: Iterable[str]) -> list[TypedEntry[T] | None]:
        """Read several keys in one call, as `Transaction.get_many` does.

        Args:
            keys: Their names.

        Returns:
            As `get`, in the same order.
        """
        return self._codec.entries(await self._transaction.get_many(keys))

    def set(
        self,
        key: str,
        value: T,
        *,
        ttl: float | None = None,
        keep_ttl: bool = False,
        lease: LeaseLike | None = None,
    ) -> None:
        """Store a value with the commit.

        Args:
            key: Its name.
            value: A value of the type.
            ttl, keep_ttl, lease: As for `Transaction.set`.

        Raises:
            UnexpectedValue: A part of the value is of another type. Nothing of it is written.
        """
        self._transaction.set(key, self._codec.encoded(key, value), ttl=ttl, keep_ttl=keep_ttl, lease=lease)

    def __repr__(self) -> str:
        return f"<haptera TypedTransaction of {self._codec.name}>"
