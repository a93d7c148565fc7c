"""The lists of users, roles and tokens, and single ones (protocol, section 7.3)."""

from __future__ import annotations

from typing import Any, cast

import pytest

from haptera.access_rules import PERMISSIONS
from haptera.state import limits
from haptera.state.access_operations import (
    AddGrant,
    AddRole,
    AddToken,
    AddUser,
    FindRole,
    FindUser,
    ListRoles,
    ListTokens,
    ListUsers,
    RemoveUser,
    SetDisabled,
)
from tests.support.verifiers import VERIFIER
from tests.unit.state.store import Store, refused


def page(store: Store, read: Any) -> tuple[Any, bool]:
    rows, more = cast("tuple[Any, bool]", store.ask(read))
    return rows, more


def filled() -> Store:
    store = Store()
    for op in (
        AddRole("web", []),
        AddGrant("web", ["write", "read"], "w/*"),
        AddGrant("web", ["read"], "a"),
        AddRole("app", ["web", "admin"]),
        AddUser("bob", None, ["web", "app"]),
        AddUser("ann", VERIFIER, []),
        SetDisabled("ann", True),
        AddToken("token:2", VERIFIER, ["app"], 2**50),
        AddToken("token:1", VERIFIER, []),
    ):
        assert store.do(op) == (True,)
    return store


def test_users_are_listed_in_order_without_their_verifiers() -> None:
    store = filled()
    ann, bob = ("ann", True, True, ()), ("bob", False, False, ("app", "web"))
    assert store.ask(ListUsers()) == ((ann, bob), False)
    assert store.ask(FindUser("ann")) == ann
    assert refused(store.ask(FindUser("eve")), 2008, user="eve")
    assert store.do(RemoveUser("ann")) == (True,)
    assert store.ask(ListUsers()) == ((bob,), False)


def test_roles_are_listed_in_order_with_the_built_in_one() -> None:
    store = filled()
    admin, app, web = ("admin", (), 1), ("app", ("admin", "web"), 0), ("web", (), 2)
    assert store.ask(ListRoles()) == ((admin, app, web), False)
    assert store.ask(FindRole("web")) == ((), (("a", ("read",)), ("w/*", ("read", "write"))))
    assert store.ask(FindRole("admin")) == ((), (("*", PERMISSIONS),))
    assert refused(store.ask(FindRole("no")), 2010, role="no")


def test_tokens_are_listed_in_order_with_their_ends() -> None:
    assert filled().ask(ListTokens()) == ((("token:1", None, ()), ("token:2", 2**50, ("app",))), False)


@pytest.mark.parametrize("read", [ListUsers, ListRoles, ListTokens])
def test_a_list_goes_on_behind_a_name(read: Any) -> None:
    store = filled()
    whole, _ = page(store, read())
    pages: list[Any] = []
    more, after = True, None
    while more:
        rows, more = page(store, read(after, 1))
        pages += rows
        after = rows[-1][0]
    assert tuple(pages) == whole
    assert store.ask(read(after)) == ((), False)
    assert store.ask(read(None, 0)) == ((), True)


def test_a_list_ends_at_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled()
    monkeypatch.setattr(limits, "ACCESS_LISTED_MAX", 2)
    rows, more = page(store, ListRoles(None, 3))
    assert (len(rows), more) == (2, True)
    monkeypatch.setattr(limits, "ACCESS_PAGE_SIZE", 40)
    rows, more = page(store, ListUsers())
    assert (len(rows), more) == (2, False)
    monkeypatch.setattr(limits, "ACCESS_PAGE_SIZE", 19)
    rows, more = page(store, ListUsers())
    assert (len(rows), more) == (1, True)
