"""The calls of a database that give recipes. The module of a recipe is imported when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.client.calls.argument_checks import Value, plain_key
from haptera.client.calls.calling import Calling
from haptera.peer import DEFAULT, Timeout

if TYPE_CHECKING:
    from haptera.client.recipes.barrier import Barrier
    from haptera.client.recipes.counter import Counter
    from haptera.client.recipes.election import Election
    from haptera.client.recipes.line import LineFollowers
    from haptera.client.recipes.lock import Lock
    from haptera.client.recipes.queue import Queue
    from haptera.client.recipes.rate_limit import RateLimit
    from haptera.client.recipes.semaphore import Semaphore

#: Seconds for which a lock stays with a holder that is not heard of, unless the program says otherwise.
HELD_S: Final = 10.0


class RecipeCalls(Calling):
    """The recipes of spec/recipes.md. Each has a name, which is a key: its entries stand under it."""

    _lines: LineFollowers | None = None  # of the locks, semaphores and elections that are claimed

    def barrier(
        self, name: str, *, parties: int, ttl: float = HELD_S, wait: float | None = None, timeout: Timeout = DEFAULT
    ) -> Barrier:
        """Hold parties back until all of them have come: ``await db.barrier("step-1", parties=3).wait()``.

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
        from haptera.client.recipes.barrier import Barrier  # noqa: PLC0415

        return Barrier(self._database, plain_key(name), parties, ttl, wait, timeout)

    def counter(self, name: str) -> Counter:
        """A number that many programs add to, under the key ``name``.

        Args:
            name: The key.

        Returns:
            The counter.
        """
        from haptera.client.recipes.counter import Counter  # noqa: PLC0415

        return Counter(self._database, plain_key(name))

    def queue(self, name: str) -> Queue:
        """Jobs that any program puts and any worker takes, each done at least once and by one worker at a time.

            >>> mail = db.queue("mail")
            >>> _ = await mail.put("to ann")
            >>> async with mail.worker() as worker:
            ...     async with await worker.take() as job:
            ...         text = job.text
            >>> text, await mail.size()
            ('to ann', 0)

        Args:
            name: The name of the queue.

        Returns:
            The queue.

        Raises:
            InvalidKey: The name is no key, or has more than 4,065 bytes.
        """
        from haptera.client.recipes.queue import Queue  # noqa: PLC0415

        return Queue(self._database, plain_key(name))

    def rate_limit(self, name: str, *, limit: int, per: float) -> RateLimit:
        """Allow something ``limit`` times in ``per`` seconds, for all programs that use the name together.

        Args:
            name: The subject of the limit, such as ``"login/ann"``.
            limit: How often it is allowed.
            per: Seconds of a window, which begins with the first use.

        Returns:
            The limit.
        """
        from haptera.client.recipes.rate_limit import RateLimit  # noqa: PLC0415

        return RateLimit(self._database, plain_key(name), limit, per)

    def lock(
        self,
        name: str,
        *,
        value: Value | None = None,
        ttl: float = HELD_S,
        wait: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Lock:
        """Hold a lock: ``async with db.lock("jobs/nightly") as lock``.

        Claimants have it one after the other, in the order in which they came. The block is cancelled when the lock is
        lost in it, and the ``async with`` then raises ``LockLost``. A program cannot know that in time to stop
        everything: pass ``lock.token`` as ``fence=`` to its changes, and none of them is made after the loss.

            >>> async with db.lock("jobs/nightly", ttl=10.0) as lock:
            ...     version = await db.set("report", "done", fence=lock.token)
            >>> lock.held
            False

        Args:
            name: The name of the lock, which all claimants use.
            value: The text or bytes that say who the claimant is; the host and the process unless given.
            ttl: Seconds for which the lock stays with a holder that is not heard of: 1 to 86,400.
            wait: Seconds to wait for others, when the place in the line is taken; 0: none. No bound unless given.
            timeout: Seconds for each call to the store.

        Returns:
            The claim. Entering it raises ``WaitTimeout`` when others have held the lock all that time.
        """
        from haptera.client.recipes.lock import Lock  # noqa: PLC0415

        return Lock(self._database, self._all_lines(), plain_key(name), 1, value, ttl, wait, timeout)

    def semaphore(
        self,
        name: str,
        *,
        limit: int,
        value: Value | None = None,
        ttl: float = HELD_S,
        wait: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Semaphore:
        """Hold one of several permits: ``async with db.semaphore("printers", limit=3) as permit``.

        As `lock`, but for ``limit`` holders at a time. All programs that use the name name the same limit.

        Args:
            name: The name of the semaphore, which all claimants use.
            limit: How many hold a permit at a time.
            value, ttl, wait, timeout: As for `lock`.

        Returns:
            The claim. Entering it raises ``WaitTimeout`` when others have held all permits all that time.
        """
        from haptera.client.recipes.semaphore import Semaphore  # noqa: PLC0415

        return Semaphore(self._database, self._all_lines(), plain_key(name), limit, value, ttl, wait, timeout)

    def election(
        self,
        name: str,
        *,
        value: Value | None = None,
        ttl: float = HELD_S,
        wait: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Election:
        """Lead: ``async with db.election("leader", value=b"me") as leader`` waits for it; others see who leads.

        As `lock`; the entry of the holder is there for all: `Election.leader` and `Election.changes`.

        Args:
            name: The name of the election, which all claimants use.
            value: The text or bytes that the leader tells the others; the host and the process unless given.
            ttl, wait, timeout: As for `lock`.

        Returns:
            The claim. Entering it raises ``WaitTimeout`` when others have led all that time.
        """
        from haptera.client.recipes.election import Election  # noqa: PLC0415

        return Election(self._database, self._all_lines(), plain_key(name), 1, value, ttl, wait, timeout)

    def _all_lines(self) -> LineFollowers:
        from haptera.client.recipes.line import LineFollowers  # noqa: PLC0415

        if self._lines is None:
            self._lines = LineFollowers(self._database)
        return self._lines
