"""ShellWatches that go on beside the prompt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import click

from haptera.cli import output
from haptera.cli.exit_codes import DONE
from haptera.cli.failures import described
from haptera.cli.shell.line_words import quoted
from haptera.errors import HapteraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.cli.open_store import OpenStore, Work
    from haptera.cli.output import LineSink

#: ShellWatches of one shell: more would write faster than they can be read.
WATCHES_MAX: Final = 8


class ShellWatches:
    """The watches of a shell, each with a number, whose lines go ``above`` the prompt."""

    def __init__(self, store: OpenStore, above: LineSink) -> None:
        self._store = store
        self._above = above
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def begin(self, words: Sequence[str], work: Work, *, bare: bool) -> int:
        """Begin the watch of a line; with ``bare`` its lines do not begin with its number. Raises ``UsageError``."""
        if len(self._tasks) >= WATCHES_MAX:
            raise click.UsageError(f"{WATCHES_MAX} watches go on at once; unwatch NUMBER ends one")
        number = next(each for each in range(1, WATCHES_MAX + 1) if each not in self._tasks)
        line = output.shown(" ".join(map(quoted, words)))
        output.to_standard_error(f"[{number}] {line}: goes on beside the prompt, unwatch {number} ends it")

        async def begin() -> None:
            task = self._tasks[number] = asyncio.create_task(self._follow(number, work))
            task.add_done_callback(lambda _: self._tasks.pop(number))

        with output.written_to(self._above if bare else _Numbered(self._above, number)):
            self._store.run(begin())
        return DONE

    async def _follow(self, number: int, work: Work) -> None:
        end = "ended"
        try:
            await work(self._store.database)
        except asyncio.CancelledError:
            pass  # by unwatch
        except HapteraError as error:
            end = f"ended: {described(error)}"
        self._above.write(f"[{number}] {output.shown(end)}\n".encode())

    def end(self, number: int | None) -> None:
        """End one watch, or all of them. Raises ``UsageError`` for a number that no watch has."""
        if number is not None and number not in self._tasks:
            raise click.UsageError(f"there is no watch {number}")
        chosen = [*self._tasks.values()] if number is None else [self._tasks[number]]

        async def end() -> None:
            for task in chosen:
                task.cancel()
            await asyncio.gather(*chosen, return_exceptions=True)

        self._store.run(end())


class _Numbered:
    """Puts the number of a watch before each of its lines, which come one by one."""

    def __init__(self, above: LineSink, number: int) -> None:
        self._above = above
        self._number = f"[{number}] ".encode()

    def write(self, data: bytes) -> None:
        self._above.write(self._number + data)

    def flush(self) -> None:
        self._above.flush()
