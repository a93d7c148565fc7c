"""Users, roles, grants and tokens: the part ``access`` of the state (storage-format, section 12.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.access_rules import KEY_PERMISSIONS, NODE_PERMISSIONS
from haptera.errors import Failure
from haptera.state import (
    Logged,
    UnknownPart,
    accepted_size,
    access,
    access_commands,
    decode_commands,
    encode_commands,
    limits,
    size_bound,
    validate,
)
from haptera.state.access import StoredRole, is_administrator
from haptera.state.access_operations import (
    AddGrant,
    AddParent,
    AddRole,
    AddToken,
    AddUser,
    AssignRole,
    RemoveGrant,
    RemoveParent,
    RemoveRole,
    RemoveToken,
    RemoveUser,
    SetDisabled,
    SetNodeSecret,
    SetVerifier,
    StoredVerifier,
    WithdrawRole,
)
from tests.support.verifiers import VERIFIER
from tests.unit.state.store import Store, refused

if TYPE_CHECKING:
    from haptera.state import Write

OTHER = StoredVerifier(b"t" * 16, 600_000, b"l" * 32, b"L" * 32)
MADE, NOTHING_TO_DO = (True,), (False,)


def store(*ops: Write) -> Store:
    """A store with the administrator `root`, after these commands."""
    made = Store()
    for op in (AddUser("root", VERIFIER, ["admin"]), *ops):
        assert made.do(op) == MADE
    return made


def test_a_user_is_there_with_its_verifier_until_it_is_removed() -> None:
    db = store(AddUser("app", VERIFIER, []))
    assert db.access.login("app", 1) == (VERIFIER, True)
    assert refused(db.do(AddUser("app", OTHER, [])), 2007, user="app")
    assert db.do(SetVerifier("app", OTHER)) == MADE
    assert db.do(SetVerifier("app", OTHER)) == NOTHING_TO_DO
    assert db.access.login("app", 1) == (OTHER, True)
    assert db.do(SetVerifier("app", None)) == MADE
    assert db.access.login("app", 1) == (None, True)
    assert db.do(RemoveUser("app")) == MADE
    assert db.access.login("app", 1) == (None, False)
    for op in (RemoveUser("app"), SetVerifier("app", OTHER), SetDisabled("app", True), AssignRole("app", "admin")):
        assert refused(db.do(op), 2008, user="app")
    assert refused(db.do(WithdrawRole("app", "admin")), 2008, user="app")


def test_a_disabled_user_keeps_its_verifier_and_may_do_nothing() -> None:
    db = store(AddRole("r", []), AddGrant("r", ["read"], "*"), AddUser("app", VERIFIER, ["r"]))
    assert db.access.permits("app", 1).may("read", "k")
    assert db.do(SetDisabled("app", True)) == MADE
    assert db.access.login("app", 1) == (VERIFIER, False)
    assert not db.access.permits("app", 1).may("read", "k")
    assert db.do(SetDisabled("app", True)) == NOTHING_TO_DO
    assert db.do(SetDisabled("app", False)) == MADE
    assert db.access.permits("app", 1).may("read", "k")


def test_a_new_password_leaves_the_roles_and_whether_the_user_is_disabled() -> None:
    db = store(AddRole("r", []), AddUser("app", VERIFIER, ["r"]), SetDisabled("app", True))
    assert db.do(SetVerifier("app", OTHER)) == MADE
    assert db.access.login("app", 1) == (OTHER, False)
    assert db.access.users["app"].roles == ("r",)


def test_a_change_of_the_access_is_no_change_of_the_store() -> None:
    db = store(AddRole("r", []))
    assert (db.revision, db.access.revision) == (0, 2)
    assert db.do(AssignRole("root", "admin")) == NOTHING_TO_DO
    assert refused(db.do(AddRole("r", [])), 2009, role="r")
    assert db.access.revision == 2


def test_roles_give_their_grants_and_those_of_their_parents() -> None:
    db = store(
        AddRole("reader", []),
        AddGrant("reader", ["read", "scan"], "a/*"),
        AddRole("writer", ["reader"]),
        AddGrant("writer", ["write"], "a/*"),
        AddUser("app", VERIFIER, ["writer"]),
    )
    permits = db.access.permits("app", 1)
    assert permits.may("read", "a/1") and permits.may("write", "a/1")  # noqa: PT018
    assert not permits.may("read", "b") and not permits.may("delete", "a/1")  # noqa: PT018
    assert db.do(RemoveParent("writer", "reader")) == MADE
    assert not db.access.permits("app", 1).may("read", "a/1")
    assert db.do(RemoveParent("writer", "reader")) == NOTHING_TO_DO
    assert db.do(AddParent("writer", "reader")) == MADE
    assert db.do(RemoveGrant("reader", ["read", "delete"], "a/*")) == MADE
    now = db.access.permits("app", 1)
    assert (now.may("read", "a/1"), now.may("scan", "a/1")) == (False, True)
    assert db.do(RemoveGrant("reader", ["scan"], "a/*")) == MADE
    assert db.access.roles["reader"].grants == ()
    assert db.do(RemoveGrant("reader", ["scan"], "a/*")) == NOTHING_TO_DO


def test_a_role_that_is_removed_is_lost_by_all_that_had_it() -> None:
    db = store(
        AddRole("r", []),
        AddGrant("r", ["read"], "*"),
        AddRole("child", ["r"]),
        AddUser("app", VERIFIER, ["child", "r"]),
        AddToken("token:1", VERIFIER, ["r"]),
    )
    assert db.do(RemoveRole("r")) == MADE
    assert db.access.users["app"].roles == ("child",)
    assert db.access.tokens["token:1"].roles == ()
    assert db.access.roles["child"].parents == ()
    assert not db.access.permits("app", 1).may("read", "k")
    assert not db.access.permits("token:1", 1).may("read", "k")
    assert db.access.grants == 0


def test_a_role_cannot_contain_itself() -> None:
    db = store(AddRole("a", []), AddRole("b", ["a"]), AddRole("c", ["b"]))
    for role, parent in (("a", "c"), ("a", "b"), ("a", "a"), ("b", "c")):
        assert refused(db.do(AddParent(role, parent)), 3003, field="parent", reason="contains the role itself")
    assert refused(db.do(AddRole("d", ["d"])), 2010, role="d")


@pytest.mark.parametrize(
    "op",
    [
        RemoveRole("admin"),
        AddGrant("admin", ["read"], "*"),
        RemoveGrant("admin", ["read"], "*"),
        AddParent("admin", "r"),
        RemoveParent("admin", "r"),
    ],
    ids=lambda op: type(op).__name__,
)
def test_the_built_in_role_is_not_changed(op: Write) -> None:
    db = store(AddRole("r", []))
    assert refused(db.do(op), 2011, role="admin")
    assert refused(db.do(AddRole("admin", [])), 2009, role="admin")


@pytest.mark.parametrize(
    "op",
    [
        AddUser("app", None, ["no"]),
        AssignRole("root", "no"),
        WithdrawRole("root", "no"),
        AddRole("x", ["no"]),
        RemoveRole("no"),
        AddParent("no", "r"),
        AddParent("r", "no"),
        RemoveParent("no", "r"),
        RemoveParent("r", "no"),
        AddGrant("no", ["read"], "*"),
        RemoveGrant("no", ["read"], "*"),
        AddToken("token:1", VERIFIER, ["no"]),
    ],
    ids=lambda op: type(op).__name__,
)
def test_a_role_that_is_missing_is_2010(op: Write) -> None:
    db = store(AddRole("r", []))
    before = db.access.digest()
    assert refused(db.do(op), 2010, role="no")
    assert db.access.digest() == before


def test_the_role_admin_may_do_everything() -> None:
    permits = store().access.permits("root", 1)
    assert all(permits.may(each, "any key") and permits.covers(each, "") for each in KEY_PERMISSIONS)
    assert all(map(permits.has, NODE_PERMISSIONS))


@pytest.mark.parametrize(
    "op",
    [RemoveUser("root"), SetDisabled("root", True), SetVerifier("root", None), WithdrawRole("root", "admin")],
    ids=lambda op: type(op).__name__,
)
def test_the_last_administrator_stays(op: Write) -> None:
    db = store(AddUser("app", VERIFIER, []), AddUser("off", VERIFIER, ["admin"]), SetDisabled("off", True))
    before = db.access.digest()
    assert refused(db.do(op), 2012)
    assert db.access.digest() == before
    assert db.do(SetDisabled("off", False)) == MADE
    assert db.do(op) == MADE
    assert any(is_administrator(user, db.access.powerful) for user in db.access.users.values())


def test_the_last_administrator_stays_one_by_its_roles_too() -> None:
    db = store(
        AddRole("ops", ["admin"]), AddRole("team", ["ops"]), AddUser("ann", VERIFIER, ["team"]), RemoveUser("root")
    )
    for op in (RemoveRole("ops"), RemoveParent("ops", "admin"), RemoveParent("team", "ops"), RemoveRole("team")):
        assert refused(db.do(op), 2012)
    assert db.access.permits("ann", 1).has("admin")
    assert db.do(AddUser("bob", VERIFIER, ["admin"])) == MADE
    assert db.do(RemoveRole("ops")) == MADE
    assert not db.access.permits("ann", 1).has("admin")


def test_no_change_and_no_check_walks_from_each_role(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred roles with 64 parents each: a walk from each of them would pass a million parents."""
    db = store(AddUser("ann", VERIFIER, []), AddUser("bob", VERIFIER, ["admin"]))
    names = [f"{number:03}" for number in range(200)]
    roles = {name: StoredRole(tuple(names[max(0, at - 64) : at])) for at, name in enumerate(names)}
    roles["000"] = StoredRole(("admin",))
    db.access.adopt(roles=roles)
    assert db.access.powerful == {"admin", *names}
    walks: list[list[str]] = []

    def walk(_: object, names: list[str]) -> set[str]:
        walks.append(names)
        return set()

    for module in (access, access_commands):
        monkeypatch.setattr(module, "reached", walk)
    for op in (AssignRole("ann", "199"), SetDisabled("bob", True), RemoveParent("199", "198"), RemoveRole("150")):
        assert db.do(op) == MADE
    assert walks == []


