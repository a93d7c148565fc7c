"""Lines of fields with a separator between them, a tab if no other is chosen, without the quotes of CSV.

The value is the rest of the line behind the key, separators included, unless a column is chosen. A field may be quoted
as `haptera scan` quotes it (`fields`). Where the value is the rest of a line with several fields, they stand as they
are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from haptera.cli.transfer import field_escapes
from haptera.cli.transfer.columns import Columns, Wanted
from haptera.cli.transfer.errors import BadRow
from haptera.cli.transfer.recognise_format import hint
from haptera.cli.transfer.unpacked_lines import Lines, Source

TAB: Final = "\t"


class DelimitedRows:
    """The rows of a TSV file or of one like it."""

    unit = "line"

    def __init__(self, source: Source, wanted: Wanted) -> None:
        self._lines = Lines(source)
        self._wanted = wanted
        self._separator = (wanted.separator or TAB).encode()
        self._comment = wanted.comment
        self._field = _as_it_stands if wanted.raw else field_escapes.read

    @property
    def number(self) -> int:
        return self._lines.number

    def __iter__(self) -> Iterator[tuple[bytes, bytes] | str]:
        lines = self._content()
        names = None
        if self._wanted.header:
            header = next(lines, None)
            if header is None:
                return
            names = [self._field(name).decode(errors="replace") for name in header.split(self._separator)]
        columns = Columns(self._wanted, names)
        for line in lines:
            yield self._row(line, columns)

    def _content(self) -> Iterator[bytes]:
        """The lines that are neither blank nor comments, without their ends."""
        while line := self._lines.read():
            text = line.removesuffix(b"\n").removesuffix(b"\r")
            if text and (self._comment is None or not text.startswith(self._comment)):
                yield text

    def _row(self, line: bytes, columns: Columns) -> tuple[bytes, bytes] | str:
        found = line.split(self._separator)
        trouble = columns.trouble(len(found))
        if trouble is not None:
            return trouble + (hint(line) if len(found) == 1 else "")
        try:
            key = self._field(found[columns.key])
            if columns.value is not None:
                return key, self._field(found[columns.value])
            others = found[: columns.key] + found[columns.key + 1 :]
            return key, self._field(others[0]) if len(others) == 1 else self._separator.join(others)
        except BadRow as bad:
            return str(bad)


def _as_it_stands(field: bytes) -> bytes:
    return field
