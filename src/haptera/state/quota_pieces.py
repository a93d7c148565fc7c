"""The section of the quotas in a snapshot.

Its head is ``[quotas]``, and its rows are ``[user, keys, bytes, watches, leases, [lease, …], [key, …]]``, in the order
of the users: the numbers of the quota, nil where there is none, then the leases and the keys that count for it. These
may go on in the next row, which has the same user and numbers then; both stand in their order, across all rows of the
user. A store without quotas has no such section.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.key_rules import VERSION_MAX
from haptera.state import limits
from haptera.state.piece_decoding import PIECE_SIZE, PieceDecoder, require
from haptera.state.quotas import Account, Quota

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.state.access import Access
    from haptera.state.kv import Kv

#: The name of the section.
QUOTAS_SECTION: Final = "quotas"
#: Bytes that a row takes in a piece beside its user, and a key or a lease beside its own, about.
_ROW_OVERHEAD: Final = 48
_MEMBER_OVERHEAD: Final = 9

_encoder: Final = msgspec.msgpack.Encoder()


class _Head(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    quotas: int


class _Row(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    user: str
    keys_max: int | None
    size_max: int | None
    watches_max: int | None
    leases_max: int | None
    leases: list[int]
    keys: list[str]

    @property
    def quota(self) -> Quota:
        return Quota(self.keys_max, self.size_max, self.watches_max, self.leases_max)


_head: Final = PieceDecoder(QUOTAS_SECTION, _Head)
_rows: Final = PieceDecoder(QUOTAS_SECTION, list[_Row])


def quota_pieces(kv: Kv) -> Iterator[bytes]:
    """Give the section in pieces; none for a store without quotas."""
    quotas = kv.quotas
    if not quotas.accounts:
        return
    yield _encoder.encode((len(quotas.accounts),))
    members = _members(kv)
    rows: list[tuple[Any, ...]] = []
    size = 0
    for user, account in sorted(quotas.accounts.items()):
        leases, keys = members[user]
        rest: list[int | str] = [*sorted(leases), *sorted(keys)]
        row: tuple[Any, ...] = (user, *account.quota, [], [])
        rows.append(row)
        size += _ROW_OVERHEAD + len(user)
        for member in rest:
            if size >= PIECE_SIZE:
                yield _encoder.encode(rows)
                row = (user, *account.quota, [], [])
                rows, size = [row], _ROW_OVERHEAD + len(user)
            if isinstance(member, int):
                row[-2].append(member)
                size += _MEMBER_OVERHEAD
            else:
                row[-1].append(member)
                size += _MEMBER_OVERHEAD + len(member)
    yield _encoder.encode(rows)


def _members(kv: Kv) -> dict[str, tuple[list[int], list[str]]]:
    """Return the leases and the keys that count for each user, found in one walk."""
    members: dict[str, tuple[list[int], list[str]]] = {user: ([], []) for user in kv.quotas.accounts}
    for lease_id, account in kv.quotas.leased.items():
        members[account.user][0].append(lease_id)
    for key, account in kv.quotas.owned.items():
        members[account.user][1].append(key)
    return members


class QuotasLoader:
    """Fills the quotas of a store, whose entries and leases are there already, with their section."""

    def __init__(self, kv: Kv, access: Access) -> None:
        self._kv = kv
        self._access = access
        self._last = ""
        self._last_lease = 0
        self._last_key = ""
        self._expected = 0

    def head(self, piece: bytes) -> None:
        """Read the head."""
        self._expected = _head.decode(piece).quotas
        require(0 < self._expected <= limits.USERS_MAX, "there are too many quotas, or none")

    def rows(self, piece: bytes) -> None:
        """Read some rows."""
        quotas = self._kv.quotas
        for row in _rows.decode(piece):
            account = quotas.accounts.get(row.user)
            if account is None:
                require(self._last < row.user, "the quotas are not in the order of their users")
                require(all(most is None or 0 <= most <= VERSION_MAX for most in row.quota), "no quota has this number")
                require(row.quota != Quota(), "a quota has no number")
                account = quotas.accounts[row.user] = Account(row.user, row.quota)
                self._last, self._last_lease, self._last_key = row.user, 0, ""
            require(self._last == row.user and account.quota == row.quota, "a user has two quotas")
            self._count(row, account)

    def _count(self, row: _Row, account: Account) -> None:
        quotas, entries, leases = self._kv.quotas, self._kv.entries, self._kv.leases.by_id
        for lease_id in row.leases:
            require(lease_id > self._last_lease and lease_id in leases, "no lease of a quota has this id here")
            require(lease_id not in quotas.leased, "a lease counts for two quotas")
            quotas.count_lease(lease_id, account)
            self._last_lease = lease_id
        for key in row.keys:
            entry = entries.get(key)
            require(key > self._last_key and entry is not None, "a key of a quota is missing, or comes twice")
            require(quotas.owned.get(key) is None, "a key counts for two quotas")
            assert entry is not None
            quotas.count_key(key, entry, account)
            self._last_key = key

    def finish(self) -> None:
        """Judge the section as a whole, when that of the users is there."""
        accounts = self._kv.quotas.accounts
        require(len(accounts) == self._expected, f"there are {len(accounts)} quotas and not {self._expected}")
        require(accounts.keys() <= self._access.users.keys(), "a quota has no user")