def test_a_parent_makes_an_administrator_that_counts_from_then_on() -> None:
    db = store(AddRole("ops", []), AddUser("ann", VERIFIER, ["ops"]))
    assert refused(db.do(RemoveUser("root")), 2012)
    assert db.do(AddParent("ops", "admin")) == MADE
    assert db.do(RemoveUser("root")) == MADE
    assert refused(db.do(RemoveParent("ops", "admin")), 2012)


def test_an_administrator_without_a_verifier_does_not_count() -> None:
    """No password lets it in, so it could not undo what leaves it alone."""
    db = store(AddUser("bob", None, ["admin"]))
    for op in (RemoveUser("root"), SetVerifier("root", None), SetDisabled("root", True)):
        assert refused(db.do(op), 2012)
    assert db.access.permits("bob", 1).has("admin")
    assert db.do(SetVerifier("root", OTHER)) == MADE
    assert db.do(SetVerifier("bob", OTHER)) == MADE
    assert db.do(SetVerifier("root", None)) == MADE


def test_two_administrators_that_remove_each_other_leave_one() -> None:
    """Both were judged good before either was logged: the order of the log decides."""
    db = store(AddUser("ann", VERIFIER, ["admin"]))
    results = db.apply(db.index + 1, 1, [Logged(RemoveUser("ann"), "root"), Logged(RemoveUser("root"), "ann")])
    assert results[0] == MADE
    assert refused(results[1], 2004, permission="user_admin")
    [again] = db.apply(db.index + 1, 1, [Logged(RemoveUser("root"), "root")])
    assert refused(again, 2012)
    assert list(db.access.users) == ["root"]


