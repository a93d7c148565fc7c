"""Files into batches."""

from __future__ import annotations

import gzip
import io
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pytest

from haptera.cli.transfer import unpacked_lines
from haptera.cli.transfer.columns import Wanted
from haptera.cli.transfer.errors import BadFile, WrongFile
from haptera.cli.transfer.row_batches import BATCH_ROWS_MAX, BATCH_SIZE_MAX, Reader, RowBatch
from haptera.cli.transfer.unpacked_lines import LINE_SIZE_MAX

if TYPE_CHECKING:
    from haptera.cli.transfer.recognise_format import Format


def reader(
    data: bytes | BinaryIO, *, form: Format | None = None, prefix: str = "", skip_bad: bool = False, **wanted: Any
) -> Reader:
    raw = io.BytesIO(data) if isinstance(data, bytes) else data
    return Reader(raw, "-", Wanted(**wanted), form=form, prefix=prefix, skip_bad=skip_bad)


def read(data: bytes, **options: Any) -> list[RowBatch]:
    return list(reader(data, **options).batches())


def items(data: bytes, **options: Any) -> list[tuple[str, bytes]]:
    return [item for batch in read(data, **options) for item in batch.items]


def test_the_rest_of_the_line_is_the_value() -> None:
    assert items(b"a\tb\tc\nd\t\n") == [("a", b"b\tc"), ("d", b"")]
    assert items(b"a\tb\tc\n", key="2") == [("b", b"a\tc")]
    assert items(b"a\tb\tc\n", key="3", value="1", prefix="p/") == [("p/c", b"a")]


def test_line_ends_blank_lines_and_the_mark_at_the_beginning() -> None:
    assert items(b"\xef\xbb\xbfa\t1\r\n\r\n\nb\t2\r\r\nc\t3") == [("a", b"1"), ("b", b"2\r"), ("c", b"3")]
    assert items(b"") == []


def test_values_need_not_be_text() -> None:
    assert items(b"k\t\xff\x00") == [("k", b"\xff\x00")]


