"""The commands of `haptera storage`, as a user calls them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from haptera.cli.main import main
from haptera.node import NodeConfig
from haptera.storage import OsFileSystem
from tests.unit.node.offline.directories import append, opened

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
    told = Ended(capsys, "storage", "verify", str(directory), "--json")
    assert told.code == 11
    assert [finding["file"] for finding in told.json["findings"]] == [str(first), str(second)]
    assert told.json["start"]["exit_code"] == 11


def test_verify_of_a_directory_without_keys(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "keys").unlink()
    assert Ended(capsys, "storage", "verify", str(directory)).code == 12


def test_verify_where_there_is_no_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = Ended(capsys, "storage", "verify", str(tmp_path / "none"))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"haptera: {tmp_path / 'none'}: there is no data directory\n"


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
    assert "segment 1: " in ended.out
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
    assert (ended.code, ended.err) == (0, "")
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
