"""``haptera restore`` and ``haptera backup verify``: what they make, what they say, and with which exit code."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from haptera.client import open_embedded
from haptera.testing import node
from tests.integration.commands import Ended, run
from tests.support.planted import VALUE

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.testing import NodeUrl


class Made:
    """A backup of a store with some keys, the archive of its node, and a copy of its master key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file, self.key, self.archive = path / "store.backup", path / "kept.key", path / "archive"
        asyncio.run(self._make())

    async def _make(self) -> None:
        data = self.path / "data"
        options: Any = {"data_dir": data, "segment_size": 65536, "archive_dir": str(self.archive), "listen": "tcp"}
        async with node(**options) as url:
            await self._fill(url, 0, 40)
            ended = await asyncio.to_thread(run, "backup", "create", str(self.file), "--url", url)
            assert ended.code == 0, ended.err
            await self._fill(url, 40, 140)
            archiver = url.node.archiver
            assert archiver is not None
            while archiver.through < 4:
                await asyncio.sleep(0.05)
        shutil.copyfile(data / "master.key", self.key)
        self.key.chmod(0o600)

    @staticmethod
    async def _fill(url: NodeUrl, first: int, end: int) -> None:
        from haptera.client import connect

        async with connect(url) as db:
            for number in range(first, end):
                await db.set(f"secret key {number}", f"{VALUE.decode()} {number} " * 80)

    def run(self, *args: str | Path, key: bool = True) -> Ended:
        return run(*map(str, args), *(["--master-key-file", str(self.key)] if key else []))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


async def keys_of(path: Path, key: Path) -> dict[str, tuple[bytes, int]]:
    shutil.copyfile(key, path / "master.key")  # where an embedded store looks for it
    async with open_embedded(path) as db:
        return {entry.key: (entry.value, entry.version) async for entry in db.scan()}


def expected(count: int) -> dict[str, tuple[bytes, int]]:
    return {f"secret key {n}": ((f"{VALUE.decode()} {n} " * 80).encode(), n + 1) for n in range(count)}


def test_a_backup_is_restored_with_values_and_versions(made: Made, tmp_path: Path) -> None:
    target = tmp_path / "restored"
    told = json.loads(made.run("restore", made.file, "--data-dir", target, "--json").text)
    assert told.pop("seconds") >= 0
    node_id = told.pop("node_id")
    assert told == {"data_dir": str(target), "revision": 40, "index": 40, "keys": 40}
    assert node_id in (target / "node.toml").read_text()
    assert asyncio.run(keys_of(target, made.key)) == expected(40)


def test_a_backup_is_restored_from_standard_input(made: Made, tmp_path: Path) -> None:
    target = tmp_path / "restored"
    reading = os.open(made.file, os.O_RDONLY)
    saved = os.dup(0)
    os.dup2(reading, 0)
    try:
        ended = made.run("restore", "-", "--data-dir", target)
    finally:
        os.dup2(saved, 0)
    assert ended.code == 0, ended.err
    assert ended.text.startswith(f"{target}: node ")
    assert ", revision 40, index 40, 40 keys in " in ended.text


def test_an_archive_brings_a_backup_to_a_later_moment(made: Made, tmp_path: Path) -> None:
    target = tmp_path / "restored"
    ended = made.run("restore", made.file, "--data-dir", target, "--archive-dir", made.archive, "--json")
    assert ended.code == 0, ended.err
    keys = json.loads(ended.text)["keys"]
    assert 60 < keys <= 140
    assert asyncio.run(keys_of(target, made.key)) == expected(keys)


class Rotated(Made):
    """A backup, and an archive behind it of a time at which the node had another master key and another data key."""

    async def _make(self) -> None:
        self.later = self.path / "later.key"
        data = self.path / "data"
        options: Any = {"data_dir": data, "segment_size": 65536, "archive_dir": str(self.archive), "listen": "tcp"}
        async with node(**options) as url:
            await self._fill(url, 0, 40)
            shutil.copyfile(data / "master.key", self.key)
            rotate = ["storage", "rotate-key", str(data)]
            for args in (["backup", "create", str(self.file), "--url", url], rotate, [*rotate, "--master"]):
                ended = await asyncio.to_thread(run, *args)
                assert ended.code == 0, ended.err
            await self._fill(url, 40, 140)
            archiver = url.node.archiver
            assert archiver is not None
            while archiver.through < 5:
                await asyncio.sleep(0.05)
        shutil.copyfile(data / "master.key", self.later)
        for path in (self.key, self.later):
            path.chmod(0o600)


