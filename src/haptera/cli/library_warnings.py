"""The library's log lines while a client's command runs, as the command's own lines on standard error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from haptera.cli import output

#: Events that say why a connection ended: a command's error says it, and one that is dialled again is no news.
TOLD: Final = frozenset({"connection_failed", "connection_ended_by_peer"})

#: Warnings of a store that is kept. The one store that a command opens, that of `bench --embedded`, is removed after
#: the run.
MEANINGLESS: Final = frozenset({"durability_os", "key_file_beside_data"})

#: Where the context of a command keeps the warnings that it has shown: it may read a file several times.
_SHOWN: Final = "haptera.cli.library_warnings"


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show each warning once in a command, with its fields, for as long as the context lasts."""
    command = click.get_current_context(silent=True)
    shown: set[str] = set() if command is None else command.meta.setdefault(_SHOWN, set())
    logger, handler = logging.getLogger("haptera"), _Lines(shown)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Lines(logging.Handler):
    def __init__(self, shown: set[str]) -> None:
        super().__init__(logging.WARNING)
        self._shown = shown

    def emit(self, record: logging.LogRecord) -> None:

        from haptera.node import fields_of  # most commands have nothing to warn of

        event = record.getMessage()
        if event in TOLD or event in MEANINGLESS:
            return
        told = dict(fields_of(record))
        line = f"{event} {told}"
        if line not in self._shown:
            self._shown.add(line)
            output.warning(event, told)
