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
