"""The leases of a simulated node, judged by the changes of their keys alone.

Each value names the call that wrote it, and so the lease and the fence. A replay of the changes therefore says to which
lease each key belongs, without a look at the node's own leases.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from tests.simulation.holders import Asked, Holder
from tests.simulation.promises import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.simulation.past import Change, Past


class LeaseReplay:
    """The changes of one holder's keys, from the empty store on, with the lease of each key."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._lease_of: dict[str, int] = {}
        self._token_of: dict[str, int] = {}  # of each key with a lease its version
        #: Of each key that has ended with its lease, at its revision, that lease.
        self.ended: dict[tuple[str, int], int] = {}
        #: The revisions at which leases have ended with keys, and at which tokens have.
        self.leases_ended: dict[int, int] = {}
        self.tokens_ended: dict[int, int] = {}

    def check(self, past: Past, told: Iterable[tuple[float, str, int]]) -> None:
        """Replay, and hold against it the refusals of the holder, and the ends of keys that watchers were ``told``: the
        time, the key, and the revision. Raises PromiseBroken.
        """
        changes = past.changes(lambda key: key.startswith(self._holder.prefix), 0)
        for revision, made in groupby(changes, key=lambda change: change.revision):
            self._apply(revision, list(made))
        require(not self._lease_of, f"these keys have outlived their leases: {self._lease_of}")
        for refusal in self._holder.fenced:
            ended = self.tokens_ended.get(refusal.token)
            require(ended is not None and ended <= refusal.span.high, f"{refusal} was fenced, and its token stood")
        for refusal in self._holder.without_lease:
            ended = self.leases_ended.get(refusal.token, 0)
            require(ended <= refusal.span.high, f"{refusal} found no lease, and its keys stood until {ended}")
        for time, key, revision in told:
            if (key, revision) in self.ended:
                self._holder.leases[self.ended[key, revision]].is_over(time)

    def _apply(self, revision: int, changes: Sequence[Change]) -> None:
        self._end(revision, [change.key for change in changes if change.kind == "expire"])
        tokens, leases = set(self._token_of.values()), dict(self._lease_of)
        for change in changes:
            if change.entry is None:
                self._leave(change.key)
                continue
            asked = self._asked(change, changes, leases)
            fenced = asked.fence is not None and asked.fence not in tokens
            require(not fenced, f"{change} has passed the fence {asked.fence}, which does not stand")
            require(asked.lease not in self.leases_ended, f"{change} came to the lease {asked.lease}, which is over")
            self._leave(change.key)
            if asked.lease is not None:
                self._lease_of[change.key], self._token_of[change.key] = asked.lease, revision
        for token in tokens - set(self._token_of.values()):
            self.tokens_ended[token] = revision

    def _end(self, revision: int, keys: Iterable[str]) -> None:
        """Some keys end: all keys of their leases, and no other key."""
        leases = {self._lease_of.get(key) for key in keys}
        require(None not in leases, f"revision {revision} has ended {keys}, of which not all have a lease")
        belonging = {key for key, lease in self._lease_of.items() if lease in leases}
        require(belonging == set(keys), f"revision {revision} has ended {keys}, and {belonging} belong to {leases}")
        for key in belonging:
            self.ended[key, revision] = self._lease_of[key]
            self.tokens_ended[self._token_of[key]] = revision
            self._leave(key)
        self.leases_ended |= {lease: revision for lease in leases if lease is not None}

    def _asked(self, change: Change, changes: Sequence[Change], leases: dict[str, int]) -> Asked:
        """The lease and the fence of a written key: those of the call that wrote its value; if it was renamed, the
        lease of the key it had before; none, if it was written again as it was, because that is a persist.
        """
        assert change.entry is not None
        value = change.entry[0]
        for other in changes:
            if other.kind == "delete" and other.previous is not None and other.previous[0] == value:
                return Asked(leases.get(other.key))
        if change.previous is not None and change.previous[0] == value:
            return Asked()
        return self._holder.asked[change.key, value]

    def _leave(self, key: str) -> None:
        self._lease_of.pop(key, None)
        self._token_of.pop(key, None)
