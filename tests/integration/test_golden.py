"""Data directories that older versions have written, kept for ever: each opens with what it was written with.

Of `tests/golden/format-2`, `closed` and `torn` hold two snapshots each, and no log before the first of them. `rotated`
has files under two data keys and a second generated master key; the first one is kept beside it. `leases` has leases
with keys and one without, in the snapshot and behind it, some that have ended, and keys that expire in a century.
`access` has users, roles with grants, and tokens, in the snapshot and behind it, some of which have been removed.
`maintained` is closed to changes, for one reason in the snapshot and another behind it; it has an audit head.

`tests/golden/format-1` was made by the last version of that format: `closed` was closed, and `torn` is what a power
failure leaves while the last record is written. The JSON file beside each has its entries, their values in hex.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera.storage.keyring_format import WrappedKeyring
from haptera.storage.master_key import MasterKey
from tests.integration.commands import run

if TYPE_CHECKING:
    from haptera.client import Database
    from haptera.state.access_operations import StoredVerifier

GOLDEN = Path(__file__).parents[1] / "golden"
DIRECTORIES = sorted(path.with_suffix("") for path in GOLDEN.glob("format-*/*.json"))


async def content(db: Database) -> dict[str, list[Any]]:
    return {entry.key: [entry.value.hex(), entry.version] async for entry in db.scan()}


@pytest.mark.parametrize("golden", DIRECTORIES, ids=lambda path: f"{path.parent.name}-{path.name}")
async def test_a_directory_of_an_older_version_opens(
    tmp_path: Path, golden: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = json.loads(golden.with_suffix(".json").read_text())
    migrated = int(golden.parent.name == "format-1")
    shutil.copytree(golden, tmp_path / "data")
    caplog.set_level(logging.INFO, "haptera")
    async with haptera.open(tmp_path / "data") as db:
        assert await content(db) == expected["entries"]
        assert (await db.status())["revision"] == expected["revision"]
        if "maintenance" in expected:
            await db.end_maintenance()
        await db.set("new", b"written by this version")
    torn = [record for record in caplog.records if record.message == "torn_tail_cut_off"]
    assert [vars(record)["bytes"] for record in torn] == [expected["torn_bytes"]] * bool(expected["torn_bytes"])
    assert [record.message for record in caplog.records].count("directory_migrated") == migrated
    async with haptera.open(tmp_path / "data") as db:
        now = await content(db)
        assert now.pop("new")[0] == b"written by this version".hex()
        assert now == expected["entries"]
    assert [record.message for record in caplog.records].count("directory_migrated") == migrated


@pytest.mark.parametrize("origin", ["snapshot", "log"])
async def test_a_directory_with_leases_opens_with_them_and_their_keys(tmp_path: Path, origin: str) -> None:
    golden = GOLDEN / "format-2" / "leases"
    expected = json.loads(golden.with_suffix(".json").read_text())
    shutil.copytree(golden, tmp_path / "data")
    for path in (tmp_path / "data").glob("snapshots/*" if origin == "log" else "log/0000000000000001.seg"):
        path.unlink()
    async with haptera.open(tmp_path / "data") as db:
        entries = [entry async for entry in db.scan()]
        expiring = {entry.key: round(entry.expires_at * 1000) for entry in entries if entry.expires_at is not None}
        assert expiring == expected["expiring"]
        assert [[lease.id, lease.ttl * 1000, lease.keys] async for lease in db.leases()] == [
            [lease, ttl_ms, len(keys)] for lease, ttl_ms, keys in expected["leases"]
        ]
        token = expected["entries"]["first/token"][1]
        await db.set("fenced", b"", fence=token)
        keys = {entry.key for entry in entries} | {"fenced"}
        for lease, _, its_keys in expected["leases"]:
            assert await db.revoke_lease(lease) == len(its_keys)
            keys -= set(its_keys)
            assert {entry.key async for entry in db.scan(keys_only=True)} == keys
        with pytest.raises(haptera.errors.Fenced):
            await db.set("fenced", b"", fence=token)


@pytest.mark.parametrize("origin", ["snapshot", "log"])
async def test_a_directory_with_users_opens_with_them_and_their_grants(tmp_path: Path, origin: str) -> None:
    golden = GOLDEN / "format-2" / "access"
    expected = json.loads(golden.with_suffix(".json").read_text())["access"]
    shutil.copytree(golden, tmp_path / "data")
    for path in (tmp_path / "data").glob("snapshots/*" if origin == "log" else "log/0000000000000001.seg"):
        path.unlink()

    async with haptera.open(tmp_path / "data") as db:
        node = db._channel._node  # type: ignore[attr-defined]  # no public call reaches the users yet
        node._machine.check()
        access = node._machine.access
        found = {
            "revision": access.revision,
            "users": {
                name: [_keys_of(user.verifier), [*user.roles], user.disabled] for name, user in access.users.items()
            },
            "roles": {
                name: [[*role.parents], [[pattern, [*granted]] for pattern, granted in role.grants]]
                for name, role in access.roles.items()
            },
            "tokens": {
                name: [_keys_of(token.verifier), [*token.roles], token.expires_at_ms]
                for name, token in access.tokens.items()
            },
        }
        assert found == expected


@pytest.mark.parametrize("origin", ["snapshot", "log"])
async def test_a_directory_that_is_closed_to_changes_opens_so(tmp_path: Path, origin: str) -> None:
    golden = GOLDEN / "format-2" / "maintained"
    expected = json.loads(golden.with_suffix(".json").read_text())
    shutil.copytree(golden, tmp_path / "data")
    for path in (tmp_path / "data").glob("snapshots/*" if origin == "log" else "log/0000000000000001.seg"):
        path.unlink()
    async with haptera.open(tmp_path / "data") as db:
        told = await db.maintenance()
        assert {"on": told.on, "reason": told.reason, "since_ms": told.since_ms} == expected["maintenance"]
        with pytest.raises(haptera.errors.MaintenanceMode):
            await db.set("new", b"")
        node = db._channel._node  # type: ignore[attr-defined]  # no public call reaches the head of the audit log
        head = node._machine.node.audit_head
        assert [head.sequence, head.digest.hex()] == expected["audit_head"]


def _keys_of(verifier: StoredVerifier | None) -> list[Any] | None:
    if verifier is None:
        return None
    return [verifier.salt.hex(), verifier.iterations, verifier.stored_key.hex(), verifier.server_key.hex()]


def test_there_is_a_directory_of_each_format() -> None:
    assert [f"{path.parent.name}/{path.name}" for path in DIRECTORIES] == [
        "format-1/closed",
        "format-1/torn",
        "format-2/access",
        "format-2/closed",
        "format-2/leases",
        "format-2/maintained",
        "format-2/rotated",
        "format-2/torn",
    ]


def test_the_directory_whose_keys_were_changed_needs_both_data_keys_and_the_second_master_key() -> None:
    golden = GOLDEN / "format-2" / "rotated"
    wrapped = WrappedKeyring("keys", (golden / "keys").read_bytes())
    master, kept = (MasterKey.parse(path.read_bytes()) for path in sorted(golden.glob("master.key*")))
    assert master is not None
    assert kept is not None
    assert wrapped.master_ids == (master.id,) != (kept.id,)
    assert (golden / f"master.key.{kept.id.hex()}").exists()
    keys = {key.id for key in wrapped.unwrap(master).keys}
    assert len(keys) == 2
    assert {path.read_bytes()[12:20] for path in (golden / "log").glob("*.seg")} == keys


@pytest.mark.parametrize("archived", [False, True])
async def test_a_backup_of_an_older_version_is_restored(tmp_path: Path, archived: bool) -> None:
    """`backup-1` has a snapshot and a segment, and the archive of its node goes on behind it."""
    golden = GOLDEN / "backup-1"
    expected = json.loads((golden / "backup.json").read_text())
    key = str(shutil.copy(golden / "master.key", tmp_path / "kept.key"))
    os.chmod(key, 0o600)
    args = ["restore", str(golden / "store.backup"), "--data-dir", str(tmp_path / "data"), "--master-key-file", key]
    if archived:
        args += ["--archive-dir", str(golden / "archive")]
    ended = run(*args)
    assert ended.code == 0, ended.err
    shutil.copy(key, tmp_path / "data" / "master.key")
    assert f"revision {expected['archived_revision' if archived else 'revision']}, index " in ended.text
    async with haptera.open(tmp_path / "data") as db:
        assert await content(db) == expected["archived" if archived else "entries"]
        assert (await db.status())["revision"] > 2**32, "above all that the store may have given since"
