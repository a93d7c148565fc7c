"""The checker of histories: a Go program around porcupine. Nothing else here needs Go."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE = Path(__file__).parent / "checker"


class Checker:
    """The built program."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def check(self, histories: Sequence[Path]) -> tuple[list[str], str]:
        """Each history's verdict, ``Ok``, ``Illegal`` or ``Unknown``, and all that the program says of them."""
        process = subprocess.run(
            [str(self._program), *map(str, histories)], capture_output=True, text=True, check=False
        )
        assert process.returncode in {0, 1}, process.stderr
        verdicts = [line.split()[0] for line in process.stdout.splitlines() if not line.startswith(" ")]
        assert len(verdicts) == len(histories)
        return verdicts, process.stdout


def build(directory: Path) -> Checker:
    """Build the program. A machine without Go, or without a way to the Go module proxy, skips the test."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("the checker of histories is a Go program, and Go is not installed")
    fetched = subprocess.run([go, "mod", "download"], cwd=SOURCE, capture_output=True, text=True, check=False)
    if fetched.returncode != 0:
        pytest.skip(f"the Go module proxy does not give porcupine: {fetched.stderr.strip()}")
    program = directory / "checker"
    built = subprocess.run(
        [go, "build", "-mod=readonly", "-o", str(program), "."], cwd=SOURCE, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return Checker(program)
