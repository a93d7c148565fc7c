"""The state as bytes: the pieces that a snapshot keeps, and the state machine made of them again.

Each part of the state is a *section* with the part's name. A section is a sequence of pieces in MessagePack. Its first
piece is the *head*, with the number of the rows in the others::

    kv        head   [revision, cleared_at, keys]
              rows   [[key, …], [value, …], [version, …], [expires_at_ms or nil, …]]
                     keys in their order, across all pieces; without the last column where none of them expires
    requests  head   [clock_ms, answers]
              rows   [[user, request_id, time_ms, digest or nil, result, brief or nil], …]         oldest first
    events    the newest events of the keys: `haptera.state.event_pieces`
    leases    the leases and their keys: `haptera.state.lease_pieces`
    gaps      the revisions that the store has passed over: `haptera.state.gap_pieces`
    access    users, roles and tokens: `haptera.state.access_pieces`
    node_secret    the secret of the decoys: the same module
    node      maintenance and the head of the audit log: `haptera.state.node_pieces`
    quotas    the quotas of users, with the keys and leases that count for them: `haptera.state.quota_pieces`

A result is the array, the failure or the number that `haptera.state.requests` remembers. The brief of a large one is
the shorter form that takes its place where room is needed. The index and the time of the last entry belong to the
snapshot and not to a section. Readers are not part of the state, so no older entries are kept for them.

The keys stand in columns because their decoder then makes no object that the store does not keep, and in order because
the index of ordered keys is made at once. So the state loads many times faster than the log that made it replays.
"""

from __future__ import annotations

from itertools import islice
from operator import lt
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from haptera.key_rules import EXPIRY_MAX_MS, KEY_SIZE_MAX, VALUE_SIZE_MAX, VERSION_MAX, is_key
from haptera.state.access_pieces import (
    ACCESS_SECTION,
    SECRET_SECTION,
    AccessLoader,
    SecretLoader,
    access_pieces,
    secret_pieces,
)
from haptera.state.command_encoding import UnknownPart
from haptera.state.entry_sizes import entries_size
from haptera.state.event_pieces import EventsLoader, event_pieces
from haptera.state.gap_pieces import GAPS_SECTION, GapsLoader, gap_pieces
from haptera.state.key_ranges import EVERYTHING
from haptera.state.lease_pieces import LEASES_SECTION, LeasesLoader, lease_pieces
from haptera.state.machine import StateMachine
from haptera.state.msgpack_arrays import array_header
from haptera.state.node_pieces import NODE_SECTION, NodeLoader, node_pieces
from haptera.state.piece_decoding import PIECE_SIZE, PieceDecoder, require
from haptera.state.quota_pieces import QUOTAS_SECTION, QuotasLoader, quota_pieces
from haptera.state.requests import Remembered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from haptera.state.event_history import EventBounds
    from haptera.state.kv import Kv
    from haptera.state.requests import Requests

#: Bytes that an entry takes in a piece beside its key and its value, about.
_ROW_OVERHEAD: Final = 16

#: The sections that may be missing: a snapshot of older software has none of these, and neither leases, gaps, users nor
#: quotas stand where there are none.
_OPTIONAL: Final = (
    "events",
    LEASES_SECTION,
    GAPS_SECTION,
    ACCESS_SECTION,
    SECRET_SECTION,
    NODE_SECTION,
    QUOTAS_SECTION,
)

_encoder: Final = msgspec.msgpack.Encoder()


