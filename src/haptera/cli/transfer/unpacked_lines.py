"""The bytes of a file that is imported: unpacked, as blocks or as lines, and how far it was read."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final, cast

from haptera.cli.transfer.errors import BadFile
from haptera.key_rules import VALUE_SIZE_MAX

#: A longer line holds no row that could be stored: the largest value with every byte escaped as JSON does, six for
#: one, beside other columns.
LINE_SIZE_MAX: Final = VALUE_SIZE_MAX * 6 + 1024 * 1024

BLOCK_SIZE: Final = 256 * 1024

#: So much of a file says which format it has.
START_SIZE: Final = 64 * 1024

_BLANK_LINES: Final = re.compile(rb"(?:\n+|\r\n)+")


class Source:
    """One file, a gzip one unpacked. ``bytes_read`` is how far it was read, before unpacking."""

    def __init__(self, raw: BinaryIO) -> None:
        self.bytes_read = 0
        self.empty: bool = True
        self._raw = raw
        self._blocks = self._read()
        self._ahead: list[bytes] = []

    def start(self) -> bytes:
        """The beginning of the file, with a line that is not blank if one is near. It is read again by `block`."""
        found = b""
        while len(found) < START_SIZE and b"\n" not in found.lstrip():
            block = next(self._blocks, b"")
            if not block:
                break
            found += block
        without_mark = found.removeprefix(b"\xef\xbb\xbf")
        self._ahead = [without_mark] if without_mark else []
        self.empty = not found
        return without_mark

    def block(self) -> bytes:
        """The next bytes; none at the end."""
        return self._ahead.pop() if self._ahead else next(self._blocks, b"")

    def _read(self) -> Iterator[bytes]:
        try:
            counted = _Counted(self._raw, self)
            packed = io.BufferedReader(cast("io.RawIOBase", counted), BLOCK_SIZE)
            stream: BinaryIO = packed
            if counted.begins_with(b"\x1f\x8b"):
                stream = cast("BinaryIO", gzip.GzipFile(fileobj=packed))
            # Reads the bytes that are there and does not wait for a full block, because a pipe may be slow.
            while block := stream.read1(BLOCK_SIZE):  # type: ignore[attr-defined]
                yield block
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Damaged(str(error)) from error


class Damaged(Exception):
    """The compressed file ends early, or does not unpack."""


class Lines:
    """The lines of a file with their ends. ``number`` is that of the last one read, from 1."""

    def __init__(self, source: Source) -> None:
        self.number: int = 0
        self._source = source
        self._buffer = b""
        self._at = 0

    def read(self, *, pass_blank: bool = True) -> bytes:
        """The next line; empty at the end of the file. Blank lines are passed over, many of them at once."""
        while True:
            if pass_blank and (blank := _BLANK_LINES.match(self._buffer, self._at)):
                # Every character is a line's end or a CR before one. To count rare characters is faster by far.
                self.number += blank.end() - self._at - self._buffer.count(b"\r", self._at, blank.end())
                self._at = blank.end()
            end = self._buffer.find(b"\n", self._at) + 1
            if end or not self._fill():
                break
        line = self._buffer[self._at : end or len(self._buffer)]
        self._at += len(line)
        self.number += bool(line)
        if len(line) > LINE_SIZE_MAX:
            raise self._too_long(self.number)
        return line

    def _fill(self) -> bool:
        """Read blocks until one has the end of a line, and put them together once. Says whether there was any."""
        parts = [self._buffer[self._at :]]
        size = len(parts[0])
        try:
            while block := self._source.block():
                parts.append(block)
                size += len(block)
                if b"\n" in block:
                    break
                if size > LINE_SIZE_MAX:
                    raise self._too_long(self.number + 1)
        except Damaged as error:
            raise BadFile(self.number + 1, f"the compressed file is damaged: {error}") from error
        self._buffer, self._at = b"".join(parts), 0
        return len(parts) > 1

    @staticmethod
    def _too_long(number: int) -> BadFile:
        return BadFile(number, f"longer than {LINE_SIZE_MAX} bytes")


class _Counted(io.RawIOBase):
    """A file that says how far it was read, for the progress bar."""

    def __init__(self, raw: BinaryIO, source: Source) -> None:
        self._raw = raw
        self._source = source
        self._begun = b""

    def begins_with(self, mark: bytes) -> bool:
        """Whether these are the first bytes, however few of them come at once. They are read again."""
        while len(self._begun) < len(mark) and (data := self._raw.read(len(mark) - len(self._begun))):
            self._begun += data
        return self._begun == mark

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data, self._begun = self._begun or self._raw.read(len(buffer)), b""
        buffer[: len(data)] = data
        self._source.bytes_read += len(data)
        return len(data)
