"""CSV files (RFC 4180): fields in quotes may hold separators, quotes and line ends."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from haptera.cli.transfer.columns import Columns, Wanted
from haptera.cli.transfer.errors import BadFile
from haptera.cli.transfer.unpacked_lines import LINE_SIZE_MAX, Lines, Source


class CsvRows:
    """The rows of a CSV file. A row of more than two columns needs a column for its value."""

    unit = "line"

    def __init__(self, source: Source, wanted: Wanted) -> None:
        self._lines = Lines(source)
        self._wanted = wanted
        self._row_size = 0
        csv.field_size_limit(LINE_SIZE_MAX)
        self._rows = csv.reader(self._content(), delimiter=wanted.separator or ",", strict=True)

    @property
    def number(self) -> int:
        return self._lines.number

    def __iter__(self) -> Iterator[tuple[bytes, bytes] | str]:
        header = self._next() if self._wanted.header else None
        if self._wanted.header and header is None:
            return
        columns = Columns(self._wanted, header)
        while (row := self._next()) is not None:
            yield self._row(row, columns)

    def _next(self) -> list[str] | None:
        row: list[str] | None = []
        while row == []:
            self._row_size = 0
            try:
                row = next(self._rows, None)
            except csv.Error as error:
                raise BadFile(self.number, f"not CSV: {error}") from error
        return row

    def _content(self) -> Iterator[str]:
        """The lines as text. Between two rows blank lines and comments are passed over, within a row they belong to
        it.
        """
        comment = self._wanted.comment
        while line := self._lines.read(pass_blank=self._row_size == 0):
            if self._row_size == 0 and comment is not None and line.startswith(comment):
                continue
            self._row_size += len(line)
            if self._row_size > LINE_SIZE_MAX:
                raise BadFile(self.number, f"a row of more than {LINE_SIZE_MAX} bytes; is a quote missing before it?")
            yield line.decode(errors="surrogateescape")

    def _row(self, row: list[str], columns: Columns) -> tuple[bytes, bytes] | str:
        trouble = columns.trouble(len(row))
        if trouble is not None:
            return trouble
        if columns.value is None and len(row) > 2:
            return f"{len(row)} columns: --value-column says which is the value"
        value = 1 - columns.key if columns.value is None else columns.value
        return _bytes(row[columns.key]), _bytes(row[value])


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
