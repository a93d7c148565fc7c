"""The progress of long commands: on a terminal of any width, and nowhere else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from haptera.testing import node_in_thread
from tests.integration.commands import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with node_in_thread(listen="tcp") as url:
        yield url


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.tsv"
    file.write_text("".join(f"key-{n}\tvalue {n}\n" for n in range(1500)))
    return file


def drawn(err: str) -> list[str]:
    """The lines of the progress as they were drawn, without what moves the cursor and colours them."""
    return [line for line in re.split(r"[\r\n]+", _CONTROL.sub("", err)) if line.strip()]


@pytest.mark.parametrize(("width", "has_rate"), [(40, False), (200, True)])
def test_the_progress_fits_the_terminal(
    width: int, has_rate: bool, url: str, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("HAPTERA_URL", url)
    monkeypatch.setenv("TERM", "xterm-256color")
    for args, count in (
        (("import", str(rows)), "1,500 rows"),
        (("export", str(tmp_path / "out.jsonl")), "1,500 entries"),
        (("backup", "create", str(tmp_path / "b.backup"), "--force"), "KiB"),
    ):
        ended = run(*args, terminal=True)
        assert ended.code == 0
        lines = [line for line in drawn(ended.err) if line.startswith(("importing", "exporting", "backing up"))]
        assert lines
        assert count in lines[-1]
        assert all(len(line.rstrip()) <= width for line in lines)
        if args[0] != "backup":
            assert "100%" in lines[-1]
            assert ("/s" in lines[-1]) is has_rate


@pytest.mark.parametrize("terminal", [False, True])
def test_a_pipe_and_the_option_show_no_progress(
    terminal: bool, url: str, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAPTERA_URL", url)
    quiet = ("--no-progress",) if terminal else ()
    for args in (("import", str(rows)), ("export", str(tmp_path / "out.jsonl"))):
        ended = run(*args, *quiet, terminal=terminal)
        assert (ended.code, ended.err) == (0, "")
    ended = run("backup", "create", str(tmp_path / "b.backup"), *quiet, terminal=terminal)
    assert ended.code == 0
    assert "backing up" not in ended.err


def test_entries_on_a_terminal_have_no_progress_between_them(
    url: str, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAPTERA_URL", url)
    run("import", str(rows))
    ended = run("export", "-", "--prefix", "key-1", terminal=True)
    assert (ended.code, ended.err) == (0, "")
