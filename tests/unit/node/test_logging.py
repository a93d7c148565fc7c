"""Structured logs: one event a line whatever the fields hold, and nothing formatted that is not written."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from haptera.node.logging import FIELD_SIZE_MAX, TRACEBACK_SIZE_MAX, JsonFormatter, TextFormatter, configure_logging

LOGGER = "haptera.test"


@pytest.fixture(params=["text", "json"])
def lines(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What a logger wrote, in each format."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if request.param == "json" else TextFormatter())
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def written(log_format: str, message: str, **fields: object) -> str:
    record = logging.makeLogRecord({"name": LOGGER, "levelno": 20, "levelname": "INFO", "msg": message, **fields})
    record.created = 1767225600.9996
    return (JsonFormatter() if log_format == "json" else TextFormatter()).format(record)


def test_a_text_line_is_time_level_event_and_fields() -> None:
    line = written("text", "listening", url="haptera://127.0.0.1:7457", count=3, connection=b"\x01\xff", tls=False)
    assert line == (
        "2026-01-01T00:00:00.999Z INFO listening url=haptera://127.0.0.1:7457 count=3 connection=01ff tls=false"
    )


def test_a_json_line_is_one_object() -> None:
    line = written("json", "closed", connection=b"\x01\xff", code=1015, reason='say "no"', missing=None)
    assert json.loads(line) == {
        "time": "2026-01-01T00:00:00.999Z",
        "level": "info",
        "logger": LOGGER,
        "event": "closed",
        "connection": "01ff",
        "code": 1015,
        "reason": 'say "no"',
    }


def test_a_field_cannot_take_the_place_of_the_event() -> None:
    assert json.loads(written("json", "closed", event="opened", level="error"))["event"] == "closed"


EVIL = [
    "a\n2026-01-01T00:00:00.000Z INFO forged user=root",
    "a\r\nb",
    "tab\tand\x00nul\x1b[31m",
    "\x85\u2028\u2029\u202e",
    "a b=c",
    'quo"te',
    "",
    "\ud800",
]


@pytest.mark.parametrize("text", EVIL)
def test_no_value_ends_its_line_or_looks_like_another_field(lines: io.StringIO, text: str) -> None:
    logging.getLogger(LOGGER).info("event", extra={"agent": text})
    output = lines.getvalue()
    assert output.endswith("\n")
    line = output[:-1]
    assert line.isascii()
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    value = json.loads(line)["agent"] if line.startswith("{") else json.loads(line.partition("agent=")[2])
    assert value == text


def test_a_message_of_another_library_is_one_line_too(lines: io.StringIO) -> None:
    logging.getLogger(LOGGER).warning("Task exception was never retrieved\nfuture: %r", "x\ny")
    assert len(lines.getvalue().splitlines()) == 1


def test_an_exception_is_fields_of_its_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("first\nsecond " + "x" * 2 * FIELD_SIZE_MAX)
    except ValueError:
        logging.getLogger(LOGGER).exception("failed")
    output = lines.getvalue()
    assert len(output.splitlines()) == 1
    assert "ValueError" in output
    assert "test_logging.py" in output


def test_fields_are_bounded() -> None:
    line = written("json", "event", agent="x" * 10_000_000, data=bytes(10_000_000))
    assert len(line) < 3 * FIELD_SIZE_MAX


def test_tracebacks_are_bounded_and_keep_their_end() -> None:
    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise ValueError("x" * 50_000 + "the end")

    with pytest.raises(ValueError, match="the end") as caught:
        deep(100)
    line = written("json", "failed", exc_info=(ValueError, caught.value, caught.value.__traceback__))
    traceback = json.loads(line)["traceback"]
    assert len(traceback) == TRACEBACK_SIZE_MAX
    assert traceback.rstrip().endswith("the end")


def test_nothing_is_formatted_that_is_not_written(lines: io.StringIO) -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("formatted")

    logging.getLogger(LOGGER).debug("event %s", Costly(), extra={"field": Costly()})
    assert not lines.getvalue()


def test_configure_sets_one_handler_and_the_levels() -> None:
    root, haptera = logging.getLogger(), logging.getLogger("haptera")
    before = root.handlers[:], root.level, haptera.level
    stream = io.StringIO()
    try:
        configure_logging("debug", "text", io.StringIO())
        configure_logging("info", "json", stream)
        logging.getLogger("haptera.x").debug("no")
        logging.getLogger("haptera.x").info("yes")
        logging.getLogger("asyncio").info("no")
        logging.getLogger("asyncio").warning("yes")
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        haptera.setLevel(before[2])
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["yes", "yes"]