def test_without_an_administrator_changes_that_make_none_go_on() -> None:
    """A store without users, or one whose first users are still to get their roles."""
    db = Store()
    assert db.do(AddUser("app", VERIFIER, [])) == MADE
    assert db.do(RemoveUser("app")) == MADE
    assert db.do(AddToken("token:1", VERIFIER, ["admin"])) == MADE
    assert db.do(AddRole("ops", ["admin"])) == MADE
    assert db.do(RemoveRole("ops")) == MADE


def test_a_token_is_good_until_it_expires_or_is_removed() -> None:
    db = store(AddRole("r", []), AddGrant("r", ["read"], "*"))
    assert db.do(AddToken("token:1", VERIFIER, ["r"], db.now_ms + 10)) == MADE
    assert db.do(AddToken("token:2", VERIFIER, ["r"])) == MADE
    assert db.access.permits("token:1", db.now_ms + 9).may("read", "k")
    assert db.access.login("token:1", db.now_ms + 10) == (VERIFIER, False)
    assert not db.access.permits("token:1", db.now_ms + 10).may("read", "k")
    assert db.access.permits("token:2", 2**50).may("read", "k")
    assert refused(db.do(AddToken("token:2", OTHER, [])), 2007, user="token:2")
    assert db.do(RemoveToken("token:2")) == MADE
    assert refused(db.do(RemoveToken("token:2")), 2008, user="token:2")
    assert not db.access.permits("token:2", 1).may("read", "k")


