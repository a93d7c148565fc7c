"""The audit log of a served node: who came in, who did not, and what was changed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import haptera
from haptera.errors import AuthenticationFailed, AuthenticationLocked, HapteraError, PermissionDenied
from haptera.node import verify_audit
from haptera.peer import dial
from haptera.security import throttle
from haptera.storage import OsFileSystem
from haptera.testing import node
from tests.support.planted import OTHER_PASSWORD as OTHER
from tests.support.planted import PASSWORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera.testing import NodeUrl

pytestmark = pytest.mark.usefixtures("quick_passwords")


@asynccontextmanager
async def served(path: Path, **options: Any) -> AsyncIterator[NodeUrl]:
    async with node(
        listen="haptera://127.0.0.1:0", data_dir=path, no_auth=False, admin_password=PASSWORD, **options
    ) as url:
        yield url


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log that is whole."""
    assert verify_audit(OsFileSystem(), str(path)).sound
    found = sorted((path / "audit").iterdir())
    return [msgspec.json.decode(line) for file in found for line in file.read_bytes().splitlines()]


def told(path: Path, kind: str) -> list[tuple[Any, ...]]:
    """The user, the method, the target, the outcome and the code of each line of a kind."""
    names = ("user", "method", "target", "outcome", "code")
    return [tuple(line.get(name) for name in names) for line in lines(path) if line["kind"] == kind]


async def test_the_first_start_is_recorded_as_the_administration_that_it_is(tmp_path: Path) -> None:
    async with served(tmp_path / "d"):
        pass
    assert told(tmp_path / "d", "administration") == [
        (None, "admin.add_user", "admin", "begun", 0),
        (None, "admin.add_user", "admin", "done", 0),
    ]


async def test_each_attempt_to_authenticate_is_recorded_with_its_end(tmp_path: Path) -> None:
    async with served(tmp_path / "d") as url:
        async with dial(url, user="admin", password=PASSWORD) as peer:
            await peer.call("session", "whoami", b"\x90")
        for _ in range(throttle.FREE_FAILURES + 1):
            with pytest.raises(AuthenticationFailed):
                async with dial(url, user="eve", password=OTHER) as peer:
                    await peer.call("session", "whoami", b"\x90")
        with pytest.raises(AuthenticationLocked):
            async with dial(url, user="eve", password=OTHER) as peer:
                await peer.call("session", "whoami", b"\x90")
    method = "session.authenticate"
    assert told(tmp_path / "d", "authentication") == [
        ("admin", method, None, "done", 0),
        *[("eve", method, None, "not_applied", 2002)] * (throttle.FREE_FAILURES + 1),
        ("eve", method, None, "not_applied", 2003),
    ]
    addresses = {line.get("address", "").rpartition(":")[0] for line in lines(tmp_path / "d") if "user" in line}
    assert addresses == {"127.0.0.1"}


async def test_administration_is_recorded_with_its_user_and_so_is_what_was_denied(tmp_path: Path) -> None:
    async with served(tmp_path / "d") as url:
        async with haptera.connect(url, user="admin", password=PASSWORD) as root:
            await root.admin.add_role("app")
            await root.admin.add_user("ann", OTHER, roles=["app"])
            await root.begin_maintenance("move")
            await root.end_maintenance()
            with pytest.raises(HapteraError):
                await root.admin.add_role("app")
        async with haptera.connect(url, user="ann", password=OTHER) as ann:
            for work in (ann.admin.add_role("mine"), ann.admin.user("ann"), ann.begin_maintenance("x")):
                with pytest.raises(PermissionDenied):
                    await work
        async with dial(url, user="ann", password=OTHER) as peer:
            with pytest.raises(PermissionDenied):
                await peer.call("server", "metrics", b"\x90")
    assert told(tmp_path / "d", "administration")[2:] == [
        ("admin", method, target, outcome, code)
        for method, target, end, number in (
            ("admin.add_role", "app", "done", 0),
            ("admin.add_user", "ann", "done", 0),
            ("server.maintenance", None, "done", 0),
            ("server.maintenance", None, "done", 0),
            ("admin.add_role", "app", "not_applied", 2009),
        )
        for outcome, code in (("begun", 0), (end, number))
    ]
    assert [line[1] for line in told(tmp_path / "d", "denied")] == [
        "admin.add_role",
        "admin.user",
        "server.maintenance",
        "server.metrics",
    ]
    assert OTHER not in str(lines(tmp_path / "d"))


async def test_administration_of_an_embedded_store_is_recorded_too(tmp_path: Path) -> None:
    path = tmp_path / "d"
    async with haptera.open(path) as db:
        await db.set("k", b"v")
        assert not (path / "audit").exists(), "only what is recorded makes the log"
        await db.admin.add_role("app")
        await db.begin_maintenance("move")
        with pytest.raises(HapteraError):
            await db.admin.add_role("app")
    assert told(path, "administration") == [
        (None, "admin.add_role", "app", "begun", 0),
        (None, "admin.add_role", "app", "done", 0),
        (None, "server.maintenance", None, "begun", 0),
        (None, "server.maintenance", None, "done", 0),
        (None, "admin.add_role", "app", "begun", 0),
        (None, "admin.add_role", "app", "not_applied", 2009),
    ]
