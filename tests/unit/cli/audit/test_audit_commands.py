"""`haptera audit verify` and `haptera audit head`, as a user calls them."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import TYPE_CHECKING

import google_crc32c
import pytest

from haptera.client import open_embedded
from haptera.node.audit.event import AuditCaller
from haptera.node.audit.files import AuditFiles, Sizes
from haptera.storage import OsFileSystem
from tests.unit.cli.storage.test_storage import Ended
from tests.unit.node.audit.logs import add, event

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory with an audit log of eleven lines in two files."""
    log = AuditFiles(OsFileSystem(), str(tmp_path / "data/audit"), Sizes(1500, 0), clock_ms=lambda: 7)
    (tmp_path / "data").mkdir()
    log.open()
    add(log, *range(10))
    log.close()
    assert len(list((tmp_path / "data/audit").iterdir())) == 2
    return tmp_path / "data"


def head_of(capsys: pytest.CaptureFixture[str], directory: Path) -> str:
    return Ended(capsys, "audit", "head", "--data-dir", str(directory)).out.strip()


def test_a_whole_log_is_verified_and_has_a_head(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = Ended(capsys, "audit", "verify", "--data-dir", str(directory))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [f"{directory}/audit: 11 lines in 2 files, 1 to 11", "the chain is whole"]
    head = head_of(capsys, directory)
    sequence, digest = head.split(":")
    assert (sequence, len(bytes.fromhex(digest))) == ("11", 32)
    told = Ended(capsys, "audit", "head", "--data-dir", str(directory), "--json").json
    assert told == {"head": head, "sequence": 11, "hash": digest}


def test_copies_of_the_files_are_verified_too(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(directory / "audit", tmp_path / "copy")
    assert head_of(capsys, tmp_path / "copy") == head_of(capsys, directory)
    monkeypatch.setenv("HAPTERA_DATA_DIR", str(directory))
    assert Ended(capsys, "audit", "verify").code == 0


def test_a_changed_line_is_named_with_its_file_and_ends_with_11(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = directory / "audit/0000000000000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"key 3"', b'"key 4"'))
    ended = Ended(capsys, "audit", "verify", "--data-dir", str(directory))
    assert ended.code == 11
    assert f"changed: {path} line 5 at byte " in ended.out
    assert ended.out.endswith("the log was changed\n")
    told = Ended(capsys, "audit", "verify", "--data-dir", str(directory), "--json")
    assert told.code == 11
    assert [(fault["file"], fault["line"]) for fault in told.json["faults"]] == [(str(path), 5)]
    assert Ended(capsys, "audit", "head", "--data-dir", str(directory)).code == 11


def test_lines_that_were_cut_off_are_found_by_a_head(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = head_of(capsys, directory)
    assert Ended(capsys, "audit", "verify", "--data-dir", str(directory), "--head", head).code == 0
    (directory / "audit/0000000000000008.jsonl").unlink()
    assert Ended(capsys, "audit", "verify", "--data-dir", str(directory)).code == 0
    ended = Ended(capsys, "audit", "verify", "--data-dir", str(directory), "--head", head)
    assert ended.code == 11
    assert "the chain ends with line 7, and line 11 was in it" in ended.out


def test_a_head_of_another_chain_is_found(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = f"5:{'ab' * 32}"
    ended = Ended(capsys, "audit", "verify", "--data-dir", str(directory), "--head", other)
    assert ended.code == 11
    assert f"line 5 is another one than the head {other} says" in ended.out


def test_a_torn_last_line_is_named_and_is_no_fault(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (directory / "audit/0000000000000008.jsonl").open("ab") as file:
        file.write(b'{"sequence":12,"ti')
    ended = Ended(capsys, "audit", "verify", "--data-dir", str(directory))
    assert ended.code == 0
    assert "torn line: " in ended.out
    assert "line 5 at byte " in ended.out


def test_a_head_whose_line_retention_has_removed_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = AuditFiles(OsFileSystem(), str(tmp_path / "audit"), Sizes(1000, 2000), clock_ms=lambda: 7)
    log.open()
    add(log, 0)
    log.close()
    head = head_of(capsys, tmp_path)
    log.open()
    add(log, *range(1, 40))
    log.close()
    ended = Ended(capsys, "audit", "verify", "--data-dir", str(tmp_path), "--head", head)
    assert (ended.code, "unknown: line 2 is not kept any more" in ended.out) == (1, True)


@pytest.mark.parametrize("command", ["verify", "head"])
def test_where_there_is_no_log_that_is_said(tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        ended = Ended(capsys, "audit", command, "--data-dir", str(path))
        assert ended.code == 2
        assert "there is no audit log" in ended.err


def test_a_head_that_is_none_is_a_mistake_of_usage(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = Ended(capsys, "audit", "verify", "--data-dir", str(directory), "--head", "12")
    assert ended.code == 2
    assert "SEQUENCE:HASH" in ended.err


def test_a_log_without_a_whole_line_has_no_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit/0000000000000001.jsonl").write_bytes(b'{"seq')
    ended = Ended(capsys, "audit", "head", "--data-dir", str(tmp_path), "--json")
    assert ended.code == 11
    assert "no whole line" in json.dumps(ended.err)


def test_a_log_whose_files_were_all_emptied_is_damaged(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (directory / "audit").iterdir():
        path.write_bytes(b"")
    ended = Ended(capsys, "audit", "verify", str(directory))
    assert ended.code == 11
    assert "no file has a line: they were emptied" in ended.out
    assert ended.out.endswith("the log was changed\n")


def test_a_last_file_without_a_line_is_named_and_a_head_tells_whether_it_had_some(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = head_of(capsys, directory)
    assert "it was emptied" not in Ended(capsys, "audit", "verify", str(directory)).out
    (directory / "audit/0000000000000008.jsonl").write_bytes(b"")
    ended = Ended(capsys, "audit", "verify", str(directory))
    assert ended.code == 0
    assert "8.jsonl line 1 at byte 0: the file has no line" in ended.out
    assert Ended(capsys, "audit", "verify", str(directory), "--head", head).code == 11


@pytest.mark.parametrize("command", ["verify", "head"])
def test_the_directory_is_an_argument_or_an_option_and_not_both(
    directory: Path, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = Ended(capsys, "audit", command, "--data-dir", str(directory)).out
    monkeypatch.setenv("HAPTERA_DATA_DIR", "/nowhere")  # an argument wins over the environment
    assert Ended(capsys, "audit", command, str(directory)).out == named
    both = Ended(capsys, "audit", command, str(directory), "--data-dir", str(directory))
    assert both.code == 2
    assert "there is one directory" in both.err


def test_lines_are_shown_by_user_method_and_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = AuditFiles(OsFileSystem(), str(tmp_path / "audit"), Sizes(1000, 0), clock_ms=lambda: 1_000)
    log.open()
    ann = AuditCaller(address="192.0.2.1:5", user="ann")
    told = [
        event(2_000, caller=ann, key="a\tb"),
        event(
            3_000,
            caller=AuditCaller(user="root"),
            key=None,
            kind="administration",
            method="admin.set_verifier",
            target="ann",
        ),
        event(4_000, method="kv.get", key="k", outcome="not_applied", code=2004),
    ]
    assert log.append(told) == (3, None)
    log.close()
    rows = [
        "1970-01-01T00:00:01.000Z\t\t\taudit.begun\t\tdone\t0",
        "1970-01-01T00:00:02.000Z\tann\t192.0.2.1:5\tkv.set\t$'a\\tb'\tdone\t0",
        "1970-01-01T00:00:03.000Z\troot\t\tadmin.set_verifier\tann\tdone\t0",
        "1970-01-01T00:00:04.000Z\t\t\tkv.get\tk\tnot_applied\t2004",
    ]
    for options, places in (
        ((), (0, 1, 2, 3)),
        (("--user", "ann"), (1, 2)),
        (("--method", "kv"), (1, 3)),
        (("--method", "kv.get"), (3,)),
        (("--since", "3"), (2, 3)),
        (("--since", "1970-01-01T00:00:02Z", "--user", "ann", "--method", "kv.set"), (1,)),
        (("--user", "bob"), ()),
    ):
        ended = Ended(capsys, "audit", "show", str(tmp_path), *options)
        assert (ended.code, ended.out.splitlines()) == (0, [rows[place] for place in places])
    written = Ended(capsys, "audit", "show", str(tmp_path), "--method", "kv.get", "--json").json
    assert (written["sequence"], written["time"], written["key"]) == (4, 4_000, "k")


def test_a_changed_line_is_not_shown_and_ends_with_11(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = directory / "audit/0000000000000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"key 3"', b'"key 4"'))
    ended = Ended(capsys, "audit", "show", str(directory))
    assert (ended.code, len(ended.out.splitlines())) == (11, 10)
    assert "1 line of the log" in ended.err


@pytest.mark.parametrize(
    "inner",
    ["[" * 10_000 + "]" * 10_000, '"\\ud800"', "x", "1" * 5000],
    ids=["nested", "half a character", "no JSON", "a long number"],
)
def test_a_forged_line_with_a_right_check_is_not_shown_and_ends_with_11(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], inner: str
) -> None:
    (tmp_path / "audit").mkdir()
    text = f'{{"sequence":1,"more":{inner},"previous":"{"0" * 64}"'.encode()
    check = google_crc32c.value(text)
    (tmp_path / "audit/0000000000000001.jsonl").write_bytes(text + b',"check":"%08x"}\n' % check)
    ended = Ended(capsys, "audit", "show", str(tmp_path))
    assert (ended.code, ended.out) == (11, "")
    assert "Traceback" not in ended.err


def test_verification_changes_nothing(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def files() -> dict[str, tuple[bytes, int]]:
        return {
            str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file()
        }

    before = files()
    Ended(capsys, "audit", "verify", "--data-dir", str(directory))
    assert files() == before


def test_the_log_is_compared_with_the_line_that_the_store_has_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "d"

    async def administer() -> None:
        async with open_embedded(path) as db:
            await db.admin.add_role("app")
            await db.admin.add_role("web")

    asyncio.run(administer())
    whole = Ended(capsys, "audit", "verify", "--noted", "--data-dir", str(path))
    assert (whole.code, whole.err) == (0, "")
    assert whole.out.splitlines()[0] == "the store has noted line 5"
    [file] = (path / "audit").iterdir()
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:3]))
    assert Ended(capsys, "audit", "verify", "--data-dir", str(path)).code == 0, "the files alone do not show it"
    cut = Ended(capsys, "audit", "verify", "--noted", "--data-dir", str(path))
    assert cut.code == 11
    assert "the chain ends with line 3, and line 5 was in it" in cut.out
    told = Ended(capsys, "audit", "verify", "--noted", "--json", "--data-dir", str(path)).json
    assert told["noted"].startswith("5:")
    assert len(told["faults"]) == 1


def test_the_noted_line_needs_the_data_directory_and_its_master_key(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = Ended(capsys, "audit", "verify", "--noted", "--data-dir", str(directory))
    assert missing.code == 2
    assert "there is no data directory" in missing.err
    no_file = ("--master-key-file", str(tmp_path / "none"))
    refused = Ended(capsys, "audit", "verify", "--noted", "--data-dir", str(directory), *no_file)
    assert refused.code == 2
    assert not (directory / "log").exists(), "nothing is made"
