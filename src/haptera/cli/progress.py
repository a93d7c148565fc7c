"""The progress bars of an import and of a backup, on standard error."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class Bar:
    """A bar over the ``size`` bytes of a file, with the rows stored; without a size a spinner in its place."""

    def __init__(self, size: int) -> None:
        known = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn()) if size else (SpinnerColumn(),)
        self._progress = Progress(
            TextColumn("importing"), *known, TextColumn("{task.fields[rows]:,} rows"), console=Console(stderr=True)
        )
        self._task = self._progress.add_task("import", total=size or None, rows=0)

    def __enter__(self) -> Callable[[int, int], None]:
        self._progress.start()
        return self._update

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _update(self, position: int, rows: int) -> None:
        """The file was read up to ``position``, and ``rows`` are stored. Drawn some times a second, by a thread."""
        self._progress.update(self._task, completed=position, rows=rows)


class Bytes:
    """A spinner with the bytes done and their rate, or a bar where their number is known."""

    def __init__(self, doing: str, size: int | None = None) -> None:
        known = (BarColumn(), TaskProgressColumn()) if size else (SpinnerColumn(),)
        self._progress = Progress(
            TextColumn(doing), *known, DownloadColumn(), TransferSpeedColumn(), console=Console(stderr=True)
        )
        self._task = self._progress.add_task(doing, total=size)

    def __enter__(self) -> Callable[[int], None]:
        self._progress.start()
        return self._update

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _update(self, size: int) -> None:
        """So many bytes are done."""
        self._progress.update(self._task, completed=size)
