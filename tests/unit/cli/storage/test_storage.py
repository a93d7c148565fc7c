"""The commands of `haptera storage`, as a user calls them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from haptera.cli.main import main
from haptera.node import NodeConfig
from haptera.storage import OsFileSystem
from tests.unit.node.offline.directories import append, opened, snapshot

if TYPE_CHECKING:
    from pathlib import Path

from haptera.state import operations


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    durable = opened(OsFileSystem(), NodeConfig(data_dir=str(path), segment_size=64 * 1024))
    for number in range(30):
        append(durable, [operations.Set(f"key {number}", b"v" * 5000)], 1_700_000_000_000 + number * 1000)
    durable.close()
    return path


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(bytes(data))


class Ended:
    """A command that has ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *args: str) -> None:
        with pytest.raises(SystemExit) as ended:
            main(list(args))
        self.code = ended.value.code
        self.out, self.err = capsys.readouterr()

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


def test_verify_of_a_sound_directory(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = Ended(capsys, "storage", "verify", str(directory))
    assert (ended.code, ended.err) == (0, "")
    assert "nothing is damaged\na start would open it: revision 30, 30 keys\n" in ended.out
    told = Ended(capsys, "storage", "verify", str(directory), "--json").json
    assert (told["sound"], told["findings"], told["start"]["revision"]) == (True, [], 30)
    assert sum(segment["entries"] for segment in told["segments"]) == 30


def test_verify_names_each_fault_and_ends_as_a_start_would(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = sorted((directory / "log").iterdir())[:2]
    flip(first, 200)
    flip(second, 200)
    ended = Ended(capsys, "storage", "verify", str(directory))
    assert ended.code == 11
    assert f"damaged: {first} at byte 80: expected the record of index 1, found" in ended.out
    assert f"damaged: {second} at byte 80: expected" in ended.out
    assert f"a start would refuse it: {first} is damaged at byte 80" in ended.out
    assert f"\n`haptera storage salvage {directory} --target NEW` makes a store of what is whole" in ended.out
    told = Ended(capsys, "storage", "verify", str(directory), "--json")
    assert told.code == 11
    assert [finding["file"] for finding in told.json["findings"]] == [str(first), str(second)]
    assert told.json["start"]["exit_code"] == 11


def test_verify_of_a_directory_without_keys(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "keys").unlink()
    ended = Ended(capsys, "storage", "verify", str(directory))
    assert (ended.code, ended.out) == (12, "")
    assert "bring back the file `keys`" in ended.err


def given(path: Path, secret: bytes) -> tuple[str, str]:
    """The options that give a master key."""
    path.write_bytes(secret)
    path.chmod(0o600)
    return "--master-key-file", str(path)


@pytest.mark.parametrize("key", ["none", "wrong"])
@pytest.mark.parametrize("command", ["verify", "inspect", "salvage", "pitr"])
def test_without_its_master_key_a_directory_is_not_called_damaged(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, key: str
) -> None:
    """The code is 12, and the message says how a key is given."""
    (directory / "master.key").rename(tmp_path / "kept.key")
    options = given(tmp_path / "wrong.key", b"w" * 32) if key == "wrong" else ()
    target = ("--target", str(tmp_path / "new")) if command == "salvage" else ()
    words = ("pitr", "inspect") if command == "pitr" else ("storage", command)
    ended = Ended(capsys, *words, str(directory), *target, *options)
    assert ended.code == 12
    assert "damaged" not in ended.out + ended.err
    reason, help_ = ended.err.splitlines()
    assert "master key" in reason
    for way in ("--master-key-file", "HAPTERA_MASTER_KEY", "--master-key-command"):
        assert way in help_
    told = Ended(capsys, *words, str(directory), *target, *options, "--json")
    assert told.code == 12
    error = json.loads(told.err)["error"]
    assert error["message"] == reason.removeprefix("haptera: ")
    assert error["help"] == help_.strip()
    assert not (tmp_path / "new").exists()


def test_inspect_without_the_key_shows_what_stands_in_the_clear(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "master.key").rename(tmp_path / "kept.key")
    ended = Ended(capsys, "storage", "inspect", str(directory))
    assert ended.code == 12
    assert f"{directory}: node " in ended.out
    assert f"log/{3:016x}.seg: " in ended.out
    assert len(Ended(capsys, "storage", "inspect", str(directory), "--json").json["segments"]) == 3


def test_verify_where_there_is_no_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = Ended(capsys, "storage", "verify", str(tmp_path / "none"))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"haptera: {tmp_path / 'none'}: there is no data directory\n"
    (tmp_path / "file").touch()
    ended = Ended(capsys, "storage", "verify", str(tmp_path / "file"))
    assert (ended.code, ended.err) == (2, f"haptera: {tmp_path / 'file'}: there is a file, and no data directory\n")
    ended = Ended(capsys, "backup", "verify", str(tmp_path), *given(tmp_path / "key", b"k" * 32))
    assert (ended.code, ended.err) == (2, f"haptera: cannot read {tmp_path}: it is a directory and no regular file\n")


def test_a_name_on_the_disk_is_shown_and_not_obeyed(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "\x1b[2J.tmp").touch()
    ended = Ended(capsys, "storage", "verify", str(directory))
    assert ended.code == 0
    assert "left over" in ended.out
    assert "\x1b" not in ended.out
    assert "\x1b" not in Ended(capsys, "storage", "verify", str(directory), "--json").out


def test_inspect_shows_files_and_no_secret(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = Ended(capsys, "storage", "inspect", str(directory))
    assert ended.code == 0
    assert f"{directory}: node " in ended.out
    assert f"log/{1:016x}.seg: " in ended.out
    assert "sealed, indexes 1 to 12, 2023-11-14T22:13:20.000Z to " in ended.out
    told = Ended(capsys, "storage", "inspect", str(directory), "--json").json
    assert (told["format"], told["troubles"], told["snapshots"]) == (2, [], [])
    assert [segment["last_index"] for segment in told["segments"]] == [12, 24, 30]
    secret = (directory / "master.key").read_text().strip()
    for args in (("inspect",), ("inspect", "--json"), ("verify",), ("verify", "--json")):
        assert secret not in Ended(capsys, "storage", args[0], str(directory), *args[1:]).out


def test_inspect_of_a_damaged_directory_says_what_it_cannot_read(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(min((directory / "log").iterdir()), 30)
    (directory / "node.toml").write_text("nonsense")
    ended = Ended(capsys, "storage", "inspect", str(directory))
    assert ended.code == 0
    assert "node unknown" in ended.out
    assert "expected a segment header and its CRC-32C" in ended.out
    assert "node.toml: expected" in ended.out


def test_salvage_makes_a_directory_of_everything_up_to_the_damage(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = sorted((directory / "log").iterdir())[1]
    flip(second, 20_000)
    target = tmp_path / "saved"
    ended = Ended(capsys, "storage", "salvage", str(directory), "--target", str(target))
    assert (ended.code, ended.err) == (1, ""), "entries are lost"
    assert f"{target}: node " in ended.out
    assert "revision 15, 15 keys" in ended.out
    assert "it holds everything from the first entry to the first fault behind it, at index 15" in ended.out
    assert f"lost: {second} from byte " in ended.out
    assert "the entries 16 to 24, until 2023-11-14T22:13:44.000Z" in ended.out
    assert "the entries 25 to 30, until 2023-11-14T22:13:49.000Z" in ended.out
    assert Ended(capsys, "storage", "verify", str(target)).code == 0
    again = Ended(capsys, "storage", "salvage", str(directory), "--target", str(target))
    assert again.code == 2
    assert "it is not empty" in again.err


def test_salvage_of_a_sound_directory_says_that_nothing_is_lost(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = Ended(capsys, "storage", "salvage", str(directory), "--target", str(tmp_path / "saved"), "--json")
    assert (ended.json["revision"], ended.json["lost"]) == (30, [])


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for group in ("storage", "pitr"):
        ended = Ended(capsys, group)
        assert ended.code == 2
        assert "Commands:" in ended.err


def test_salvage_of_a_directory_that_has_lost_nothing_ends_with_0(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = Ended(capsys, "storage", "salvage", str(directory), "--target", str(tmp_path / "saved"))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith("no entry is lost\n")


def test_salvage_where_nothing_is_whole_ends_with_11_and_makes_nothing(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    min((directory / "log").iterdir()).write_bytes(b"noise")
    ended = Ended(capsys, "storage", "salvage", str(directory), "--target", str(tmp_path / "saved"))
    assert (ended.code, ended.out) == (11, "")
    assert "no state can be rebuilt" in ended.err
    assert "haptera restore FILE --data-dir NEW" in ended.err
    assert not (tmp_path / "saved").exists()


def test_inspect_names_files_as_they_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files have numbers in hex. The snapshot of index 11 is b, and the segment behind it c."""
    path = tmp_path / "data"
    durable = opened(OsFileSystem(), NodeConfig(data_dir=str(path), segment_size=64 * 1024))
    for number in range(11):
        append(durable, [operations.Set("key", b"%d" % number)], 1_700_000_000_000 + number * 1000)
        snapshot(durable, OsFileSystem())
    durable.close()
    ended = Ended(capsys, "storage", "inspect", str(path))
    assert ended.code == 0
    shown = {line.partition(":")[0] for line in ended.out.splitlines()}
    there = {f"{folder}/{each.name}" for folder in ("log", "snapshots") for each in (path / folder).glob("*.s*")}
    assert f"snapshots/{11:016x}.snap" in there <= shown
    assert f"index 11, revision 11, 2023-11-14T22:13:30.000Z, log/{12:016x}.seg goes on behind it" in ended.out


def test_inspect_knows_the_last_time_of_a_segment_before_an_empty_one(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    durable = opened(OsFileSystem(), NodeConfig(data_dir=str(directory), segment_size=64 * 1024))
    snapshot(durable, OsFileSystem())
    durable.close()
    ended = Ended(capsys, "storage", "inspect", str(directory))
    assert "indexes 25 to 30, 2023-11-14T22:13:44.000Z to 2023-11-14T22:13:49.000Z" in ended.out
    assert "1970" not in ended.out


def test_verify_of_a_past_that_is_damaged_says_that_the_store_is_whole(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    durable = opened(OsFileSystem(), NodeConfig(data_dir=str(directory), segment_size=64 * 1024))
    snapshot(durable, OsFileSystem())
    durable.close()
    flip(min((directory / "log").iterdir()), 200)
    ended = Ended(capsys, "storage", "verify", str(directory))
    assert ended.code == 11
    assert "a start would open it: revision 30, 30 keys\nthe store is whole, and a part of its past is not" in ended.out
