"""A value from standard input."""

from __future__ import annotations

import sys

import click


def read_standard_input(size_max: int) -> bytes:
    """At most ``size_max`` bytes of standard input. Raises ``UsageError`` where it cannot be read."""
    try:
        return sys.stdin.buffer.read(size_max)
    except OSError as error:
        raise click.UsageError(f"cannot read standard input: {error.strerror or error}") from None
