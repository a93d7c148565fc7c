"""The commands of the ``leases`` part, which grant leases and end them."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from haptera.errors import Code, failure
from haptera.state import limits
from haptera.state.entries import in_order
from haptera.state.event_history import EXPIRE
from haptera.state.operations import Read

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.state import operations
    from haptera.state.entries import Entries
    from haptera.state.operations import ListLeases
    from haptera.state.results import Result
    from haptera.state.sliced_work import Steps


#: Keys that are taken from their leases in a slice, beside those of one lease: some two milliseconds.
_KEYS_TAKEN: Final = 32_768


class ListLeasesOf(Read, frozen=True):
    """As `ListLeases`, the leases of one user. The node asks for it where a user may see no others."""

    user: str
    after: int | None = None
    limit: int | None = None


class LeaseCommands:
    """A method for each command, named as in its tag. See `haptera.state.kv.Kv` for what they have in common."""

    __slots__ = ("_entries", "_leases")

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._leases = entries.leases

    def grant_lease(self, op: operations.GrantLease, *, rehearsed: bool = False) -> Result | None:
        """[id, ttl_ms]; one lease too many is 3007, and beyond the quota of the user 3013."""
        if len(self._leases.by_id) >= limits.LEASES_MAX:
            return failure(Code.TOO_MANY_REQUESTS, {"leases_max": limits.LEASES_MAX}, outcome="not_applied")
        entries, quotas = self._entries, self._entries.quotas
        if quotas.accounts and (refused := quotas.lease_refusal()) is not None:
            return refused
        if rehearsed:
            return None
        entries.revision += 1
        self._leases.grant(entries.revision, op.ttl_ms, entries.events.user)
        if quotas.accounts:
            quotas.granted(entries.revision)
        return (entries.revision, op.ttl_ms)

    def revoke_lease(self, op: operations.RevokeLease) -> Steps[Result]:
        """[keys deleted, version or nil]; a missing lease is 4010."""
        missing = self.unchanged(op)
        if missing is not None:
            return missing
        count = yield from self._end([op.lease])
        return (count, self._entries.revision if count else None)

    def end_leases(self, op: operations.EndLeases) -> Steps[Result]:
        """[leases, keys deleted, version or nil]: how many of the leases were there, and have ended."""
        found = [lease_id for lease_id in dict.fromkeys(op.leases) if lease_id in self._leases.by_id]
        count = yield from self._end(found)
        return (len(found), count, self._entries.revision if count else None)

    def renew_lease(self, op: operations.RenewLease) -> Result:
        """[[ttl_ms or nil, …]]: nil for a lease that is missing. A node answers by the leases that it lets live."""
        by_id = self._leases.by_id
        return (tuple(by_id[each].ttl_ms if each in by_id else None for each in op.leases),)

    def leases(self, op: ListLeases) -> Result:
        """[[[id, ttl_ms, remaining_ms, keys], …], more]: of how many keys. A node knows how much time is left."""
        return self.listed(op, lambda _: None)

    def listed(self, op: ListLeases | ListLeasesOf, remaining_ms: Callable[[int], int | None]) -> Result:
        """As `leases`, with the time that is left of each; a lease without one has all of its time."""
        by_id = self._leases.by_id
        ids = list(self._leases.of_user(op.user) if isinstance(op, ListLeasesOf) else by_id)
        start = bisect_right(ids, op.after or 0)
        limit = limits.LEASES_LISTED_MAX if op.limit is None else min(op.limit, limits.LEASES_LISTED_MAX)
        rows = []
        for lease_id in ids[start : start + limit]:
            lease, left = by_id[lease_id], remaining_ms(lease_id)
            rows.append((lease_id, lease.ttl_ms, lease.ttl_ms if left is None else left, len(lease.keys)))
        return (tuple(rows), start + limit < len(ids))

    def unchanged(self, op: operations.RevokeLease) -> Result | None:
        """The answer to a revoke of a lease that is missing; None for any other."""
        return None if op.lease in self._leases.by_id else self._leases.refusal(op.lease, 0)

    def _end(self, lease_ids: list[int]) -> Steps[int]:
        """End leases, and remove their keys at one revision; how many there were."""
        keys: list[str] = []
        taken = 0
        for lease_id in lease_ids:
            keys += self._leases.end(lease_id)
            self._entries.quotas.ended(lease_id)
            if len(keys) - taken >= _KEYS_TAKEN:
                yield limits.SLICE_WORK_MAX
                taken = len(keys)
        return (yield from self._entries.remove_keys((yield from in_order(keys)), len(keys), EXPIRE))
