"""The commands that compare and change in one step, and their options."""

from __future__ import annotations

import pytest

from haptera.testing import virtual_clock
from tests.unit.dialects.resp.talks import Talk
from tests.unit.node.nodes import opened

NIL = b"$-1\r\n"
OK = b"+OK\r\n"
SYNTAX = b"-ERR syntax error\r\n"


def pair(first: int, second: int) -> bytes:
    return b"*2\r\n:%d\r\n:%d\r\n" % (first, second)


async def asked(talk: Talk, *arguments: bytes | str | int) -> bytes:
    return (await talk.do(*arguments)) or (await talk.waited())


@virtual_clock
async def test_set_compares_the_value_of_before() -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await talk.do("SET", "a", "1", "IFEQ", "x") == NIL
        assert await talk.do("EXISTS", "a") == b":0\r\n", "a missing key is not equal to any value"
        assert await talk.do("SET", "a", "1", "IFNE", "x") == OK
        assert await talk.do("SET", "a", "2", "ifeq", "1", "EX", "100") == OK
        assert await talk.do("TTL", "a") == b":100\r\n"
        assert await talk.do("SET", "a", "3", "IFNE", "2") == NIL
        assert await talk.do("SET", "a", "3", "KEEPTTL", "IFNE", "1") == OK
        assert await talk.do("TTL", "a") == b":100\r\n"
        assert await talk.do("SET", "a", "4", "IFEQ", "3", "PXAT", "1") == OK
        assert await talk.do("EXISTS", "a") == b":0\r\n", "its end is over"


@virtual_clock
async def test_set_with_get_tells_the_value_of_before_whether_it_is_set_or_not() -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await talk.do("SET", "a", "1", "IFEQ", "x", "GET") == NIL
        assert await talk.do("SET", "a", "1", "IFNE", "x", "GET") == NIL
        assert await talk.do("SET", "a", "2", "IFEQ", "1", "GET") == b"$1\r\n1\r\n"
        assert await talk.do("SET", "a", "3", "IFEQ", "1", "GET") == b"$1\r\n2\r\n"
        assert await talk.do("SET", "a", "3", "GET", "IFNE", "2") == b"$1\r\n2\r\n"
        assert await talk.do("GET", "a") == b"$1\r\n2\r\n"


@virtual_clock
@pytest.mark.parametrize(
    "options",
    [("IFEQ",), ("IFEQ", "x", "NX"), ("XX", "IFNE", "x"), ("IFEQ", "x", "IFNE", "y"), ("IFEQ", "x", "IFEQ", "x")],
)
async def test_set_takes_one_condition(options: tuple[str, ...]) -> None:
    async with opened() as node:
        assert await Talk(node).do("SET", "a", "1", *options) == SYNTAX


@virtual_clock
async def test_a_value_may_look_like_an_option() -> None:
    async with opened() as node:
        talk = Talk(node)
        await talk.do("SET", "a", "NX")
        assert await talk.do("SET", "a", "IFEQ", "IFEQ", "NX") == OK
        assert await talk.do("SET", "a", "1", "IFEQ", "IFEQ", "EX", "5") == OK


@virtual_clock
async def test_digests_are_refused_with_the_reason() -> None:
    async with opened() as node:
        talk = Talk(node)
        words = b"-ERR IFDEQ and IFDNE are not supported, because this server keeps no digests of values\r\n"
        assert await talk.do("SET", "a", "1", "IFDEQ", "x") == words
        assert await talk.do("DELEX", "a", "IFDNE", "x") == words


@virtual_clock
async def test_a_key_is_removed_by_its_value() -> None:
    async with opened() as node:
        talk = Talk(node)
        for remove, kept in ((("DELEX", "a", "IFEQ", "1"), "2"), (("DELIFEQ", "a", "1"), "2")):
            assert await talk.do(*remove) == b":0\r\n", "it is missing"
            await talk.do("SET", "a", kept)
            assert await talk.do(*remove) == b":0\r\n"
            await talk.do("SET", "a", "1")
            assert await talk.do(*remove) == b":1\r\n"
            assert await talk.do("EXISTS", "a") == b":0\r\n"
        assert await talk.do("DELEX", "a", "IFNE", "1") == b":0\r\n"
        await talk.do("SET", "a", "1")
        assert await talk.do("DELEX", "a", "IFNE", "1") == b":0\r\n"
        assert await talk.do("DELEX", "a", "ifne", "2") == b":1\r\n"
        await talk.do("SET", "a", "1")
        assert await talk.do("DELEX", "a") == b":1\r\n"
        assert await talk.do("DELEX", "a", "IFEQ") == b"-ERR wrong number of arguments for 'delex' command\r\n"
        assert await talk.do("DELEX", "a", "IF", "x") == SYNTAX


