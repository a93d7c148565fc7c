"""The history of the shell: where it is, who may read it, and what never gets into it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from prompt_toolkit.history import InMemoryHistory

from haptera.cli.shell import typed_lines
from haptera.cli.shell.typed_lines import history_path, is_kept, open_history

if TYPE_CHECKING:
    from pathlib import Path


def kept(path: Path) -> list[str]:
    return [*open_history(path).load_history_strings()]


def test_the_file_is_in_the_directory_for_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_path() == tmp_path / "haptera" / "shell_history"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # by the XDG specification such a value is ignored
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history_path() == tmp_path / ".local" / "state" / "haptera" / "shell_history"


def test_its_user_alone_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "history"
    open_history(path).store_string("get a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    assert kept(path) == ["get a"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "line",
    [
        "get k --url haptera://ada:secret@host",
        "set k v --url=haptera://ada:secret@host",
        "get 'haptera://ada:secret@host'",
        "set k hapteras://ada:sec%2Fret@host:1?x=1",
        "set k haptera+unix://ada:secret@/run/socket",
        " set k secret",
        "set k " + "v" * 5000,
        "user add ada s3cret",
        "passwd ada s3cret",
    ],
)
def test_a_line_with_a_password_or_a_blank_before_it_is_not_kept(line: str, tmp_path: Path) -> None:
    assert not is_kept(line)
    path = tmp_path / "history"
    open_history(path).store_string(line)
    assert path.read_bytes() == b""


def test_other_lines_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "history"
    history = open_history(path)
    for line in ("set k 'two\nlines'", "get k", "set link https://host/path"):
        history.store_string(line)
    assert kept(path) == ["set link https://host/path", "get k", "set k 'two\nlines'"]


def test_a_link_in_its_place_is_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, path = tmp_path / "target", tmp_path / "history"
    target.write_text("mine")
    path.symlink_to(target)
    assert isinstance(open_history(path), InMemoryHistory)
    assert target.read_text() == "mine"
    assert "the history is not kept" in capsys.readouterr().err


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_something_else_than_a_file_in_its_place_is_not_used(
    make: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history"
    assert callable(make)
    make(path)
    assert isinstance(open_history(path), InMemoryHistory)
    assert "the history is not kept" in capsys.readouterr().err


def test_the_newer_half_of_a_large_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history"
    history = open_history(path)
    for number in range(100):
        history.store_string(f"get {number}")
    monkeypatch.setattr(typed_lines, "FILE_SIZE_MAX", path.stat().st_size - 1)
    lines = kept(path)
    assert lines[0] == "get 99"
    assert 40 <= len(lines) <= 50
    assert lines == [f"get {number}" for number in range(99, 99 - len(lines), -1)]
