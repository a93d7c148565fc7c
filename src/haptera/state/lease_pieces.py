"""The section of the leases in a snapshot.

Its rows are ``[id, ttl_ms, [key, …], user]``, in the order of the ids, without the user where that is the anonymous
one. The keys of a lease may go on in the next row, which has the same id then; they stand in their order, across all of
its rows. A store without leases has no such section.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.access_rules import is_name
from haptera.key_rules import LEASE_TTL_MAX_MS, LEASE_TTL_MIN_MS, VERSION_MAX
from haptera.state import limits
from haptera.state.piece_decoding import PIECE_SIZE, PieceDecoder, require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.state.kv import Kv

#: The name of the section.
LEASES_SECTION: Final = "leases"
#: Bytes that a lease and one of its keys take in a piece beside the key's own, about.
_ROW_OVERHEAD: Final = 16
_KEY_OVERHEAD: Final = 3

_encoder: Final = msgspec.msgpack.Encoder()


class _Head(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    leases: int


class _Row(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    lease: int
    ttl_ms: int
    keys: list[str]
    user: str = ""


_head: Final = PieceDecoder(LEASES_SECTION, _Head)
_rows: Final = PieceDecoder(LEASES_SECTION, list[_Row])


def lease_pieces(kv: Kv) -> Iterator[bytes]:
    """Give the section in pieces; none for a store without leases."""
    leases = kv.leases.by_id
    if not leases:
        return
    yield _encoder.encode((len(leases),))
    rows: list[tuple[Any, ...]] = []
    size = 0
    for lease_id, lease in leases.items():
        keys: list[str] = []
        user = (lease.user,) if lease.user else ()
        rows.append((lease_id, lease.ttl_ms, keys, *user))
        size += _ROW_OVERHEAD + len(lease.user)
        for key in sorted(lease.keys):
            if size >= PIECE_SIZE:
                yield _encoder.encode(rows)
                keys, size = [], _ROW_OVERHEAD
                rows = [(lease_id, lease.ttl_ms, keys, *user)]
            keys.append(key)
            size += len(key) + _KEY_OVERHEAD
        if size >= PIECE_SIZE:
            yield _encoder.encode(rows)
            rows, size = [], 0
    if rows:
        yield _encoder.encode(rows)


class LeasesLoader:
    """Fills the leases of a store, whose entries are there already, with their section."""

    def __init__(self, kv: Kv) -> None:
        self._kv = kv
        self._last = 0
        self._last_key = ""
        self._expected = 0

    def head(self, piece: bytes) -> None:
        """Read the head."""
        self._expected = _head.decode(piece).leases
        require(0 < self._expected <= limits.LEASES_MAX, "there are too many leases, or none")

    def rows(self, piece: bytes) -> None:
        """Read some rows."""
        leases, entries = self._kv.leases, self._kv.entries
        for row in _rows.decode(piece):
            lease_id, ttl_ms, keys = row.lease, row.ttl_ms, row.keys
            if lease_id != self._last or lease_id not in leases.by_id:
                require(self._last < lease_id <= min(self._kv.revision, VERSION_MAX), "no lease has this id here")
                require(LEASE_TTL_MIN_MS <= ttl_ms <= LEASE_TTL_MAX_MS, "no lease has this time")
                require(not row.user or is_name(row.user), "no user has this name")
                leases.grant(lease_id, ttl_ms, row.user)
                self._last, self._last_key = lease_id, ""
            lease = leases.by_id[lease_id]
            require((lease.ttl_ms, lease.user) == (ttl_ms, row.user), "a lease has two times or users")
            require(len(lease.keys) + len(keys) <= limits.LEASE_KEYS_MAX, "a lease has too many keys")
            for key in keys:
                entry = entries.get(key)
                require(key > self._last_key and leases.of_key.get(key) is None, "a key of a lease comes twice")
                require(entry is not None, "a key of a lease is missing")
                assert entry is not None
                require(entry[2] is None and entry[1] > lease_id, "a key cannot belong to this lease")
                leases.moved(key, None, entry[1], lease_id)
                self._last_key = key

    def finish(self) -> None:
        """Judge the section as a whole."""
        count = len(self._kv.leases.by_id)
        require(count == self._expected, f"there are {count} leases and not {self._expected}")
