"""A job that was taken from a queue (spec/recipes.md, section 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from haptera.client.calls.argument_checks import ttl_ms_of
from haptera.client.calls.transact import Operation  # noqa: TC001  # who reads a public signature finds its types here
from haptera.client.recipes.interruption import Interruption
from haptera.client.recipes.queue_keys import ready_text
from haptera.client.trouble import passes
from haptera.errors import Code, Fenced, HapteraError, LeaseLost, ServerError, failure
from haptera.peer import DEFAULT, Pauses, Timeout

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client.leases.lease import Lease
    from haptera.client.recipes.job_claims import JobClaims


class Job:
    """A job that a worker has taken, and no other has. Made by `Worker.take`; use it as ``async with job``.

    It is acknowledged when the block ends, and given back to the queue when the block raises or is cancelled. The block
    is cancelled when the job is lost in it, and the ``async with`` then raises ``Fenced``, also if the block has given
    the job back by then. A job that is lost before raises it at once.

    Attributes:
        number: Its number. A job that was put after the put of another had ended has a larger one.
        value: Its value.
        attempts: How often it was taken, this time included: 1 for the first time.
        token: For ``fence=``: a change with it is made only while the job is still this worker's.
    """

    __slots__ = ("_block", "_claims", "_digits", "_ended", "_lease", "attempts", "number", "token", "value")

    def __init__(self, claims: JobClaims, digits: str, lease: Lease, value: bytes, attempts: int, token: int) -> None:
        self._claims = claims
        self._digits = digits
        self._lease = lease
        self._ended = False
        self._block: Interruption | None = None
        self.number: int = int(digits)
        self.value: bytes = value
        self.attempts: int = attempts
        self.token: int = token

    @property
    def text(self) -> str:
        """The value as text; raises ``UnicodeDecodeError`` if it is not UTF-8."""
        return self.value.decode()

    @property
    def held(self) -> bool:
        """Whether the job is certainly this worker's at this moment, by the clock."""
        return not self._ended and self._lease.held

    @property
    def lost(self) -> Awaitable[LeaseLost | None]:
        """``await job.lost`` waits for the end of the lease that holds the job, as `Lease.lost` does."""
        return self._lease.lost

    async def ack(self, *, then: Iterable[Operation] = (), timeout: Timeout = DEFAULT) -> None:
        """Say that the job is done. It never comes back.

        A store that cannot be reached, or refuses for a reason that passes, is asked again while the lease goes on and
        the worker is open, also if the caller is cancelled.

        Args:
            then: Operations as for `Database.transact`, 125 at most, that are made together with it, or not at all. So
                the changes that a job makes in the store are made once, however often it is taken.
            timeout: Seconds for each call to the store.

        Raises:
            Fenced: The worker has lost the job, and another may have it. Nothing was changed.
            ConnectionLost, DeadlineExceeded: The store could not be reached in that time. The job may come back. So it
                may with a refusal that passes, such as ``StorageFull``.
        """
        keys = self._claims.keys
        # The claim goes first: a watch that tells of its end tells of it before anything else.
        done: list[Operation] = [
            ("delete", [prefix + self._digits]) for prefix in (keys.claims, keys.items, keys.attempts)
        ]
        await self._end([*done, *then], timeout)

    async def release(self, *, delay: float = 0.0, timeout: Timeout = DEFAULT) -> None:
        """Give the job back to the queue, for any worker. Harmless where it is lost.

        Args:
            delay: Seconds before which it is not taken.
            timeout: As for `ack`.

        Raises:
            ConnectionLost, DeadlineExceeded: As for `ack`. The job comes back.
        """
        keys = self._claims.keys
        claim = keys.claims + self._digits
        free: list[Operation] = [("delete", [claim]), ("set", [keys.ready, ready_text(self.number, self.number)])]
        later: list[Operation] = [("set", [claim, b"", {"ttl_ms": ttl_ms_of(delay)}])] if delay else []
        with suppress(Fenced):
            await self._end(later or free, timeout)

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise RuntimeError(f"the block of job {self.number} is entered already")
        self._check_not_ended()
        if not self._lease.held:
            raise await self._loss()
        self._block = Interruption()
        self._claims.enter(self._block, self._lease)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._block is not None
        self._claims.leave(self._block)
        ours = self._block.ends(kind)
        self._block = None
        if ours and error is not None:  # the block has not asked to be cancelled, also where it has given the job back
            raise await self._loss()
        if self._ended:
            return
        if error is None:
            await self.ack()
            return
        with suppress(HapteraError):  # the lease ends, and the error of the block counts
            await self.release(delay=self._claims.delay)

    async def _end(self, operations: list[Operation], timeout: Timeout) -> None:
        self._check_not_ended()
        self._ended = True
        if self._block is not None:
            self._claims.leave(self._block)  # its end says whether it was lost
        await asyncio.shield(self._claims.carry(self._change(operations, timeout)))

    async def _change(self, operations: list[Operation], timeout: Timeout) -> None:
        try:
            await self._transact(operations, timeout)
        except Exception as error:
            # Anything else is refused, and leaves the job in hand.
            self._ended = isinstance(error, Fenced) or (isinstance(error, HapteraError) and passes(error))
            raise
        finally:
            if self._ended:
                self._claims.drop(self.token)
            elif self._block is not None:
                self._claims.enter(self._block, self._lease)

    def _check_not_ended(self) -> None:
        if self._ended:
            raise RuntimeError(f"job {self.number} is acknowledged or given back already")

    async def _loss(self) -> ServerError:
        """The error of a job whose lease is over. It is in hand no more."""
        self._claims.drop(self.token)
        error = self._fenced()
        error.__cause__ = await self._lease.lost
        return error

    def _fenced(self) -> ServerError:
        return failure(Code.FENCED, {"token": self.token}).exception()

    async def _transact(self, operations: list[Operation], timeout: Timeout) -> None:
        """Make the operations that end the job, while it is this worker's."""
        pauses, item = Pauses(), self._claims.keys.items + self._digits
        doubt: HapteraError | None = None  # the error of an attempt that may have been applied
        while True:
            try:
                try:
                    await self._lease.transact(then=operations, fence=self.token, timeout=timeout)
                except Fenced:
                    if doubt is None:
                        raise
                    if (await self._lease.transact(then=[("exists", [item])], timeout=timeout)).results[0]:
                        raise  # no attempt before this one has acknowledged it
            except LeaseLost as elsewhere:
                raise doubt or self._fenced() from elsewhere
            except HapteraError as error:
                if not passes(error):
                    raise
                if doubt is None and error.outcome != "not_applied":
                    doubt = error
                if self._claims.closing or not self._lease.held:
                    raise doubt or error from None
                await pauses.wait()
            else:
                return

    def __repr__(self) -> str:
        return f"<haptera.recipes.Job {self.number}, attempt {self.attempts}>"
