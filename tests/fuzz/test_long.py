"""Each fuzz target for its share of an hour and a half; less or more by FUZZ_SECONDS (docs/fuzzing.md).

The parsers that a stranger reaches before it has proved who it is have an hour together, and the others half of that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.targets import BEFORE_AUTHENTICATION, TARGETS

ROOT = Path(__file__).parents[2]
HOUR_S = float(os.environ.get("FUZZ_SECONDS", "3600"))
BEHIND_AUTHENTICATION = [name for name in TARGETS if name not in BEFORE_AUTHENTICATION]
SECONDS = {
    **dict.fromkeys(BEFORE_AUTHENTICATION, HOUR_S / len(BEFORE_AUTHENTICATION)),
    **dict.fromkeys(BEHIND_AUTHENTICATION, HOUR_S / 2 / len(BEHIND_AUTHENTICATION)),
}


@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
def test_no_finding(name: str) -> None:
    command = [sys.executable, "-m", "fuzz.run", name, "--seconds", str(SECONDS[name])]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-5000:]


def test_the_parsers_before_authentication_have_an_hour_together() -> None:
    assert set(BEFORE_AUTHENTICATION) < set(TARGETS) == set(SECONDS)
    assert sum(SECONDS[name] for name in BEFORE_AUTHENTICATION) == pytest.approx(HOUR_S)
