"""The measurements under bench/ run and report; what they measure is not judged here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bench import codec, processes, redis_compare, replay, startup

if TYPE_CHECKING:
    from pathlib import Path


def report(captured: pytest.CaptureFixture[str]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(captured.readouterr().out)
    assert result["environment"]["sync_ms"] > 0
    return result


@pytest.mark.skipif(processes.redis_version() is None, reason="redis-server is not installed")
def test_the_comparison_with_redis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert redis_compare.main(["--json", "--dir", str(tmp_path), "--rounds", "1", "--scale", "0.01"]) == 0
    results = report(capsys)["results"]
    assert [result["workload"] for result in results] == [
        "get, serial",
        "set, serial",
        "get, 50 in flight",
        "set, 50 in flight",
    ]
    for result in results:
        rivals = {name: figures for name, figures in result["medians"].items() if name.startswith("redis-py,")}
        fastest = max(figures["calls_per_second"] for figures in rivals.values())
        assert rivals.keys() == {"redis-py, one connection", "redis-py, pool"}
        assert result["ratio"] == result["medians"]["haptera"]["calls_per_second"] / fastest
    assert list(tmp_path.iterdir()) == []


def test_the_comparison_says_that_redis_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert redis_compare.main([]) == 1
    assert "redis-server is not on PATH" in capsys.readouterr().err


def test_the_codec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert codec.main(["--json", "--dir", str(tmp_path), "--rounds", "1", "--seconds", "0.001"]) == 0
    results = report(capsys)["results"]
    assert [result["value_size"] for result in results] == list(codec.VALUE_SIZES)


def test_the_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main(["--json", "--dir", str(tmp_path), "--entries", "1000"]) == 0
    results = report(capsys)["results"]
    assert [(result["entries"], result["commands_per_entry"]) for result in results] == [(1000, 1), (20, 50)]
    assert list(tmp_path.iterdir()) == []


def test_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert startup.main(["--json", "--dir", str(tmp_path), "--rounds", "1"]) == 0
    result = report(capsys)["result"]
    assert result["imports_ms"] > 0
    assert result["modules"] > 0
