"""The calls of a database that grant leases, renew, list and end them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from haptera.client.calls.argument_checks import LeaseLike, checked_int, lease_id, ttl_ms_of
from haptera.client.calls.calling import Calling
from haptera.client.calls.methods import Count, Method, Milliseconds, Revision
from haptera.errors import Code, RemoteProtocolError
from haptera.key_rules import LEASE_TTL_MAX_MS, LEASE_TTL_MIN_MS, LEASES_RENEWED_MAX, VERSION_MAX
from haptera.opening import opening
from haptera.peer import DEFAULT, Timeout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.client.leases.lease import Lease
    from haptera.client.leases.lease_renewer import LeaseRenewer


class LeaseInfo(msgspec.Struct, frozen=True, gc=False):
    """A lease as the node knows it: its ``id``; ``ttl``, the seconds that it goes on without a renewal; ``remaining``,
    the seconds that are left of them; and how many ``keys`` belong to it.
    """

    id: int
    ttl: float
    remaining: float
    keys: int


class _Granted(msgspec.Struct, array_like=True, frozen=True):
    id: Revision
    ttl_ms: Milliseconds


class _Renewed(msgspec.Struct, array_like=True, frozen=True):
    ttls_ms: list[Milliseconds | None]


class _Revoked(msgspec.Struct, array_like=True, frozen=True):
    keys: Count


class _Listed(msgspec.Struct, array_like=True, frozen=True):
    leases: list[tuple[Revision, Milliseconds, Milliseconds, Count]]
    more: bool


class LeaseMethods:
    """The methods of the service ``kv`` that are about leases, each with the shape of its answer."""

    grant_lease: ClassVar[Method[_Granted]] = Method(_Granted, write=True)
    renew_lease: ClassVar[Method[_Renewed]] = Method(_Renewed)
    revoke_lease: ClassVar[Method[_Revoked]] = Method(_Revoked, write=True)
    leases: ClassVar[Method[_Listed]] = Method(_Listed)


class LeaseCalls(Calling):
    """The calls about leases."""

    _lease_renewer: LeaseRenewer | None = None  # of the loop that leases were last granted on

    @opening
    async def lease(self, ttl: float, *, timeout: Timeout = DEFAULT) -> Lease:
        """Grant a lease, and keep it alive until it is closed: ``async with db.lease(10.0) as lease``, or ``await``.

        It is renewed at each third of its time, all leases of this database together, until it is closed or lost or the
        database is closed. Its ``lost`` says when it is not there any more.

            >>> async with db.lease(10.0) as lease:
            ...     _ = await db.set("workers/7", "host-a", lease=lease)
            >>> await db.exists("workers/7")
            False

        Args:
            ttl: Seconds that it goes on without a renewal: 1 to 86,400. Keys that belong to it stay for so long when
                this program ends without a word; a program that stands still for so long has lost them.

        Returns:
            The lease.

        Raises:
            TooManyRequests: There are 100,000 leases.
        """
        from haptera.client.leases.instant import Instant  # noqa: PLC0415
        from haptera.client.leases.lease import Lease  # noqa: PLC0415 - few programs have leases
        from haptera.client.leases.lease_renewer import LeaseRenewer  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        granted = Instant.now(loop)
        lease_id = await self.grant_lease(ttl, timeout=timeout)
        renewer = self._lease_renewer
        if renewer is None or renewer.loop is not loop:  # a database begins afresh under the next loop, or in a child
            channel = self._channel
            renewer = LeaseRenewer(self._database, lambda: channel.server_id, self._revoke)
            self._lease_renewer = renewer
        kept = renewer.keep(lease_id, ttl_ms_of(ttl) / 1000, granted)
        return Lease(renewer, kept, self._database._transact_at)

    async def _leave_leases(self) -> None:
        renewer = self._lease_renewer
        if renewer is not None and renewer.loop is asyncio.get_running_loop():
            await renewer.aclose()

    async def grant_lease(self, ttl: float, *, timeout: Timeout = DEFAULT) -> int:
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
        ttl_ms = ttl_ms_of(ttl, LEASE_TTL_MIN_MS, LEASE_TTL_MAX_MS)
        return (await self._call(LeaseMethods.grant_lease, (ttl_ms,), timeout)).id

    async def renew_leases(self, leases: Iterable[LeaseLike], *, timeout: Timeout = DEFAULT) -> list[float | None]:
        """Give leases their whole time again, from now on. Nothing is written for it.

        Args:
            leases: The leases, or their ids: 10,000 at most.

        Returns:
            For each the seconds that it goes on without another renewal; None for one that has ended, or is about to.
        """
        ids = list(map(lease_id, leases))
        if len(ids) > LEASES_RENEWED_MAX:
            raise ValueError(f"one call renews at most {LEASES_RENEWED_MAX} leases, not {len(ids)}")
        ttls_ms = (await self._call(LeaseMethods.renew_lease, (ids,), timeout)).ttls_ms
        if len(ttls_ms) != len(ids):
            raise RemoteProtocolError(
                Code.MALFORMED_FRAME,
                f"the server's answer to kv.renew_lease has {len(ttls_ms)} times for {len(ids)} leases",
            )
        return [None if ttl_ms is None else ttl_ms / 1000 for ttl_ms in ttls_ms]

    async def revoke_lease(self, lease: LeaseLike, *, timeout: Timeout = DEFAULT) -> int:
        """End a lease, and delete the keys that belong to it, all at once.

        Args:
            lease: The lease, or its id.

        Returns:
            How many keys there were.

        Raises:
            LeaseNotFound: The lease has ended before.
        """
        return (await self._call(LeaseMethods.revoke_lease, (lease_id(lease),), timeout)).keys

    async def _revoke(self, lease_id: int, server_id: bytes | None, timeout: float) -> None:
        """End a lease at the server that has granted it, if that still answers: elsewhere the id is another lease's."""
        await self._channel.call(LeaseMethods.revoke_lease, (lease_id,), timeout, server_id)

    async def leases(
        self, *, after: int = 0, limit: int | None = None, timeout: Timeout = DEFAULT
    ) -> AsyncGenerator[LeaseInfo, None]:
        """Iterate over the leases in the order of their ids. The node gives 1,000 with each call.

        Args:
            after: Only leases whose id is above this one.
            limit: The largest number of leases.
            timeout: Seconds for each call.

        Returns:
            An asynchronous iterator of leases.
        """
        after = checked_int("after", after, 0, VERSION_MAX)
        left = VERSION_MAX if limit is None else checked_int("limit", limit, 0, VERSION_MAX)
        more = True
        while more and left:
            options: dict[str, Any] = {"after": after, "limit": left}
            page = await self._call(LeaseMethods.leases, (options,), timeout)
            rows: Sequence[tuple[int, int, int, int]] = page.leases
            for found, ttl_ms, remaining_ms, keys in rows:
                yield LeaseInfo(found, ttl_ms / 1000, remaining_ms / 1000, keys)
            left -= len(rows)
            more = page.more and bool(rows)
            after = rows[-1][0] if rows else after
