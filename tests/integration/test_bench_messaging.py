"""The comparison of messaging libraries runs, in small, and its figures are what the tables and the plot need."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.messaging.compare import IN_FLIGHT, PAYLOADS, STREAM, show

ROOT = Path(__file__).parents[2]
SMALL = ("--scale", "0.002", "--rounds", "1", "--idle-seconds", "0.1", "--json")


def measured(directory: Path, *libraries: str) -> dict[str, Any]:
    beside = [argument for library in libraries for argument in ("--only", library)]
    command = [sys.executable, "-m", "bench.messaging", "--dir", str(directory), *SMALL, *beside]
    result: dict[str, Any] = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    workloads = {f"echo {size} B, {in_flight} in flight" for size in PAYLOADS for in_flight in IN_FLIGHT} | {STREAM}
    assert set(result["results"]) == workloads
    assert all(set(found) == {"haptera", *libraries} for found in result["results"].values())
    return result


def test_the_comparison_measures_each_library_and_what_it_found_can_be_shown_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.messaging.plot import draw  # it imports a large library, which no other test needs

    result = measured(tmp_path, "ZeroMQ")
    assert result["ping"]["pings"] > 0
    show(result)
    assert "haptera is × as fast" in capsys.readouterr().out
    draw(result, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    for shown in ("calls per second", "MB/s", "million frames per second", "bytes", "KiB each"):
        assert shown in drawn


@pytest.mark.long
def test_a_library_that_takes_seconds_to_start_is_measured_too(tmp_path: Path) -> None:
    measured(tmp_path, "gRPC")


@pytest.mark.skipif(shutil.which("nats-server") is None, reason="nats-server is not on PATH (Debian: nats-server)")
def test_a_broker_is_measured_too(tmp_path: Path) -> None:
    measured(tmp_path, "NATS")
