"""The commands of `haptera pitr`, as a user calls them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from haptera.node import NodeConfig
from haptera.storage import OsFileSystem
from tests.unit.cli.storage.test_storage import Ended
from tests.unit.node.offline.directories import append, opened, snapshot

if TYPE_CHECKING:
    from pathlib import Path

from haptera.state import operations

#: 2023-11-14T22:13:20Z
START_S = 1_700_000_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Thirty sets, one a second, and a snapshot in the middle."""
    path = tmp_path / "data"
    durable = opened(OsFileSystem(), NodeConfig(data_dir=str(path), segment_size=64 * 1024))
    for number in range(30):
        append(durable, [operations.Set("key", b"%d" % number)], (START_S + number) * 1000)
        if number == 14:
            snapshot(durable, OsFileSystem())
    durable.close()
    return path


def restored(capsys: pytest.CaptureFixture[str], directory: Path, target: Path, *args: str) -> int:
    """Restore, and return the revision that is there."""
    ended = Ended(capsys, "pitr", "restore", str(directory), *args, "--target", str(target), "--json")
    assert ended.code == 0, ended.err
    revision: int = ended.json["revision"]
    verified = Ended(capsys, "storage", "verify", str(target), "--json").json
    assert (verified["start"]["revision"], verified["node_id"]) == (revision, ended.json["node_id"])
    assert verified["start"]["leaves_gap"] is True
    told = Ended(capsys, "storage", "verify", str(target)).out
    assert told.endswith("; it would leave a gap behind that, because changes may be lost\n")
    return revision


def test_inspect_lists_the_range(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = Ended(capsys, "pitr", "inspect", str(directory))
    assert ended.out == (
        "revisions 0 to 30, 2023-11-14T22:13:20.000Z to 2023-11-14T22:13:49.000Z; indexes 0 to 30; "
        "1 snapshot, 2 segments\n"
    )
    (found,) = Ended(capsys, "pitr", "inspect", str(directory), "--json").json["ranges"]
    assert found["last"] == {
        "revision": 30,
        "index": 30,
        "time_ms": (START_S + 29) * 1000,
        "time": "2023-11-14T22:13:49.000Z",
    }


def test_where_no_moment_can_be_restored_inspect_says_so(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (directory / "log" / f"{1:016x}.seg", *(directory / "snapshots").iterdir()):
        file.write_bytes(b"noise")
    ended = Ended(capsys, "pitr", "inspect", str(directory))
    assert ended.code == 11
    assert ended.out.startswith(f"no moment can be restored\ndamaged: {directory}/snapshots/{15:016x}.snap at byte 0: ")
    assert f"\ndamaged: {directory}/log/{1:016x}.seg at byte 0: " in ended.out
    refused = Ended(capsys, "pitr", "restore", str(directory), "--to-revision", "1", "--target", f"{directory}-new")
    assert refused.code == 2
    assert "revision 1 cannot be reached, and nor can anything else" in refused.err


def test_inspect_of_damage_ends_with_11_and_lists_what_is_left(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segment = directory / "log" / f"{1:016x}.seg"
    segment.write_bytes(b"noise")
    ended = Ended(capsys, "pitr", "inspect", str(directory))
    assert ended.code == 11
    assert ended.out.startswith("revisions 15 to 30, ")
    assert f"\ndamaged: {segment} at byte 0: " in ended.out
    told = Ended(capsys, "pitr", "inspect", str(directory), "--json")
    assert (told.code, told.json["damaged"], len(told.json["ranges"])) == (11, True, 1)


def test_restore_to_a_revision(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for revision in (1, 15, 16, 30):
        target = tmp_path / f"to {revision}"
        assert restored(capsys, directory, target, "--to-revision", str(revision)) == revision


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        ("2023-11-14T22:13:20Z", 1),
        ("2023-11-14T22:13:25.999Z", 6),
        ("2023-11-14T23:13:26+01:00", 7),
        ("2023-11-14 22:13:26.000001+00:00", 7),
        (str(START_S + 20), 21),
        (f"{START_S + 20}.999", 21),
        ("2024-01-01T00:00:00Z", 30),
    ],
)
def test_restore_to_a_time(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, revision: int
) -> None:
    assert restored(capsys, directory, tmp_path / "target", "--to-time", text) == revision


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--to-revision", "31"], "revision 31 cannot be reached; these can: revisions 0 to 30, 2023-11-14T22:13:20"),
        (["--to-time", "2023-11-14T22:13:19.999Z"], "cannot be reached; these can: revisions 0 to 30"),
        (["--to-time", "2999-01-01T00:00:00Z"], "cannot be reached; these can"),
        (["--to-time", "2023-11-14T22:13:20"], "has no time zone"),
        (["--to-time", "yesterday"], "is neither a time, such as"),
        (["--to-revision", "-1"], "-1"),
        (["--to-revision", "1", "--to-time", "5"], "give either --to-revision or --to-time"),
        ([], "give either --to-revision or --to-time"),
    ],
)
def test_what_cannot_be_restored_is_an_error_of_usage(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], reason: str
) -> None:
    target = tmp_path / "target"
    ended = Ended(capsys, "pitr", "restore", str(directory), *args, "--target", str(target))
    assert (ended.code, ended.out) == (2, "")
    assert reason in ended.err
    assert not target.exists()


def test_a_filled_target_is_refused_before_any_work(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for target in (directory, tmp_path):
        ended = Ended(capsys, "pitr", "restore", str(directory), "--to-revision", "3", "--target", str(target))
        assert ended.code == 2
        assert f"{target}: it is not empty" in ended.err


def test_the_times_that_are_shown_can_be_given_back(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = Ended(capsys, "pitr", "inspect", str(directory), "--json").json["ranges"]
    assert datetime.fromisoformat(found["last"]["time"]).timestamp() * 1000 == found["last"]["time_ms"]
