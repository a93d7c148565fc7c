"""The commands of strings do what those of Redis do, with its replies and its words."""

from __future__ import annotations

import pytest

from haptera.dialects.resp.reply_encoding import array_of_bulks, bulk
from haptera.key_rules import VALUE_SIZE_MAX
from haptera.testing import virtual_clock
from tests.unit.dialects.resp.talks import Talk, at_a_time, command

OK, NULL, ONE, ZERO = b"+OK\r\n", b"$-1\r\n", b":1\r\n", b":0\r\n"
SYNTAX = b"-ERR syntax error\r\n"
NOT_AN_INTEGER = b"-ERR value is not an integer or out of range\r\n"
INVALID_KEY = b"-ERR invalid key\r\n"


@virtual_clock
async def test_set_and_get_keep_any_bytes() -> None:
    async with at_a_time() as node:
        talk, value = Talk(node), bytes(range(256)) * 300
        assert await talk.do("SET", "ü", value) == OK
        assert await talk.do("GET", "ü") == bulk(value)
        assert await talk.do("SET", "a", "") == OK
        assert await talk.do("GET", "a") == bulk(b"")
        assert await talk.do("get", "none") == NULL
        assert await talk.do("STRLEN", "ü") == b":%d\r\n" % len(value)
        assert await talk.do("STRLEN", "none") == ZERO
        assert await talk.do("SET", "large", b"x" * VALUE_SIZE_MAX) == OK


@pytest.mark.parametrize("key", [b"", b"\xff", b"a\0b", b"k" * 4097])
@virtual_clock
async def test_keys_that_the_store_cannot_hold_are_invalid(key: bytes) -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        for words in (
            ("GET", key),
            ("SET", key, 1),
            ("SET", key, 1, "NX", "GET"),
            ("SETEX", key, 1, 1),
            ("GETSET", key, 1),
            ("GETDEL", key),
            ("GETEX", key, "PERSIST"),
            ("MGET", "a", key),
            ("MSET", "a", 1, key, 1),
            ("MSETNX", "a", 1, key, 1),
            ("STRLEN", key),
        ):
            assert await talk.do(*words) == INVALID_KEY, words
        assert node.commands.revision == 0


@virtual_clock
async def test_set_with_conditions_and_the_value_of_before() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        assert await talk.do("SET", "a", 1, "XX") == NULL
        assert await talk.do("SET", "a", 1, "XX", "GET") == NULL
        assert await talk.do("GET", "a") == NULL
        assert await talk.do("SET", "a", 1, "nx") == OK
        assert await talk.do("SET", "a", 2, "NX") == NULL
        assert await talk.do("SET", "a", 2, "NX", "GET") == bulk(b"1")
        assert await talk.do("SET", "b", 2, "NX", "GET") == NULL
        assert await talk.do("GET", "b") == bulk(b"2")
        assert await talk.do("SET", "a", 2, "xx", "get") == bulk(b"1")
        assert await talk.do("SET", "a", 3, "GET") == bulk(b"2")
        assert await talk.do("SET", "c", 3, "GET") == NULL
        assert await talk.do("GET", "a") == bulk(b"3")


