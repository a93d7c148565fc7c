"""A lease that is kept alive until it is closed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final, Self

# A reader of a public signature finds its types here.
from haptera.client.calls.transact import Compare, Lists, Operation, TransactResult
from haptera.client.leases.kept_lease import ELSEWHERE
from haptera.errors import LeaseLost, RevisionCompacted
from haptera.peer import DEFAULT, Timeout

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client.leases.kept_lease import KeptLease
    from haptera.client.leases.lease_renewer import LeaseRenewer

#: `Database.transact` at one server.
TransactAt = Callable[[bytes | None, Lists, int | None, Timeout], Awaitable[TransactResult]]

#: Seconds for which the end of a lease waits for the store. A store that cannot be reached ends it without being asked.
CLOSE_S: Final = 5.0


class Lease:
    """A time to live that several keys share, renewed at each third of it. Made by `Database.lease`.

    Pass it as ``lease=`` to the calls that write keys: they are deleted, all together, when it ends. It ends when it is
    closed, and when the node has heard nothing for the whole of its time. Its holder takes it for lost before that, at
    nine tenths of its time since it sent the last renewal that was answered, counting the time in which the machine
    slept or the process was stopped. A lease that is lost stays lost.

    In a forked child it is lost, and the parent's stays as it is.
    """

    __slots__ = ("_lease", "_renewer", "_transact_at")

    def __init__(self, renewer: LeaseRenewer, lease: KeptLease, transact_at: TransactAt) -> None:
        self._renewer = renewer
        self._lease = lease
        self._transact_at = transact_at

    @property
    def id(self) -> int:
        """Its number, by which the store knows it."""
        return self._lease.id

    @property
    def ttl(self) -> float:
        """The seconds that it goes on without a renewal."""
        return self._lease.seconds

    @property
    def held(self) -> bool:
        """Whether it certainly stands at this moment, by the clock: false once it is lost or closed."""
        return self._lease.held

    @property
    def lost(self) -> Awaitable[LeaseLost | None]:
        """``await lease.lost`` waits for the end of the lease. It gives the error that says why the lease was lost, or
        None where its holder has closed it.
        """
        return self._lease.ended

    async def transact(
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
        try:
            return await self._transact_at(self._lease.server_id, (compare, then, otherwise), fence, timeout)
        except RevisionCompacted:
            self._lease.end_elsewhere()
            raise LeaseLost(ELSEWHERE) from None

    async def close(self, *, timeout: float = CLOSE_S) -> None:
        """End the lease, and delete the keys that belong to it. Harmless when it has ended.

        A store that cannot be reached is no error, because it ends the lease by itself.

        Args:
            timeout: Seconds to wait at most; it is never waited for a lease whose time is over.
        """
        await self._renewer.close(self._lease, timeout)

    def __index__(self) -> int:
        return self._lease.id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<haptera.recipes.Lease {self.id} of {self.ttl:g} s, {'held' if self.held else 'ended'}>"
