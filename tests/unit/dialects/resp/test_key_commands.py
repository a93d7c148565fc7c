"""The commands of keys and of counters do what those of Redis do."""

from __future__ import annotations

import pytest

from haptera.dialects.resp.reply_encoding import bulk
from haptera.testing import virtual_clock
from tests.unit.dialects.resp.talks import Talk, at_a_time, command

OK, NULL, ONE, ZERO = b"+OK\r\n", b"$-1\r\n", b":1\r\n", b":0\r\n"


@virtual_clock
async def test_keys_are_counted_and_removed() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        await talk.do("MSET", "a", 1, "b", 2, "c", 3)
        assert await talk.do("EXISTS", "a") == ONE
        assert await talk.do("EXISTS", "none") == ZERO
        assert await talk.do("EXISTS", "a", "a", "none", "b") == b":3\r\n"
        assert await talk.do("TOUCH", "a", "none") == ONE
        assert await talk.do("TYPE", "a") == b"+string\r\n"
        assert await talk.do("TYPE", "none") == b"+none\r\n"
        assert await talk.do("DEL", "a", "a", "none", "b") == b":2\r\n"
        assert await talk.do("DEL", "c") == ONE
        assert await talk.do("UNLINK", "c") == ZERO
        assert await talk.do("DEL", "none", "neither") == ZERO


@virtual_clock
async def test_a_key_is_renamed_with_its_time_to_live() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        assert await talk.do("RENAME", "a", "b") == b"-ERR no such key\r\n"
        assert await talk.do("RENAMENX", "a", "b") == b"-ERR no such key\r\n"
        await talk.do("SETEX", "a", 100, 1)
        await talk.do("SET", "b", 2)
        assert await talk.do("RENAMENX", "a", "b") == ZERO
        assert await talk.do("RENAMENX", "a", "a") == ZERO
        assert await talk.do("RENAME", "a", "b") == OK
        assert await talk.do("GET", "b") == bulk(b"1")
        assert await talk.do("TTL", "b") == b":100\r\n"
        assert await talk.do("RENAMENX", "b", "c") == ONE
        assert await talk.do("RENAME", "c", "c") == OK
        assert await talk.do("EXISTS", "a", "b", "c") == ONE


@virtual_clock
async def test_all_keys_are_counted_and_removed() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        for name in ("FLUSHALL", "FLUSHDB"):
            for words in ((), ("ASYNC",), ("sync",)):
                await talk.do("MSET", "a", 1, "b", 2)
                assert await talk.do("DBSIZE") == b":2\r\n"
                assert await talk.do(name, *words) == OK
                assert await talk.do("DBSIZE") == ZERO
            assert await talk.do(name, "NOW") == b"-ERR syntax error\r\n"
            assert await talk.do(name, "SYNC", "ASYNC") == b"-ERR syntax error\r\n"


@virtual_clock
async def test_keys_count_with_the_words_of_redis() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        assert await talk.say(command("INCR", "n") * 3 + command("DECR", "n")) == b":1\r\n:2\r\n:3\r\n:2\r\n"
        assert await talk.do("INCRBY", "n", 40) == b":42\r\n"
        assert await talk.do("DECRBY", "n", 50) == b":-8\r\n"
        assert await talk.do("GET", "n") == bulk(b"-8")
        await talk.do("EXPIRE", "n", 100)
        await talk.do("INCR", "n")
        assert await talk.do("TTL", "n") == b":100\r\n"
        await talk.do("SET", "n", 2**63 - 1)
        assert await talk.do("INCR", "n") == b"-ERR increment or decrement would overflow\r\n"
        assert await talk.do("DECRBY", "n", -(2**63)) == b"-ERR decrement would overflow\r\n"
        for wrong in ("x", "1.0", " 1", "01", "+1", "", "9223372036854775808"):
            await talk.do("SET", "w", wrong)
            assert await talk.do("INCR", "w") == b"-ERR value is not an integer or out of range\r\n"
            assert await talk.do("INCRBY", "n", wrong) == b"-ERR value is not an integer or out of range\r\n"


@pytest.mark.parametrize("key", [b"", b"\xff", b"a\0b", b"k" * 4097])
@virtual_clock
async def test_keys_that_the_store_cannot_hold_are_invalid(key: bytes) -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        for words in (
            ("DEL", key),
            ("DEL", "a", key),
            ("EXISTS", key),
            ("EXISTS", "a", key),
            ("TYPE", key),
            ("RENAME", "a", key),
            ("RENAMENX", key, "a"),
            ("INCR", key),
            ("DECRBY", key, 1),
        ):
            assert await talk.do(*words) == b"-ERR invalid key\r\n", words
