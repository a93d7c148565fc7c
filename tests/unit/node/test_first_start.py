"""The first start with authentication: a store gets an administrator and a secret for its decoys, once."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from haptera.errors import ConfigurationError, Failure
from haptera.node.first_start import AdminPassword, generated_password, make_administrator, node_secret
from haptera.security import Verifier, password_refusal
from haptera.state.access_operations import AddUser
from haptera.state.operations import Set
from haptera.testing import MemoryFileSystem
from tests.support.planted import PASSWORD
from tests.support.verifiers import VERIFIER
from tests.unit.node.nodes import CONFIG, done, fill_disk, opened

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.node.node import Node


def accepts(node: Node, user: str, password: str) -> bool:
    stored = node.access.users[user].verifier
    assert stored is not None
    return Verifier(*msgspec.structs.astuple(stored)).accepts(password)


async def test_a_password_that_was_given_is_the_administrator_s_and_stays_it() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        assert await make_administrator(node, AdminPassword(PASSWORD)) is None
        after = fs.power_failure("drop", seed=0)
    async with opened(after) as again:
        assert again.access.users["admin"].roles == ("admin",)
        assert accepts(again, "admin", PASSWORD)
        assert again.access.has_administrator


async def test_a_password_that_was_made_is_given_once_and_is_stored_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fs = MemoryFileSystem()
    async with opened(fs, config=msgspec.structs.replace(CONFIG, admin_user="root")) as node:
        made = await make_administrator(node, AdminPassword())
        assert made is not None
        assert accepts(node, "root", made)
        assert await make_administrator(node, AdminPassword()) is None
        assert list(node.access.users) == ["root"]
        assert made not in caplog.text
        assert not any(made in str(vars(record)) for record in caplog.records)
    assert made is not None


async def test_no_administrator_is_made_where_the_audit_log_cannot_say_so(caplog: pytest.LogCaptureFixture) -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        called = fs.called

        def no_audit(name: str, path: str) -> None:
            called(name, path)
            if "/audit" in path:
                raise OSError(errno.ENOSPC, "full", path)

        fs.called = no_audit  # type: ignore[method-assign]
        assert await make_administrator(node, AdminPassword()) is None
        assert not node.access.users
        assert "no_administrator" in caplog.text
        fs.called = called  # type: ignore[method-assign]
        assert await make_administrator(node, AdminPassword(PASSWORD)) is None
        assert node.access.has_administrator


async def test_a_store_that_had_no_users_gets_an_administrator_at_its_next_start_with_authentication() -> None:
    fs = MemoryFileSystem()
    without = msgspec.structs.replace(CONFIG, no_auth=True)
    async with opened(fs, config=without) as node:
        assert await make_administrator(node, AdminPassword(PASSWORD)) is None
        assert node.access.users == {}
    async with opened(fs) as node:
        await make_administrator(node, AdminPassword(PASSWORD))
        assert node.access.has_administrator


async def test_another_password_is_ignored_once_there_is_an_administrator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with opened() as node:
        await done(node, AddUser("root", VERIFIER, ["admin"]))
        for password in (AdminPassword("weak"), AdminPassword(file=str(tmp_path / "gone"))):
            assert await make_administrator(node, password) is None
        ignored = [vars(record)["place"] for record in caplog.records if record.message == "admin_password_ignored"]
        assert ignored == ["HAPTERA_ADMIN_PASSWORD", f"the admin password file {tmp_path / 'gone'}"]
        assert list(node.access.users) == ["root"]


async def test_a_weak_password_is_refused_by_its_place_and_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret-word\n")
    file.chmod(0o600)
    async with opened() as node:
        with pytest.raises(ConfigurationError, match=r"HAPTERA_ADMIN_PASSWORD cannot be .* at least 12") as refused:
            await make_administrator(node, AdminPassword("secret-word"))
        assert "secret-word" not in str(refused.value)
        with pytest.raises(ConfigurationError, match="admin password file"):
            await make_administrator(node, AdminPassword(file=str(file)))
        assert node.access.users == {}


async def test_a_file_holds_the_password_without_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(PASSWORD.encode() + b"\r\n")
    file.chmod(0o600)
    async with opened() as node:
        await make_administrator(node, AdminPassword(file=str(file)))
        assert accepts(node, "admin", PASSWORD)


async def test_a_user_of_this_name_is_not_made_an_administrator(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as node:
        await done(node, AddUser("admin", None, []))
        with pytest.raises(ConfigurationError, match="name another one with admin_user"):
            await make_administrator(node, AdminPassword(PASSWORD))
        assert not node.access.has_administrator


def test_the_variable_is_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAPTERA_ADMIN_PASSWORD", PASSWORD)
    password = AdminPassword.take(CONFIG)
    assert "HAPTERA_ADMIN_PASSWORD" not in os.environ
    assert (password.read(), password.origin) == (PASSWORD, "environment")
    assert PASSWORD not in repr(password)
    assert AdminPassword.take(CONFIG).origin == "generated"


def test_a_password_has_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAPTERA_ADMIN_PASSWORD", PASSWORD)
    with pytest.raises(ConfigurationError, match="from one place"):
        AdminPassword.take(msgspec.structs.replace(CONFIG, admin_password_file="p"))
    assert "HAPTERA_ADMIN_PASSWORD" not in os.environ


def test_passwords_that_are_made_differ_and_keep_the_rules() -> None:
    made = {generated_password() for _ in range(50)}
    assert len(made) == 50
    assert all(password_refusal(each, "admin") is None and len(each) == 29 for each in made)


async def test_the_secret_of_the_decoys_is_made_once_and_is_not_to_be_read_on_the_disk() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        secret = await node_secret(node)
        assert len(secret) == 32
        assert await node_secret(node) == secret
        index = node.index
        after = fs.power_failure("drop", seed=0)
    async with opened(after) as again:
        assert await node_secret(again) == secret
        assert again.index == index
    paths = [f"/data/{name}" for name in ("keys", "node.toml")]
    paths += [f"/data/log/{name}" for name in after.listdir("/data/log")]
    assert not any(secret in after.read(path) for path in paths)


async def test_two_stores_have_two_secrets() -> None:
    async with opened() as one, opened() as other:
        assert await node_secret(one) != await node_secret(other)


async def test_a_store_that_cannot_be_written_to_is_served_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        await done(node, Set("a", b"1"))
        await fill_disk(node, fs)
        while not isinstance((await done(node, Set("a", b"2")))[0], Failure):
            pass
        assert len(await node_secret(node)) == 32
        assert await make_administrator(node, AdminPassword(PASSWORD)) is None
        assert {"no_node_secret", "no_administrator"} <= {record.message for record in caplog.records}
        fs.failing = frozenset()
