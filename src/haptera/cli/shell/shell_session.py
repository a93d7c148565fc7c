"""One run of a shell: how a line of it is carried out, and what it remembers from line to line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from haptera.cli import output
from haptera.cli.endings import ended
from haptera.cli.exit_codes import DONE, INTERRUPTED
from haptera.cli.open_store import commands_run_on
from haptera.cli.shell.collected import COLLECTED
from haptera.cli.shell.words import WORDS, group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.cli.open_store import OpenStore, Route
    from haptera.cli.shell.collected import Collected
    from haptera.cli.shell.watches import ShellWatches
    from haptera.client import Database


#: The lines that a transaction takes.
TAKEN: Final = COLLECTED | {"compare", "otherwise"}


class ShellSession:
    """The state of a shell. ``watches`` is None where a watch has no prompt to go on beside."""

    def __init__(self, store: OpenStore, form: str | None) -> None:
        self.store = store
        self.form = form
        self.user: str = ""
        self.timing = False
        self.left = False
        self.transaction: Collected | None = None
        self.watches: ShellWatches | None = None

    async def greet(self, db: Database) -> int:
        """Meet the node before the first line, so that a wrong URL or password is told at once."""
        self.user = (await db.whoami()).user or ""
        return DONE

    def run(self, words: Sequence[str]) -> int:
        """Carry out a command, and return its exit code. Everything that there is to say about it has been said."""
        options = words[: words.index("--")] if "--" in words else words
        begun = time.perf_counter()
        with (
            output.errors_as_json(self.form == "json" or "--json" in options),
            output.in_form(self.form),
            commands_run_on(self.store),
        ):
            code = ended(lambda: self._run(words), words)
            if code == INTERRUPTED:
                output.to_standard_error("cancelled")
        if self.timing:
            output.to_standard_error(f"{(time.perf_counter() - begun) * 1000:.1f} ms")
        return code

    def _run(self, words: Sequence[str]) -> object:
        collected = self.transaction
        if collected is None or words[0] in WORDS.keys() - TAKEN:
            with self.store.routed(self._route(words)):
                return _call(self, words)
        collected.lines += 1
        try:
            if words[0] not in TAKEN:
                raise click.UsageError(
                    f"{output.shown(words[0])} is no command of a transaction, which takes "
                    f"{', '.join(sorted(TAKEN))}; exec sends it, and discard gives it up"
                )
            with self.store.routed(lambda work: collected.collect(self.store, work)):
                return _call(self, words)
        except click.ClickException:
            collected.failed = collected.failed or collected.lines
            raise

    def _route(self, words: Sequence[str]) -> Route:
        watches = self.watches
        if watches is None or words[0] != "watch":
            return self.store.run_on_it
        return lambda work: watches.begin(words, work, bare=self.form == "json" or "--json" in words)


def _call(session: ShellSession, words: Sequence[str]) -> object:
    result: object = group.main(args=list(words), prog_name="", standalone_mode=False, obj=session)
    return result
