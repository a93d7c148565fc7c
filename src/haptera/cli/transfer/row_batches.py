"""A file as batches of keys and values, read as a stream."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from haptera.cli.transfer.csv_rows import CsvRows
from haptera.cli.transfer.errors import BadFile, ChangedFile, WrongFile
from haptera.cli.transfer.json_rows import json_rows
from haptera.cli.transfer.recognise_format import Format, foreign, format_of
from haptera.cli.transfer.tsv_rows import DelimitedRows
from haptera.cli.transfer.unpacked_lines import Damaged, Source
from haptera.key_rules import KEY_SIZE_MAX, VALUE_SIZE_MAX

if TYPE_CHECKING:
    from haptera.cli.transfer.columns import Rows, Wanted

BATCH_ROWS_MAX: Final = 500
#: Bytes of keys and values in one call: large enough that the calls cost little beside their rows, small enough that
#: many in flight are few megabytes, and that few rows are uncertain after a lost connection.
BATCH_SIZE_MAX: Final = 128 * 1024


@dataclass
class RowBatch:
    """Rows for one call. ``first`` and ``last`` are where they stood in the file, ``expires_at`` is the Unix time in
    seconds at which all of them expire, or None.
    """

    items: list[tuple[str, bytes]]
    first: int
    last: int
    #: Bytes of the file read so far, before decompression.
    position: int
    expires_at: float | None = None
    #: The digest of all rows of the file up to the last one of these, where it was asked for.
    digest: str = ""


class Reader:
    """Reads one file. ``name`` may say its format; ``skipped`` counts the rows that were passed over as bad.

    Rows up to the place ``after`` are read and given to no one; their digest must be ``digest``. With ``digests`` each
    batch has one.
    """

    def __init__(
        self,
        raw: BinaryIO,
        name: str,
        wanted: Wanted,
        *,
        form: Format | None,
        prefix: str = "",
        skip_bad: bool = False,
        after: int = 0,
        digest: str = "",
        digests: bool = False,
    ) -> None:
        self.skipped: int = 0
        self._source = Source(raw)
        self._after = after
        self._expected = digest if after else None
        self._digest = hashlib.sha256() if digests else None
        self._name = name
        self._wanted = wanted
        self._form = form
        self._prefix = prefix.encode(errors="surrogateescape")
        self._skip_bad = skip_bad
        self._rows: Rows | None = None

    @property
    def bytes_read(self) -> int:
        return self._source.bytes_read

    @property
    def place(self) -> int:
        """The number of the line or item read last."""
        return 0 if self._rows is None else self._rows.number

    @property
    def unit(self) -> str:
        """The kind of the places: lines, or the items of a document."""
        return "line" if self._rows is None else self._rows.unit

    def batches(self) -> Iterator[RowBatch]:
        """The file's rows in order. Raises `BadFile` (behind a last batch of the rows before it) and ``OSError``."""
        items: list[tuple[str, bytes]] = []
        size = first = count = 0
        expires_at: float | None = None
        try:
            for key, value, expires in self._good_rows():
                count += 1
                if self.place <= self._after:
                    self._add(key, value, expires)
                    continue
                self._check_beginning()
                if items and expires != expires_at:
                    yield self._batch(items, first, self.place - 1, expires_at)
                    items, size = [], 0
                if not items:
                    first, expires_at = self.place, expires
                items.append((key, value))
                self._add(key, value, expires)
                size += len(key) + len(value)
                if len(items) >= BATCH_ROWS_MAX or size >= BATCH_SIZE_MAX:
                    yield self._batch(items, first, self.place, expires_at)
                    items, size = [], 0
        except BadFile:
            self._check_beginning()
            if items:
                yield self._batch(items, first, self.place - 1, expires_at)
            raise
        self._check_beginning()
        if items:
            yield self._batch(items, first, self.place, expires_at)
        if not count and not self._source.empty:
            bad = f"; {self.skipped} bad ones were passed over" if self.skipped else ""
            raise WrongFile(f"the file is not empty, and has no rows{bad}")

    def _batch(self, items: list[tuple[str, bytes]], first: int, last: int, expires_at: float | None) -> RowBatch:
        return RowBatch(items, first, last, self.bytes_read, expires_at, self._told_digest())

    def _add(self, key: str, value: bytes, expires: float | None) -> None:
        """Have a row in the digest."""
        if self._digest is not None:
            name = key.encode()
            self._digest.update(b"%d %d %r " % (len(name), len(value), expires) + name + value)

    def _told_digest(self) -> str:
        return "" if self._digest is None else self._digest.hexdigest()

    def _check_beginning(self) -> None:
        """Raise `ChangedFile` unless the rows that were passed over are those of the digest that was asked for."""
        expected, self._expected = self._expected, None
        if expected is not None and self._told_digest() != expected:
            raise ChangedFile(self._after, self.unit)

    def _good_rows(self) -> Iterator[tuple[str, bytes, float | None]]:
        self._rows = self._open()
        for found in self._rows:
            row = self._checked(*found) if isinstance(found, tuple) else found
            if isinstance(row, tuple):
                yield row
            elif self._skip_bad:
                self.skipped += 1
            else:
                raise BadFile(self.place, row, self.unit)

    def _open(self) -> Rows:
        try:
            start = self._source.start()
        except Damaged as error:
            raise BadFile(1, f"the compressed file is damaged: {error}") from error
        form = self._form
        if form is None:
            what = foreign(start)
            if what is not None:
                raise WrongFile(f"this is {what}")
            form = "tsv" if self._wanted.separator is not None else format_of(self._name, start)
        if form == "jsonl":
            return json_rows(self._source, self._wanted, start)
        return CsvRows(self._source, self._wanted) if form == "csv" else DelimitedRows(self._source, self._wanted)

    def _checked(
        self, key: bytes, value: bytes, expires_at: float | None = None
    ) -> tuple[str, bytes, float | None] | str:
        """A row within the limits of the store, or its fault: one bad row must not fail its batch."""
        name = self._prefix + key
        if not 0 < len(name) <= KEY_SIZE_MAX:
            return f"a key of {len(name)} bytes, not 1 to {KEY_SIZE_MAX}"
        if b"\0" in name:
            return "a key with a NUL character"
        if len(value) > VALUE_SIZE_MAX:
            return f"a value of {len(value)} bytes, not at most {VALUE_SIZE_MAX}"
        try:
            return name.decode(), value, expires_at
        except UnicodeDecodeError:
            return "a key that is not UTF-8"