@pytest.fixture(scope="module")
def rotated(tmp_path_factory: pytest.TempPathFactory) -> Rotated:
    return Rotated(tmp_path_factory.mktemp("rotated"))


def test_a_backup_and_an_archive_of_other_keys_are_restored_with_both_master_keys(
    rotated: Rotated, tmp_path: Path
) -> None:
    args: list[str | Path] = ["restore", rotated.file, "--json", "--archive-dir", rotated.archive]
    ended = rotated.run(*args, "--data-dir", tmp_path / "a", "--archive-master-key-file", rotated.later)
    assert ended.code == 0, ended.err
    keys = json.loads(ended.text)["keys"]
    assert keys > 60
    assert asyncio.run(keys_of(tmp_path / "a", rotated.key)) == expected(keys)
    ended = rotated.run(*args, "--data-dir", tmp_path / "b", "--archive-master-key-command", f"cat {rotated.later}")
    assert ended.code == 0, ended.err
    refused = rotated.run(*args, "--data-dir", tmp_path / "c")
    assert refused.code == 12
    assert "--archive-master-key-file" in refused.err
    refused = rotated.run(*args, "--data-dir", tmp_path / "c", "--archive-master-key-file", rotated.path / "none")
    assert refused.code == 15
    (tmp_path / "wrong").write_bytes(bytes(32))
    refused = rotated.run(*args, "--data-dir", tmp_path / "c", "--archive-master-key-file", tmp_path / "wrong")
    assert refused.code == 12
    assert "the archive master key" in refused.err
    refused = rotated.run("restore", rotated.file, "--data-dir", tmp_path / "c", "--archive-master-key-file", tmp_path)
    assert refused.code == 2
    assert "no --archive-dir" in refused.err
    assert not (tmp_path / "c").exists()


def test_any_moment_of_a_backup_and_an_archive_of_other_keys_is_restored(rotated: Rotated, tmp_path: Path) -> None:
    both: list[str | Path] = ["--archive-dir", rotated.archive, "--archive-master-key-file", rotated.later]
    inspected = rotated.run("pitr", "inspect", rotated.file, "--json", *both)
    assert inspected.code == 0, inspected.err
    (found,) = json.loads(inspected.text)["ranges"]
    assert found["last"]["revision"] > 60
    target = tmp_path / "restored"
    ended = rotated.run("pitr", "restore", rotated.file, "--to-revision", "55", "--target", target, *both)
    assert ended.code == 0, ended.err
    assert asyncio.run(keys_of(target, rotated.key)) == expected(55)
    shorter = rotated.run("pitr", "inspect", rotated.file, *both[:2])
    assert shorter.code == 11, shorter.err
    assert "revisions 0 to 40, " in shorter.text
    assert "--archive-master-key-file" in shorter.text
    refused = rotated.run("pitr", "restore", rotated.file, "--to-revision", "55", "--target", tmp_path / "c", *both[:2])
    assert refused.code == 2
    assert "--archive-master-key-file" in refused.err


@pytest.fixture
def without_keys(rotated: Rotated, tmp_path: Path) -> Path:
    """A copy of the node's directory, in which a start finds no file `keys`."""
    data = tmp_path / "data"
    shutil.copytree(rotated.path / "data", data, ignore=shutil.ignore_patterns("*.sock"))
    (data / "keys").unlink()
    refused = run("storage", "verify", str(data))
    assert refused.code == 12
    assert f"{data}/keys" in refused.err
    assert "keys" not in [path.name for path in data.iterdir()], "no new one is made"
    return data


def test_a_lost_keyring_is_brought_back_from_the_archive(rotated: Rotated, without_keys: Path) -> None:
    """As docs/operations.md says under "A lost file `keys`"."""
    newest = max((rotated.archive / "keys").iterdir())
    shutil.copyfile(newest, without_keys / "keys")
    assert run("storage", "verify", str(without_keys)).code == 0
    assert asyncio.run(keys_of(without_keys, rotated.later)) == expected(140)


