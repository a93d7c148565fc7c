"""The progress of long commands on a terminal, on standard error, by the package rich."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from haptera.cli.output import size

if TYPE_CHECKING:
    from rich.progress import Task

    from haptera.cli.progress_option import Update

#: Columns of a terminal from which on there is room for a bar and the rate.
WIDE: Final = 70


class ProgressLine:
    """A line with the part that is done, its rate and the time left, or a spinner where the whole is not known.

    The whole is ``total`` in bytes, or in ``noun`` where ``counts`` says so. Rows that are stored of a file are
    ``noun`` beside its bytes.
    """

    def __init__(self, doing: str, total: int | None, noun: str = "", *, counts: bool = False) -> None:
        console = Console(stderr=True)
        wide = console.width >= WIDE
        columns: list[str | ProgressColumn] = [TextColumn(doing)]
        if total:
            columns += [BarColumn(bar_width=None)] if wide else []
            columns.append(TaskProgressColumn())
        else:
            columns.append(SpinnerColumn())
        columns.append(_Count(noun, counts=counts, of_total=wide))
        if wide or not total:
            columns.append(_Rate(noun, counts=counts))
        if total:
            columns.append(TimeRemainingColumn(compact=True))
        self._progress = Progress(*columns, console=console, expand=wide and bool(total))
        self._task = self._progress.add_task(doing, total=total or None, rows=0)

    def __enter__(self) -> Update:
        self._progress.start()
        return self._update

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _update(self, done: int, rows: int = 0) -> None:
        """So much is done. Drawn some times a second, by a thread."""
        self._progress.update(self._task, completed=done, rows=rows)


class _Count(ProgressColumn):
    """The rows, entries or bytes that are done."""

    def __init__(self, noun: str, *, counts: bool, of_total: bool) -> None:
        super().__init__()
        self._noun, self._counts, self._of_total = noun, counts, of_total

    def render(self, task: Task) -> Text:
        if self._noun:
            done = int(task.completed) if self._counts else task.fields["rows"]
            return Text(f"{done:,} {self._noun}")
        of_total = f" of {size(int(task.total))}" if task.total and self._of_total else ""
        return Text(size(int(task.completed)) + of_total)


class _Rate(ProgressColumn):
    """The rows, entries or bytes of a second, since the beginning."""

    def __init__(self, noun: str, *, counts: bool) -> None:
        super().__init__()
        self._noun, self._counts = noun, counts

    def render(self, task: Task) -> Text:
        seconds = task.finished_time or task.elapsed or 0.0
        done = task.completed if self._counts or not self._noun else task.fields["rows"]
        if seconds <= 0 or not done:
            return Text("")
        rate = int(done / seconds)
        return Text(f"{rate:,}/s" if self._noun else f"{size(rate)}/s")
