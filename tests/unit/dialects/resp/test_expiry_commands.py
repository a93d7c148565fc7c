"""Keys get, keep and lose their times to live as in Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from haptera.dialects.resp.judged_changes import ATTEMPTS_MAX
from haptera.node.commands import operations
from haptera.testing import virtual_clock
from tests.unit.dialects.resp.talks import NOW_MS, Clock, Talk, at_a_time, command
from tests.unit.node.nodes import Asked, ManualWriter, turn

OK, ONE, ZERO = b"+OK\r\n", b":1\r\n", b":0\r\n"


@virtual_clock
async def test_a_key_ends_when_its_time_has_come() -> None:
    clock = Clock()
    async with at_a_time(clock) as node:
        talk = Talk(node)
        await talk.do("SET", "a", 1)
        assert await talk.do("EXPIRE", "none", 1) == ZERO
        assert await talk.do("PEXPIRE", "a", 2500) == ONE
        assert await talk.do("TTL", "a") == b":3\r\n", "half a second and more is a second"
        clock.now_ms += 1001
        assert await talk.do("TTL", "a") == b":1\r\n"
        clock.now_ms += 1498
        assert await talk.say(command("PTTL", "a") + command("TTL", "a")) == b":1\r\n:0\r\n"
        clock.now_ms += 1
        assert await talk.do("GET", "a") == b"$-1\r\n"
        assert await talk.do("TTL", "a") == b":-2\r\n"


@virtual_clock
async def test_times_are_told_in_seconds_and_milliseconds_from_now_and_from_the_epoch() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        now_ms = talk.session.now_ms()
        await talk.do("SET", "a", 1)
        for name in ("TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"):
            assert await talk.do(name, "a") == b":-1\r\n"
            assert await talk.do(name, "none") == b":-2\r\n"
        for name, number, to_live_ms in (
            ("EXPIRE", 100, 100_000),
            ("PEXPIRE", 100_000, 100_000),
            ("EXPIREAT", now_ms // 1000 + 100, 100_000 - now_ms % 1000),
            ("PEXPIREAT", now_ms + 100_000, 100_000),
        ):
            assert await talk.do(name, "a", number) == ONE
            assert await talk.do("TTL", "a") == b":100\r\n"
            left_ms = int((await talk.do("PTTL", "a"))[1:])
            assert left_ms == to_live_ms
            end_ms = int((await talk.do("PEXPIRETIME", "a"))[1:])
            assert end_ms == left_ms + now_ms
            assert int((await talk.do("EXPIRETIME", "a"))[1:]) == (end_ms + 500) // 1000


@pytest.mark.parametrize("words", [("EXPIRE", -1), ("EXPIRE", 0), ("PEXPIRE", -5), ("EXPIREAT", 1), ("PEXPIREAT", 1)])
@virtual_clock
async def test_a_time_that_is_over_removes_the_key_at_once(words: tuple[str, int]) -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        await talk.do("SET", "a", 1)
        name, number = words
        assert await talk.say(command(name, "a", number) + command("EXISTS", "a")) == ONE + ZERO
        assert await talk.do(name, "a", number) == ZERO


@virtual_clock
async def test_conditions_compare_the_times() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        await talk.do("SET", "a", 1)
        for seconds, condition, reply in [
            (100, "XX", ZERO),
            (100, "GT", ZERO),  # a key without an end ends later than any
            (100, "nx", ONE),
            (50, "NX", ZERO),
            (50, "GT", ZERO),
            (200, "GT", ONE),
            (300, "LT", ZERO),
            (150, "LT", ONE),
            (160, "XX", ONE),
        ]:
            assert await talk.do("EXPIRE", "a", seconds, condition) == reply, (seconds, condition)
        assert await talk.do("TTL", "a") == b":160\r\n"
        await talk.do("PERSIST", "a")
        assert await talk.do("EXPIRE", "a", 10, "LT") == ONE
        assert await talk.do("EXPIRE", "a", 20, "XX", "GT") == ONE
        assert await talk.do("EXPIRE", "a", -1, "GT") == ZERO
        assert await talk.do("EXPIRE", "a", -1, "LT") == ONE
        assert await talk.do("EXISTS", "a") == ZERO
        assert await talk.do("EXPIRE", "a", 1, "NX") == ZERO


@pytest.mark.parametrize(
    ("first", "second", "reply"),
    [
        (("EXPIRE", "a", 100), ("EXPIRE", "a", 100, "GT"), ONE),
        (("EXPIRE", "a", 100), ("EXPIRE", "a", 100, "LT"), ZERO),
        (("EXPIRE", "a", 100), ("PEXPIREAT", "a", NOW_MS + 100_000, "GT"), ZERO),
        (("EXPIRE", "a", 100), ("PEXPIREAT", "a", NOW_MS + 100_001, "GT"), ONE),
    ],
)
@virtual_clock
async def test_a_time_to_live_is_compared_as_of_the_change_and_not_of_its_arrival(
    first: tuple[str | int, ...], second: tuple[str | int, ...], reply: bytes
) -> None:
    writer, clock = ManualWriter(), Clock()
    async with at_a_time(clock, writer=writer) as node:
        Asked(node, operations.Set("a", b"1"))
        await writer.write_all()
        talk = Talk(node)
        talk.send(command(*first) + command(*second))
        await turn()
        clock.now_ms += 5
        await writer.write_all()
        assert talk.take() == ONE + reply
        if reply == ONE:
            end_ms = NOW_MS + 100_001 if second[0] == "PEXPIREAT" else clock.now_ms + 100_000
            assert await talk.do("PEXPIRETIME", "a") == b":%d\r\n" % end_ms


@virtual_clock
async def test_a_key_loses_its_end_once() -> None:
    async with at_a_time() as node:
        talk = Talk(node)
        await talk.do("SETEX", "a", 100, 1)
        assert await talk.do("PERSIST", "a") == ONE
        revision = node.commands.revision
        assert await talk.do("PERSIST", "a") == ZERO
        assert await talk.do("PERSIST", "none") == ZERO
        assert node.commands.revision == revision, "there was nothing to change"
        assert await talk.do("TTL", "a") == b":-1\r\n"


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (("EXPIRE", "a", "x"), "ERR value is not an integer or out of range"),
        (("EXPIRE", "a", 2**62), "ERR invalid expire time in 'expire' command"),
        (("PEXPIREAT", "a", 2**63 - 1), "ERR invalid expire time in 'pexpireat' command"),
        (("EXPIRE", "a", 1, "YY"), "ERR Unsupported option YY"),
        (("EXPIRE", "a", 1, "NX", "GT"), "ERR NX and XX, GT or LT options at the same time are not compatible"),
        (("EXPIRE", "a", 1, "GT", "LT"), "ERR GT and LT options at the same time are not compatible"),
        (("EXPIRE", "a"), "ERR wrong number of arguments for 'expire' command"),
    ],
)
@virtual_clock
async def test_wrong_arguments_have_the_words_of_redis(words: tuple[str | int, ...], reply: str) -> None:
    async with at_a_time() as node:
        assert await Talk(node).do(*words) == b"-%s\r\n" % reply.encode()


@virtual_clock
async def test_a_change_that_is_judged_is_judged_again_when_another_came_between() -> None:
    writer = ManualWriter()
    async with at_a_time(writer=writer) as node:
        Asked(node, operations.Set("a", b"1", ttl_ms=100_000))
        await writer.write_all()
        talk = Talk(node)
        talk.send(command("EXPIRE", "a", 200, "GT"))
        await asyncio.sleep(0)
        Asked(node, operations.Set("b", b"1"))
        await turn()
        other = Asked(node, operations.Expire("a", 300_000))
        await writer.write_all()
        assert other.answered
        assert talk.take() in {ZERO, ONE}
        [entry] = Asked(node, operations.Get("a")).results
        assert isinstance(entry, tuple)
        assert entry[2] is not None
        assert entry[2] - talk.session.now_ms() > 200_000, "the later end stays"


@virtual_clock
async def test_a_change_that_others_always_overtake_ends_with_an_error() -> None:
    async with at_a_time() as node:
        Asked(node, operations.Set("a", b"1", ttl_ms=100_000))
        await node.drain()
        talk = Talk(node)
        ask = talk.session.ask
        asked = 0

        async def overtaken(*ops: operations.Operation) -> list[Any]:
            nonlocal asked
            results = await ask(*ops)
            if isinstance(ops[0], operations.Get):
                asked += 1
                Asked(node, operations.Set("a", b"1", keep_ttl=True))
                await node.drain()
            return results

        talk.session.ask = overtaken  # type: ignore[method-assign]
        talk.send(command("PERSIST", "a"))
        assert await talk.waited() == b"-TRYAGAIN other clients keep changing the key\r\n"
        assert asked == ATTEMPTS_MAX
