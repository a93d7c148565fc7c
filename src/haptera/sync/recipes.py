# Generated from client/leases/lease.py, client/recipes/barrier.py, client/recipes/counter.py,
# client/recipes/election.py, client/recipes/holding.py, client/recipes/job.py, client/recipes/lock.py,
# client/recipes/queue.py, client/recipes/queue_worker.py, client/recipes/rate_limit.py, client/recipes/semaphore.py by
# tools/generate_sync.py (make generate). Do not edit.
"""Leases, locks, queues and the other recipes, for threads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from haptera.client import Compare, Entry, Operation, TransactResult, Value
from haptera.peer import DEFAULT, Timeout
from haptera.sync.facade import End, Facade, Items, nothing

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client import Barrier as AsyncBarrier
    from haptera.client import Counter as AsyncCounter
    from haptera.client import Election as AsyncElection
    from haptera.client import Holding as AsyncHolding
    from haptera.client import Job as AsyncJob
    from haptera.client import Lease as AsyncLease
    from haptera.client import Lock as AsyncLock
    from haptera.client import Queue as AsyncQueue
    from haptera.client import RateLimit as AsyncRateLimit
    from haptera.client import Semaphore as AsyncSemaphore
    from haptera.client import Worker as AsyncWorker
    from haptera.errors import LeaseLost, LockLost


class Lease(Facade["AsyncLease"]):
    """A time to live that several keys share, renewed at each third of it. Made by `Database.lease`.

    Pass it as ``lease=`` to the calls that write keys: they are deleted, all together, when it ends. It ends when it is
    closed, and when the node has heard nothing for the whole of its time. Its holder takes it for lost before that, at
    nine tenths of its time since it sent the last renewal that was answered, counting the time in which the machine
    slept or the process was stopped. A lease that is lost stays lost.

    In a forked child it is lost, and the parent's stays as it is.
    """

    __slots__ = ()

    @property
    def id(self) -> int:
        """Its number, by which the store knows it."""
        return self._inner.id

    @property
    def ttl(self) -> float:
        """The seconds that it goes on without a renewal."""
        return self._inner.ttl

    @property
    def held(self) -> bool:
        """Whether it certainly stands at this moment, by the clock: false once it is lost or closed."""
        return self._inner.held

    @property
    def lost(self) -> End[LeaseLost | None]:
        """The end of the lease: ``lease.lost.wait()`` waits for it. It gives the error that says why the lease was
        lost, or None where its holder has closed it.
        """
        return End(self._inner.lost, self)

    def transact(
        self,
        *,
        compare: Iterable[Compare] = (),
        then: Iterable[Operation] = (),
        otherwise: Iterable[Operation] = (),
        fence: int | None = None,
        timeout: Timeout = DEFAULT,
    ) -> TransactResult:
        """Make a change as `Database.transact` does, at the server that has granted the lease and at no other.

        With another store behind the same address the ids of leases and the tokens of this one are those of others. The
        lease is lost then.

        Args:
            compare, then, otherwise, fence, timeout: As for `Database.transact`.

        Returns:
            As `Database.transact`.

        Raises:
            LeaseLost: Another server answers now. Nothing was changed.
        """
        return self._run(
            lambda: self._inner.transact(compare=compare, then=then, otherwise=otherwise, fence=fence, timeout=timeout)
        )

    def close(self, *, timeout: float = 5.0) -> None:
        """End the lease, and delete the keys that belong to it. Harmless when it has ended.

        A store that cannot be reached is no error, because it ends the lease by itself.

        Args:
            timeout: Seconds to wait at most; it is never waited for a lease whose time is over.
        """
        self._run(lambda: self._inner.close(timeout=timeout))

    def __index__(self) -> int:
        return self._inner.__index__()

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))


class Holding(Facade["AsyncHolding"]):
    """Something that a program holds: a lock, a leadership, a permit. Entering the claim to it gives it.

    A thread that loses it is not stopped: `held` says whether it is still there, and ``fence=`` with the `token` keeps
    the changes of one that does not look from being made.
    """

    __slots__ = ()

    @property
    def token(self) -> int:
        """The fencing token, to be passed as ``fence=`` to the changes that are made in its name. A later holder has a
        higher one.
        """
        return self._inner.token

    @property
    def held(self) -> bool:
        """Whether it is certainly held at this moment, by the clock."""
        return self._inner.held

    @property
    def lost(self) -> End[LockLost | None]:
        """The end of it: ``lock.lost.wait()`` waits for that, and gives the error that says why it was lost, or None
        where it was given up.
        """
        return End(self._inner.lost, self)


class Lock(Facade["AsyncLock"]):
    """A claim to a lock. Made by `Database.lock`; ``with`` waits for the lock and gives a `Holding`."""

    __slots__ = ()

    def __enter__(self) -> Holding:
        return Holding(self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None)), self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))


class Semaphore(Facade["AsyncSemaphore"]):
    """A claim to a permit. Made by `Database.semaphore`; ``with`` waits for the permit and gives a `Holding`."""

    __slots__ = ()

    def __enter__(self) -> Holding:
        return Holding(self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None)), self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))


class Election(Facade["AsyncElection"]):
    """A claim to leadership. Made by `Database.election`; ``with`` waits for it and gives a `Holding`.

    An object that is never entered only looks at who leads.
    """

    __slots__ = ()

    def __enter__(self) -> Holding:
        return Holding(self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None)), self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))

    def leader(self, *, timeout: Timeout = DEFAULT) -> Entry | None:
        """Ask who leads.

        Returns:
            The leader's entry, whose ``value`` is the leader's own and whose ``version`` is its token; None if no one
            leads.
        """
        return self._run(lambda: self._inner.leader(timeout=timeout))

    def changes(self) -> Items[Entry | None]:
        """Follow who leads: the leader of now, and then each that follows, also one who led for a moment only.

        Returns:
            An iterator of entries as `leader` gives them; None where no one leads.
        """
        return Items(self._inner.changes(), self)


class Barrier(Facade["AsyncBarrier"]):
    """Holds parties back until enough of them have come. Made by `Database.barrier`.

    It opens when so many parties wait at the same moment. A party that is gone does not count when its lease has ended.
    An open barrier lets everyone pass until it is reset.
    """

    __slots__ = ()

    def wait(self) -> None:
        """Come to the barrier, and wait until it is open.

        A store that cannot be reached, or refuses for a reason that passes, is waited for once it was reached.

        Raises:
            WaitTimeout: The others have not come in the time that the barrier was made for.
        """
        self._run(self._inner.wait)

    def is_open(self) -> bool:
        """Whether it lets everyone pass."""
        return self._run(self._inner.is_open)

    def reset(self) -> bool:
        """Close it again, for the next time. Reset it when all parties have passed.

        Returns:
            Whether it was open. One that is not stays as it is, with the parties that wait.
        """
        return self._run(self._inner.reset)


class Counter(Facade["AsyncCounter"]):
    """A number that many programs add to. Made by `Database.counter`."""

    __slots__ = ()

    def get(self, *, timeout: Timeout = DEFAULT) -> int:
        """Read the number.

        Returns:
            The number; 0 for a counter that was never added to.

        Raises:
            NotAnInteger: The key holds something else.
        """
        return self._run(lambda: self._inner.get(timeout=timeout))

    def add(self, delta: int = 1, *, timeout: Timeout = DEFAULT) -> int:
        """Add to the number.

        Args:
            delta: The number to add; it may be negative.

        Returns:
            The sum.

        Raises:
            NotAnInteger: The key holds something else.
            IntegerOverflow: The sum has more than 64 bits with sign.
        """
        return self._run(lambda: self._inner.add(delta, timeout=timeout))

    def reset(self, *, timeout: Timeout = DEFAULT) -> int:
        """Set the number to 0, and say which it was. Of all that was added nothing is lost, and nothing told twice.

        Returns:
            The number of before.

        Raises:
            NotAnInteger: The key holds something else, and keeps it.
        """
        return self._run(lambda: self._inner.reset(timeout=timeout))


class RateLimit(Facade["AsyncRateLimit"]):
    """Counts how often something is done, and says when it was done often enough. Made by `Database.rate_limit`.

    A window of ``per`` seconds begins with the first use, by the clock of the store, and ends by it. All programs that
    use the name should name the same limit: each goes by its own.
    """

    __slots__ = ()

    def take(self, *, timeout: Timeout = DEFAULT) -> float:
        """Count one use, if the limit allows it.

        After a refusal this object does not ask again before the window ends, because the count only grows.

        Returns:
            0.0 if it is allowed; otherwise the seconds until the window ends.
        """
        return self._run(lambda: self._inner.take(timeout=timeout))

    def wait(self, *, timeout: Timeout = DEFAULT) -> None:
        """Count one use, as soon as the limit allows it. ``timeout`` is for each call to the store.

        Once the store has said how long to wait, one that cannot be reached, or refuses for a reason that passes, is
        waited for. An attempt that may have been counted is not taken for allowed.
        """
        self._run(lambda: self._inner.wait(timeout=timeout))


class Job(Facade["AsyncJob"]):
    """A job that a worker has taken, and no other has. Made by `Worker.take`; use it as ``with job``.

    It is acknowledged when the block ends, and given back to the queue when the block raises. A job that is lost in the
    block shows by `held`, and the ``with`` then raises ``Fenced``. A job that is lost before raises it at once.
    """

    __slots__ = ()

    @property
    def number(self) -> int:
        """Its number. A job that was put after the put of another had ended has a larger one."""
        return self._inner.number

    @property
    def value(self) -> bytes:
        """Its value."""
        return self._inner.value

    @property
    def attempts(self) -> int:
        """How often it was taken, this time included: 1 for the first time."""
        return self._inner.attempts

    @property
    def token(self) -> int:
        """For ``fence=``: a change with it is made only while the job is still this worker's."""
        return self._inner.token

    @property
    def text(self) -> str:
        """The value as text; raises ``UnicodeDecodeError`` if it is not UTF-8."""
        return self._inner.text

    @property
    def held(self) -> bool:
        """Whether the job is certainly this worker's at this moment, by the clock."""
        return self._inner.held

    @property
    def lost(self) -> End[LeaseLost | None]:
        """The end of the lease that holds the job, as `Lease.lost`."""
        return End(self._inner.lost, self)

    def ack(self, *, then: Iterable[Operation] = (), timeout: Timeout = DEFAULT) -> None:
        """Say that the job is done. It never comes back.

        A store that cannot be reached, or refuses for a reason that passes, is asked again while the lease goes on and
        the worker is open, also if the thread is interrupted.

        Args:
            then: Operations as for `Database.transact`, 125 at most, that are made together with it, or not at all. So
                the changes that a job makes in the store are made once, however often it is taken.
            timeout: Seconds for each call to the store.

        Raises:
            Fenced: The worker has lost the job, and another may have it. Nothing was changed.
            ConnectionLost, DeadlineExceeded: The store could not be reached in that time. The job may come back. So it
                may with a refusal that passes, such as ``StorageFull``.
        """
        self._run(lambda: self._inner.ack(then=then, timeout=timeout))

    def release(self, *, delay: float = 0.0, timeout: Timeout = DEFAULT) -> None:
        """Give the job back to the queue, for any worker. Harmless where it is lost.

        Args:
            delay: Seconds before which it is not taken.
            timeout: As for `ack`.

        Raises:
            ConnectionLost, DeadlineExceeded: As for `ack`. The job comes back.
        """
        self._run(lambda: self._inner.release(delay=delay, timeout=timeout))

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))


