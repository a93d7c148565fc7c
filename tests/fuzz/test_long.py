"""Each fuzz target for its share of an hour; less or more by FUZZ_SECONDS (docs/fuzzing.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("FUZZ_SECONDS", "3600")) / len(TARGETS)


@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
def test_no_finding(name: str) -> None:
    command = [sys.executable, "-m", "fuzz.run", name, "--seconds", str(SECONDS)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-5000:]
