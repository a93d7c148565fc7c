"""Entries as lines."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from haptera.cli.transfer.columns import Wanted
from haptera.cli.transfer.row_batches import Reader
from haptera.cli.transfer.unpacked_lines import LINE_SIZE_MAX
from haptera.cli.transfer.write_rows import WRITERS
from haptera.client import Entry
from haptera.key_rules import KEY_SIZE_MAX, VALUE_SIZE_MAX

if TYPE_CHECKING:
    from haptera.cli.transfer.recognise_format import Format

SIZE = 10_000


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize(
    "value", [b"\0", b"\xff", b"'", b'"', b"\\", "\x9b".encode(), "\ufeff".encode(), "\U000e0001".encode(), b"\r\n"]
)
def test_the_largest_entry_has_a_line_that_is_read(form: Format, value: bytes) -> None:
    """Trap: a record is written that the reader refuses as too large."""
    write = WRITERS[form]
    entry = Entry("\x01" * KEY_SIZE_MAX, value * (SIZE // len(value)), 1)
    line = write(entry)
    growth = (len(line) - len(write(Entry(entry.key, b"", 1)))) / len(entry.value)
    assert growth * VALUE_SIZE_MAX + KEY_SIZE_MAX * 6 + 1024 < LINE_SIZE_MAX
    (batch,) = Reader(io.BytesIO(line), f"rows.{form}", Wanted(), form=None).batches()
    assert batch.items == [(entry.key, entry.value)]
