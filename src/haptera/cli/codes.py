"""The exit codes of the command line (docs/command-line.md)."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
NO: Final = 1
"""The store answered, and the answer is no: a missing key, a condition that failed."""
USAGE: Final = 2
CANNOT_CONNECT: Final = 3
"""There is no server, and nothing was changed."""
REFUSED: Final = 4
FAILED: Final = 5
UNKNOWN: Final = 6
"""The change may have been applied, or not."""

IN_USE: Final = 10
DAMAGED: Final = 11
WRONG_KEY: Final = 12
NEWER_FORMAT: Final = 13
CANNOT_WRITE: Final = 14
"""Of `serve`: the data directory cannot be written. Of a client's command: standard output does not take the result."""
CONFIGURATION: Final = 15
CANNOT_APPLY: Final = 16

INTERRUPTED: Final = 130
