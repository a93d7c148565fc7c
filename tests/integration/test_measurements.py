"""The measurements of bench/ that need nothing beside Python run, and find what they say they measure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bench import codec, replay, startup

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def _found(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["environment"]["cores"]
    return found


def test_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert codec.main(["--rounds", "1", "--seconds", "0.001", "--dir", str(tmp_path), "--json"]) == 0
    results = _found(capsys)["results"]
    assert [result["value_size"] for result in results] == [16, 256, 4096, 65536]
    assert all(result[way]["frames_per_second"] > 0 for result in results for way in ("encode", "decode"))


def test_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main(["--entries", "500", "--dir", str(tmp_path), "--json"]) == 0
    assert _found(capsys)["results"][0]["entries"] == 500


def test_startup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert startup.main(["--rounds", "1", "--dir", str(tmp_path), "--json"]) == 0
    assert _found(capsys)["result"]["imports_ms"] > 0
