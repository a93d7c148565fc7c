"""The small text files of a data directory, as tables."""

from __future__ import annotations

import tomllib
from typing import Any

__all__ = ["parse_toml"]


def parse_toml(data: bytes) -> dict[str, Any]:
    """The table in a file. Raises ValueError for anything else, however deep it is nested."""
    try:
        return tomllib.loads(data.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
