"""Nobody gives more than it has: judged by the user of an entry, at its place in the log (storage-format, 12.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from haptera.access_rules import PERMISSIONS
from haptera.state import Logged, StateMachine
from haptera.state.access_operations import (
    AccessChange,
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
    SetVerifier,
    StoredVerifier,
    WithdrawRole,
)
from tests.support.verifiers import VERIFIER
from tests.unit.state.store import Store, refused

if TYPE_CHECKING:
    from haptera.state import Result

OTHER = StoredVerifier(b"t" * 16, 600_000, b"l" * 32, b"L" * 32)
MADE = (True,)

#: `ops` may administer users, read app/ and write app/logs/; `strong` may delete app/ as well; `ann` is an `ops`.
SETTING: tuple[AccessChange, ...] = (
    AddUser("root", VERIFIER, ["admin"]),
    AddRole("ops", []),
    AddGrant("ops", ["user_admin"], "*"),
    AddGrant("ops", ["read"], "app/*"),
    AddGrant("ops", ["write"], "app/logs/*"),
    AddRole("weak", []),
    AddGrant("weak", ["read"], "app/a*"),
    AddGrant("weak", ["write"], "app/logs/1"),
    AddRole("strong", ["weak"]),
    AddGrant("strong", ["delete"], "app/*"),
    AddRole("powerful", ["admin"]),
    AddUser("ann", VERIFIER, ["ops"]),
    AddUser("bob", VERIFIER, ["weak"]),
    AddUser("eve", VERIFIER, ["strong"]),
    AddToken("token:weak", VERIFIER, ["weak"]),
    AddToken("token:strong", VERIFIER, ["strong"]),
    AddRole("none", []),
)


def setting() -> Store:
    store = Store()
    for op in SETTING:
        assert store.do(op) == MADE
    return store


def given_by(user: str, op: AccessChange) -> Result:
    return setting().do(op, user)


@pytest.mark.parametrize(
    "op",
    [
        AddUser("new", VERIFIER, ["weak"]),
        AddUser("new", VERIFIER, ["ops", "none"]),
        AddToken("token:new", VERIFIER, ["weak"]),
        AddRole("new", ["weak"]),
        AddParent("none", "weak"),
        AssignRole("eve", "weak"),
        AddGrant("none", ["read"], "app/*"),
        AddGrant("none", ["read"], "app/b/[xy]"),
        AddGrant("none", ["read"], "app/key"),
        AddGrant("none", ["user_admin"], "*"),
        AddGrant("strong", ["read"], "app/*"),
        RemoveUser("bob"),
        SetVerifier("bob", OTHER),
        SetVerifier("bob", None),
        SetVerifier("ann", OTHER),
        SetDisabled("bob", True),
        WithdrawRole("bob", "weak"),
        RemoveToken("token:weak"),
        RemoveRole("weak"),
        RemoveParent("weak", "none"),
        RemoveGrant("weak", ["read"], "app/a*"),
    ],
)
def test_a_user_gives_and_takes_what_it_has_itself(op: AccessChange) -> None:
    assert given_by("ann", op) in {MADE, (False,)}


@pytest.mark.parametrize(
    ("op", "permission"),
    [
        (AddUser("new", VERIFIER, ["strong"]), "delete"),
        (AddToken("token:new", VERIFIER, ["strong"]), "delete"),
        (AddRole("new", ["strong"]), "delete"),
        (AddParent("none", "strong"), "delete"),
        (AssignRole("bob", "strong"), "delete"),
        (AddGrant("none", ["delete"], "app/*"), "delete"),
        (AddGrant("none", ["read", "write"], "app/*"), "write"),
        (AddGrant("none", ["read"], "*"), "read"),
        (AddGrant("none", ["read"], "ap*"), "read"),
        (AddGrant("none", ["read"], "?pp/*"), "read"),
        (RemoveUser("eve"), "delete"),
        (SetVerifier("eve", OTHER), "delete"),
        (SetDisabled("eve", True), "delete"),
        (WithdrawRole("eve", "strong"), "delete"),
        (WithdrawRole("eve", "weak"), "delete"),
        (RemoveToken("token:strong"), "delete"),
        (RemoveRole("strong"), "delete"),
        (RemoveParent("strong", "weak"), "delete"),
        (RemoveGrant("strong", ["delete"], "app/*"), "delete"),
    ],
)
def test_a_user_gives_and_takes_nothing_beyond_that(op: AccessChange, permission: str) -> None:
    patterns = {"read": getattr(op, "pattern", ""), "write": "app/*", "delete": "app/*"}
    assert refused(given_by("ann", op), 2004, permission=permission, pattern=patterns[permission])


def test_the_key_is_named_where_the_grant_is_of_one() -> None:
    assert refused(given_by("ann", AddGrant("none", ["lease"], "app/1")), 2004, permission="lease", key="app/1")


@pytest.mark.parametrize(
    "op",
    [
        AddUser("new", VERIFIER, ["admin"]),
        AddUser("new", VERIFIER, ["weak", "powerful"]),
        AssignRole("ann", "admin"),
        AssignRole("ann", "powerful"),
        AddParent("ops", "admin"),
        AddRole("new", ["powerful"]),
        AddToken("token:new", VERIFIER, ["admin"]),
        SetVerifier("root", OTHER),
        SetDisabled("root", True),
        RemoveUser("root"),
        WithdrawRole("root", "admin"),
        RemoveRole("powerful"),
        RemoveParent("powerful", "admin"),
    ],
)
def test_administrators_alone_give_and_take_what_makes_one(op: AccessChange) -> None:
    assert refused(given_by("ann", op), 2004, permission="admin")
    assert refused(given_by("root", op), 2012) if op in LAST else given_by("root", op) in {MADE, (False,)}


LAST = (SetDisabled("root", True), RemoveUser("root"), WithdrawRole("root", "admin"))


def test_every_permission_on_every_key_does_not_make_an_administrator() -> None:
    store = setting()
    assert store.do(AddGrant("ops", list(PERMISSIONS), "*")) == MADE
    assert store.do(AddUser("new", VERIFIER, ["strong"]), "ann") == MADE
    assert refused(store.do(AssignRole("ann", "admin"), "ann"), 2004, permission="admin")


@pytest.mark.parametrize("user", ["bob", "eve", "nobody", "token:weak", "token:missing"])
def test_each_command_needs_the_permission_to_administer_users(user: str) -> None:
    for op in (AddRole("new", []), RemoveUser("bob"), AddGrant("none", ["read"], "app/a*"), RemoveRole("none")):
        assert refused(given_by(user, op), 2004, permission="user_admin")


def test_each_user_that_may_come_in_gives_itself_another_password() -> None:
    store = setting()
    assert store.do(SetVerifier("eve", OTHER), "eve") == MADE
    assert store.access.login("eve", 1) == (OTHER, True)
    for op in (SetVerifier("bob", OTHER), SetVerifier("eve", None)):
        assert refused(store.do(op, "eve"), 2004, permission="user_admin")
    assert store.do(SetDisabled("eve", True)) == MADE
    assert refused(store.do(SetVerifier("eve", VERIFIER), "eve"), 2004, permission="user_admin")
    assert refused(store.do(SetVerifier("gone", VERIFIER), "gone"), 2004, permission="user_admin")


def test_the_callers_without_a_stored_user_do_everything() -> None:
    for user in ("", "local"):
        assert given_by(user, AssignRole("bob", "admin")) == MADE


def test_a_token_that_has_expired_gives_nothing() -> None:
    store = setting()
    assert store.do(AddToken("token:admin", VERIFIER, ["admin"], store.now_ms + 10)) == MADE
    assert store.do(AssignRole("bob", "admin"), "token:admin") == MADE
    store.wait(10)
    assert refused(store.do(AssignRole("eve", "admin"), "token:admin"), 2004, permission="user_admin")


@pytest.mark.parametrize("role", ["ops", "admin"])
def test_a_token_gives_none_that_ends_later_than_itself(role: str) -> None:
    store = setting()
    ends = store.now_ms + 10
    assert store.do(AddToken("token:short", VERIFIER, [role], ends)) == MADE
    for late in (None, ends + 1):
        given = store.do(AddToken("token:late", VERIFIER, ["none"], late), "token:short")
        assert refused(given, 2004, permission="user_admin", expires_at_ms=ends)
    assert store.do(AddToken("token:same", VERIFIER, ["none"], ends), "token:short") == MADE
    assert store.do(AddToken("token:endless", VERIFIER, [role])) == MADE
    assert store.do(AddToken("token:late", VERIFIER, ["none"]), "token:endless") == MADE


def test_a_user_that_was_disabled_before_in_the_log_gives_nothing() -> None:
    """So a revocation counts at once, also for the commands that were on their way."""
    store = setting()
    [made, late] = store.apply(
        store.index + 1,
        store.now_ms,
        [Logged(SetDisabled("ann", True)), Logged(AddRole("late", []), "ann")],
    )
    assert made == MADE
    assert refused(late, 2004, permission="user_admin")


def test_a_rehearsal_judges_the_user_of_the_command() -> None:
    store: StateMachine = setting()
    store.read_by(lambda: 1_000_000)
    for op in (AddRole("new", ["strong"]), RemoveRole("strong")):
        assert refused(store.known(Logged(op, "ann")), 2004, permission="delete", pattern="app/*")
        assert store.known(Logged(op, "root")) is None
        assert store.known(Logged(op)) is None
