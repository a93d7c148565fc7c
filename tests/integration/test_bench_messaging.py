"""The comparison of messaging libraries runs, in small, and its figures are what the tables and the plot need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.messaging.compare import IN_FLIGHT, PAYLOADS, STREAM, show
from bench.messaging.plot import draw

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]
SMALL = ("--scale", "0.002", "--rounds", "1", "--idle-seconds", "0.1", "--only", "ZeroMQ", "--json")


def test_the_comparison_measures_each_library_and_what_it_found_can_be_shown_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "bench.messaging", "--dir", str(tmp_path), *SMALL]
    result = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    workloads = {f"echo {size} B, {in_flight} in flight" for size in PAYLOADS for in_flight in IN_FLIGHT} | {STREAM}
    assert set(result["results"]) == workloads
    assert all(set(found) == {"haptera", "ZeroMQ"} for found in result["results"].values())
    assert result["ping"]["pings"] > 0
    show(result)
    assert "haptera is × as fast" in capsys.readouterr().out
    draw(result, tmp_path / "plot.svg")
    assert "calls per second" in (tmp_path / "plot.svg").read_text()
