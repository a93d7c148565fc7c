"""Which extra of the package brings a module that is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from haptera.cli.exit_codes import CONFIGURATION, USAGE

EXTRA_OF: Final = {
    "click": "cli",
    "prompt_toolkit": "cli",
    "rich": "cli",
    "cryptography": "server",
    "sortedcontainers": "server",
    "uvloop": "server",
    "zstandard": "zstd",
}


def how_to_install(error: ModuleNotFoundError, args: Sequence[str]) -> tuple[str, int] | None:
    """The advice for a missing module that an extra brings, and the exit code of the command ``args``.

    None for a module of no extra, whose absence is a mistake.
    """
    package = (error.name or "").partition(".")[0]
    extra = EXTRA_OF.get(package)
    if extra is None:
        return None
    serves = args[:1] == ["serve"]
    if serves and extra == "cli":
        extra = "server"  # it has all that this command needs, and the other one has not
    return f"this needs the package {package}: pip install 'haptera[{extra}]'", CONFIGURATION if serves else USAGE
