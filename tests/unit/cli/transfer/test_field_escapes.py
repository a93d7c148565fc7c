"""Fields of lines, both ways."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.cli.transfer.field_escapes import read, written

AWKWARD = st.text("\t\n\r\0\x1b\x7f\\'\"$#\ufeffxé\u2028a0").map(str.encode)


@given(st.binary() | AWKWARD)
def test_every_field_is_read_as_it_was_written_and_breaks_no_line(data: bytes) -> None:
    """Trap: one command's output that is no input of its twin."""
    line = written(data)
    assert read(line.encode()) == data
    assert line.isprintable()
    assert not line.startswith("#")


def test_a_field_that_can_stand_does() -> None:
    for text in ("plain ü", "C:\\new\\table", "it's", '"quoted"', "", "a$'b'", "日本"):
        assert written(text) == text
    assert written("a\tb\nc\rd\\e'") == "$'a\\tb\\nc\\rd\\\\e\\''"
    assert written(b"\xff\0") == "$'\\xff\\x00'"
    assert written("$'x'") == "$'$\\'x\\''"
    assert written("#x") == "$'#x'"
    assert written("\x9b\u202eé\ufeff") == "$'\\xc2\\x9b\\xe2\\x80\\xaeé\\xef\\xbb\\xbf'"


@pytest.mark.skipif(shutil.which("bash") is None, reason="the quotes are those of a shell, and bash is not installed")
def test_a_shell_reads_a_quoted_field_too() -> None:
    data = b"tab\tline\nback\\slash 'quotes' \x1b\xff"
    ended = subprocess.run(["bash", "-c", f"printf %s {written(data)}"], capture_output=True, check=True)
    assert ended.stdout == data
