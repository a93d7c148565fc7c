"""The output of commands: results to standard output, everything else to standard error.

On a terminal results are tables, and control characters in keys and values are shown, not obeyed. Into a pipe
they are plain lines. With ``--json`` a result is one JSON document, one a line, and so is an error.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from haptera.cli import standard_streams
from haptera.errors import printable

if TYPE_CHECKING:
    from haptera.client import Entry

#: Characters of one cell of a table: a dozen lines of a terminal. A value may have 8 MiB.
CELL_LENGTH_MAX: Final = 1000

_encode_json = msgspec.json.Encoder(enc_hook=repr).encode


class OutputError(Exception):
    """Standard output does not take the result, for the reason that this says."""


class ReaderGone(OutputError):
    """The reader of standard output has ended, as `head` does when it has enough."""


_errors_as_json: ContextVar[bool] = ContextVar("errors_as_json", default=False)


@contextmanager
def errors_as_json(wanted: bool) -> Iterator[None]:
    """Within the block an error is a JSON object, as ``--json`` asks for, or a line of text."""
    token = _errors_as_json.set(wanted)
    try:
        yield
    finally:
        _errors_as_json.reset(token)


#: The forms of results.
FORMS: Final = ("plain", "table", "json")
_form: ContextVar[str | None] = ContextVar("form", default=None)


@contextmanager
def in_form(wanted: str | None) -> Iterator[None]:
    """Within the block results have one of the `FORMS`; None: tables on a terminal, and else plain lines."""
    token = _form.set(wanted)
    try:
        yield
    finally:
        _form.reset(token)


def form() -> str | None:
    """The form that is asked for, if one is."""
    return _form.get()


def as_tables() -> bool:
    """Whether results are tables for people, and no plain lines."""
    asked = _form.get()
    return is_terminal() if asked is None else asked == "table"


def is_terminal() -> bool:
    return sys.stdout.isatty()


class LineSink(Protocol):
    """Takes results in the place of standard output."""

    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> object: ...


_sink: ContextVar[LineSink | None] = ContextVar("sink", default=None)


@contextmanager
def written_to(sink: LineSink) -> Iterator[None]:
    """Within the block, and in tasks that it begins, ``sink`` takes lines of results."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


def require() -> None:
    """Raise `OutputError` where it is certain before anything is done that no result can be written."""
    trouble = standard_streams.trouble_with_output()
    if trouble is not None:
        raise OutputError(trouble)


def write(data: bytes) -> None:
    """Bytes to standard output as they are. Raises `ReaderGone` when its reader has gone, else `OutputError`."""
    try:
        (_sink.get() or sys.stdout.buffer).write(data)
    except OSError as error:
        raise output_error(error) from None


def line(text: str) -> None:
    write(text.encode(errors="backslashreplace") + b"\n")


def flush() -> None:
    """Send on the text that `write` took. Raises as it does."""
    try:
        (_sink.get() or sys.stdout.buffer).flush()
    except OSError as error:
        raise output_error(error) from None


def output_error(error: OSError) -> OutputError:
    """The error that an `OSError` of standard output means. Its buffered bytes are given up, because each further flush
    would fail again, and would be told as an error of its own.
    """
    standard_streams.silence(sys.stdout)
    kind = ReaderGone if isinstance(error, BrokenPipeError) else OutputError
    return kind(f"cannot write the result: {error.strerror or error}")


def json_text(value: Any) -> str:
    """A JSON document in one line, in which every character that a terminal could obey is escaped."""
    try:
        text = _encode_json(value).decode()
    except UnicodeEncodeError:  # a lone surrogate: an argument of the command line that is not UTF-8
        text = json.dumps(value, default=repr, separators=(",", ":"))
    if text.isprintable():
        return text
    # Outside of its strings the document has no such character.
    return "".join(char if char.isprintable() else _json_escape(char) for char in text)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def json_line(value: Any) -> None:
    line(json_text(value))


def error_line(text: str) -> None:
    """An error without more to it than its line of text."""
    error(text, {"message": text})


def error(
    text: str, fields: dict[str, Any], exit_code: int | None = None, *, before: str = "", help_: str = ""
) -> None:
    """An error to standard error: ``text`` behind the lines ``before``, or with ``--json`` ``fields`` and exit code.

    ``help_`` is the next step for the reader: a line of its own, or the field ``help``.
    """
    if _errors_as_json.get():
        document: dict[str, Any] = {"error": fields | {"help": help_} if help_ else fields}
        if exit_code is not None:
            document["exit_code"] = exit_code
        to_standard_error(json_text(document))
    else:
        behind = f"\n  {shown(help_)}" if help_ else ""
        to_standard_error(f"{before}haptera: {shown(text)}{behind}")


def warning(event: str, fields: dict[str, Any]) -> None:
    """A warning to standard error, in the form that errors have. The field ``meaning`` is a sentence for people, and
    ``help`` the next step.
    """
    if _errors_as_json.get():
        to_standard_error(json_text({"warning": {"event": event, **fields}}))
    else:
        meaning, help_ = fields.get("meaning"), fields.get("help")
        told = ", ".join(f"{name} {value}" for name, value in fields.items() if name not in {"meaning", "help"})
        text = f"{meaning} ({told})" if meaning and told else meaning or told
        behind = f"\n  {shown(str(help_))}" if help_ else ""
        to_standard_error(f"haptera: warning: {shown(f'{event}: {text}')}{behind}")


def to_standard_error(text: str) -> None:
    """Lines to standard error. Where it does not take them a command or a node goes on without."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        pass


def entry_fields(entry: Entry, *, with_value: bool = True) -> dict[str, Any]:
    """An entry as JSON has it: ``value`` where it is UTF-8, else ``value_base64``."""
    fields: dict[str, Any] = {"key": entry.key}
    if with_value:
        fields |= value_fields(entry.value)
    fields["version"] = entry.version
    fields["expires_at"] = entry.expires_at
    return fields


def value_fields(value: bytes | None) -> dict[str, Any]:
    """A value as JSON has it: ``value`` where it is UTF-8 or there is none, else ``value_base64``."""
    try:
        return {"value": None if value is None else value.decode()}
    except UnicodeDecodeError:
        return {"value_base64": base64.b64encode(value or b"").decode()}


def shown(value: str | bytes, *, lines: bool = False) -> str:
    """Text for a terminal: unprintable characters are escaped, but for line ends where ``lines`` says so."""
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    return printable(text, kept="\n\t" if lines else "")


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 row``, ``2 rows``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def size(count: int) -> str:
    """A number of bytes in the unit in which it is short: ``512 bytes``, ``1.5 MiB``."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return counted(count, "byte")


def duration(seconds: float) -> str:
    """A time in its two largest units: ``3 d 4 h``, ``12 min 5 s``, ``9 s``."""
    rest = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def table_width(lines: Sequence[Sequence[str]]) -> int:
    """The characters that a table takes if no cell is broken; ``lines`` are its head and its rows."""
    return sum(max(map(len, column)) + 3 for column in zip(*lines, strict=True)) + 1


def _cell(text: str) -> str:
    """Text for a cell. Of a long one the beginning is shown, because the rows behind it are of use too."""
    if len(text) <= CELL_LENGTH_MAX:
        return shown(text)
    return f"{shown(text[:CELL_LENGTH_MAX])}… ({len(text):,} characters)"


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
        grid.add_row(*(Text(_cell(cell)) for cell in row))
    flush()
    Console(file=sys.stdout).print(grid)