class _KvHead(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    revision: int
    cleared_at: int
    keys: int


class _KvRows(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    keys: list[str]
    values: list[bytes]
    versions: list[int]
    expiries: list[int | None] | None = None


class _RequestsHead(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    clock_ms: int
    answers: int


_kv_head: Final = PieceDecoder("kv", _KvHead)
_kv_rows: Final = PieceDecoder("kv", _KvRows)
_requests_head: Final = PieceDecoder("requests", _RequestsHead)
_requests_rows: Final = PieceDecoder("requests", list[Remembered])


def dump_pieces(machine: StateMachine) -> Iterator[tuple[str, bytes]]:
    """Give the state in pieces, each with the name of its section.

    ``machine`` must not change until the last piece is taken. Beside it memory holds one piece, and the index of its
    keys, which is made if there is none.
    """
    assert not machine.changing
    yield from (("kv", piece) for piece in _kv_pieces(machine.kv))
    yield from (("requests", piece) for piece in _requests_pieces(machine.requests))
    yield from (("events", piece) for piece in event_pieces(machine.kv))
    yield from ((LEASES_SECTION, piece) for piece in lease_pieces(machine.kv))
    yield from ((GAPS_SECTION, piece) for piece in gap_pieces(machine.kv))
    yield from ((ACCESS_SECTION, piece) for piece in access_pieces(machine.access))
    yield from ((SECRET_SECTION, piece) for piece in secret_pieces(machine.access))
    yield from ((NODE_SECTION, piece) for piece in node_pieces(machine.node))
    yield from ((QUOTAS_SECTION, piece) for piece in quota_pieces(machine.kv))


def load_pieces(
    pieces: Iterable[tuple[str, bytes]], *, index: int, time_ms: int, bounds: EventBounds | None = None
) -> StateMachine:
    """Make the state machine whose pieces these are.

    ``index`` and ``time_ms`` are those of the last entry that was applied to it, ``bounds`` those of its events. Its
    digest is that of the machine that was dumped, and so are its answers to every later command.

    Raises `UnknownPart` (a newer version wrote the pieces) and `MalformedPieces`.
    """
    machine = StateMachine(bounds)
    machine.index, machine.time_ms = index, time_ms
    machine.kv.now_ms = time_ms
    loaders: dict[str, _Loader] = {
        "kv": _KvLoader(machine.kv),
        "requests": _RequestsLoader(machine.requests),
        "events": EventsLoader(machine.kv, time_ms),
        LEASES_SECTION: LeasesLoader(machine.kv),
        GAPS_SECTION: GapsLoader(machine.kv),
        ACCESS_SECTION: AccessLoader(machine.access),
        SECRET_SECTION: SecretLoader(machine.access),
        NODE_SECTION: NodeLoader(machine.node, time_ms),
        QUOTAS_SECTION: QuotasLoader(machine.kv, machine.access),
    }
    waiting = dict(loaders)
    current = ""
    for section, piece in pieces:
        loader = loaders.get(section)
        if loader is None:
            raise UnknownPart(section, kind="part", source="snapshot")
        if section == current:
            loader.rows(piece)
            continue
        require(section in waiting, f"the section {section!r} comes twice")
        del waiting[section]
        current = section
        loader.head(piece)
    for optional in _OPTIONAL:
        waiting.pop(optional, None)
    require(not waiting, f"the sections {', '.join(waiting)} are missing")
    for loader in loaders.values():
        loader.finish()
    return machine


class _Loader(Protocol):
    """Fills a part of the state with its section."""

    def head(self, piece: bytes) -> None:
        """Read the head."""

    def rows(self, piece: bytes) -> None:
        """Read some rows."""

    def finish(self) -> None:
        """Judge the section as a whole."""


class _KvLoader:
    """Fills the kv part with its section."""

    def __init__(self, kv: Kv) -> None:
        self._kv = kv
        self._keys: list[str] = []
        self._expected = 0

    def head(self, piece: bytes) -> None:
        head = _kv_head.decode(piece)
        require(0 <= head.cleared_at <= head.revision <= VERSION_MAX, "no store has this revision")
        self._kv.revision, self._kv.cleared_at, self._expected = head.revision, head.cleared_at, head.keys

    def rows(self, piece: bytes) -> None:
        rows = _kv_rows.decode(piece)
        keys, values, versions = rows.keys, rows.values, rows.versions
        require(0 < len(keys) == len(values) == len(versions), "the columns of some keys differ in length")
        # Of a whole column at once, because this is most of the work of loading a key.
        last = self._keys[-1] if self._keys else ""
        require(last < keys[0] and all(map(lt, keys, islice(keys, 1, None))), "the keys are not in their order")
        require(_are_keys(keys), "a text is no key")
        require(max(map(len, values)) <= VALUE_SIZE_MAX, "a value is too large")
        require(self._kv.cleared_at < min(versions) and max(versions) <= self._kv.revision, "no key has this version")
        expiries = _expiries(rows)
        self._kv.size += entries_size(keys, values, len(keys) - expiries.count(None))
        self._kv.entries.put_all(keys, zip(values, versions, expiries, strict=True))
        if rows.expiries is not None:
            for key, time_ms in zip(keys, expiries, strict=True):
                if time_ms is not None:
                    self._kv.expiry.add(key, time_ms, self._kv.now_ms)
        self._keys += keys

    def finish(self) -> None:
        require(len(self._keys) == self._expected, f"there are {len(self._keys)} keys and not {self._expected}")
        self._kv.adopt_order(self._keys)


class _RequestsLoader:
    """Fills the requests part with its section."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._expected = 0

    def head(self, piece: bytes) -> None:
        head = _requests_head.decode(piece)
        require(head.clock_ms >= 0, "the clock of the answers is negative")
        self._requests.clock_ms, self._expected = head.clock_ms, head.answers

    def rows(self, piece: bytes) -> None:
        for row in _requests_rows.decode(piece):
            refused = self._requests.restore(row)
            require(refused is None, f"an answer {refused}")

    def finish(self) -> None:
        count = len(self._requests)
        require(count == self._expected, f"there are {count} answers and not {self._expected}")


def _kv_pieces(kv: Kv) -> Iterator[bytes]:
    yield _encoder.encode((kv.revision, kv.cleared_at, len(kv.entries)))
    keys: list[str] = []
    values: list[bytes] = []
    versions: list[int] = []
    expiries: list[int | None] = []
    size = 0
    entry_of = kv.entries.get
    for key in kv.index.iterate(EVERYTHING):
        entry = entry_of(key)
        if entry is None:
            continue  # a deleted key that a reader still sees
        keys.append(key)
        values.append(entry[0])
        versions.append(entry[1])
        expiries.append(entry[2])
        size += len(key) + len(entry[0]) + _ROW_OVERHEAD
        if size >= PIECE_SIZE:
            yield _encoder.encode(_columns(keys, values, versions, expiries))
            keys, values, versions, expiries, size = [], [], [], [], 0
    if keys:
        yield _encoder.encode(_columns(keys, values, versions, expiries))


def _columns(*columns: list[Any]) -> tuple[list[Any], ...]:
    """Return the columns of some keys, without the last one where none of them expires."""
    expiries = columns[-1]
    return columns[:-1] if expiries.count(None) == len(expiries) else columns


def _requests_pieces(requests: Requests) -> Iterator[bytes]:
    yield _encoder.encode((requests.clock_ms, len(requests)))
    rows: list[bytes] = []
    size = 0
    for row in requests.rows():
        encoded = _encoder.encode(row)
        rows.append(encoded)
        size += len(encoded)
        if size >= PIECE_SIZE:
            yield array_header(len(rows)) + b"".join(rows)
            rows, size = [], 0
    if rows:
        yield array_header(len(rows)) + b"".join(rows)


def _expiries(rows: _KvRows) -> list[int | None]:
    """Return the time at which each of some keys expires."""
    if rows.expiries is None:
        return [None] * len(rows.keys)
    require(len(rows.expiries) == len(rows.keys), "the columns of some keys differ in length")
    times = [time_ms for time_ms in rows.expiries if time_ms is not None]
    require(not times or (min(times) > 0 and max(times) <= EXPIRY_MAX_MS), "no key expires at this time")
    return rows.expiries


def _are_keys(keys: list[str]) -> bool:
    together = "".join(keys)
    if together.isascii():
        return "\0" not in together and max(map(len, keys)) <= KEY_SIZE_MAX  # an empty one is not in its order
    return all(map(is_key, keys))
