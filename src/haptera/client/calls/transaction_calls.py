"""The calls of a database that change several keys at one moment, if what they compare or have read still holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from haptera.client.calls.argument_checks import change_options, checked_int
from haptera.client.calls.calling import Calling
from haptera.client.calls.key_calls import KvMethods
from haptera.client.calls.methods import Method
from haptera.client.calls.transact import Compare, Lists, Operation, TransactForm, TransactResult
from haptera.client.calls.transaction import RUN_ATTEMPTS_MAX, Transaction, run_until_committed
from haptera.key_rules import VERSION_MAX
from haptera.peer import DEFAULT, Timeout

if TYPE_CHECKING:
    from haptera.client.calls.entry import Entry

T = TypeVar("T")

#: The arguments and answers of transact.
transact_form: TransactForm = TransactForm(method for method in vars(KvMethods).values() if isinstance(method, Method))


class TransactionCalls(Calling):
    """The calls that make several changes as one."""

    async def transact(
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
        return await self._transact_at(None, (compare, then, otherwise), fence, timeout)

    def transaction(self, *, fence: int | None = None, timeout: Timeout = DEFAULT) -> Transaction:
        """Begin a transaction: ``async with db.transaction() as tx``. The end of the block commits it.

        It is optimistic: it locks nothing, and what it has read is compared when its writes are made. Ranges cannot be
        read in it. The timeout is for each of its calls.

            >>> async with db.transaction() as tx:
            ...     if not await tx.exists("balance/ann"):
            ...         tx.set("balance/ann", "10")
            >>> (await db.get("balance/ann")).version == tx.version
            True

        Args:
            fence: As for `set`, judged when the writes are made.

        Returns:
            The transaction, which has sent nothing yet.
        """

        async def get_many(keys: list[str]) -> list[Entry | None]:
            if len(keys) == 1:
                return [await self._database.get(keys[0], timeout=timeout)]
            return await self._database.get_many(keys, timeout=timeout)

        async def transact(compare: list[Compare], then: list[Operation], server_id: bytes | None) -> TransactResult:
            return await self._transact_at(server_id, (compare, then, ()), fence, timeout)

        return Transaction(get_many, transact, lambda: self._channel.server_id)

    async def run(
        self,
        function: Callable[[Transaction], Awaitable[T]],
        *,
        attempts: int = RUN_ATTEMPTS_MAX,
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> T:
        """Call a function with a transaction and commit that, again after each conflict.

        A change whose outcome is unknown is not repeated: ``ConnectionLost`` and ``DeadlineExceeded`` reach the caller.

            >>> async def claim(tx):
            ...     if await tx.exists("owner"):
            ...         return False
            ...     tx.set("owner", "me")
            ...     return True
            >>> await db.run(claim), await db.run(claim)
            (True, False)

        Args:
            function: A coroutine function of one argument, the `Transaction`. It may be called more than once.
            attempts: How often it is called at most.
            fence: As for `transaction`.
            timeout: Seconds for each call to the store.

        Returns:
            The function's result.

        Raises:
            TransactionConflict: The last attempt met a conflict too.
        """
        checked_int("attempts", attempts, 1, VERSION_MAX)
        return await run_until_committed(lambda: self.transaction(fence=fence, timeout=timeout), function, attempts)

    async def _transact_at(
        self, server_id: bytes | None, lists: Lists, fence: int | None, timeout: Timeout
    ) -> TransactResult:
        """As `transact`, at one server and no other, if one is named."""
        argument = (*transact_form.argument(*lists), *change_options(fence))
        return transact_form.result(argument, await self._call(KvMethods.transact, argument, timeout, server_id))
