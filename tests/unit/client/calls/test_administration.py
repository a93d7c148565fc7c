"""The administration of users: over a connection and embedded, and how it treats passwords."""

from __future__ import annotations

import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import astuple

from haptera.client import Amounts, Database, RoleInfo, Token, User, UserQuota, connect, open_embedded
from haptera.client.calls import administration
from haptera.errors import (
    ConfigurationError,
    InvalidArgument,
    LastAdmin,
    PasswordPolicy,
    ProtectedRole,
    RoleExists,
    RoleNotFound,
    UserExists,
    UserNotFound,
)
from haptera.security import Verifier, new_verifier
from haptera.state import limits
from haptera.testing import MemoryFileSystem, node
from tests.support.planted import PASSWORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

each_store = pytest.mark.parametrize("kind", ["served", "embedded"])


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifiers that cost nothing."""
    made = Verifier(b"s" * 16, 600_000, b"k" * 32, b"K" * 32)
    monkeypatch.setattr(administration, "new_verifier", lambda password, entropy: made)


@asynccontextmanager
async def store(kind: str, path: Path) -> AsyncIterator[Database]:
    if kind == "embedded":
        async with open_embedded(path / "data") as db:
            yield db
    else:
        async with node(storage=MemoryFileSystem()) as url, connect(url) as db:
            yield db


@each_store
async def test_a_quota_is_set_told_and_removed(kind: str, tmp_path: Path) -> None:
    async with store(kind, tmp_path) as db:
        admin = db.admin
        await admin.add_user("ann")
        await db.set_many({"app/1": b"12", "other": b""})
        assert await admin.quota("ann") is None
        assert await admin.set_quota("ann", keys=5, size=100, watches=3, leases=2, claim="app/")
        assert await admin.quota("ann") == UserQuota(Amounts(5, 100, 3, 2), Amounts(1, 7, 0, 0))
        assert not await admin.set_quota("ann", keys=5, size=100, watches=3, leases=2)
        assert await admin.set_quota("ann", leases=0)
        assert await admin.quota("ann") == UserQuota(Amounts(None, None, None, 0), Amounts(1, 7, 0, 0))
        assert [await admin.set_quota("ann") for _ in range(2)] == [True, False]
        assert await admin.quota("ann") is None
        assert (await admin.add_token("ci", roles=["admin"], quota_of="ann")).name == "token:ci"
        for missing in (
            admin.quota("none"),
            admin.set_quota("none", keys=1),
            admin.add_token("cd", roles=[], quota_of="none"),
        ):
            with pytest.raises(UserNotFound):
                await missing
        with pytest.raises(InvalidArgument):
            await admin.set_quota("ann", keys=-1)


@each_store
async def test_users_are_added_changed_listed_and_removed(kind: str, tmp_path: Path) -> None:
    async with store(kind, tmp_path) as db:
        admin = db.admin
        await admin.add_user("root", PASSWORD, roles=["admin"])
        await admin.add_user("ann")
        with pytest.raises(UserExists) as exists:
            await admin.add_user("ann", PASSWORD)
        assert (exists.value.outcome, exists.value.details) == ("not_applied", {"user": "ann"})
        assert [await admin.assign_role("ann", "admin") for _ in range(2)] == [True, False]
        assert [await admin.withdraw_role("ann", "admin") for _ in range(2)] == [True, False]
        assert [await admin.disable_user("ann") for _ in range(2)] == [True, False]
        await admin.set_password("ann", PASSWORD)
        ann, root = User("ann", True, True, []), User("root", True, False, ["admin"])
        assert [user async for user in admin.users()] == [ann, root]
        assert [await admin.enable_user("ann") for _ in range(2)] == [True, False]
        await admin.set_password("ann", None)
        assert await admin.user("ann") == User("ann", False, False, [])
        for refused in (admin.remove_user("root"), admin.disable_user("root"), admin.set_password("root", None)):
            with pytest.raises(LastAdmin):
                await refused
        await admin.remove_user("ann")
        for missing in (admin.user("ann"), admin.remove_user("ann"), admin.assign_role("ann", "admin")):
            with pytest.raises(UserNotFound):
                await missing


@each_store
async def test_roles_have_parents_and_grants(kind: str, tmp_path: Path) -> None:
    async with store(kind, tmp_path) as db:
        admin = db.admin
        await admin.add_role("web")
        await admin.add_role("app", parents=["web"])
        assert [await admin.add_grant("app", ["write", "read"], "a/*") for _ in range(2)] == [True, False]
        assert [await admin.remove_parent("app", "web") for _ in range(2)] == [True, False]
        assert [await admin.add_parent("app", "web") for _ in range(2)] == [True, False]
        app = await admin.role("app")
        assert (app.name, app.parents, app.grants) == ("app", ["web"], {"a/*": ["read", "write"]})
        assert [await admin.remove_grant("app", ["read"], "a/*") for _ in range(2)] == [True, False]
        rows = [RoleInfo("admin", [], 1), RoleInfo("app", ["web"], 1), RoleInfo("web", [], 0)]
        assert [role async for role in admin.roles()] == rows
        for call, error in (
            (admin.add_role("app"), RoleExists),
            (admin.role("no"), RoleNotFound),
            (admin.add_parent("web", "app"), InvalidArgument),
            (admin.add_grant("admin", ["read"], "a"), ProtectedRole),
            (admin.add_grant("app", ["fly"], "a"), InvalidArgument),
            (admin.add_grant("app", ["admin"], "a"), InvalidArgument),
        ):
            with pytest.raises(error):
                await call
        await admin.remove_role("web")
        assert (await admin.role("app")).parents == []


@each_store
async def test_a_token_is_made_with_a_secret_that_is_given_once(kind: str, tmp_path: Path) -> None:
    async with store(kind, tmp_path) as db:
        before = time.time()
        made = await db.admin.add_token("ci", roles=["admin"], ttl=60)
        other = await db.admin.add_token("token:ever", roles=[])
        assert (made.name, other.name) == ("token:ci", "token:ever")
        assert len({made.secret, other.secret}) == 2
        assert all(re.fullmatch(r"[\w-]{43}", each.secret, re.ASCII) for each in (made, other))
        assert made.expires_at is not None
        assert before + 59 < made.expires_at <= time.time() + 60
        rows = [Token("token:ci", ["admin"], made.expires_at), Token("token:ever", [], None)]
        assert [token async for token in db.admin.tokens()] == rows
        await db.admin.remove_token("ci")
        assert [token.name async for token in db.admin.tokens()] == ["token:ever"]
        with pytest.raises(UserNotFound):
            await db.admin.remove_token("ci")


@each_store
async def test_lists_go_on_behind_a_page(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ACCESS_LISTED_MAX", 2)
    async with store(kind, tmp_path) as db:
        names = [f"{number}" for number in range(5)]
        for name in names:
            await db.admin.add_user(name)
            await db.admin.add_role(name)
            await db.admin.add_token(name, roles=[])
        assert [user.name async for user in db.admin.users()] == names
        assert [role.name async for role in db.admin.roles()] == [*names, "admin"]
        assert [token.name async for token in db.admin.tokens()] == [f"token:{name}" for name in names]


@each_store
async def test_whoami_is_anonymous_where_no_proof_is_asked_for(kind: str, tmp_path: Path) -> None:
    async with store(kind, tmp_path) as db:
        who = await db.whoami()
        assert (who.user, who.roles, who.mechanism, who.secure) == ("", [], "", False)


@each_store
@pytest.mark.parametrize(
    "password", ["short", "aaaaaaaaaaaaaaaaaaaa", "the cat of Annabel", "", "null \0 in the middle"]
)
async def test_a_bad_password_is_refused_before_anything_is_sent(kind: str, password: str, tmp_path: Path) -> None:
    async with store(kind, tmp_path) as db:
        await db.admin.add_user("annabel")
        for call in (
            db.admin.set_password("annabel", password),
            db.admin.add_user("annabelle", password + "annabelle"),
        ):
            with pytest.raises(PasswordPolicy) as refused:
                await call
            assert (refused.value.code, refused.value.outcome) == (2006, "not_applied")
            assert not password or password not in str(refused.value)
        assert [user async for user in db.admin.users()] == [User("annabel", False, False, [])]


@each_store
@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda admin: admin.add_user(b"ann"), TypeError),
        (lambda admin: admin.add_user("ann", b"password and more"), TypeError),
        (lambda admin: admin.add_user("ann", roles="admin"), TypeError),
        (lambda admin: admin.add_user("\ud800"), ValueError),
        (lambda admin: admin.add_grant("app", ["read"], "\udfff"), ValueError),
        (lambda admin: admin.add_token("ci", roles=[], ttl=0), ValueError),
        (lambda admin: admin.add_token("ci", roles=[None]), TypeError),
        (lambda admin: admin.add_user(""), InvalidArgument),
        (lambda admin: admin.add_user("token:ci"), InvalidArgument),
        (lambda admin: admin.add_user("local"), InvalidArgument),
        (lambda admin: admin.add_user("a\nb"), InvalidArgument),
        (lambda admin: admin.add_user("a" * 257), InvalidArgument),
    ],
)
async def test_a_mistake_in_a_call_is_the_same_error_in_each_store(
    kind: str, call: Callable[[Any], Any], error: type[Exception], tmp_path: Path
) -> None:
    async with store(kind, tmp_path) as db:
        with pytest.raises(error):
            await call(db.admin)
        assert [user async for user in db.admin.users()] == []


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("haptera://10.0.0.1", False),
        ("haptera://127.0.0.1,db.example", False),
        ("haptera://127.0.0.1", True),
        ("haptera://localhost,[::1]:7", True),
        ("hapteras://db.example", True),
        ("haptera+unix:///run/a.sock", True),
    ],
)
async def test_no_verifier_is_made_for_a_link_that_strangers_can_read(
    url: str, private: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def note(password: str, entropy: object) -> Verifier:
        made.append(password)
        raise RuntimeError("made")

    monkeypatch.setattr(administration, "new_verifier", note)
    db = connect(url)
    for call in (
        db.admin.add_user("ann", PASSWORD),
        db.admin.set_password("ann", PASSWORD),
        db.admin.add_token("ci", roles=[]),
    ):
        with pytest.raises(RuntimeError if private else ConfigurationError):
            await call
    assert len(made) == (3 if private else 0)
    assert not db.connected_once
    await db.aclose()


async def test_the_verifiers_accept_the_password_and_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(administration, "new_verifier", new_verifier)
    async with open_embedded(tmp_path / "data") as db:
        await db.admin.add_user("ann", PASSWORD)
        made = await db.admin.add_token("ci", roles=[])
        access = db._channel._node._machine.access  # type: ignore[attr-defined]
        kept = {name: Verifier(*astuple(access.login(name, 1).verifier)) for name in ("ann", "token:ci")}
    assert kept["ann"].accepts(PASSWORD)
    assert kept["token:ci"].accepts(made.secret)
    assert not kept["ann"].accepts(made.secret)
    assert kept["ann"].salt != kept["token:ci"].salt
