"""The section of the leases in a snapshot: whole as it was, and refused where it cannot be one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from haptera.state import lease_pieces, limits
from haptera.state.command_encoding import UnknownPart
from haptera.state.operations import GrantLease, SetMany
from haptera.state.piece_decoding import MalformedPieces
from haptera.state.snapshot_pieces import dump_pieces, load_pieces
from tests.unit.state.store import Store

if TYPE_CHECKING:
    from haptera.state.machine import StateMachine

encode = msgspec.msgpack.encode

#: Keys `a` of version 2, `b` of version 5 and `c`, which expires, of version 6, in a store at revision 9.
KV: Final = [("kv", encode((9, 1, 3))), ("kv", encode((("a", "b", "c"), (b"", b"", b""), (2, 5, 6), (None, None, 99))))]
REQUESTS: Final = [("requests", encode((20, 0)))]


def loaded(count: int, *rows: Any) -> StateMachine:
    """The state of a snapshot whose section says that there are so many leases."""
    pieces = [*KV, *REQUESTS, ("leases", encode((count,))), *(("leases", encode(piece)) for piece in rows)]
    return load_pieces(pieces, index=9, time_ms=20)


def test_a_section_is_loaded_as_it_was_dumped() -> None:
    machine = loaded(2, ((1, 1000, ("a",)), (3, 2000, ("b",))))
    machine.check()
    assert {lease_id: (lease.ttl_ms, [*lease.keys]) for lease_id, lease in machine.leases.by_id.items()} == {
        1: (1000, ["a"]),
        3: (2000, ["b"]),
    }
    assert (machine.leases.fenced(2), machine.leases.fenced(5)) == (None, None)
    assert machine.leases.fenced(6) is not None
    again = load_pieces(dump_pieces(machine), index=9, time_ms=20)
    assert again.digest() == machine.digest()


def test_the_keys_of_a_lease_may_go_on_in_the_next_row() -> None:
    machine = loaded(1, ((1, 1000, ("a",)),), ((1, 1000, ("b",)),))
    machine.check()
    assert [*machine.leases.by_id[1].keys] == ["a", "b"]


def test_many_leases_with_many_keys_are_dumped_in_pieces_of_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_pieces, "PIECE_SIZE", 200)
    store = Store()
    for number in range(200):
        store.do(GrantLease(1000 + number))
    for lease in (1, 100, 200):
        store.do(SetMany([(f"{lease:03}/{number:03}", b"") for number in range(100)], lease=lease))
    pieces = [piece for section, piece in dump_pieces(store) if section == "leases"]
    assert len(pieces) > 16
    assert max(map(len, pieces)) < 400
    again = load_pieces(dump_pieces(store), index=store.index, time_ms=store.time_ms)
    again.check()
    assert again.digest() == store.digest()


@pytest.mark.parametrize("rows", [[((1, 1000, ("a", "b")),)], [((1, 1000, ("a",)),), ((1, 1000, ("b",)),)]])
def test_a_lease_with_too_many_keys_is_malformed(rows: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(1, *rows)
    monkeypatch.setattr(limits, "LEASE_KEYS_MAX", 1)
    with pytest.raises(MalformedPieces, match="too many keys"):
        loaded(1, *rows)


@pytest.mark.parametrize(
    ("count", "rows"),
    [
        pytest.param(1, ((0, 1000, ("b",)),), id="an id of 0"),
        pytest.param(1, ((-1, 1000, ("b",)),), id="an id below 0"),
        pytest.param(1, ((10, 1000, ()),), id="an id above the revision"),
        pytest.param(2, ((3, 1000, ()), (1, 1000, ())), id="ids out of order"),
        pytest.param(2, ((1, 1000, ()), (3, 1000, ()), (1, 1000, ())), id="an id that comes again"),
        pytest.param(1, ((1, 999, ()),), id="a time that is too short"),
        pytest.param(1, ((1, 86_400_001, ()),), id="a time that is too long"),
        pytest.param(1, ((1, 1000, ("a",)), (1, 2000, ("b",))), id="two times"),
        pytest.param(1, ((1, 1000, ("a",), "ann"), (1, 1000, ("b",), "bob")), id="two users"),
        pytest.param(1, ((1, 1000, (), "a\nb"),), id="a user of no name"),
        pytest.param(1, ((1, 1000, ("missing",)),), id="a key that is missing"),
        pytest.param(1, ((1, 1000, ("c",)),), id="a key that expires"),
        pytest.param(1, ((3, 1000, ("a",)),), id="a key that is older than its lease"),
        pytest.param(1, ((1, 1000, ("a", "a")),), id="a key that comes twice"),
        pytest.param(1, ((1, 1000, ("b", "a")),), id="keys out of order"),
        pytest.param(2, ((1, 1000, ("b",)), (3, 1000, ("b",))), id="a key of two leases"),
        pytest.param(2, ((1, 1000, ()),), id="fewer leases than are announced"),
        pytest.param(1, ((1, 1000, ()), (3, 1000, ())), id="more leases than are announced"),
        pytest.param(0, (), id="no lease"),
        pytest.param(limits.LEASES_MAX + 1, (), id="too many leases"),
        pytest.param(1, ((1, 1000),), id="a field that is missing"),
    ],
)
def test_a_section_that_cannot_be_one_is_malformed(count: int, rows: tuple[Any, ...]) -> None:
    with pytest.raises(MalformedPieces):
        loaded(count, rows)


def test_a_field_that_is_not_known_is_a_newer_versions() -> None:
    with pytest.raises(UnknownPart):
        loaded(1, ((1, 1000, (), "ann", 0),))
