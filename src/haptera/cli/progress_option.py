"""The progress of long commands, where there is a terminal that shows it."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from collections.abc import Callable


class Update(Protocol):
    """Takes how much is done, and the rows that this stands for."""

    def __call__(self, done: int, rows: int = 0, /) -> None: ...


def progress_option(function: Callable[..., int]) -> Callable[..., int]:
    """Add ``--no-progress``; the command gets it as ``no_progress``."""
    return click.option("--no-progress", is_flag=True, help="Show no progress, on a terminal either.")(function)


def progress(
    doing: str, total: int | None, noun: str = "", *, counts: bool = False, wanted: bool = True
) -> AbstractContextManager[Update]:
    """Return the progress line of `haptera.cli.progress.ProgressLine`; one that shows nothing where it is not
    ``wanted``, standard error is no terminal, or the package rich is missing.
    """
    if wanted and is_shown():
        try:
            from haptera.cli.progress import ProgressLine
        except ModuleNotFoundError:
            pass
        else:
            return ProgressLine(doing, total, noun, counts=counts)
    return nullcontext(_silent)


def is_shown() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def _silent(done: int, rows: int = 0, /) -> None:
    """Show nothing."""