def test_tokens_that_have_expired_go_with_the_next_one() -> None:
    db = store(AddToken("token:1", VERIFIER, [], 1_000_010), AddToken("token:2", VERIFIER, [], 1_000_011))
    db.wait(10)
    assert list(db.access.tokens) == ["token:1", "token:2"]
    assert db.do(AddToken("token:1", OTHER, [])) == MADE
    assert db.access.tokens["token:1"].verifier == OTHER
    db.wait(1)
    assert db.do(AddToken("token:3", VERIFIER, [])) == MADE
    assert sorted(db.access.tokens) == ["token:1", "token:3"]


def test_a_token_is_no_administrator_that_stays() -> None:
    db = store(AddToken("token:1", VERIFIER, ["admin"]))
    assert db.access.permits("token:1", 1).has("user_admin")
    assert refused(db.do(RemoveUser("root")), 2012)


def test_what_was_compiled_is_forgotten_with_each_change() -> None:
    db = store(AddRole("r", []), AddUser("app", VERIFIER, ["r"]))
    first = db.access.permits("app", 1)
    assert db.access.permits("app", 1) is first
    assert not first.may("read", "k")
    assert db.do(AddGrant("r", ["read"], "k")) == MADE
    assert db.access.permits("app", 1).may("read", "k")
    assert db.do(WithdrawRole("app", "r")) == MADE
    assert not db.access.permits("app", 1).may("read", "k")


