"""The modules of `src/haptera`, each read and parsed once for all tests that hold the sources to a rule."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parents[2] / "src/haptera"

#: The tree of each module, by its path below the package: ``peer/link.py``. They are made while tests are collected,
#: and so frozen with those (tests/conftest.py); made in a test, they would lengthen every later collection of garbage.
TREES: Final = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
