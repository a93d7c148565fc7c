"""Which extra of the package brings a module that is missing."""

from __future__ import annotations

from typing import Final

EXTRA_OF: Final = {
    "click": "cli",
    "rich": "cli",
    "cryptography": "server",
    "sortedcontainers": "server",
    "uvloop": "server",
    "zstandard": "zstd",
}


def how_to_install(error: ModuleNotFoundError) -> str | None:
    """What to say of a module that an extra brings; None for a module of no extra, whose absence is a mistake."""
    package = (error.name or "").partition(".")[0]
    extra = EXTRA_OF.get(package)
    return None if extra is None else f"this needs the package {package}: pip install 'haptera[{extra}]'"