@pytest.mark.parametrize(
    ("limit", "name", "ops"),
    [
        ("USERS_MAX", "users_max", [AddUser("b", None, []), AddUser("c", None, [])]),
        ("TOKENS_MAX", "tokens_max", [AddToken("token:1", VERIFIER, []), *[AddToken("token:2", VERIFIER, [])] * 2]),
        ("ROLES_MAX", "roles_max", [AddRole("p", []), AddRole("q", []), AddRole("s", [])]),
        ("GRANTS_MAX", "grants_max", [AddRole("p", []), *[AddGrant("p", ["read"], each) for each in "abc"]]),
        (
            "ROLES_HELD_MAX",
            "roles_held_max",
            [
                AddRole("p", []),
                AddRole("q", []),
                AddRole("r", []),
                *[AddParent("p", "q"), AddParent("p", "r"), AddParent("p", "admin")],
            ],
        ),
        (
            "ROLES_HELD_MAX",
            "roles_held_max",
            [AddRole("p", []), AddRole("q", []), AssignRole("root", "p"), AssignRole("root", "q")],
        ),
    ],
)
def test_each_table_has_its_bound(limit: str, name: str, ops: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    db = store()
    monkeypatch.setattr(limits, limit, 2)
    *made, one_too_many = ops
    if limit == "TOKENS_MAX":
        one_too_many = msgspec.structs.replace(one_too_many, token="token:3")
    for op in made:
        assert db.do(op) == MADE
    assert refused(db.do(one_too_many), 3007, **{name: 2})


def test_a_grant_that_is_there_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    db = store(AddRole("r", []), AddGrant("r", ["read"], "a"))
    monkeypatch.setattr(limits, "GRANTS_MAX", 1)
    assert db.do(AddGrant("r", ["write"], "a")) == MADE
    assert db.access.roles["r"].grants == (("a", ("read", "write")),)
    assert db.do(AddGrant("r", ["write", "read"], "a")) == NOTHING_TO_DO


def test_the_patterns_that_one_key_is_compared_with_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all roles, each counted once, without prefixes and keys, and behind their literal beginnings alone."""
    db = store(AddRole("r", []), AddRole("q", []))
    monkeypatch.setattr(limits, "GRANT_RESTS_SIZE_MAX", 10)
    for role, pattern in (
        ("r", "app/*/x"),
        ("q", "app/*/x"),  # counted once
        ("r", "app/prod/[ab]*"),  # with the one before: 3 + 5
        ("r", "app/other/*/e"),  # not with the last one
        ("q", "a-single-key-of-any-size"),
        ("q", "app/prod/and-a-prefix/*"),
        ("q", r"app/prod/\*escaped"),
        ("r", "lib/??????????"),
    ):
        assert db.do(AddGrant(role, ["read"], pattern)) == MADE
    for pattern in ("app/???", "???", "app/prod/*é", "app/prod/x/???", "lib/?"):
        assert refused(db.do(AddGrant("q", ["read"], pattern)), 3007, grant_rests_size_max=10)
    assert db.do(AddGrant("r", ["write"], "app/*/x")) == MADE
    assert db.do(AddGrant("q", ["read"], "app/prod/*1")) == MADE
    assert refused(db.known(Logged(AddGrant("q", ["read"], "?"))), 3007, grant_rests_size_max=10)
    monkeypatch.setattr(limits, "GRANT_RESTS_SIZE_MAX", 9)
    with pytest.raises(AssertionError, match="compared with few enough patterns"):
        db.check()


@pytest.mark.parametrize(
    ("op", "field"),
    [
        (AddUser("", None, []), "user"),
        (AddUser("a\nb", None, []), "user"),
        (AddUser("token:1", None, []), "user"),
        (AddUser("x" * 257, None, []), "user"),
        (AddUser("\ud800", None, []), "user"),
        (AddUser("a", None, [""]), "roles"),
        (AddUser("a", None, ["r"] * 65), "roles"),
        (AddUser("a", StoredVerifier(b"s" * 15, 600_000, b"k" * 32, b"K" * 32), []), "verifier"),
        (AddUser("a", StoredVerifier(b"s" * 17, 600_000, b"k" * 32, b"K" * 32), []), "verifier"),
        (AddUser("a", StoredVerifier(b"s" * 16, 599_999, b"k" * 32, b"K" * 32), []), "verifier"),
        (AddUser("a", StoredVerifier(b"s" * 16, 600_001, b"k" * 32, b"K" * 32), []), "verifier"),
        (AddUser("a", StoredVerifier(b"s" * 16, 600_000, b"k" * 31, b"K" * 32), []), "verifier"),
        (AddUser("a", StoredVerifier(b"s" * 16, 600_000, b"k" * 32, b"K" * 33), []), "verifier"),
        (AddRole("", []), "role"),
        (AddRole("r", ["\x00"]), "parents"),
        (AddGrant("r", [], "*"), "permissions"),
        (AddGrant("r", ["read", "read"], "*"), "permissions"),
        (AddGrant("r", ["admin"], "a/*"), "permissions"),
        (AddGrant("r", ["read", "backup"], "a"), "permissions"),
        (AddGrant("r", ["read"], ""), "pattern"),
        (AddGrant("r", ["read"], "["), "pattern"),
        (AddGrant("r", ["read"], "x" * 257), "pattern"),
        (AddGrant("r", ["read"], "é" * 129), "pattern"),
        (AddToken("app", VERIFIER, []), "token"),
        (AddToken("token:", VERIFIER, []), "token"),
        (AddToken("token:1", VERIFIER, [], 0), "expires_at_ms"),
    ],
)
def test_a_command_that_no_table_could_hold_is_refused_before_it_is_logged(op: Write, field: str) -> None:
    found = validate(op)
    assert isinstance(found, Failure)
    assert (found.code, found.outcome, found.details["field"]) == (3003, "not_applied", field)


LARGEST: list[Write] = [
    AddUser("ü" * 128, StoredVerifier(b"s" * 16, 600_000, b"k" * 32, b"K" * 32), ["名" * 85] * 64),
    AddGrant("名" * 85, [*KEY_PERMISSIONS, *NODE_PERMISSIONS], "*"),
    AddGrant("名" * 85, [*KEY_PERMISSIONS], "é" * 128),
    AddToken("token:" + "x" * 250, VERIFIER, ["x" * 256] * 64, 2**53 - 1),
    AddRole("r" * 256, ["x" * 256] * 64),
    SetVerifier("a", None),
]


@pytest.mark.parametrize("op", LARGEST, ids=lambda op: type(op).__name__)
def test_a_logged_command_is_read_as_it_was_and_is_no_larger_than_its_bound(op: Write) -> None:
    assert accepted_size(op) == size_bound(op)
    payload = encode_commands([Logged(op)])
    assert decode_commands(payload) == [Logged(op)]
    assert len(payload) <= size_bound(op) + 64


def test_a_permission_of_a_newer_version_is_refused_as_such() -> None:
    payload = msgspec.msgpack.encode([[["access.add_grant", "r", ["read", "fly"], "*"], ""]])
    with pytest.raises(UnknownPart, match="has a permission 'fly' that is not known"):
        decode_commands(payload)


@pytest.mark.parametrize(
    "op",
    [
        AddUser("root", VERIFIER, []),
        RemoveUser("root"),
        SetVerifier("root", VERIFIER),
        AddRole("admin", []),
        RemoveToken("token:1"),
        AssignRole("root", "admin"),
    ],
    ids=lambda op: type(op).__name__,
)
def test_a_command_that_changes_nothing_needs_no_entry(op: Write) -> None:
    db = store()
    known = db.known(Logged(op))
    assert known == db.do(op)
    assert db.access.revision == 1


def test_a_command_that_changes_something_is_not_known_and_not_made_by_the_question() -> None:
    db = store()
    before = db.access.digest()
    assert db.known(Logged(AddRole("r", []))) is None
    assert db.access.digest() == before


def test_a_token_that_has_expired_by_now_does_not_refuse_another_of_its_name() -> None:
    """The last entry is older than its end."""
    db = store(AddToken("token:1", VERIFIER, [], 1_000_010))
    db.read_by(lambda: 1_000_009)
    assert refused(db.known(Logged(AddToken("token:1", OTHER, []))), 2007, user="token:1")
    db.read_by(lambda: 1_000_010)
    assert db.known(Logged(AddToken("token:1", OTHER, []))) is None


def test_an_entry_judges_tokens_by_its_own_time_alone() -> None:
    """A replay years later, by a clock that has gone on, comes to the same tokens."""
    db = store(AddToken("token:1", VERIFIER, [], 1_000_010))
    db.read_by(lambda: 2**50)
    assert refused(db.do(AddToken("token:1", OTHER, [])), 2007, user="token:1")
    assert db.do(AddToken("token:2", OTHER, [])) == MADE
    assert sorted(db.access.tokens) == ["token:1", "token:2"]


def test_no_view_of_a_command_shows_a_verifier() -> None:
    for shown in (repr(Logged(AddUser("app", VERIFIER, []))), str(VERIFIER), f"{store().access.users}"):
        assert "kkkk" not in shown
        assert "StoredVerifier(***)" in shown


def test_a_store_has_one_secret_of_its_decoys_which_stays() -> None:
    db = Store()
    assert db.do(SetNodeSecret(b"a" * 32)) == MADE
    assert db.do(SetNodeSecret(b"b" * 32)) == (False,)
    assert (db.access.secret, db.access.revision) == (b"a" * 32, 1)
    refusal = validate(SetNodeSecret(b"c" * 31))
    assert refusal is not None
    assert refusal.code == 3003


def test_a_store_has_an_administrator_once_someone_can_come_in_as_one() -> None:
    db = Store()
    assert not db.access.has_administrator
    assert db.do(AddUser("cert", None, ["admin"])) == MADE
    assert not db.access.has_administrator
    assert db.do(AddUser("root", VERIFIER, ["admin"])) == MADE
    assert db.access.has_administrator
