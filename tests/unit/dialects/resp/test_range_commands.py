"""The commands of parts of a string: the bytes that they read and write, and the bounds of values."""

from __future__ import annotations

import pytest

from haptera.dialects.resp.reply_encoding import bulk
from haptera.key_rules import VALUE_SIZE_MAX
from haptera.testing import virtual_clock
from tests.unit.dialects.resp.talks import Limited, Talk, at_a_time

NOT_AN_INTEGER = b"-ERR value is not an integer or out of range\r\n"
TOO_LONG = b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"


async def done(talk: Talk, *arguments: bytes | str | int) -> bytes:
    """The reply to a command that may take some turns of the loop."""
    return await talk.do(*arguments) or await talk.waited()


@pytest.mark.parametrize(
    ("start", "end", "part"),
    [
        (0, 3, b"This"),
        (0, -1, b"This is"),
        (-2, -1, b"is"),
        (5, 100, b"is"),
        (7, 9, b""),
        (3, 1, b""),
        (-1, -3, b""),
        (-100, -100, b"T"),
        (-100, 1, b"Th"),
        (0, -100, b"T"),
        (2**63 - 1, -(2**63), b""),
    ],
)
@virtual_clock
async def test_a_part_is_counted_from_both_ends_as_by_redis(start: int, end: int, part: bytes) -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        await talk.do("SET", "a", "This is")
        for name in ("GETRANGE", "SUBSTR"):
            assert await talk.do(name, "a", start, end) == bulk(part)
        assert await talk.do("GETRANGE", "none", start, end) == bulk(b"")
        assert await talk.do("GETRANGE", "a", start, "x") == NOT_AN_INTEGER


@virtual_clock
async def test_a_part_is_written_over_and_keeps_the_time_to_live() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        await talk.do("SET", "a", "Hello World", "PX", 5000)
        assert await done(talk, "SETRANGE", "a", 6, "Redis") == b":11\r\n"
        assert await done(talk, "APPEND", "a", "!") == b":12\r\n"
        assert await talk.do("GET", "a") == bulk(b"Hello Redis!")
        assert await talk.do("PTTL", "a") == b":5000\r\n"
        assert await done(talk, "SETRANGE", "b", 3, "x") == b":4\r\n"
        assert await talk.do("GET", "b") == bulk(b"\0\0\0x")
        assert await done(talk, "SETRANGE", "none", 3, "") == b":0\r\n"
        assert await talk.do("EXISTS", "none") == b":0\r\n"
        assert await done(talk, "APPEND", "c", "") == b":0\r\n"
        assert await talk.do("EXISTS", "c") == b":1\r\n"


@virtual_clock
async def test_a_change_of_a_part_has_the_bounds_of_a_value() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        assert await talk.do("SETRANGE", "a", -1, "x") == b"-ERR offset is out of range\r\n"
        assert await talk.do("SETRANGE", "a", "x", "x") == NOT_AN_INTEGER
        for offset in (VALUE_SIZE_MAX, 2**63 - 1):
            assert await done(talk, "SETRANGE", "a", offset, "x") == TOO_LONG
        assert await talk.do("EXISTS", "a") == b":0\r\n"
        await talk.do("SET", "a", b"x" * VALUE_SIZE_MAX)
        for more in (b"x", b"x" * VALUE_SIZE_MAX):
            assert await done(talk, "APPEND", "a", more) == TOO_LONG
        assert await done(talk, "APPEND", "a", "") == b":%d\r\n" % VALUE_SIZE_MAX


@virtual_clock
async def test_a_part_is_read_and_written_by_users_who_may_do_both() -> None:
    async with at_a_time() as node:
        await Talk(node).do("SET", "a", "x")
        writer, reader = Talk(node, Limited(("*", ["write"]))), Talk(node, Limited(("*", ["read"])))
        assert (await writer.do("GETRANGE", "a", 0, 1)).startswith(b"-NOPERM")
        assert (await done(writer, "APPEND", "a", "y")).startswith(b"-NOPERM")
        assert await reader.do("GETRANGE", "a", 0, 1) == bulk(b"x")
        assert (await done(reader, "SETRANGE", "a", 0, "y")).startswith(b"-NOPERM")
