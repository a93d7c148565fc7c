"""`haptera status`, as an operator reads it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from haptera.cli import output
from haptera.testing import node_in_thread
from tests.unit.cli.storage.test_storage import Ended

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_status_shows_the_reason_of_the_health_and_the_next_step(
    short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with node_in_thread(data_dir=short_path / "data", memory_max=1 << 20) as url:
        assert "health: ok\n" in Ended(capsys, "status", "--url", url).out
        assert "health_" not in Ended(capsys, "status", "--url", url).out
        assert Ended(capsys, "import", str(rows(short_path)), "--url", url).code == 0
        shown = Ended(capsys, "status", "--url", url).out
        told = Ended(capsys, "status", "--url", url, "--json").json
    assert re.search(r"^health_reason: keys and values take \d+ of 1048576 bytes of memory: ", shown, re.MULTILINE)
    assert "health_help: delete keys, or start the node with a larger --memory-max\n" in shown
    assert told["health"] == "ok"
    assert told["health_reason"] in shown


def rows(folder: Path) -> Path:
    file = folder / "rows.tsv"
    file.write_text("".join(f"key {number}\t{'v' * 50_000}\n" for number in range(18)))
    return file


def test_a_terminal_has_units_and_a_pipe_has_numbers(
    short_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with node_in_thread(data_dir=short_path / "data") as url:
        piped = Ended(capsys, "status", "--url", url).out
        monkeypatch.setattr(output, "is_terminal", lambda: True)
        shown = Ended(capsys, "status", "--url", url).out
    assert re.search(r"^uptime_ms: \d+$", piped, re.MULTILINE)
    assert "memory_max: 0\n" in piped
    cells = {name: value.strip() for name, value in re.findall(r"^ +(\w+) {2,}(.*)$", shown, re.MULTILINE)}
    assert re.fullmatch(r"\d+ s", cells["uptime"])
    assert cells["memory_max"] == "no bound"
    assert re.fullmatch(r"\d+\.\d MiB", cells["snapshot_memory"])
    assert cells["encrypted"] == "true"
