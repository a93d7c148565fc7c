"""Files into batches."""

from __future__ import annotations

import gzip
import io
from typing import BinaryIO, cast

import pytest

from haptera.cli.tsv import BATCH_ROWS_MAX, BATCH_SIZE_MAX, LINE_SIZE_MAX, BadFile, Batch, Columns, Reader

PLAIN = Columns(header=False)


def read(data: bytes, columns: Columns = PLAIN) -> list[Batch]:
    return list(Reader(io.BytesIO(data), columns).batches())


def items(data: bytes, columns: Columns = PLAIN) -> list[tuple[str, bytes]]:
    return [item for batch in read(data, columns) for item in batch.items]


def test_the_rest_of_the_line_is_the_value() -> None:
    assert items(b"a\tb\tc\nd\t\n") == [("a", b"b\tc"), ("d", b"")]
    assert items(b"a\tb\tc\n", Columns(header=False, key="2")) == [("b", b"a\tc")]
    assert items(b"a\tb\tc\n", Columns(header=False, key="3", value="1", prefix="p/")) == [("p/c", b"a")]


def test_line_ends_blank_lines_and_the_mark_at_the_beginning() -> None:
    assert items(b"\xef\xbb\xbfa\t1\r\n\r\n\nb\t2\r\r\nc\t3") == [("a", b"1"), ("b", b"2\r"), ("c", b"3")]
    assert items(b"") == items(b"\n\n") == []


def test_values_need_not_be_text() -> None:
    assert items(b"k\t\xff\x00") == [("k", b"\xff\x00")]


def test_batches_are_bounded_by_rows_and_bytes_and_know_their_lines() -> None:
    batches = read(b"".join(b"k%d\tv\n" % n for n in range(2 * BATCH_ROWS_MAX + 1)))
    assert [(len(b.items), b.first_line, b.last_line) for b in batches] == [
        (BATCH_ROWS_MAX, 1, BATCH_ROWS_MAX),
        (BATCH_ROWS_MAX, BATCH_ROWS_MAX + 1, 2 * BATCH_ROWS_MAX),
        (1, 2 * BATCH_ROWS_MAX + 1, 2 * BATCH_ROWS_MAX + 1),
    ]
    large = b"k\t" + b"x" * BATCH_SIZE_MAX + b"\n"
    assert [len(batch.items) for batch in read(large * 3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"alone", "at least 2"),
        (b"\tno key", "a key of 0 bytes"),
        (b"k" * 4097 + b"\tv", "a key of 4097 bytes"),
        (b"a\0b\tv", "NUL"),
        (b"\xff\tv", "not UTF-8"),
        (b"k\t" + bytes(8 * 1024 * 1024 + 1), "a value of 8388609 bytes"),
    ],
)
def test_bad_lines_are_named_or_skipped(line: bytes, reason: str) -> None:
    data = b"a\t1\n" + line + b"\nb\t2\n"
    reader = Reader(io.BytesIO(data), PLAIN)
    seen: list[Batch] = []
    with pytest.raises(BadFile, match=f"line 2: .*{reason}"):
        seen.extend(reader.batches())
    skipping = Reader(io.BytesIO(data), Columns(header=False, skip_bad=True))
    assert [item for batch in skipping.batches() for item in batch.items] == [("a", b"1"), ("b", b"2")]
    assert skipping.skipped == 1


def test_rows_before_a_bad_line_come_first() -> None:
    batches = Reader(io.BytesIO(b"a\t1\nbad\n"), PLAIN).batches()
    assert next(batches).items == [("a", b"1")]
    with pytest.raises(BadFile):
        next(batches)


def test_endless_line_is_not_read_into_memory() -> None:
    class Endless(io.RawIOBase):
        read_so_far = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self.read_so_far += size
            return b"x" * size

    source = Endless()
    with pytest.raises(BadFile, match="longer than"):
        list(Reader(cast("BinaryIO", source), PLAIN).batches())
    assert source.read_so_far < 2 * LINE_SIZE_MAX


def test_header() -> None:
    data = b"id\tname\n1\tone\n"
    assert items(data, Columns(header=True, key="name")) == [("one", b"1")]
    assert items(data, Columns(header=True, key="2", value="id")) == [("one", b"1")]
    for column in ("nmae", "0", "3", "-1"):
        with pytest.raises(BadFile, match="no key column"):
            items(data, Columns(header=True, key=column))
    with pytest.raises(BadFile, match="without --header"):
        items(data, Columns(header=False, value="name"))
    with pytest.raises(BadFile, match="line 3: 3 columns where the header has 2"):
        items(data + b"2\ttwo\tmore\n", Columns(header=True))


def test_gzip_is_known_by_its_content_and_damage_is_told() -> None:
    packed = gzip.compress(b"".join(b"k%d\tv%d\n" % (n, n * n) for n in range(3000)))
    assert len(items(packed)) == 3000
    assert len(items(packed + gzip.compress(b"a\tb\n"))) == 3001
    for damaged in (packed[:-100], packed[:100] + b"\xff" * 50 + packed[150:], packed + b"rubbish"):
        with pytest.raises(BadFile, match="damaged"):
            items(damaged)