def test_batches_are_bounded_by_rows_and_bytes_and_know_their_lines() -> None:
    batches = read(b"".join(b"k%d\tv\n" % n for n in range(2 * BATCH_ROWS_MAX + 1)))
    assert [(len(b.items), b.first, b.last) for b in batches] == [
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
    with pytest.raises(BadFile, match=f"line 2: .*{reason}"):
        read(data)
    skipping = reader(data, skip_bad=True)
    assert [item for batch in skipping.batches() for item in batch.items] == [("a", b"1"), ("b", b"2")]
    assert skipping.skipped == 1


def test_rows_before_a_bad_line_come_first() -> None:
    batches = reader(b"a\t1\nbad\n").batches()
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

    endless = Endless()
    with pytest.raises(BadFile, match="longer than"):
        list(reader(cast("BinaryIO", endless)).batches())
    assert endless.read_so_far < 2 * LINE_SIZE_MAX


def test_header() -> None:
    data = b"id\tname\n1\tone\n"
    assert items(data, header=True, key="name") == [("one", b"1")]
    assert items(data, header=True, key="2", value="id") == [("one", b"1")]
    for column in ("nmae", "0", "3", "-1"):
        with pytest.raises(BadFile, match="no key column"):
            items(data, header=True, key=column)
    with pytest.raises(BadFile, match="without --header"):
        items(data, value="name")
    with pytest.raises(BadFile, match="line 3: 3 columns where the header has 2"):
        items(data + b"2\ttwo\tmore\n", header=True)


def test_gzip_is_known_by_its_content_and_damage_is_told() -> None:
    packed = gzip.compress(b"".join(b"k%d\tv%d\n" % (n, n * n) for n in range(3000)))
    assert len(items(packed)) == 3000
    assert len(items(packed + gzip.compress(b"a\tb\n"))) == 3001
    for damaged in (packed[:-100], packed[:100] + b"\xff" * 50 + packed[150:], packed + b"rubbish"):
        with pytest.raises(BadFile, match="damaged"):
            items(damaged)


def test_a_backslash_is_a_backslash_and_what_is_quoted_is_not() -> None:
    """Trap: one command's output that is no input of its twin. What other programs wrote is altered by no escape."""
    raw = b"slashr\t\\r Never lose it\nwin\tC:\\new\\table\ncost\t$'s worth\n"
    assert items(raw) == [("slashr", b"\\r Never lose it"), ("win", b"C:\\new\\table"), ("cost", b"$'s worth")]
    quoted = b"$'a\\tb'\t$'x\\ny\\xff'\n"
    assert items(quoted) == [("a\tb", b"x\ny\xff")]
    assert items(quoted, raw=True) == [("$'a\\tb'", b"$'x\\ny\\xff'")]
    with pytest.raises(BadFile, match=r"line 1: a field in \$'…' with an escape that is none \(--raw "):
        items(b"k\t$'a\\q'\n")
    assert items(b"k\t$'a\\tb'\tc\n") == [("k", b"$'a\\tb'\tc")], "several fields stand as they are"
    assert items(b"a\t$'1\\t2'\tk\n", key="3", value="2") == [("k", b"1\t2")]


def test_another_separator_and_comments() -> None:
    assert items(b"# made by hand\na;1;2\n#b;3\n", separator=";", comment=b"#") == [("a", b"1;2")]
    assert items(b"#a\t1\n") == [("#a", b"1")]
    with pytest.raises(BadFile, match="1 column where at least 2 are needed; is it CSV"):
        items(b"a,1\n")
    with pytest.raises(BadFile, match="is ; its separator"):
        items(b"a;1\n")


def test_csv() -> None:
    data = b'a,1\r\n\r\n"b ""x""","two\r\n\r\nlines, and more"\r\n\xff,"\0"\r\n'
    with pytest.raises(BadFile, match="line 6: a key that is not UTF-8"):
        items(data, form="csv")
    assert items(data, form="csv", skip_bad=True) == [("a", b"1"), ('b "x"', b"two\r\n\r\nlines, and more")]
    assert items(b"id,name,size\n1,one,10\n", form="csv", header=True, key="name", value="size") == [("one", b"10")]
    assert items(b"#x\na;b\n", form="csv", separator=";", comment=b"#") == [("a", b"b")]
    assert items(b"k,\xff\n", form="csv") == [("k", b"\xff")]
    with pytest.raises(BadFile, match="3 columns: --value-column says which is the value"):
        items(b"a,b,c\n", form="csv")
    with pytest.raises(BadFile, match="not CSV"):
        items(b'a,"b"c\n', form="csv")
    with pytest.raises(BadFile, match="not CSV: unexpected end of data"):
        items(b'a,"b\nc\n', form="csv")


@pytest.mark.parametrize("data", [b"\n\n", b"key\tvalue\n", b"[]", b'{"header":{"revision":"1"}}'])
def test_a_file_that_is_not_empty_and_has_no_rows_is_an_error(data: bytes) -> None:
    """Trap: an import that reads nothing and says that all is well."""
    with pytest.raises(WrongFile, match="the file is not empty, and has no rows"):
        read(data, header=data.startswith(b"key"))


def test_a_file_of_bad_rows_has_none() -> None:
    with pytest.raises(WrongFile, match="no rows; 2 bad ones were passed over"):
        read(b"a\nb\n", skip_bad=True)


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_blank_lines_cost_no_turn_of_the_interpreter_each(
    form: Format, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: 200 MB of line ends in a gzip file of 200 KB."""
    count = 2_000_000
    last = {"tsv": b"k\tv", "csv": b"k,v", "jsonl": b'{"key":"k","value":"v"}'}[form]
    matches = 0
    pattern = unpacked_lines._BLANK_LINES

    class Blank:
        def match(self, text: bytes, position: int) -> Any:
            nonlocal matches
            matches += 1
            return pattern.match(text, position)

    monkeypatch.setattr(unpacked_lines, "_BLANK_LINES", Blank())
    (batch,) = read(gzip.compress(end * count + last), form=form)
    assert (batch.items, batch.first) == ([("k", b"v")], count + 1)
    assert matches < 1000


def test_a_long_line_is_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: a small packed file that costs a long time. A line without an end was searched again with each block."""
    fills = 0
    fill = unpacked_lines.Lines._fill

    def counted(lines: unpacked_lines.Lines) -> bool:
        nonlocal fills
        fills += 1
        return fill(lines)

    monkeypatch.setattr(unpacked_lines.Lines, "_fill", counted)
    value = b"\r" * (8 * unpacked_lines.BLOCK_SIZE) + b"v"
    assert items(gzip.compress(b"a\t1\nk\t" + value + b"\nb\t2\n")) == [("a", b"1"), ("k", value), ("b", b"2")]
    assert fills <= 4
    with pytest.raises(BadFile, match="longer than"):
        read(gzip.compress(b"\r" * (LINE_SIZE_MAX + 10 * unpacked_lines.BLOCK_SIZE)))
    assert fills <= 7


def test_options_that_are_no_utf8_are_taken_as_bytes() -> None:
    """Trap: an argument of the command line that is not UTF-8, and ends it with a traceback."""
    with pytest.raises(BadFile, match=r"^line 1: a key that is not UTF-8"):
        read(b"k\tv\n", prefix="\udcff")
    assert items(b"\xff no row\nk\tv\n", comment=b"\xff") == [("k", b"v")]
    assert items(b"\xff no row\nk,v\n", form="csv", comment=b"\xff") == [("k", b"v")]
    assert items(b'\xff no row\n{"key":"k","value":"v"}\n', form="jsonl", comment=b"\xff") == [("k", b"v")]


class Dripping(io.BytesIO):
    """A pipe into which somebody writes byte by byte."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(1)


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfk\tv\n",
        gzip.compress(b"k\tv\n", mtime=0),
        b'{"key":"k","value":"v"}\n',
        b'\n{"header":\n{"revision":12},"more":true,"count":345,"kvs":[{"key":"aw==","mod_revision":67,"value":"dg=="}]}',
        b'[ {"key":"k","flags":10,"value":"dg=="} ]',
    ],
)
def test_a_file_that_comes_byte_by_byte_is_the_same(data: bytes) -> None:
    (batch,) = reader(Dripping(data)).batches()
    assert batch.items == [("k", b"v")]
