"""The table of permissions in docs/security.md: with those of its row a command works, with one less it is refused."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.errors import PermissionDenied
from haptera.testing import node
from tests.integration.commands import run
from tests.support.planted import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haptera.client import Database

pytestmark = pytest.mark.usefixtures("quick_passwords")

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")


async def export(db: Database, name: str) -> None:
    async with db.scan(prefix=name) as entries:
        _ = [entry async for entry in entries]


async def diff(db: Database, name: str) -> None:
    async with db.watch(prefix=name, start_revision=1, previous=True) as events:
        await events.next_events()


async def lock(db: Database, name: str) -> None:
    async with db.lock(name, wait=1.0):
        pass


async def semaphore(db: Database, name: str) -> None:
    async with db.semaphore(name, limit=2, wait=1.0):
        pass


async def election(db: Database, name: str) -> None:
    async with db.election(name, wait=1.0):
        pass
    await db.election(name).leader()


async def barrier(db: Database, name: str) -> None:
    await db.barrier(name, parties=1, wait=1.0).wait()


async def queue(db: Database, name: str) -> None:
    await db.queue(name).put(b"job")


async def worker(db: Database, name: str) -> None:
    await db.queue(name).size()
    async with db.queue(name).worker() as jobs:
        job = await jobs.take(wait=1.0)
        if job is not None:
            await job.ack()


async def counter(db: Database, name: str) -> None:
    await db.counter(name).add()


async def rate_limit(db: Database, name: str) -> None:
    await db.rate_limit(name, limit=5, per=60.0).take()


#: Rows of the table, by one of the names in backquotes, and how each is tried.
TRIED: dict[str, Callable[[Database, str], Awaitable[None]]] = {
    "haptera export": export,
    "haptera diff": diff,
    "haptera lock": lock,
    "db.semaphore": semaphore,
    "db.election": election,
    "db.barrier": barrier,
    "db.queue": queue,
    "db.queue.worker": worker,
    "db.counter": counter,
    "db.rate_limit": rate_limit,
}


ROWS = {
    name: set(re.findall(r"`([a-z]+)`", needs))
    for line in re.findall(r"^\| (`(?:haptera|db)[^|]*) \| ([^|]*) \|$", PAGE, re.MULTILINE)
    for name in re.findall(r"`([^`]+)`", line[0])
    for needs in [line[1].partition(";")[0]]
}


@pytest.mark.parametrize("row", TRIED)
async def test_a_row_has_the_permissions_that_are_needed_and_no_other(row: str) -> None:
    needs = ROWS[row]
    async with (
        node(listen="haptera://127.0.0.1:0", no_auth=False, admin_password=PASSWORD) as url,
        haptera.connect(url, user="admin", password=PASSWORD) as root,
        haptera.connect(url, user="ann", password=PASSWORD) as db,
    ):
        await root.admin.add_role("app")
        await root.admin.add_user("ann", PASSWORD, roles=["app"])
        await root.admin.add_grant("app", sorted(needs), "app/*")
        for number, missing in enumerate([None, *sorted(needs)]):
            name = f"app/{number}"
            if row in {"haptera export", "haptera diff"}:
                await root.set(name, b"value")
            if row == "db.queue.worker":
                await root.queue(name).put(b"job")
            if missing is None:
                await TRIED[row](db, name)
                continue
            await root.admin.remove_grant("app", [missing], "app/*")
            with pytest.raises(PermissionDenied) as refused:
                await TRIED[row](db, name)
            assert refused.value.details["permission"] == missing
            await root.admin.add_grant("app", [missing], "app/*")


async def test_an_export_is_made_without_the_permission_to_see_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        node(listen="haptera://127.0.0.1:0", no_auth=False, admin_password=PASSWORD) as url,
        haptera.connect(url, user="admin", password=PASSWORD) as root,
    ):
        await root.set("app/k", b"v")
        await root.admin.add_role("app")
        await root.admin.add_user("ann", PASSWORD, roles=["app"])
        await root.admin.add_grant("app", ["read", "scan"], "app/*")
        monkeypatch.setenv("HAPTERA_PASSWORD", PASSWORD)
        options = ("--prefix", "app/", "--url", str(url), "--user", "ann")
        ended = await asyncio.to_thread(run, "export", str(tmp_path / "rows.tsv"), *options)
        assert (ended.code, ended.text.startswith("1 entry exported")) == (0, True)
        assert ended.err.startswith("haptera: warning: leased_keys_unknown: ")
        assert (tmp_path / "rows.tsv").read_text() == "app/k\tv\n"