class Worker(Facade["AsyncWorker"]):
    """Takes jobs for any number of threads. Made by `Queue.worker`, for ``with queue.worker() as worker``.

    ``for job in worker`` waits for one job after the other. The jobs that are in hand when the worker ends are given
    back; those of a worker that was killed or stands still are free when its lease has ended. A store that cannot be
    reached, or refuses for a reason that passes, is waited for, and a lease that is lost meanwhile is followed by
    another.
    """

    __slots__ = ()

    def take(self, *, wait: float | None = None) -> Job | None:
        """Take the first job that is free, as soon as there is one.

        Args:
            wait: Seconds to wait for one at most; 0: take one that the worker knows of now. Unless given, it waits
                without end. A job that is being claimed when the time is over is waited for and given, unless the store
                says that it did not take the claim: then its error is raised.

        Returns:
            The job, or None if there was none in time.

        Raises:
            ConnectionLost: The worker or its database is closed.
        """
        found = self._run(
            lambda: self._inner.take(wait=wait), undo=lambda found: nothing() if found is None else found.release()
        )
        return None if found is None else Job(found, self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Job:
        try:
            return Job(self._run(self._inner.__anext__, undo=lambda found: found.release()), self)
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))


class Queue(Facade["AsyncQueue"]):
    """Jobs that any program puts and any worker takes. Made by `Database.queue`.

    A job that was put is done at least once: it stays until a worker acknowledges it, and is taken by one worker at a
    time. A lone worker takes the jobs in their order.
    """

    __slots__ = ()

    def put(self, value: Value, *, delay: float = 0.0, timeout: Timeout = DEFAULT) -> int:
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
        return self._run(lambda: self._inner.put(value, delay=delay, timeout=timeout))

    def put_many(self, values: Iterable[Value], *, delay: float = 0.0, timeout: Timeout = DEFAULT) -> range:
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
        return self._run(lambda: self._inner.put_many(values, delay=delay, timeout=timeout))

    def put_operations(self, value: Value, *, delay: float = 0.0, timeout: Timeout = DEFAULT) -> list[Operation]:
        """Prepare the put of a job that is to happen together with other changes.

        Args:
            value, delay, timeout: As for `put`.

        Returns:
            Operations for one `Database.transact`, two or three of its 128.
        """
        return self._run(lambda: self._inner.put_operations(value, delay=delay, timeout=timeout))

    def size(self, *, timeout: Timeout = DEFAULT) -> int:
        """Count the jobs that are not acknowledged: those that wait, and those in the hands of workers.

        Returns:
            How many there are.
        """
        return self._run(lambda: self._inner.size(timeout=timeout))

    def worker(self, *, ttl: float = 10.0, delay: float = 0.0) -> Worker:
        """Take jobs: ``with queue.worker() as worker``.

        Args:
            ttl: Seconds of the lease under which it holds its jobs, which it renews: 1 to 86,400. For so long the jobs
                of a worker that was killed are not taken by another.
            delay: Seconds before which a job whose block has raised is not taken again.

        Returns:
            The worker.
        """
        return Worker(self._inner.worker(ttl=ttl, delay=delay), self)
