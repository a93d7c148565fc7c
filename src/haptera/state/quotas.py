"""The quotas of users: how many keys, bytes, watches and leases each may have, and how many it has.

A user with a quota has an *account*. A key counts for the account of the user who wrote it last. The change may be
of any kind: another value, another time to live, another name. It counts for none when a user without a quota has
written it, and the end of a key gives back what it took, in each of its ways. A token counts for the user that its
record names (`haptera.state.access.StoredToken`).

Only accounts are kept: a key that counts for none takes no memory here, and a store without quotas asks one dict
whether it is empty. So keys that are older than a quota count for it from their next change on, or because the command
that sets it claims them. Everything here follows from the entries of the log, and is in snapshots.

The bytes of a key are those of its name in UTF-8 and of its value: figures that no version and no process changes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from haptera.errors import Code, failure
from haptera.state import limits
from haptera.state.invariants import require
from haptera.state.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from haptera.errors import Failure
    from haptera.state.leases import Leases
    from haptera.state.results import StoredEntry
    from haptera.state.sliced_work import Steps
    from haptera.state.table import Table as TableOf

#: Bytes of memory of a key's place among those that count: measured, 26 to 33, and the text of the key once more where
#: it was another user's first.
OWNED_SIZE: Final = 64
#: Units of work of a key or a lease that is looked at, and of one that begins or ceases to count.
_LOOK_WORK: Final = 1
_COUNT_WORK: Final = 6

_encoder: Final = msgspec.msgpack.Encoder()


class Quota(NamedTuple):
    """The most that a user may have; None where it may have any number. ``size`` is in bytes."""

    keys: int | None = None
    size: int | None = None
    watches: int | None = None
    leases: int | None = None


class Account:
    """The quota of a user, and all that counts for it."""

    __slots__ = ("keys", "leases", "quota", "size", "user")

    def __init__(self, user: str, quota: Quota) -> None:
        self.user: str = user
        self.quota: Quota = quota
        self.keys: int = 0
        #: Bytes of these keys and their values.
        self.size: int = 0
        self.leases: int = 0

    def refusal(self, keys: int, size: int) -> Failure | None:
        """Why so many more keys and bytes are refused, or None. A change that adds none of one passes its limit."""
        quota = self.quota
        if quota.keys is not None and keys > 0 and self.keys + keys > quota.keys:
            return exceeded("keys", quota.keys, self.keys)
        if quota.size is not None and size > 0 and self.size + size > quota.size:
            return exceeded("bytes", quota.size, self.size)
        return None


class Quotas:
    """The accounts by their users. The attributes belong to this package."""

    __slots__ = ("accounts", "current", "leased", "owned", "payer", "watches_of")

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        #: The account of the command that is applied; to be asked for only while there are accounts.
        self.current: Account | None = None
        #: The account that each key counts for, of those that count.
        self.owned: TableOf[Account] = Table()
        #: The same of the leases, by their ids.
        self.leased: dict[int, Account] = {}
        #: The user for whom a user or a token counts; and how many watches count for a user, which a node knows.
        self.payer: Callable[[str], str] = lambda user: user
        self.watches_of: Callable[[str], int] = lambda _: 0

    @property
    def size(self) -> int:
        """Bytes of memory that the places of the keys take."""
        return len(self.owned) * OWNED_SIZE if self.accounts else 0

    def account_of(self, user: str) -> Account | None:
        """The account that a user or a token counts for, if there is one."""
        return self.accounts.get(self.payer(user))

    def begin(self, user: str) -> None:
        """Have the next changes count for a user or a token."""
        self.current = self.accounts.get(self.payer(user))

    # Each change of a key, and of a lease

    def written(self, key: str, value: bytes, previous: StoredEntry | None) -> None:
        """Follow a key that was written in the place of the ``previous`` entry."""
        account = self.current
        before = None if previous is None else self.owned.get(key)
        if before is not None:
            assert previous is not None
            before.keys -= 1
            before.size -= bytes_of(key, previous[0])
        if account is not None:
            account.keys += 1
            account.size += bytes_of(key, value)
            if before is not account:
                self.owned.put(key, account)
        elif before is not None:
            self.owned.remove(key)

    def removed(self, key: str, previous: StoredEntry) -> None:
        """Follow a key that was removed."""
        before = self.owned.get(key)
        if before is not None:
            before.keys -= 1
            before.size -= bytes_of(key, previous[0])
            self.owned.remove(key)

    def clear_keys(self) -> Steps[None]:
        """Have no key count any more: all of them were removed. The table is freed in slices."""
        if not self.accounts:
            return
        owned, self.owned = self.owned, Table()
        for account in self.accounts.values():
            account.keys = account.size = 0
        while freed := owned.free(limits.SWEEP_MAX):
            yield freed * _COUNT_WORK

    def lease_refusal(self) -> Failure | None:
        """Why the command that is applied may grant no lease, or None."""
        account = self.current
        if account is None or account.quota.leases is None or account.leases < account.quota.leases:
            return None
        return exceeded("leases", account.quota.leases, account.leases)

    def watch_refusal(self, user: str, open_now: int) -> Failure | None:
        """Why a user for whom so many watches count may begin no other one, or None."""
        account = self.accounts.get(user)
        if account is None or account.quota.watches is None or open_now < account.quota.watches:
            return None
        return exceeded("watches", account.quota.watches, open_now)

    def granted(self, lease_id: int) -> None:
        """Follow a lease that the command which is applied has granted."""
        if self.current is not None:
            self.count_lease(lease_id, self.current)

    def count_lease(self, lease_id: int, account: Account) -> None:
        """Have a lease, which counts for none, count for an account."""
        self.leased[lease_id] = account
        account.leases += 1

    def ended(self, lease_id: int) -> None:
        """Follow a lease that has ended."""
        account = self.leased.pop(lease_id, None)
        if account is not None:
            account.leases -= 1

    # Changes of the quotas

    def assign(
        self, user: str, quota: Quota, leases: Leases, claimed: Iterable[tuple[str, StoredEntry]]
    ) -> Steps[None]:
        """Give a user a quota, in slices. A first one begins with the user's leases; and the ``claimed`` keys count for
        the user from now on, but for those that count for another.
        """
        account = self.accounts.get(user)
        work = 0
        if account is None:
            account = Account(user, quota)
            for lease_id, lease in leases.by_id.items():
                work += _LOOK_WORK
                if self.payer(lease.user) == user and lease_id not in self.leased:
                    self.count_lease(lease_id, account)
                    work += _COUNT_WORK
                if work >= limits.SLICE_WORK_MAX:
                    yield work
                    work = 0
        account.quota = quota
        self.accounts[user] = account
        for key, entry in claimed:
            work += _LOOK_WORK
            if self.owned.get(key) is None:
                self.count_key(key, entry, account)
                work += _COUNT_WORK
            if work >= limits.SLICE_WORK_MAX:
                yield work
                work = 0

    def count_key(self, key: str, entry: StoredEntry, account: Account) -> None:
        """Have a key, which counts for none, count for an account."""
        self.owned.put(key, account)
        account.keys += 1
        account.size += bytes_of(key, entry[0])

    def drop(self, user: str) -> Steps[None]:
        """Take the quota from a user, in slices, if it has one: nothing counts for it any more."""
        account = self.accounts.pop(user, None)
        self.current = None
        if account is None:
            return
        self.leased = {lease_id: each for lease_id, each in self.leased.items() if each is not account}
        keys: list[str] = []
        for looked, (key, owner) in enumerate(self.owned.items(), 1):
            if owner is account:
                keys.append(key)
            if looked % limits.SLICE_WORK_MAX == 0:
                yield limits.SLICE_WORK_MAX
        while keys:
            piece = keys[-limits.SWEEP_MAX :]
            del keys[-limits.SWEEP_MAX :]
            for key in piece:
                self.owned.remove(key)
            yield len(piece) * _COUNT_WORK

    # For tests and tools

    def digest(self) -> bytes:
        """32 bytes that are equal for equal quotas and accounts."""
        digest = hashlib.sha256()
        for user, account in sorted(self.accounts.items()):
            digest.update(_encoder.encode((user, account.quota, self.leases_of(account), self.keys_of(account))))
        return digest.digest()

    def keys_of(self, account: Account) -> list[str]:
        """The keys that count for an account, in their order."""
        return sorted(key for key, owner in self.owned.items() if owner is account)

    def leases_of(self, account: Account) -> list[int]:
        """The ids of the leases that count for an account, in their order."""
        return sorted(lease_id for lease_id, owner in self.leased.items() if owner is account)

    def check(self, entry_of: Callable[[str], StoredEntry | None], leases: Leases) -> None:
        """Raise ``AssertionError`` unless the accounts are those of the entries and the leases of the store."""
        self.owned.check()
        counted = {user: Account(user, account.quota) for user, account in self.accounts.items()}
        for key, owner in self.owned.items():
            entry = entry_of(key)
            require(self.accounts.get(owner.user) is owner, "each key counts for an account that is there")
            require(entry is not None, "each key that counts is there")
            assert entry is not None
            counted[owner.user].keys += 1
            counted[owner.user].size += bytes_of(key, entry[0])
        for lease_id, owner in self.leased.items():
            require(self.accounts.get(owner.user) is owner, "each lease counts for an account that is there")
            require(lease_id in leases.by_id, "each lease that counts is there")
            counted[owner.user].leases += 1
        for user, account in self.accounts.items():
            require(account.user == user, "each user has its own account")
            same = counted[user]
            require(
                (account.keys, account.size, account.leases) == (same.keys, same.size, same.leases),
                "the account of a user has all that counts for it",
            )


def bytes_of(key: str, value: bytes) -> int:
    """The bytes of a key and its value, as a quota counts them."""
    return (len(key) if key.isascii() else len(key.encode())) + len(value)


def exceeded(quota: str, limit: int, used: int) -> Failure:
    """Return 3013: a quota of a user is used up."""
    return failure(Code.QUOTA_EXCEEDED, {"quota": quota, "limit": limit, "used": used}, outcome="not_applied")
