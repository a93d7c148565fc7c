"""The ``leases`` part: the leases that there are, and the keys that belong to each.

A lease is granted by a change, whose version is its id for ever. A key that is written with a lease belongs to it until
it is written without one, or deleted; so a key that another owner makes again never ends with the old lease. The end of
a lease removes its keys. When a lease ends is no part of the state: the node decides that, and logs it
(`operations.EndLeases`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.errors import Code, failure
from haptera.key_rules import LEASE_TTL_MAX_MS, LEASE_TTL_MIN_MS, VERSION_MAX
from haptera.state import limits
from haptera.state.fences import Fences
from haptera.state.invariants import require
from haptera.state.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from haptera.errors import Failure
    from haptera.state.results import StoredEntry
    from haptera.state.sliced_work import Steps

#: Bytes of memory of a lease, with the first place for a key and what the node keeps of it; and of a key's belonging to
#: one: three places in tables. Measured: 670, and 87 to 137 by how full the tables are.
LEASE_SIZE: Final = 672
ATTACHMENT_SIZE: Final = 128

_encoder: Final = msgspec.msgpack.Encoder()


class GrantedLease:
    """A lease: the milliseconds that it goes on without a renewal, the user that it belongs to, and its keys."""

    __slots__ = ("keys", "ttl_ms", "user")

    def __init__(self, ttl_ms: int, user: str) -> None:
        self.ttl_ms: int = ttl_ms
        self.user: str = user
        self.keys: dict[str, None] = {}  # bounded: it grows in a step of 4 ms at most


class Leases:
    """The leases, and the keys that belong to them. ``granted`` and ``ended`` are called with each change of them."""

    __slots__ = ("_of_user", "attached", "by_id", "ended", "fences", "granted", "of_key")

    def __init__(self) -> None:
        #: In the order of their ids.
        self.by_id: dict[int, GrantedLease] = {}
        self._of_user: dict[str, dict[int, None]] = {}
        #: The lease of each key that belongs to one.
        self.of_key: Table[int] = Table()
        #: The number of these keys.
        self.attached: int = 0
        self.fences: Fences = Fences()
        #: Told the id of a new lease and its time; and the id of one that has ended. A node sets both.
        self.granted: Callable[[int, int], object] = lambda _, __: None
        self.ended: Callable[[int], object] = lambda _: None

    @property
    def size(self) -> int:
        """Bytes of memory that they take."""
        return len(self.by_id) * LEASE_SIZE + self.attached * ATTACHMENT_SIZE

    def grant(self, lease_id: int, ttl_ms: int, user: str) -> None:
        """Add a lease of a user, whose id is above all others."""
        self.by_id[lease_id] = GrantedLease(ttl_ms, user)
        self._of_user.setdefault(user, {})[lease_id] = None
        self.granted(lease_id, ttl_ms)

    def of_user(self, user: str) -> Collection[int]:
        """The ids of a user's leases, in their order."""
        return self._of_user.get(user, ())

    def end(self, lease_id: int) -> list[str]:
        """Take out a lease; its keys, which belong to it until they are removed."""
        lease = self.by_id.pop(lease_id)
        of_user = self._of_user[lease.user]
        del of_user[lease_id]
        if not of_user:
            del self._of_user[lease.user]
        self.ended(lease_id)
        return list(lease.keys)

    def refusal(self, lease_id: int, keys: int) -> Failure | None:
        """Why so many more keys cannot belong to a lease, or None."""
        lease = self.by_id.get(lease_id)
        if lease is None:
            return failure(Code.LEASE_NOT_FOUND, {"lease": lease_id}, outcome="not_applied")
        if len(lease.keys) + keys > limits.LEASE_KEYS_MAX:
            return failure(Code.TOO_MANY_REQUESTS, {"lease_keys_max": limits.LEASE_KEYS_MAX}, outcome="not_applied")
        return None

    def fenced(self, token: int) -> Failure | None:
        """Why a change with this token is not made, or None."""
        if self.fences.holds(token):
            return None
        return failure(Code.FENCED, {"token": token}, outcome="not_applied")

    def moved(self, key: str, previous: StoredEntry | None, version: int, lease_id: int | None) -> None:
        """Follow a key that was written: from its ``previous`` entry to one of this version, and to this lease."""
        before = None if previous is None else self.of_key.get(key)
        if before is not None:
            assert previous is not None
            self.fences.remove(previous[1])
            if before != lease_id:
                self._leave(before, key)
        if lease_id is not None:
            self.fences.add(version)
            if before != lease_id:
                self.of_key.put(key, lease_id)
                self.by_id[lease_id].keys[key] = None
                self.attached += 1

    def removed(self, key: str, previous: StoredEntry) -> None:
        """Follow a key that was removed."""
        lease_id = self.of_key.get(key)
        if lease_id is not None:
            self.fences.remove(previous[1])
            self._leave(lease_id, key)

    def _leave(self, lease_id: int, key: str) -> None:
        self.of_key.remove(key)
        self.attached -= 1
        lease = self.by_id.get(lease_id)
        if lease is not None:  # it is not there while it ends
            del lease.keys[key]

    def clear_keys(self) -> Steps[None]:
        """Have no key belong to a lease any more: all of them were removed. The tables are freed in slices."""
        if not self.attached:
            return
        work = 0
        for lease in self.by_id.values():
            work += 1
            while lease.keys:
                lease.keys.popitem()
                work += 1
                if work >= limits.SLICE_WORK_MAX:
                    yield work
                    work = 0
        of_key, fences = self.of_key, self.fences
        self.of_key, self.fences, self.attached = Table(), Fences(), 0
        while freed := of_key.free(limits.SWEEP_MAX) + fences.free(limits.SWEEP_MAX):
            yield freed * 2

    def digest(self) -> bytes:
        """32 bytes that are equal for equal leases with equal keys."""
        digest = hashlib.sha256()
        for lease_id, lease in self.by_id.items():
            user = (lease.user,) if lease.user else ()
            digest.update(_encoder.encode((lease_id, lease.ttl_ms, sorted(lease.keys), *user)))
        return digest.digest()

    def check(self, entry_of: Callable[[str], Any], revision: int) -> None:
        """Raise ``AssertionError`` with the invariant that does not hold, for the entries of the store."""
        require(len(self.by_id) <= limits.LEASES_MAX, "there are not too many leases")
        require(list(self.by_id) == sorted(self.by_id), "the leases are in the order of their ids")
        self.of_key.check()
        of_user = {lease_id: user for user, ids in self._of_user.items() for lease_id in ids}
        users = {lease_id: lease.user for lease_id, lease in self.by_id.items()}
        require(of_user == users, "each user knows its leases")
        require(all(list(ids) == sorted(ids) and ids for ids in self._of_user.values()), "they are in their order")
        keys = {key: lease_id for lease_id, lease in self.by_id.items() for key in lease.keys}
        require(sum(len(lease.keys) for lease in self.by_id.values()) == len(keys), "no key has two leases")
        require(keys == dict(self.of_key.items()), "each lease knows its keys")
        require(self.attached == len(keys), "the keys with a lease are counted")
        versions: dict[int, int] = {}
        for lease_id, lease in self.by_id.items():
            require(0 < lease_id <= min(revision, VERSION_MAX), "the id of a lease is a version")
            require(LEASE_TTL_MIN_MS <= lease.ttl_ms <= LEASE_TTL_MAX_MS, "a lease has a possible time")
            require(len(lease.keys) <= limits.LEASE_KEYS_MAX, "no lease has too many keys")
        for key, lease_id in keys.items():
            entry = entry_of(key)
            require(entry is not None and entry[2] is None, "a key of a lease is there, and has no time to live")
            require(entry[1] > lease_id, "a key came to its lease after the lease was granted")
            versions[entry[1]] = versions.get(entry[1], 0) + 1
        require(versions == self.fences.counts(), "the tokens are the versions of the keys with a lease")
