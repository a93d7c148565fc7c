"""The section of the quotas in a snapshot: whole as it was, and refused where it cannot be one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from haptera.state import quota_pieces
from haptera.state.access_operations import AddUser, SetQuota
from haptera.state.command_encoding import UnknownPart
from haptera.state.operations import GrantLease, SetMany
from haptera.state.piece_decoding import MalformedPieces
from haptera.state.snapshot_pieces import dump_pieces, load_pieces
from tests.unit.state.store import Store

if TYPE_CHECKING:
    from haptera.state.machine import StateMachine

encode = msgspec.msgpack.encode

#: Keys `a`, `b` and `c` with values of 1, 2 and 3 bytes, the leases 3 and 4, and the users `ann` and `bob`.
BEFORE: Final = [
    ("kv", encode((9, 1, 3))),
    ("kv", encode((("a", "b", "c"), (b"1", b"12", b"123"), (2, 5, 6)))),
    ("requests", encode((20, 0))),
    ("leases", encode((2,))),
    ("leases", encode(((3, 1000, (), "ann"), (4, 1000, (), "bob")))),
    ("access", encode((2, 0, 2, 0))),
    ("access", encode((("user", "ann", ()), ("user", "bob", ())))),
]


def loaded(count: int, *rows: Any) -> StateMachine:
    """The state of a snapshot whose section says that there are so many quotas."""
    pieces = [*BEFORE, ("quotas", encode((count,))), *(("quotas", encode(piece)) for piece in rows)]
    return load_pieces(pieces, index=9, time_ms=20)


def row(user: str = "ann", leases: Any = (), keys: Any = (), quota: Any = (5, None, None, None)) -> tuple[Any, ...]:
    return (user, *quota, leases, keys)


def test_a_section_is_loaded_as_it_was_dumped() -> None:
    machine = loaded(2, (row(leases=(3,), keys=("a", "c")), row("bob", keys=("b",))))
    machine.check()
    accounts = machine.kv.quotas.accounts
    assert {user: (each.keys, each.size, each.leases) for user, each in accounts.items()} == {
        "ann": (2, 6, 1),
        "bob": (1, 3, 0),
    }
    again = load_pieces(dump_pieces(machine), index=9, time_ms=20)
    assert again.digest() == machine.digest()


def test_what_counts_for_a_user_may_go_on_in_the_next_row() -> None:
    machine = loaded(1, (row(leases=(3,)),), (row(leases=(4,), keys=("a",)), row(keys=("b",))))
    machine.check()
    account = machine.kv.quotas.accounts["ann"]
    assert (account.keys, account.leases) == (2, 2)


def test_many_keys_are_dumped_in_pieces_of_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_pieces, "PIECE_SIZE", 200)
    store = Store()
    for user in ("ann", "bob", "eve"):
        store.do(AddUser(user, None, []))
        store.do(SetQuota(user, keys=999))
        store.do(SetMany([(f"{user}/{number:03}", b"") for number in range(100)]), user)
        for _ in range(30):
            store.do(GrantLease(1000), user)
    pieces = [piece for section, piece in dump_pieces(store) if section == "quotas"]
    assert len(pieces) > 16
    assert max(map(len, pieces)) < 400
    again = load_pieces(dump_pieces(store), index=store.index, time_ms=store.time_ms)
    again.check()
    assert again.digest() == store.digest()


def test_a_store_without_quotas_has_no_section() -> None:
    store = Store()
    store.do(AddUser("ann", None, []))
    assert "quotas" not in {section for section, _ in dump_pieces(store)}


@pytest.mark.parametrize(
    ("count", "rows"),
    [
        pytest.param(0, (), id="no quota"),
        pytest.param(10_001, (row(),), id="more quotas than users can be"),
        pytest.param(2, (row(),), id="fewer than the head says"),
        pytest.param(1, (row(), row("bob")), id="more than the head says"),
        pytest.param(1, (row("eve"),), id="of a user that is not there"),
        pytest.param(2, (row("bob"), row()), id="not in their order"),
        pytest.param(2, (row(), row("bob"), row()), id="twice"),
        pytest.param(1, (row(quota=(None,) * 4),), id="without a number"),
        pytest.param(1, (row(quota=(-1, None, None, None)),), id="below 0"),
        pytest.param(1, (row(quota=(None, None, None, 2**53)),), id="above 2^53 - 1"),
        pytest.param(1, (row(), row(quota=(6, None, None, None))), id="with two quotas"),
        pytest.param(1, (row(keys=("missing",)),), id="a key that is missing"),
        pytest.param(1, (row(keys=("a", "a")),), id="a key twice"),
        pytest.param(1, (row(keys=("b", "a")),), id="keys out of their order"),
        pytest.param(2, (row(keys=("a",)), row("bob", keys=("a",))), id="a key for two users"),
        pytest.param(1, (row(leases=(2,)),), id="a lease that is missing"),
        pytest.param(1, (row(leases=(3, 3)),), id="a lease twice"),
        pytest.param(2, (row(leases=(3,)), row("bob", leases=(3,))), id="a lease for two users"),
        pytest.param(1, (("ann", 1, None, None),), id="a row that is too short"),
    ],
)
def test_a_section_that_cannot_be_is_malformed(count: int, rows: Any) -> None:
    with pytest.raises(MalformedPieces):
        loaded(count, rows)


def test_a_row_with_another_field_is_of_a_newer_version() -> None:
    with pytest.raises(UnknownPart, match="more fields"):
        loaded(1, ((*row(), 1),))
