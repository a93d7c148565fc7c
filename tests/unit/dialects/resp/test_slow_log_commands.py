"""The commands that exporters and tools send when they begin, and INFO as an exporter reads it."""

from __future__ import annotations

import re

import pytest

from haptera.testing import virtual_clock
from tests.unit.dialects.resp.served import served

#: Fields of INFO whose values redis_exporter takes for numbers, and those that it parses by a pattern.
NUMBERS = {
    "uptime_in_seconds",
    "connected_clients",
    "used_memory",
    "maxmemory",
    "total_connections_received",
    "total_commands_processed",
}
KEYSPACE = re.compile(r"keys=\d+,expires=\d+,avg_ttl=\d+(,subexpiry=\d+)?")


@virtual_clock
@pytest.mark.parametrize(
    ("asked", "reply"),
    [
        ("SLOWLOG LEN", b":0\r\n"),
        ("SLOWLOG GET", b"*0\r\n"),
        ("SLOWLOG GET 128", b"*0\r\n"),
        ("SLOWLOG GET -1", b"*0\r\n"),
        ("SLOWLOG GET -2", b"-ERR count should be greater than or equal to -1\r\n"),
        ("SLOWLOG GET x", b"-ERR value is not an integer or out of range\r\n"),
        ("SLOWLOG GET 1 2", b"-ERR wrong number of arguments for 'slowlog|get' command\r\n"),
        ("SLOWLOG RESET", b"+OK\r\n"),
        ("LATENCY LATEST", b"*0\r\n"),
        ("LATENCY HISTORY command", b"*0\r\n"),
        ("LATENCY HISTOGRAM", b"*0\r\n"),
        ("LATENCY RESET", b":0\r\n"),
    ],
)
async def test_there_is_no_list_of_slow_commands(asked: str, reply: bytes) -> None:
    async with served() as node:
        wire = await node.wire()
        assert await wire.do(*asked.split()) == reply


@virtual_clock
async def test_an_exporter_can_read_info() -> None:
    async with served() as node:
        wire = await node.wire()
        await wire.do("SET", "a", "1", "EX", "100")
        text = await wire.text("INFO", "ALL")
    section, fields, keyspace = "", {}, {}
    for line in filter(None, text.split("\r\n")):
        if line.startswith("# "):
            section = line.removeprefix("# ")
            continue
        name, colon, value = line.partition(":")
        assert colon, line
        if section == "Keyspace":
            keyspace[name] = value
        else:
            fields[name] = value
    assert {name: value for name, value in fields.items() if name in NUMBERS and not value.isdigit()} == {}
    assert fields.keys() >= NUMBERS
    assert fields["role"] == "master"
    assert list(keyspace) == ["db0"]
    assert KEYSPACE.fullmatch(keyspace["db0"]), keyspace
