"""The rows that every format gives: each a key and a value as bytes, and where it stood."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from haptera.cli.transfer.errors import BadFile

COLUMNS_MAX: Final = 65536


@dataclass(frozen=True)
class Wanted:
    """The wanted part of a file.

    ``key`` and ``value`` are columns: a number from 1, or a name of the header or of a JSON object. ``value`` None is
    the default of the format. ``comment`` begins the lines that are passed over. ``raw`` takes the fields of a TSV file
    as they stand.
    """

    header: bool = False
    key: str | None = None
    value: str | None = None
    separator: str | None = None
    comment: bytes | None = None
    raw: bool = False


#: A key and a value, and, where the row says so, the Unix time in seconds at which it expires.
Row = tuple[bytes, bytes] | tuple[bytes, bytes, float | None]


class Rows(Protocol):
    """The rows of one file. ``number`` is the place of the last one read, in ``unit``."""

    @property
    def number(self) -> int: ...

    unit: str

    def __iter__(self) -> Iterator[Row | str]:
        """Each row, or its fault. Raises `BadFile` where the file cannot be read on."""
        ...


class Columns:
    """Where the key and the value stand in a row of fields."""

    def __init__(self, wanted: Wanted, names: list[str] | None) -> None:
        self.width: int | None = None if names is None else len(names)
        self.key: int = _place("key", wanted.key or "1", names)
        self.value: int | None = None if wanted.value is None else _place("value", wanted.value, names)
        self._needed = max(self.key, 1 if self.value is None else self.value) + 1

    def trouble(self, width: int) -> str | None:
        """Why a row of so many fields is none."""
        if self.width is not None and width != self.width:
            return f"{_columns(width)} where the header has {self.width}"
        if width < self._needed:
            return f"{_columns(width)} where at least {self._needed} are needed"
        return None


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def _place(what: str, column: str, names: list[str] | None) -> int:
    if names is not None and column in names:
        return names.index(column)
    if column.isdecimal() and 0 < int(column) <= (len(names) if names is not None else COLUMNS_MAX):
        return int(column) - 1
    known = f"the header has {', '.join(names)}" if names is not None else "without --header a column is a number"
    raise BadFile(1, f"there is no {what} column {column!r} ({known})")
