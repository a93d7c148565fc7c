"""A queue: jobs that are done at least once, each by one worker at a time (spec/recipes.md, section 4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from haptera.client.calls.argument_checks import Value, plain_value, ttl_ms_of
from haptera.client.calls.transact import Operation  # noqa: TC001  # who reads a public signature finds its types here
from haptera.client.recipes.queue_keys import QueueKeys, digits_of, ready_text
from haptera.client.recipes.queue_worker import Worker
from haptera.errors import Code, failure
from haptera.key_rules import LEASE_TTL_MAX_MS, LEASE_TTL_MIN_MS, VALUE_SIZE_MAX
from haptera.peer import DEFAULT, Timeout

if TYPE_CHECKING:
    from haptera.client.database import Database

#: Jobs that are put together: of the 128 operations of a transact each takes one, or two if it is to wait, and `ready`
#: takes one.
GROUP_JOBS_MAX: Final = 127
GROUP_JOBS_MAX_DELAYED: Final = 64
#: Bytes of the values of such a group, unless it is one value alone: half of what a message may have.
GROUP_BYTES_MAX: Final = VALUE_SIZE_MAX


class Queue:
    """Jobs that any program puts and any worker takes. Made by `Database.queue`.

    A job that was put is done at least once: it stays until a worker acknowledges it, and is taken by one worker at a
    time. A lone worker takes the jobs in their order.
    """

    __slots__ = ("_db", "_keys")

    def __init__(self, db: Database, name: str) -> None:
        self._db = db
        self._keys = QueueKeys(name)

    async def put(self, value: Value, *, delay: float = 0.0, timeout: Timeout = DEFAULT) -> int:
        """Put a job.

        Args:
            value: Text, stored as UTF-8, or bytes.
            delay: Seconds before which it is not taken.
            timeout: Seconds for each of the two calls to the store.

        Returns:
            The number of the job.

        Raises:
            ValueTooLarge: The value has more than 8 MiB.
        """
        return (await self.put_many([value], delay=delay, timeout=timeout))[0]

    async def put_many(self, values: Iterable[Value], *, delay: float = 0.0, timeout: Timeout = DEFAULT) -> range:
        """Put several jobs, in their order. Each 127 of them are put together, all or none; 64 with a delay, and fewer
        if they are large.

        Args:
            values: Their values.
            delay, timeout: As for `put`.

        Returns:
            The numbers of the jobs.

        Raises:
            ValueTooLarge: A value has more than 8 MiB. The jobs before its group are there.
        """
        if isinstance(values, str | bytes | bytearray | memoryview):
            raise TypeError("values is an iterable of values, not one of them")
        delay_ms = ttl_ms_of(delay) if delay else 0
        jobs = [plain_value(value) for value in values]
        if not jobs:
            return range(0)
        first = await self._draw(len(jobs), timeout)
        number = first
        for group in _groups(jobs, GROUP_JOBS_MAX_DELAYED if delay_ms else GROUP_JOBS_MAX):
            await self._db.transact(then=self._operations(number, group, delay_ms), timeout=timeout)
            number += len(group)
        return range(first, number)

    async def put_operations(self, value: Value, *, delay: float = 0.0, timeout: Timeout = DEFAULT) -> list[Operation]:
        """Prepare the put of a job that is to happen together with other changes.

        Args:
            value, delay, timeout: As for `put`.

        Returns:
            Operations for one `Database.transact`, two or three of its 128.
        """
        delay_ms = ttl_ms_of(delay) if delay else 0
        job = plain_value(value)
        return self._operations(await self._draw(1, timeout), [job], delay_ms)

    async def size(self, *, timeout: Timeout = DEFAULT) -> int:
        """Count the jobs that are not acknowledged: those that wait, and those in the hands of workers.

        Returns:
            How many there are.
        """
        return await self._db.count(prefix=self._keys.items, timeout=timeout)

    def worker(self, *, ttl: float = 10.0, delay: float = 0.0) -> Worker:
        """Take jobs: ``async with queue.worker() as worker``.

        Args:
            ttl: Seconds of the lease under which it holds its jobs, which it renews: 1 to 86,400. For so long the jobs
                of a worker that was killed are not taken by another.
            delay: Seconds before which a job whose block has raised is not taken again.

        Returns:
            The worker.
        """
        ttl_ms_of(ttl, LEASE_TTL_MIN_MS, LEASE_TTL_MAX_MS)
        if delay:
            ttl_ms_of(delay)
        return Worker(self._db, self._keys, ttl, delay)

    async def _draw(self, count: int, timeout: Timeout) -> int:
        """The first of ``count`` numbers for jobs."""
        first = await self._db.increment(self._keys.last, count, timeout=timeout) - count + 1
        if first < 1:
            raise failure(Code.NOT_AN_INTEGER, {"key": self._keys.last}).exception()
        return first

    def _operations(self, first: int, jobs: Sequence[bytes | bytearray | memoryview], delay_ms: int) -> list[Operation]:
        """The put of jobs from a number on. A number that stands already is never written over."""
        operations: list[Operation] = []
        for number, job in enumerate(jobs, first):
            digits = digits_of(number)
            operations.append(("set", [self._keys.items + digits, job, {"if": "absent"}]))
            if delay_ms:
                operations.append(("set", [self._keys.claims + digits, b"", {"ttl_ms": delay_ms}]))
        if not delay_ms:
            operations.append(("set", [self._keys.ready, ready_text(first, first + len(jobs) - 1)]))
        return operations


def _groups(
    jobs: Sequence[bytes | bytearray | memoryview], jobs_max: int
) -> Iterator[list[bytes | bytearray | memoryview]]:
    """The jobs in groups that can be put together."""
    group: list[bytes | bytearray | memoryview] = []
    size = 0
    for job in jobs:
        length = memoryview(job).nbytes
        if group and (len(group) == jobs_max or size + length > GROUP_BYTES_MAX):
            yield group
            group, size = [], 0
        group.append(job)
        size += length
    yield group
