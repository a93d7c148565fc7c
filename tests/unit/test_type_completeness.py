"""Every name of the package has its types written down, as pyright reads it (``--verifytypes``).

Each parameter, result and attribute has an annotation that leaves nothing to guess, or a value that has one type for
all type checkers. Names with an underscore in front are the business of their module.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

PYRIGHT: Final = shutil.which("pyright", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def incomplete(symbols: list[dict[str, Any]]) -> list[str]:
    """The complaints of pyright."""
    return [
        f"{symbol['name']}: {complaint['message']}"
        for symbol in symbols
        for complaint in symbol["diagnostics"]
        if complaint["severity"] == "error"
    ]


def test_a_type_that_is_not_written_down_is_seen() -> None:
    symbols = [
        {"name": "haptera.line.Line.size", "diagnostics": [{"severity": "error", "message": "is unknown"}]},
        {"name": "haptera.line.Line.end", "diagnostics": [{"severity": "warning", "message": "no docstring"}]},
    ]
    assert incomplete(symbols) == ["haptera.line.Line.size: is unknown"]


@pytest.mark.timeout(600)  # it reads all sources: 15 seconds of one core
@pytest.mark.skipif(PYRIGHT is None, reason="pyright is not installed; .ci/run installs it")
def test_every_name_has_its_types_written_down(tmp_path: Path) -> None:
    assert PYRIGHT is not None
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(folder.parent)}
    command = [PYRIGHT, "--verifytypes", "haptera", "--ignoreexternal", "--outputjson"]
    # In a folder of its own: where a folder is named haptera, pyright would take it for the package.
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    report = json.loads(done.stdout)["typeCompleteness"]
    assert report["pyTypedPath"].endswith("py.typed")
    assert report["exportedSymbolCounts"]["withKnownType"] > 10_000, "pyright has not seen the names"
    assert incomplete(report["symbols"]) == []
    assert report["completenessScore"] == 1
