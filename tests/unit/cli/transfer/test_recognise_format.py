"""Which format a file has, and what it is if it has none."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sqlite3
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from haptera.cli.transfer.columns import Wanted
from haptera.cli.transfer.errors import WrongFile
from haptera.cli.transfer.recognise_format import foreign, format_of
from haptera.cli.transfer.row_batches import Reader
from haptera.cli.transfer.unpacked_lines import START_SIZE
from haptera.cli.transfer.write_rows import WRITERS
from haptera.client import Entry

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.cli.transfer.recognise_format import Format


def archive() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("rows.tsv", "a\tb\n")
    return packed.getvalue()


def tape() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        file.addfile(tarfile.TarInfo("rows.tsv"))
    return packed.getvalue()


def database(tmp_path: Path) -> bytes:
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute("create table t (a)")
    connection.close()
    return (tmp_path / "db").read_bytes()


def test_a_file_without_rows_is_named_as_what_it_is(tmp_path: Path) -> None:
    """Trap: a file of another kind that is taken for rows, or refused without a word of what it is."""
    text = "key\tvalue\n"
    for data, name in (
        (text.encode("utf-16"), "UTF-16 text"),
        (text.encode("utf-16-le"), "UTF-16 text"),
        (text.encode("utf-16-be"), "UTF-16 text"),
        (text.encode("utf-32"), "UTF-32 text"),
        (gzip.compress(gzip.compress(text.encode())), "a gzip file in a gzip file"),
        (bz2.compress(text.encode()), "a bzip2 file"),
        (bz2.compress(b""), "a bzip2 file"),
        (lzma.compress(text.encode()), "an xz file"),
        (b"\x28\xb5\x2f\xfd\x04\x00", "a zstd file"),
        (archive(), "a zip archive"),
        (tape(), "a tar archive"),
        (database(tmp_path), "an SQLite database"),
        (b"REDIS0011\xfa\tredis-ver\x057.2.4", "an RDB file of Redis"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"<!DOCTYPE html>\n", "an XML or HTML document"),
    ):
        with pytest.raises(WrongFile, match=f"^this is {name}"):
            list(Reader(io.BytesIO(data), "-", Wanted(), form=None).batches())


def test_rows_are_nothing_else() -> None:
    for line in ("key\tvalue", "PKG\t1", "%PDF\t1", "BZh9\tx", "ü\tü", "a\tb", "[x]\ty", "REDIS\tx", ""):
        assert foreign(line.encode()) is None


MARKS = ("PAR1", "%PDF-1", "<?xml", "<html>", "<!DOCTYPE", "REDIS0011", "GIF89a", "BZh91AY&SY")


def exported(form: Format, key: str, value: bytes) -> bytes:
    return WRITERS[form](Entry(key, value, version=1, expires_at=None))


def test_what_is_exported_is_never_another_kind_of_file() -> None:
    """Trap: one command's output that is no input of its twin. The first key begins as a file of another kind does."""
    for key in MARKS:
        for value in ("ü".encode() * 400_000, b"\0\xff", b""):
            assert foreign(exported("tsv", key, value)[:START_SIZE]) is None
    for form in WRITERS:
        for fill in range(260):
            assert foreign(exported(form, "k", b"x" * fill + b"ustar")) is None


def test_formats_are_known_by_name_and_by_the_first_line() -> None:
    for name, start, form in (
        ("-", b"a\tb\n", "tsv"),
        ("-", b'{"key":"k"}\n', "jsonl"),
        ("-", b"\n[\n\t{\n", "jsonl"),
        ("-", b'{"key":1}\tb\n', "tsv"),
        ("rows.CSV", b"a\tb\n", "csv"),
        ("rows.csv.gz", b"", "csv"),
        ("rows.tsv", b'{"key":"k"}', "tsv"),
        ("rows.txt.gz", b"a,b", "tsv"),
        ("rows.ndjson", b"a\tb", "jsonl"),
    ):
        assert format_of(name, start) == form