@virtual_clock
async def test_set_gives_a_time_to_live_takes_it_away_or_keeps_it() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        now_ms = talk.session.now_ms()
        for words, seconds in [
            (("EX", 100), 100),
            (("PX", 50_000), 50),
            (("EXAT", now_ms // 1000 + 200), 200),
            (("PXAT", now_ms + 300_000), 300),
            (("KEEPTTL",), 300),
            ((), -1),
        ]:
            assert await talk.do("SET", "a", 1, *words) == OK
            left = int((await talk.do("TTL", "a"))[1:])
            assert seconds - 1 <= left <= seconds


@virtual_clock
async def test_a_set_whose_time_is_over_leaves_no_key() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        past = ("PXAT", 1)
        assert await talk.do("SET", "a", 1, *past) == OK
        assert await talk.do("SET", "a", 1, *past, "NX") == OK
        assert await talk.do("SET", "a", 1, *past, "XX") == NULL
        assert await talk.do("SET", "a", 1, *past, "GET") == NULL
        assert await talk.do("GET", "a") == NULL
        await talk.do("SET", "a", 1)
        assert await talk.do("SET", "a", 2, *past, "NX") == NULL
        assert await talk.do("SET", "a", 2, *past, "NX", "GET") == bulk(b"1")
        assert await talk.do("GET", "a") == bulk(b"1")
        assert await talk.do("SET", "a", 2, *past, "XX", "GET") == bulk(b"1")
        assert await talk.do("GET", "a") == NULL
        await talk.do("SET", "a", 1)
        assert await talk.do("SET", "a", 2, "EXAT", 1, "XX") == OK
        assert await talk.do("GET", "a") == NULL
        await talk.do("SET", "a", 1)
        assert await talk.do("GETEX", "a", "EXAT", 1) == bulk(b"1")
        assert await talk.do("GET", "a") == NULL


@pytest.mark.parametrize(
    "words",
    [
        ("NX", "XX"),
        ("EX",),
        ("EX", 1, "PX", 1),
        ("EX", 1, "KEEPTTL"),
        ("KEEPTTL", "EX", 1),
        ("FOO",),
        ("PERSIST",),
        ("NX", "GET", "XX"),
    ],
)
@virtual_clock
async def test_options_that_do_not_go_together_are_a_syntax_error(words: tuple[str | int, ...]) -> None:
    async with at_a_time() as node:
        assert await Talk(node).do("SET", "a", 1, *words) == SYNTAX


@virtual_clock
async def test_times_that_no_key_can_have_are_refused_with_the_name_of_the_command() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        for words, name in [
            (("SET", "a", 1, "EX", 0), "set"),
            (("SET", "a", 1, "PX", -1), "set"),
            (("SET", "a", 1, "EX", 2**62), "set"),
            (("SET", "a", 1, "EXAT", 0), "set"),
            (("SETEX", "a", 0, 1), "setex"),
            (("PSETEX", "a", -1, 1), "psetex"),
            (("SETEX", "a", 2**62, 1), "setex"),
        ]:
            assert await talk.do(*words) == b"-ERR invalid expire time in '%s' command\r\n" % name.encode()
        for number in ("x", "1.5", "", " 1", "9223372036854775808"):
            assert await talk.do("SET", "a", 1, "EX", number) == NOT_AN_INTEGER
        assert await talk.do("SETEX", "a", "x", 1) == NOT_AN_INTEGER


@virtual_clock
async def test_getex_looks_at_its_time_where_the_key_is_there_as_redis_does() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        assert await talk.do("GETEX", "a", "EX", 0) == await talk.do("GETEX", "a", "EX", "x") == b"$-1\r\n"
        await talk.do("SET", "a", 1)
        assert await talk.do("GETEX", "a", "EX", 0) == b"-ERR invalid expire time in 'getex' command\r\n"
        assert await talk.do("GETEX", "a", "EX", "x") == NOT_AN_INTEGER


@virtual_clock
async def test_the_older_forms_of_set_and_get() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        assert await talk.do("SETNX", "a", 1) == ONE
        assert await talk.do("SETNX", "a", 2) == ZERO
        assert await talk.do("SETEX", "a", 10, 3) == OK
        assert await talk.do("TTL", "a") in {b":9\r\n", b":10\r\n"}
        assert await talk.do("PSETEX", "a", 20_000, 4) == OK
        assert 19_000 < int((await talk.do("PTTL", "a"))[1:]) <= 20_000
        assert await talk.do("GETSET", "a", 5) == bulk(b"4")
        assert await talk.do("TTL", "a") == b":-1\r\n"
        assert await talk.do("GETSET", "b", 5) == NULL
        assert await talk.do("GETEX", "a", "EX", 30) == bulk(b"5")
        assert await talk.do("TTL", "a") in {b":29\r\n", b":30\r\n"}
        assert await talk.do("GETEX", "a") == bulk(b"5")
        assert await talk.do("GETEX", "a", "PERSIST") == bulk(b"5")
        assert await talk.do("TTL", "a") == b":-1\r\n"
        assert await talk.do("GETEX", "none", "EX", 1) == NULL
        assert await talk.do("GETEX", "a", "KEEPTTL") == SYNTAX
        assert await talk.do("GETEX", "a", "EX", 1, "PERSIST") == SYNTAX
        assert await talk.do("GETDEL", "a") == bulk(b"5")
        assert await talk.do("GETDEL", "a") == NULL


@virtual_clock
async def test_several_keys_are_one_change() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        assert await talk.do("MSET", "a", 1, "b", 2, "a", 3) == OK
        assert node.commands.revision == 1
        assert await talk.do("MGET", "a", "none", "b", "a") == b"*4\r\n$1\r\n3\r\n$-1\r\n$1\r\n2\r\n$1\r\n3\r\n"
        assert await talk.do("MSETNX", "c", 1, "a", 2) == ZERO
        assert await talk.do("GET", "c") == NULL
        assert await talk.do("MSETNX", "c", 1, "d", 2, "c", 3) == ONE
        assert node.commands.revision == 2
        assert await talk.do("MGET", "c", "d") == array_of_bulks([b"3", b"2"])
        for name in ("MSET", "MSETNX"):
            wrong = b"-ERR wrong number of arguments for '%s' command\r\n" % name.lower().encode()
            assert await talk.do(name, "a", 1, "b") == wrong
        many = [word for number in range(129) for word in (f"k{number}", 1)]
        assert await talk.do("MSETNX", *many) == b"-ERR 'msetnx' takes at most 128 keys here\r\n"
        assert await talk.do("MSETNX", *many[:256]) == ONE


@virtual_clock
async def test_thousands_of_keys_are_set_read_and_removed_in_slices() -> None:
    async with at_a_time() as node:
        talk, keys = Talk(node), [f"k{number}" for number in range(5000)]
        talk.send(command("MSET", *(word for key in keys for word in (key, key))) + command("GET", "k4999"))
        assert await talk.waited() + talk.take() == OK + bulk(b"k4999")
        talk.send(command("MGET", *keys))
        assert await talk.waited() == array_of_bulks([key.encode() for key in keys])
        talk.send(command("EXISTS", *keys, "none"))
        assert await talk.waited() == b":5000\r\n"
        talk.send(command("DEL", *keys, "none"))
        assert await talk.waited() == b":5000\r\n"
        talk.send(command("MSET", *(word for key in [*keys, ""] for word in (key, key))))
        assert await talk.waited() == INVALID_KEY


@virtual_clock
async def test_a_reply_that_is_too_large_is_refused() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        await talk.do("SET", "a", b"x" * VALUE_SIZE_MAX)
        assert await talk.do("MGET", *["a"] * 9) == b"-ERR the reply would be larger than this server sends\r\n"
        talk.send(command("MGET", *["a"] * 600))
        assert await talk.waited() == b"-ERR the command, or its reply, is larger than this server takes\r\n"
        talk.send(command("EXISTS", *["a"] * 600))
        assert await talk.waited() == b":600\r\n"
        large = b"x" * (VALUE_SIZE_MAX - 100)
        for name in ("MSET", "MSETNX"):
            said = await talk.do(name, "b", large, "c", large, "d", large)
            assert said == b"-ERR the command, or its reply, is larger than this server takes\r\n"
        assert len(await talk.do("MGET", "a", "a")) > 2 * VALUE_SIZE_MAX


@virtual_clock
async def test_a_large_mget_is_refused_where_the_process_has_no_room_for_its_reply() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        await talk.do("SET", "a", bytes(VALUE_SIZE_MAX))
        assert len(await talk.do("MGET", "a", "a")) > 2 * VALUE_SIZE_MAX
        talk.connection.affordable = False
        assert await talk.do("MGET", "a", "a") == b"-ERR the reply would be larger than this server sends\r\n"
        assert await talk.do("MGET", "none", "none") == b"*2\r\n" + NULL * 2