@virtual_clock
async def test_several_keys_are_set_with_one_end() -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await talk.do("MSETEX", 2, "a", "1", "b", "2", "EX", 100) == b":1\r\n"
        assert await talk.do("TTL", "b") == b":100\r\n"
        assert await talk.do("MSETEX", 2, "b", "3", "c", "3", "NX") == b":0\r\n"
        assert await talk.do("MSETEX", 2, "b", "3", "c", "3", "XX") == b":0\r\n"
        assert await talk.do("EXISTS", "c") == b":0\r\n"
        assert await talk.do("MSETEX", 2, "a", "5", "b", "6", "KEEPTTL", "XX") == b":1\r\n"
        assert await talk.do("TTL", "a") == b":100\r\n"
        assert await talk.do("MSETEX", 1, "c", "7", "NX", "PXAT", "1") == b":1\r\n"
        assert await talk.do("MGET", "a", "b", "c") == b"*3\r\n$1\r\n5\r\n$1\r\n6\r\n" + NIL
        assert await talk.do("MSETEX", 1, "a", "8") == b":1\r\n"
        assert await talk.do("TTL", "a") == b":-1\r\n"


@virtual_clock
@pytest.mark.parametrize(
    ("arguments", "reply"),
    [
        (("0", "a", "1"), b"-ERR invalid numkeys value\r\n"),
        (("x", "a", "1"), b"-ERR invalid numkeys value\r\n"),
        (("99999999999", "a", "1"), b"-ERR invalid numkeys value\r\n"),
        (("2", "a", "1"), b"-ERR wrong number of key-value pairs\r\n"),
        (("1", "a", "1", "GET"), SYNTAX),
        (("1", "a", "1", "EX", "0"), b"-ERR invalid expire time in 'msetex' command\r\n"),
    ],
)
async def test_wrong_pairs_are_refused(arguments: tuple[str, ...], reply: bytes) -> None:
    async with opened() as node:
        assert await Talk(node).do("MSETEX", *arguments) == reply


@virtual_clock
async def test_a_number_grows_within_its_bounds() -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await asked(talk, "INCREX", "n") == pair(1, 1)
        assert await asked(talk, "INCREX", "n", "BYINT", 9, "UBOUND", 10) == pair(10, 9)
        assert await asked(talk, "INCREX", "n", "UBOUND", 10, "EX", 100) == pair(10, 0)
        assert await talk.do("TTL", "n") == b":-1\r\n", "a step out of the bounds changes nothing"
        assert await asked(talk, "INCREX", "n", "BYINT", 5, "UBOUND", 12, "SATURATE", "EX", 100) == pair(12, 2)
        assert await talk.do("TTL", "n") == b":100\r\n"
        assert await asked(talk, "INCREX", "n", "BYINT", -50, "LBOUND", 0) == pair(12, 0)
        assert await asked(talk, "INCREX", "n", "BYINT", -50, "LBOUND", -3, "SATURATE") == pair(-3, -15)
        assert await asked(talk, "INCREX", "m", "UBOUND", 0) == pair(0, 0)
        assert await talk.do("EXISTS", "m") == b":0\r\n", "a number that may not grow is not made"


@virtual_clock
async def test_a_number_that_would_overflow_stays_as_it_is() -> None:
    async with opened() as node:
        talk = Talk(node)
        most = 2**63 - 1
        await talk.do("SET", "n", most - 1)
        assert await asked(talk, "INCREX", "n", "BYINT", 2) == pair(most - 1, 0)
        assert await asked(talk, "INCREX", "n", "BYINT", 2, "SATURATE") == pair(most, 1)
        assert await asked(talk, "INCREX", "n", "UBOUND", -most, "SATURATE") == pair(-most, -2 * most)


@virtual_clock
async def test_the_end_of_a_number_is_kept_or_given_or_taken() -> None:
    async with opened() as node:
        talk = Talk(node)
        for options, left in (
            (("EX", 100, "ENX"), 100),
            (("EX", 200, "ENX"), 100),
            ((), 100),
            (("EX", 200), 200),
            (("PERSIST",), -1),
            (("PX", 50000), 50),
        ):
            await asked(talk, "INCREX", "n", *options)
            assert await talk.do("TTL", "n") == b":%d\r\n" % left, options
        assert await asked(talk, "INCREX", "n", "PXAT", 1) == pair(7, 1)
        assert await talk.do("EXISTS", "n") == b":0\r\n"


@virtual_clock
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("BYINT",), b"-ERR syntax error"),
        (("BYINT", "x"), b"-ERR value is not an integer or out of range"),
        (("BYFLOAT", "1.5"), b"-ERR BYFLOAT is not supported"),
        (("EX", "1", "PX", "1"), b"-ERR syntax error"),
        (("EX", "1", "PERSIST"), b"-ERR syntax error"),
        (("EX", "0"), b"-ERR invalid expire time in 'increx' command"),
        (("ENX",), b"-ERR syntax error"),
        (("LBOUND", "5", "UBOUND", "4"), b"-ERR LBOUND is greater than UBOUND"),
        (("OVERFLOW", "SAT"), b"-ERR syntax error"),
    ],
)
async def test_wrong_options_of_a_step_are_refused(options: tuple[str, ...], words: bytes) -> None:
    async with opened() as node:
        talk = Talk(node)
        assert (await talk.do("INCREX", "n", *options)).startswith(words)
        await talk.do("SET", "text", "x")
        assert await asked(talk, "INCREX", "text") == b"-ERR value is not an integer or out of range\r\n"
