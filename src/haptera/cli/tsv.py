"""Tab-separated files as batches of keys and values, read as a stream.

A line ends with LF or CRLF, and its fields are what stands between its tabs: there are no quotes and no escapes. Blank
lines are passed over, and so is a byte-order mark at the beginning. A gzip file is known by its first bytes.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

KEY_SIZE_MAX = 4096
VALUE_SIZE_MAX = 8 * 1024 * 1024
"""The limits of the protocol (section 7): checked here, so that one bad line is named and does not fail a batch."""

LINE_SIZE_MAX = VALUE_SIZE_MAX + 1024 * 1024
"""What is longer holds no row that could be stored: more than the largest value beside columns that are left out."""

BATCH_ROWS_MAX = 500
BATCH_SIZE_MAX = 128 * 1024
"""Bytes of keys and values in one call: large enough that the calls cost little beside their rows, small enough that
many in flight are few megabytes, and that what is uncertain after a lost connection is little."""

BUFFER_SIZE = 256 * 1024


class BadFile(Exception):
    """The file cannot be read on. ``line`` is the number of the line that says so, from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


@dataclass
class Batch:
    """Rows for one call. ``first_line`` and ``last_line`` are where they stood in the file."""

    items: list[tuple[str, bytes]]
    first_line: int
    last_line: int
    position: int
    """Bytes of the file read so far, before decompression."""


@dataclass(frozen=True)
class Columns:
    """Which columns to take: a number from 1 or, with a header, a name. ``value`` None: all but the key's."""

    header: bool
    key: str = "1"
    value: str | None = None
    prefix: str = ""
    skip_bad: bool = False


class Reader:
    """Reads one file. ``skipped`` counts the lines that were passed over as bad, ``line`` the lines read."""

    def __init__(self, raw: BinaryIO, columns: Columns) -> None:
        self._raw = raw
        self._columns = columns
        self._prefix = columns.prefix.encode()
        self._width: int | None = None
        self._key = 0
        self._value: int | None = None
        self.line = 0
        self.skipped = 0
        self.bytes_read = 0

    def batches(self) -> Iterator[Batch]:
        """The file's rows in order. Raises `BadFile` (behind a last batch of the rows before it) and ``OSError``."""
        items: list[tuple[str, bytes]] = []
        size = first = 0
        try:
            for key, value in self._rows():
                if not items:
                    first = self.line
                items.append((key, value))
                size += len(key) + len(value)
                if len(items) >= BATCH_ROWS_MAX or size >= BATCH_SIZE_MAX:
                    yield Batch(items, first, self.line, self.bytes_read)
                    items, size = [], 0
        except BadFile:
            if items:
                yield Batch(items, first, self.line - 1, self.bytes_read)
            raise
        if items:
            yield Batch(items, first, self.line, self.bytes_read)

    def _rows(self) -> Iterator[tuple[str, bytes]]:
        lines = self._lines()
        if self._columns.header:
            for header in lines:
                self._find_columns([name.decode(errors="replace") for name in header.split(b"\t")])
                break
        else:
            self._find_columns(None)
        for text in lines:
            row = self._row(text)
            if isinstance(row, tuple):
                yield row
            elif self._columns.skip_bad:
                self.skipped += 1
            else:
                raise BadFile(self.line, row)

    def _lines(self) -> Iterator[bytes]:
        """The lines that are not blank, without their ends."""
        try:
            source = io.BufferedReader(cast("io.RawIOBase", _Counted(self._raw, self)), BUFFER_SIZE)
            stream: BinaryIO = source
            if source.peek(2)[:2] == b"\x1f\x8b":
                stream = cast("BinaryIO", gzip.GzipFile(fileobj=source))
            while text := stream.readline(LINE_SIZE_MAX + 1):
                self.line += 1
                if len(text) > LINE_SIZE_MAX:
                    raise BadFile(self.line, f"longer than {LINE_SIZE_MAX} bytes")
                if self.line == 1:
                    text = text.removeprefix(b"\xef\xbb\xbf")
                text = text.removesuffix(b"\n").removesuffix(b"\r")
                if text:
                    yield text
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BadFile(self.line + 1, f"the compressed file is damaged: {error}") from error

    def _find_columns(self, names: list[str] | None) -> None:
        self._width = None if names is None else len(names)
        self._key = self._place("key", self._columns.key, names)
        self._value = None if self._columns.value is None else self._place("value", self._columns.value, names)

    def _place(self, what: str, column: str, names: list[str] | None) -> int:
        if names is not None and column in names:
            return names.index(column)
        if column.isdecimal() and 0 < int(column) <= (len(names) if names is not None else 65536):
            return int(column) - 1
        known = f"the header has {', '.join(names)}" if names is not None else "without --header a column is a number"
        raise BadFile(1, f"there is no {what} column {column!r} ({known})")

    def _row(self, text: bytes) -> tuple[str, bytes] | str:
        """A line's key and value, or what is wrong with it."""
        fields = text.split(b"\t")
        if self._width is not None and len(fields) != self._width:
            return f"{len(fields)} columns where the header has {self._width}"
        needed = max(self._key, 1 if self._value is None else self._value) + 1
        if len(fields) < needed:
            return f"{len(fields)} columns where at least {needed} are needed"
        others = fields[: self._key] + fields[self._key + 1 :]
        value = b"\t".join(others) if self._value is None else fields[self._value]
        name = self._prefix + fields[self._key]
        if not 0 < len(name) <= KEY_SIZE_MAX:
            return f"a key of {len(name)} bytes, not 1 to {KEY_SIZE_MAX}"
        if b"\0" in name:
            return "a key with a NUL character"
        if len(value) > VALUE_SIZE_MAX:
            return f"a value of {len(value)} bytes, not at most {VALUE_SIZE_MAX}"
        try:
            return name.decode(), value
        except UnicodeDecodeError:
            return "a key that is not UTF-8"


class _Counted(io.RawIOBase):
    """A file that says how far it was read, for the progress bar."""

    def __init__(self, raw: BinaryIO, reader: Reader) -> None:
        self._raw = raw
        self._reader = reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self._reader.bytes_read += len(data)
        return len(data)
