"""OBJECT and MEMORY: how a key is kept."""

from __future__ import annotations

import pytest

from haptera.dialects.resp.object_commands import encoding_of
from haptera.testing import virtual_clock
from tests.unit.dialects.resp.talks import Talk
from tests.unit.node.nodes import opened

NIL = b"$-1\r\n"


@pytest.mark.parametrize(
    ("value", "encoding"),
    [
        (b"0", "int"),
        (b"-9223372036854775808", "int"),
        (b"9223372036854775808", "embstr"),
        (b"007", "embstr"),
        (b"", "embstr"),
        (b"x" * 44, "embstr"),
        (b"x" * 45, "raw"),
    ],
)
def test_an_encoding_is_that_of_a_value_that_was_just_set(value: bytes, encoding: str) -> None:
    assert encoding_of(value) == encoding


@virtual_clock
async def test_a_missing_key_has_no_encoding_and_takes_no_memory() -> None:
    async with opened() as node:
        talk = Talk(node)
        for words in (("OBJECT", "ENCODING"), ("OBJECT", "FREQ"), ("OBJECT", "IDLETIME"), ("MEMORY", "USAGE")):
            assert await talk.do(*words, "missing") == NIL


@virtual_clock
async def test_the_memory_of_a_key_grows_with_its_value_and_its_time_to_live() -> None:
    async with opened() as node:
        talk = Talk(node)
        sizes = []
        for words in (("SET", "a", "1"), ("SET", "a", "1" * 1001), ("SET", "a", "1" * 1001, "EX", 1000)):
            await talk.do(*words)
            sizes.append(int((await talk.do("MEMORY", "USAGE", "a", "SAMPLES", 5))[1:-2]))
        assert sizes[1] - sizes[0] == 1000
        assert sizes[2] > sizes[1]
        assert (
            await talk.do("MEMORY", "USAGE", "a", "SAMPLES", "x") == b"-ERR value is not an integer or out of range\r\n"
        )
        assert await talk.do("MEMORY", "USAGE", "a", "SAMPLES") == b"-ERR syntax error\r\n"
        assert await talk.do("MEMORY", "USAGE", "a", "OTHER", 1) == b"-ERR syntax error\r\n"


@virtual_clock
async def test_what_is_not_kept_of_a_key_is_refused_where_the_key_is_there() -> None:
    async with opened() as node:
        talk = Talk(node)
        await talk.do("SET", "a", 1)
        assert (await talk.do("OBJECT", "FREQ", "a")).startswith(b"-ERR An LFU maxmemory policy is not selected")
        assert (await talk.do("OBJECT", "IDLETIME", "a")).startswith(b"-ERR idle time not tracked")
        assert await talk.do("OBJECT", "REFCOUNT", "a") == b":1\r\n"
        assert (await talk.do("OBJECT", "HELP")).startswith(b"*11\r\n+OBJECT <subcommand>")
        assert b"haptera doctor" in await talk.do("MEMORY", "DOCTOR")
