"""Structured logs: one event a line, as text or JSON, on top of the standard library's `logging`.

The code names the event and its fields::

    log.info("connection_closed", extra={"connection": peer.session, "code": 1015})

which becomes ``2026-01-02T03:04:05.678Z INFO connection_closed connection=6f1c… code=1015``, or one JSON object.
The level is checked before anything is formatted. Text that a peer sent (an agent, a key, an address) is escaped, so
that no value can end its line and forge another. Values, passwords and keys of encryption are never passed here.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

#: Characters of one field. A peer chooses some of them, and a log line must not grow with its choice.
FIELD_SIZE_MAX = 1024

#: Characters of a traceback: the innermost frames are kept, as they say where it broke.
TRACEBACK_SIZE_MAX = 16 * 1024

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """The fields that a log call passed as `extra`, then the fields of an exception, each made printable."""
    for name, value in vars(record).items():
        if name not in _STANDARD and value is not None:
            yield name, _plain(value)
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        yield "error", _plain(f"{type(error).__name__}: {error}")
        yield "traceback", "".join(traceback.format_exception(error))[-TRACEBACK_SIZE_MAX:]


class TextFormatter(logging.Formatter):
    """``time LEVEL event name=value …``: a value with anything but plain characters is quoted as in JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """One line for one record."""
        parts = [_timestamp(record), record.levelname, _word(record.getMessage())]
        parts += [f"{name}={_word(value)}" for name, value in fields_of(record)]
        return " ".join(parts)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line for one record."""
        line: dict[str, Any] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage()[:FIELD_SIZE_MAX],
        }
        for name, value in fields_of(record):
            line.setdefault(name, value)
        return json.dumps(line, separators=(",", ":"))


def configure_logging(level: str = "info", log_format: str = "text", stream: TextIO | None = None) -> None:
    """Send every log of the process to `stream` (standard error if None), once, in the chosen format.

    Haptera's own loggers are set to `level` (one of LEVELS), all others (asyncio, libraries) to warnings. `haptera
    serve` calls it; a program that uses Haptera as a library keeps its own configuration of `logging`.
    """
    handler = _Handler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("haptera").setLevel(level.upper())


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines as long as somebody takes them. A full disk or a closed terminal does not end a node."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Pass over a line that cannot be written; the library's own way is to write a traceback to the same place."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def _timestamp(record: logging.LogRecord) -> str:
    # Cut, not rounded: 999.96 ms must not be written as 1000.
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.created % 1 * 1000):03d}Z"


def _plain(value: Any) -> Any:
    """A value that both formats can write: numbers and booleans as they are, bytes as hex, the rest as bounded text."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value[: FIELD_SIZE_MAX // 2]).hex()
    text = str(value)
    return text if len(text) <= FIELD_SIZE_MAX else text[: FIELD_SIZE_MAX - 1] + "…"


def _word(value: Any) -> str:
    """The value as one word of a text line; JSON's escapes (ASCII only) where it is more than one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if text and text.isascii() and text.isprintable() and not any(sign in text for sign in ' "=\\'):
        return text
    return json.dumps(text)
