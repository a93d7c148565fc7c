"""The format of a file, by its name and its first bytes; its kind if it holds no rows."""

from __future__ import annotations

import codecs
import os
import re
from typing import Final, Literal

Format = Literal["tsv", "csv", "jsonl"]

SUFFIXES: Final[dict[str, Format]] = {
    ".tsv": "tsv",
    ".tab": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}

_ICONV: Final = "`iconv -f {} -t UTF-8` converts it"

SIGNATURES: Final[tuple[tuple[bytes, str], ...]] = (
    (rb"\xff\xfe\0\0|\0\0\xfe\xff", f"UTF-32 text, not UTF-8; {_ICONV.format('UTF-32')}"),
    (rb"\xff\xfe|\xfe\xff", f"UTF-16 text, not UTF-8; {_ICONV.format('UTF-16')}"),
    (rb"(?:[^\0]\0){4}", f"UTF-16 text, not UTF-8; {_ICONV.format('UTF-16LE')}"),
    (rb"(?:\0[^\0]){4}", f"UTF-16 text, not UTF-8; {_ICONV.format('UTF-16BE')}"),
    (rb"\x1f\x8b", "a gzip file in a gzip file; `gunzip -c` unpacks the outer one"),
    (rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", "a bzip2 file; `bunzip2 -c` unpacks it"),
    (rb"\xfd7zXZ\0", "an xz file; `xz -dc` unpacks it"),
    (rb"\x28\xb5\x2f\xfd", "a zstd file; `zstd -dc` unpacks it"),
    (rb"\x04\x22\x4d\x18", "an lz4 file; `lz4 -dc` unpacks it"),
    (rb"\x1f[\x9d\xa0]", "a compress file; `uncompress -c` unpacks it"),
    (rb"PK(?:\x03\x04|\x05\x06)", "a zip archive (or a spreadsheet, which is one)"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (rb"Rar!\x1a\x07", "a RAR archive"),
    (rb"(?s:.{100}[0-7 ]{7}\0.{149}ustar)", "a tar archive"),
    (rb"REDIS\d{4}", "an RDB file of Redis; riot or redis-dump make JSON lines of its strings"),
    (rb"SQLite format 3\0", "an SQLite database"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
    (rb"PAR1", "a Parquet file"),
    (rb"Obj\x01", "an Avro file"),
    (rb"%PDF-", "a PDF document"),
    (rb"\x89PNG\r\n", "a PNG image"),
    (rb"\xff\xd8\xff", "a JPEG image"),
    (rb"GIF8[79]a", "a GIF image"),
    (rb"\x7fELF", "a program"),
    (rb"<\?xml|<!DOCTYPE|<html", "an XML or HTML document"),
)

_FOREIGN: Final = tuple((re.compile(pattern), name) for pattern, name in SIGNATURES)


def foreign(start: bytes) -> str | None:
    """The kind of a file that holds no rows, by its first bytes; None where it may hold some."""
    name = next((name for pattern, name in _FOREIGN if pattern.match(start)), None)
    return None if name is None or _begins_with_a_row(start) else name


def _begins_with_a_row(start: bytes) -> bool:
    """Whether the first line is text with a tab, as `haptera scan` writes it: a key may begin as any file does."""
    line = start.partition(b"\n")[0]
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(line)  # the end of a long line is not here yet
    except UnicodeDecodeError:
        return False
    return "\t" in text and text.replace("\t", "").isprintable()


def format_of(name: str, start: bytes) -> Format:
    """The format of a file: by its name, else by its first line. A line of JSON has no tab outside of its strings, and
    inside of them a tab is escaped; a line of a TSV file has one.
    """
    stem = name.removesuffix(".gz")
    named = SUFFIXES.get(os.path.splitext(stem)[1].lower())
    if named is not None:
        return named
    line = start.lstrip().partition(b"\n")[0]
    return "jsonl" if line.startswith((b"{", b"[")) and b"\t" not in line else "tsv"


def hint(line: bytes) -> str:
    """The form that a line without a tab may be meant to have."""
    if line.count(b",") > 0:
        return "; is it CSV? --format csv reads that"
    if line.count(b";") > 0:
        return "; is ; its separator? --separator ';' says so"
    return ""
