"""Backups as an application and the command line make them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from haptera.client import connect, open_embedded
from haptera.errors import DeadlineExceeded, ServerError
from haptera.testing import node, node_in_thread
from tests.integration.commands import run
from tests.support.planted import VALUE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from haptera.client import Backup, Database


@pytest.fixture(params=["served", "embedded"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "embedded":
        async with open_embedded(tmp_path / "data") as database:
            yield database
    else:
        async with node(listen="tcp") as url, connect(url) as database:
            yield database


async def test_a_served_and_an_embedded_store_give_their_backups_alike(db: Database) -> None:
    for number in range(30):
        await db.set(f"k{number}", VALUE * 2000)
    backup = db.backup()
    assert (backup.revision, backup.index, backup.size) == (None, None, None)
    data = b"".join([piece async for piece in backup])
    assert data.startswith(b"HAPTERAB")
    assert VALUE not in data
    assert (backup.revision, backup.index, backup.size) == (30, 30, len(data))
    assert db.revision == 30


async def test_a_backup_that_is_left_early_ends(db: Database) -> None:
    for number in range(10):
        await db.set(f"k{number}", VALUE * 10_000)
    for _ in range(10):
        async with db.backup() as pieces:
            assert await anext(pieces)
        assert pieces.size is None
    async with db.backup(timeout=None) as pieces:
        assert [piece async for piece in pieces]


async def test_a_backup_whose_time_is_over_ends(db: Database) -> None:
    for number in range(10):
        await db.set(f"k{number}", VALUE * 10_000)
    pieces = db.backup(timeout=0.05)
    await anext(pieces)
    await asyncio.sleep(0.06)
    with pytest.raises(DeadlineExceeded):
        await drained(pieces)


async def drained(pieces: Backup) -> None:
    async for _ in pieces:
        pass


async def test_backups_are_bounded_for_a_served_and_an_embedded_store(db: Database) -> None:
    for number in range(10):
        await db.set(f"k{number}", VALUE * 100_000)
    backups = [db.backup() for _ in range(4)]
    for backup in backups:
        await anext(backup)
    with pytest.raises(ServerError) as caught:
        await anext(db.backup())
    assert (caught.value.code, caught.value.outcome) == (3007, "not_applied")
    for backup in backups:
        await backup.aclose()


@pytest.fixture
def url() -> Iterator[str]:
    with node_in_thread(listen="tcp") as served:
        assert run("set", "key", VALUE.decode(), "--url", served).code == 0
        yield served


def test_a_backup_is_written_to_a_file_and_told(url: str, tmp_path: Path) -> None:
    file = tmp_path / "store.backup"
    ended = run("backup", "create", str(file), "--url", url)
    assert ended.code == 0
    assert ended.text.startswith(f"{file}: revision 1, index 1, {file.stat().st_size} bytes in ")
    assert ended.text.endswith("a restore needs the master key of the node\n")
    assert "which the backup does not hold: without it the backup is noise" in ended.err
    assert "\n  copy master.key to another machine, once\n" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["store.backup"]


def test_the_options_of_a_client_may_stand_before_the_commands(url: str, tmp_path: Path) -> None:
    for place, args in enumerate((["--url", url, "backup", "create"], ["backup", "--url", url, "create"])):
        file = tmp_path / str(place)
        told = json.loads(run("--json", *args, str(file)).text)
        assert told.pop("seconds") >= 0
        size = file.stat().st_size
        assert told == {"file": str(file), "revision": 1, "index": 1, "bytes": size, "master_key": "generated"}


def test_a_file_that_exists_is_replaced_only_by_force(url: str, tmp_path: Path) -> None:
    file = tmp_path / "b.gz"
    file.write_bytes(b"older")
    ended = run("backup", "create", str(file), "--url", url)
    assert (ended.code, ended.err) == (14, f"haptera: cannot write {file}: it exists; --force replaces it\n")
    assert file.read_bytes() == b"older"
    assert run("backup", "create", "--force", str(file), "--url", url).code == 0
    assert file.read_bytes().startswith(b"HAPTERAB")


def test_a_backup_goes_to_a_pipe_and_not_to_a_terminal(url: str) -> None:
    ended = run("backup", "create", "-", "--url", url)
    assert ended.code == 0
    assert ended.out.startswith(b"HAPTERAB")
    ended = run("backup", "create", "-", "--url", url, terminal=True)
    assert (ended.code, ended.out) == (2, b"")


def test_a_backup_that_fails_leaves_what_was_there(url: str, tmp_path: Path) -> None:
    file = tmp_path / "b"
    file.write_bytes(b"older")
    ended = run("backup", "create", "--force", str(file), "--url", "haptera://127.0.0.1:1", "--timeout", "0.5")
    assert ended.code == 3
    assert file.read_bytes() == b"older"
    ended = run("backup", "create", str(tmp_path / "no" / "b"), "--url", url)
    assert ended.code == 14
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