def test_a_lost_keyring_is_brought_back_from_what_is_restored(
    rotated: Rotated, without_keys: Path, tmp_path: Path
) -> None:
    """The keys of a backup and its archive together, under the master key of the backup."""
    both: list[str | Path] = ["--archive-dir", rotated.archive, "--archive-master-key-file", rotated.later]
    assert rotated.run("restore", rotated.file, "--data-dir", tmp_path / "restored", *both).code == 0
    shutil.copyfile(tmp_path / "restored" / "keys", without_keys / "keys")
    assert rotated.run("storage", "verify", without_keys).code == 0
    changed = rotated.run("storage", "rotate-key", without_keys, "--new-master-key-file", rotated.later)
    assert changed.code == 0, changed.err
    assert run("storage", "verify", str(without_keys), "--master-key-file", str(rotated.later)).code == 0
    assert asyncio.run(keys_of(without_keys, rotated.later)) == expected(140)


def test_a_keyring_from_before_a_change_is_refused_and_the_directory_stays_as_it_is(
    rotated: Rotated, without_keys: Path, tmp_path: Path
) -> None:
    """The one of the backup alone lacks the later data key; the file under it is named."""
    assert rotated.run("restore", rotated.file, "--data-dir", tmp_path / "restored").code == 0
    shutil.copyfile(tmp_path / "restored" / "keys", without_keys / "keys")
    before = {path: path.read_bytes() for path in without_keys.rglob("*.seg")}
    refused = rotated.run("storage", "verify", without_keys)
    assert refused.code in {11, 12}
    assert "no key: " in refused.text
    assert {path: path.read_bytes() for path in without_keys.rglob("*.seg")} == before


def test_a_directory_that_is_used_is_refused(made: Made, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_bytes(b"mine")
    ended = made.run("restore", made.file, "--data-dir", tmp_path / "used")
    assert ended.code == 2
    assert "it is not empty" in ended.err
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["file"]


def test_a_backup_is_verified(made: Made) -> None:
    ended = made.run("backup", "verify", made.file)
    assert ended.code == 0, ended.err
    size = made.file.stat().st_size
    assert ended.text.startswith(f"{made.file}: whole, {size} bytes, made ")
    assert ended.text.endswith("; revision 40, 40 entries, 40 keys\n")
    told = json.loads(made.run("backup", "verify", "--json", made.file).text)
    assert (told["bytes"], told["revision"], told["index"], told["keys"]) == (size, 40, 40, 40)


def test_damage_is_named_with_its_offset(made: Made, tmp_path: Path) -> None:
    broken = bytearray(made.file.read_bytes())
    broken[len(broken) // 2] ^= 1
    (tmp_path / "b").write_bytes(broken)
    for ended in (
        made.run("backup", "verify", tmp_path / "b"),
        made.run("restore", tmp_path / "b", "--data-dir", tmp_path / "d"),
    ):
        assert (ended.code, ended.out) == (11, b"")
        assert ended.err.startswith(f"haptera: {tmp_path}/b is damaged at byte ")
    told = json.loads(made.run("backup", "verify", "--json", tmp_path / "b").err)
    assert told["exit_code"] == 11
    assert told["error"]["name"] == "BACKUP_INVALID"


def test_what_is_no_backup_or_cannot_be_opened_is_told(made: Made, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.write_bytes(bytes(32))
    other.chmod(0o600)
    verify = ["backup", "verify"]
    assert made.run(*verify, made.key).code == 11
    assert made.run(*verify, tmp_path / "none").code == 2
    assert made.run(*verify, "-").code == 2
    assert made.run(*verify, made.file, key=False).code == 12
    assert run(*verify, str(made.file), "--master-key-file", str(other)).code == 12


def test_nothing_that_was_written_can_be_read_in_a_backup_or_an_archive(made: Made) -> None:
    files = [path for path in [made.file, *made.archive.rglob("*")] if path.is_file()]
    assert len(files) > 5
    master = bytes.fromhex(made.key.read_text().strip())
    for path in files:
        content = path.read_bytes()
        for secret in (VALUE.decode().encode(), b"secret key", master, master.hex().encode()):
            assert secret not in content, path
