"""`haptera storage rotate-key` and `migrate`, as a user calls them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from haptera.node import master_key
from haptera.storage import MasterKey
from haptera.testing import node_in_thread
from tests.unit.cli.storage.test_storage import Ended

GOLDEN = Path(__file__).parents[3] / "golden" / "format-1" / "closed"
OLD, NEW = MasterKey.of(b"o" * 32), MasterKey.of(b"n" * 32)


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAPTERA_MASTER_KEY", raising=False)
    monkeypatch.setattr(master_key, "_taken", None)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory of format 1."""
    shutil.copytree(GOLDEN, tmp_path / "data")
    return tmp_path / "data"


def key_file(path: Path, key: MasterKey) -> str:
    path.write_bytes(key.format())
    path.chmod(0o600)
    return str(path)


def opens(capsys: pytest.CaptureFixture[str], directory: Path, *options: str) -> bool:
    """Whether a node would open it, with all that it holds."""
    told = Ended(capsys, "storage", "verify", str(directory), "--json", *options).json
    return bool(told["start"]["opens"]) and told["start"]["keys"] == 30 and told["sound"]


def test_migrate_check_changes_nothing_and_says_what_is_needed(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    ended = Ended(capsys, "storage", "migrate", str(directory), "--check")
    assert (ended.code, ended.err) == (1, "")
    assert "format 1 can be migrated to 2; 34 entries" in ended.out
    assert {
        path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "lock"
    } == before


def test_migrate_says_what_it_did_and_does_it_once(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = Ended(capsys, "storage", "migrate", str(directory))
    assert (ended.code, ended.err) == (0, "")
    master = MasterKey.parse((directory / "master.key").read_bytes())
    assert master is not None
    assert (
        f"migrated from format 1 to 2; its keys are under the master key {master.id.hex()}, and 34 entries" in ended.out
    )
    assert opens(capsys, directory)
    again = Ended(capsys, "storage", "migrate", str(directory), "--json")
    assert (again.code, again.json["needed"], again.json["changed"]) == (0, False, False)
    assert Ended(capsys, "storage", "migrate", str(directory), "--check").code == 0


def test_migrate_takes_a_master_key(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = key_file(tmp_path / "old", OLD)
    assert Ended(capsys, "storage", "migrate", str(directory), "--master-key-file", old).code == 0
    assert not (directory / "master.key").exists()
    assert opens(capsys, directory, "--master-key-file", old)
    refused = Ended(capsys, "storage", "migrate", str(directory))
    assert refused.code == 12
    assert OLD.id.hex() in refused.err


def test_migrate_of_a_damaged_log_is_refused_and_begins_again_later(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segment = directory / "log" / "0000000000000002.seg"
    whole = segment.read_bytes()
    segment.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    assert Ended(capsys, "storage", "migrate", str(directory)).code == 11
    assert (directory / "node.toml").read_text().startswith("format = 1\n")
    segment.write_bytes(whole)
    assert Ended(capsys, "storage", "migrate", str(directory)).code == 0
    assert opens(capsys, directory)


def test_no_directory_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("migrate", "rotate-key"):
        assert Ended(capsys, "storage", command, str(tmp_path / "none")).code == 2
    assert not (tmp_path / "none").exists()


def test_rotate_key_makes_a_new_data_key(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = Ended(capsys, "storage", "rotate-key", str(directory), "--json").json
    ended = Ended(capsys, "storage", "rotate-key", str(directory))
    assert ended.code == 0
    assert "the data key" in ended.out
    assert first["data_key"] not in ended.out
    assert (directory / "keys").read_text().count("[[key]]") == 3
    assert opens(capsys, directory)


def test_master_makes_a_new_generated_key(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Ended(capsys, "storage", "migrate", str(directory))
    before = (directory / "master.key").read_bytes()
    told = Ended(capsys, "storage", "rotate-key", str(directory), "--master", "--json").json
    master = MasterKey.parse((directory / "master.key").read_bytes())
    assert master is not None
    assert master.id.hex() == told["master_key"]
    old = MasterKey.parse(before)
    assert old is not None
    assert master != old
    assert opens(capsys, directory)
    kept = directory / f"master.key.{old.id.hex()}"
    assert told["kept_master_keys"] == [str(kept)]
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (before, 0o600)


def test_the_place_of_a_replaced_master_key_is_told(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Ended(capsys, "storage", "migrate", str(directory))
    before = (directory / "master.key").read_bytes()
    new = key_file(tmp_path / "new", NEW)
    ended = Ended(capsys, "storage", "rotate-key", str(directory), "--new-master-key-file", new)
    assert ended.code == 0
    (kept,) = directory.glob("master.key*")
    assert f"{kept}: kept, because backups that were made under it need it" in ended.out
    assert kept.read_bytes() == before
    assert before.decode().strip() not in ended.out


def test_a_new_master_key_file_takes_the_place_of_the_old_key(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = key_file(tmp_path / "old", OLD), key_file(tmp_path / "new", NEW)
    ended = Ended(capsys, "storage", "rotate-key", str(directory), "--new-master-key-file", old)
    assert ended.code == 0
    assert f"under the master key {OLD.id.hex()}" in ended.out
    assert not (directory / "master.key").exists()
    options = ("--master-key-file", old)
    assert Ended(capsys, "storage", "rotate-key", str(directory), *options, "--master").code == 15
    assert Ended(capsys, "storage", "rotate-key", str(directory), *options, "--new-master-key-file", new).code == 0
    assert opens(capsys, directory, "--master-key-file", new)
    refused = Ended(capsys, "storage", "rotate-key", str(directory), *options)
    assert refused.code == 12
    assert OLD.id.hex() in refused.err
    assert NEW.id.hex() in refused.err
    assert OLD.secret.hex() not in refused.err


def test_a_new_master_key_file_that_cannot_be_used_changes_nothing(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Ended(capsys, "storage", "migrate", str(directory))
    before = (directory / "keys").read_bytes()
    (tmp_path / "short").write_bytes(b"x" * 40)
    ended = Ended(capsys, "storage", "rotate-key", str(directory), "--new-master-key-file", str(tmp_path / "short"))
    assert ended.code == 15
    assert "xxxx" not in ended.err
    assert (directory / "keys").read_bytes() == before


def test_a_node_that_has_the_directory_makes_the_change(
    tmp_path: Path, short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = short_path / "data"
    with node_in_thread(data_dir=data):
        first = Ended(capsys, "storage", "rotate-key", str(data), "--json")
        assert (first.code, first.err) == (0, "")
        second = Ended(capsys, "storage", "rotate-key", str(data), "--master", "--json").json
        assert first.json["data_key"] == second["data_key"]
        assert first.json["master_key"] != second["master_key"]
        new = key_file(tmp_path / "new", NEW)
        refused = Ended(capsys, "storage", "rotate-key", str(data), "--new-master-key-file", new)
        assert refused.code == 2
        assert "leave out --new-master-key-file" in refused.err
        for options in (("--master-key-file", new), ("--master-key-command", f"cat {new}")):
            for more in ((), ("--master",)):
                refused = Ended(capsys, "storage", "rotate-key", str(data), *more, *options)
                assert refused.code == 2
                assert f"leave out {options[0]}" in refused.err
        assert (data / "keys").read_text().count("[[key]]") == 2
        (data / "haptera.sock").unlink()
        assert Ended(capsys, "storage", "rotate-key", str(data)).code == 10
        assert Ended(capsys, "storage", "migrate", str(data)).code == 10


def test_a_node_whose_source_still_gives_the_old_key_refuses(
    tmp_path: Path, short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = key_file(tmp_path / "key", OLD)
    with node_in_thread(data_dir=short_path / "data", master_key_file=file):
        refused = Ended(capsys, "storage", "rotate-key", str(short_path / "data"), "--master")
        assert refused.code == 2
        assert f"still {OLD.id.hex()}" in refused.err
        key_file(tmp_path / "key", NEW)
        assert Ended(capsys, "storage", "rotate-key", str(short_path / "data"), "--master").code == 0


def test_a_running_node_changes_its_keys_where_the_environment_has_its_options(
    tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the container of the node, whose environment every command has."""
    file = key_file(tmp_path / "key", OLD)
    with node_in_thread(data_dir=short_path / "data", master_key_file=file):
        monkeypatch.setenv("HAPTERA_MASTER_KEY_FILE", file)
        assert Ended(capsys, "storage", "rotate-key", str(short_path / "data")).code == 0


def test_the_variable_is_a_master_key_for_the_commands_too(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HAPTERA_MASTER_KEY", OLD.secret.hex())
    assert Ended(capsys, "storage", "migrate", str(directory)).code == 0
    assert not (directory / "master.key").exists()
    assert opens(capsys, directory)
    assert Ended(capsys, "storage", "migrate", str(directory), "--master-key-command", "true").code == 15
