"""What commands write: results to standard output, everything else to standard error.

On a terminal results are tables, and control characters in what the store holds are shown, not obeyed. Into a pipe
they are plain lines. `--json` is one JSON document for each result, one a line.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from haptera.error_base import printable

if TYPE_CHECKING:
    from haptera.client.entry import Entry

_json = msgspec.json.Encoder().encode

_FIELD_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


class OutputError(Exception):
    """Standard output does not take the result, for the reason that this says."""


def is_terminal() -> bool:
    return sys.stdout.isatty()


def write(data: bytes) -> None:
    """Bytes to standard output as they are. Raises ``BrokenPipeError`` when its reader has gone, else `OutputError`."""
    try:
        sys.stdout.buffer.write(data)
    except OSError as error:
        raise _translated(error) from None


def line(text: str) -> None:
    write(text.encode(errors="backslashreplace") + b"\n")


def flush() -> None:
    """Send on what `write` took. Raises as it does."""
    try:
        sys.stdout.buffer.flush()
    except OSError as error:
        raise _translated(error) from None


def _translated(error: OSError) -> Exception:
    if isinstance(error, BrokenPipeError):
        return error
    return OutputError(f"cannot write the result: {error.strerror or error}")


def json_line(value: Any) -> None:
    write(_json(value) + b"\n")


def error_line(text: str) -> None:
    """One line to standard error, whatever the text holds."""
    sys.stderr.write(f"haptera: {shown(text)}\n")


def entry_fields(entry: Entry, *, with_value: bool = True) -> dict[str, Any]:
    """An entry as JSON has it: ``value`` where it is UTF-8, else ``value_base64``."""
    fields: dict[str, Any] = {"key": entry.key}
    if with_value:
        try:
            fields["value"] = entry.value.decode()
        except UnicodeDecodeError:
            fields["value_base64"] = base64.b64encode(entry.value).decode()
    fields["version"] = entry.version
    fields["expires_at"] = entry.expires_at
    return fields


def shown(value: str | bytes, *, lines: bool = False) -> str:
    """Text for a terminal: what is not printable is escaped, but for line ends where ``lines`` says so."""
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    return printable(text, kept="\n\t" if lines else "")


def field(value: str | bytes) -> str:
    r"""Text for one field of a tab-separated line: ``\\``, ``\t``, ``\n``, ``\r``, and ``\xNN`` for no UTF-8."""
    text = value.decode(errors="surrogateescape") if isinstance(value, bytes) else value
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char in _FIELD_ESCAPES:
        return _FIELD_ESCAPES[char]
    return f"\\x{ord(char) - 0xDC00:02x}" if 0xDC80 <= ord(char) <= 0xDCFF else char


def table_width(lines: Sequence[Sequence[str]]) -> int:
    """The characters that a table takes if no cell is broken; ``lines`` are its head and its rows."""
    return sum(max(map(len, column)) + 3 for column in zip(*lines, strict=True)) + 1


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table in colour on a terminal; tab-separated lines where the package rich is missing."""
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError:
        for row in rows:
            line("\t".join(shown(cell) for cell in row))
        return
    grid = Table(box=SIMPLE_HEAD, header_style="bold")
    for position, column in enumerate(columns):
        grid.add_column(column, style="cyan" if position == 0 else None, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(shown(cell)) for cell in row))
    flush()
    Console(file=sys.stdout).print(grid)
