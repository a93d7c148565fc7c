"""The section of users, roles and tokens in a snapshot: whole as it was, and refused where it cannot be one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from haptera.state import UnknownPart, access_pieces, dump_pieces, load_pieces
from haptera.state.access_operations import (
    AddGrant,
    AddParent,
    AddRole,
    AddToken,
    AddUser,
    RemoveUser,
    SetDisabled,
    SetNodeSecret,
)
from haptera.state.piece_decoding import MalformedPieces
from tests.support.verifiers import VERIFIER
from tests.unit.state.store import Store
from tests.unit.state.test_access import OTHER

if TYPE_CHECKING:
    from haptera.state import Write
    from haptera.state.machine import StateMachine

encode = msgspec.msgpack.encode

KEYS: Final = (b"s" * 16, 4096, b"k" * 32, b"K" * 32)
KV: Final = [("kv", encode((0, 0, 0))), ("requests", encode((20, 0)))]


def loaded(head: Any, *rows: Any) -> StateMachine:
    """The state of a snapshot with this head of the section, and these rows."""
    pieces = [*KV, ("access", encode(head)), *(("access", encode(piece)) for piece in rows)]
    return load_pieces(pieces, index=9, time_ms=20)


def filled() -> Store:
    store = Store()
    for op in (
        AddRole("ops", ["admin"]),
        AddRole("app", []),
        AddGrant("app", ["write", "read"], "a/*"),
        AddGrant("app", ["metrics"], "*"),
        AddParent("app", "ops"),
        AddUser("root", VERIFIER, ["admin"]),
        AddUser("ann", None, ["app", "ops"]),
        SetDisabled("ann", True),
        AddToken("token:1", OTHER, ["app"], 2_000_000),
        AddToken("token:2", VERIFIER, []),
    ):
        assert store.do(op) == (True,)
    return store


def test_a_section_is_loaded_as_it_was_dumped() -> None:
    store = filled()
    again = load_pieces(dump_pieces(store), index=store.index, time_ms=store.time_ms)
    again.check()
    assert again.digest() == store.digest()
    for table in ("users", "roles", "tokens"):
        assert getattr(again.access, table) == getattr(store.access, table)
    assert (again.access.revision, again.access.grants) == (10, 2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (AddUser("eve", VERIFIER, []), AddUser("eve", OTHER, [])),
        (AddUser("eve", None, []), AddUser("eve", None, ["app"])),
        (AddRole("web", []), AddRole("web", ["app"])),
        (AddGrant("app", ["read"], "b"), AddGrant("app", ["read"], "c")),
        (AddToken("token:3", VERIFIER, []), AddToken("token:3", OTHER, [])),
        (AddToken("token:3", VERIFIER, []), AddToken("token:3", VERIFIER, [], 2_000_000)),
    ],
)
def test_states_that_differ_in_one_table_have_two_digests(one: Write, other: Write) -> None:
    stores = filled(), filled()
    assert stores[0].digest() == stores[1].digest()
    for store, op in zip(stores, (one, other), strict=True):
        assert store.do(op) == (True,)
    assert stores[0].access.revision == stores[1].access.revision
    assert stores[0].digest() != stores[1].digest()


def test_a_state_without_users_has_no_section_and_one_that_had_some_has_its_revision() -> None:
    store = Store()
    assert "access" not in {section for section, _ in dump_pieces(store)}
    store.do(AddUser("app", VERIFIER, []))
    store.do(RemoveUser("app"))
    assert [piece for section, piece in dump_pieces(store) if section == "access"] == [encode((2, 0, 0, 0))]
    again = load_pieces(dump_pieces(store), index=store.index, time_ms=store.time_ms)
    assert again.access.revision == 2


def test_many_users_are_dumped_in_pieces_of_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_pieces, "PIECE_SIZE", 500)
    store = Store()
    for number in range(100):
        store.do(AddUser(f"user {number}", VERIFIER, []))
    pieces = [piece for section, piece in dump_pieces(store) if section == "access"]
    assert len(pieces) > 16
    assert max(map(len, pieces)) < 800
    again = load_pieces(dump_pieces(store), index=store.index, time_ms=store.time_ms)
    assert again.digest() == store.digest()


ROLE: Final = ("role", "r", ())
USER: Final = ("user", "u", ("r",), KEYS)
TOKEN: Final = ("token", "token:1", (), KEYS, False, 5)


def grants(*given: Any) -> tuple[Any, ...]:
    return ("role", "r", (), None, False, None, given)


@pytest.mark.parametrize(
    ("head", "rows", "reason"),
    [
        pytest.param((0, 1, 0, 0), (ROLE,), "no users have this revision", id="a revision of 0"),
        pytest.param((1, 1001, 0, 0), (ROLE,), "too many", id="too many roles"),
        pytest.param((1, 0, 10_001, 0), (), "too many", id="too many users"),
        pytest.param((1, 0, 0, -1), (), "too many", id="fewer than no tokens"),
        pytest.param((1, 2, 0, 0), (ROLE,), "there are", id="a role that is missing"),
        pytest.param((1, 1, 1, 0), (USER, ROLE), "order", id="a role behind a user"),
        pytest.param((1, 2, 0, 0), (ROLE, ROLE), "order", id="a role twice"),
        pytest.param((1, 1, 0, 0), (("role", "admin", ()),), "built-in", id="the built-in role"),
        pytest.param((1, 1, 0, 0), (("role", "r", ("r",)),), "itself", id="a role of itself"),
        pytest.param((1, 2, 0, 0), (("role", "q", ("r",)), ("role", "r", ("q",))), "itself", id="a circle of roles"),
        pytest.param((1, 1, 0, 0), (("role", "r", ("no",)),), "is there", id="a parent that is missing"),
        pytest.param((1, 0, 1, 0), (USER,), "is there", id="a role of a user that is missing"),
        pytest.param((1, 0, 1, 0), (("user", "u\n", ()),), "a name", id="a name that is none"),
        pytest.param((1, 0, 1, 0), (("user", "token:1", ()),), "a name", id="a user with a token's name"),
        pytest.param((1, 0, 0, 1), (("token", "u", (), KEYS),), "a name", id="a token with a user's name"),
        pytest.param((1, 0, 0, 1), (("token", "token:1", ()),), "no verifier", id="a token without a verifier"),
        pytest.param(
            (1, 0, 1, 0), (("user", "u", (), (b"", 1, b"", b"")),), "can be one", id="a verifier that is none"
        ),
        pytest.param(
            (1, 0, 1, 0), (("user", "u", (), (b"s" * 17, *KEYS[1:])),), "can be one", id="a salt of another size"
        ),
        pytest.param(
            (1, 0, 1, 0), (("user", "u", (), (KEYS[0], 4095, *KEYS[2:])),), "can be one", id="too few iterations"
        ),
        pytest.param((1, 0, 1, 0), (("user", "u", ("r", "r")),), "in order", id="a role that is given twice"),
        pytest.param((1, 0, 1, 0), (("user", "u", (), None, False, 5),), "another kind", id="a user that expires"),
        pytest.param((1, 0, 0, 1), (("token", "token:1", (), KEYS, True),), "another kind", id="a disabled token"),
        pytest.param((1, 1, 0, 0), (("role", "r", (), KEYS),), "another kind", id="a role with a verifier"),
        pytest.param((1, 1, 0, 0), (grants(("a", ())),), "in order", id="a grant of nothing"),
        pytest.param((1, 1, 0, 0), (grants(("a", ("write", "read"))),), "in order", id="permissions in another order"),
        pytest.param((1, 1, 0, 0), (grants(("b", ("read",)), ("a", ("read",))),), "in order", id="patterns unordered"),
        pytest.param((1, 1, 0, 0), (grants(("a", ("admin",))),), "every key", id="a node's permission on a key"),
        pytest.param((1, 1, 0, 0), (grants(("[", ("read",))),), "no end", id="a pattern that is none"),
        pytest.param((1, 1, 0, 0), (("thing", "r", ()),), "something else", id="a row of no kind"),
    ],
)
def test_a_section_that_no_state_has_is_refused(head: Any, rows: Any, reason: str) -> None:
    with pytest.raises(MalformedPieces, match=reason):
        loaded(head, rows)


def test_a_permission_of_a_newer_version_is_refused_as_such() -> None:
    with pytest.raises(UnknownPart, match="has a permission 'fly' that is not known"):
        loaded((1, 1, 0, 0), (grants(("a", ("fly",))),))
    with pytest.raises(UnknownPart, match="more fields"):
        loaded((1, 1, 0, 0), ((*grants(), "", 1),))


def test_rows_of_all_kinds_are_loaded() -> None:
    machine = loaded((3, 1, 1, 1), (grants(("a", ("read",))),), (USER, TOKEN))
    machine.check()
    assert machine.access.permits("u", 1).may("read", "a")
    assert machine.access.login("token:1", 5).admitted is False
    assert machine.access.grants == 1


def with_secret(*pieces: Any, users: Any = (1, 0, 0, 0)) -> StateMachine:
    """The state of a snapshot with these pieces of the secret's section."""
    sections = [("access", encode(users))] if users else []
    given = [*KV, *sections, *(("node_secret", encode(piece)) for piece in pieces)]
    return load_pieces(given, index=9, time_ms=20)


def test_the_secret_of_the_decoys_is_loaded_as_it_was_dumped() -> None:
    store = filled()
    before = store.digest()
    assert store.do(SetNodeSecret(b"s" * 32)) == (True,)
    assert store.digest() != before
    again = load_pieces(dump_pieces(store), index=store.index, time_ms=store.time_ms)
    again.check()
    assert (again.access.secret, again.digest()) == (b"s" * 32, store.digest())


def test_states_with_two_secrets_have_two_digests() -> None:
    one, other = with_secret((b"a" * 32,)), with_secret((b"b" * 32,))
    assert one.access.digest() != other.access.digest()


@pytest.mark.parametrize(
    ("pieces", "users", "reason"),
    [
        (((b"s" * 31,),), (1, 0, 0, 0), "this size"),
        (((b"",),), (1, 0, 0, 0), "this size"),
        (((b"s" * 32,), []), (1, 0, 0, 0), "one piece"),
        (((b"s" * 32,),), (), "one change"),
    ],
)
def test_a_section_of_the_secret_that_no_state_has_is_refused(pieces: Any, users: Any, reason: str) -> None:
    with pytest.raises(MalformedPieces, match=reason):
        with_secret(*pieces, users=users)
