"""Keyspace notifications: the messages that changes of keys are, in channels and patterns."""

from __future__ import annotations

import asyncio

import pytest

from haptera.dialects.resp.keyspace_channels import EVERYTHING, WatchedRange, range_of_channel, range_of_pattern
from haptera.dialects.resp.resp_state import RespState
from haptera.dialects.resp.subscriptions import PATTERNS_SIZE_MAX, PREFIXES_SIZE_MAX, RANGES_MAX
from haptera.node.commands import operations
from haptera.testing import virtual_clock
from tests.unit.dialects.resp.talks import Limited, Talk, command
from tests.unit.node.nodes import Asked, opened


def told(*parts: bytes | int, head: bytes = b"*") -> bytes:
    items = [b":%d\r\n" % part if isinstance(part, int) else b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]
    return head + b"%d\r\n" % len(items) + b"".join(items)


def event(key: bytes, name: bytes, pattern: bytes = b"") -> bytes:
    """The message in the channel of a key."""
    return told(*((b"pmessage", pattern) if pattern else (b"message",)), b"__keyspace@0__:" + key, name)


async def settled(talk: Talk) -> bytes:
    for _ in range(20):
        await asyncio.sleep(0)
    return talk.take()


@virtual_clock
async def test_the_channel_of_a_key_tells_its_changes() -> None:
    async with opened() as node:
        talk, other = Talk(node), Talk(node)
        channel = b"__keyspace@0__:a"
        assert await talk.do("SUBSCRIBE", channel) == told(b"subscribe", channel, 1)
        await other.say(
            command("SET", "a", "1")
            + command("SET", "b", "1")
            + command("EXPIRE", "a", 100)
            + command("INCR", "a")
            + command("PERSIST", "a")
        )
        await other.do("SET", "a", "5", "EX", 10)
        await other.do("DEL", "a")
        names = [b"set", b"expire", b"set", b"persist", b"set", b"expire", b"del"]
        assert await settled(talk) == b"".join(event(b"a", name) for name in names)


@virtual_clock
async def test_the_channel_of_an_event_tells_the_keys() -> None:
    now = asyncio.get_running_loop().time
    async with opened(clock_ms=lambda: int(now() * 1000), monotonic_ns=lambda: int(now() * 1e9)) as node:
        talk, other = Talk(node), Talk(node)
        await talk.do("SUBSCRIBE", "__keyevent@0__:del", "__keyevent@0__:expired")
        await other.say(command("SET", "a", "1") + command("SET", "b", "1", "PX", 20) + command("RENAME", "a", "c"))
        assert await settled(talk) == told(b"message", b"__keyevent@0__:del", b"a")
        await asyncio.sleep(1)
        assert await settled(talk) == told(b"message", b"__keyevent@0__:expired", b"b")
        await other.do("FLUSHALL")
        assert await settled(talk) == told(b"message", b"__keyevent@0__:del", b"c")


@virtual_clock
async def test_a_pattern_tells_each_channel_that_it_matches() -> None:
    async with opened() as node:
        talk, other = Talk(node), Talk(node)
        keys, events = b"__keyspace@0__:app/*", b"__keyevent@0__:*"
        assert await talk.do("PSUBSCRIBE", keys, events) == told(b"psubscribe", keys, 1) + told(
            b"psubscribe", events, 2
        )
        await other.say(command("SET", "app/x", "1") + command("SET", "b", "1"))
        messages = await settled(talk)
        assert messages.count(b"pmessage") == 3
        assert event(b"app/x", b"set", keys) in messages
        for key in (b"app/x", b"b"):
            assert told(b"pmessage", events, b"__keyevent@0__:set", key) in messages


@virtual_clock
async def test_channels_beside_a_watch_of_everything_have_their_messages_in_order() -> None:
    async with opened() as node:
        talk, other = Talk(node), Talk(node)
        await talk.do("SUBSCRIBE", "__keyevent@0__:set", "__keyspace@0__:a")
        assert len(node.watches) == 1
        await other.say(command("SET", "a", "1") + command("SET", "b", "1"))
        in_set = [told(b"message", b"__keyevent@0__:set", key) for key in (b"a", b"b")]
        assert await settled(talk) == event(b"a", b"set") + b"".join(in_set)
        await talk.do("UNSUBSCRIBE", "__keyevent@0__:set")
        await other.do("SET", "a", "2")
        assert await settled(talk) == event(b"a", b"set")


@virtual_clock
async def test_version_3_has_messages_as_pushes_and_runs_other_commands() -> None:
    async with opened() as node:
        talk = Talk(node)
        talk.session.set_protocol(3)
        channel = b"__keyspace@0__:a"
        assert await talk.do("SUBSCRIBE", channel) == told(b"subscribe", channel, 1, head=b">")
        written = await talk.do("SET", "a", "1") + await settled(talk)
        assert sorted([b"+OK\r\n", told(b"message", channel, b"set", head=b">")]) == sorted(
            [written[:5], written[5:]] if written.startswith(b"+OK") else [written[-5:], written[:-5]]
        )
        assert await talk.do("GET", "a") == b"$1\r\n1\r\n"


@virtual_clock
async def test_version_2_with_subscriptions_takes_few_commands() -> None:
    async with opened() as node:
        talk = Talk(node)
        await talk.do("SUBSCRIBE", "news")
        words = b"only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n"
        assert await talk.do("GET", "a") == b"-ERR Can't execute 'get': " + words
        exec_words = b"-EXECABORT Transaction discarded because of: Can't execute 'exec': " + words
        assert await talk.do("EXEC") == exec_words
        assert await talk.do("PING", "x") == told(b"pong", b"x")
        assert await talk.do("UNSUBSCRIBE", "news") == told(b"unsubscribe", b"news", 0)
        assert await talk.do("GET", "a") == b"$-1\r\n"


@virtual_clock
async def test_subscriptions_end_one_by_one_or_all_together() -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await talk.do("UNSUBSCRIBE") == b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"
        await talk.say(command("SUBSCRIBE", "__keyspace@0__:a", "x", "x") + command("PSUBSCRIBE", "__keyspace@0__:*"))
        assert len(node.watches) == 2
        assert await talk.do("UNSUBSCRIBE") == told(b"unsubscribe", b"__keyspace@0__:a", 2) + told(
            b"unsubscribe", b"x", 1
        )
        assert len(node.watches) == 1
        assert await talk.do("PUNSUBSCRIBE", "__keyspace@0__:*") == told(b"punsubscribe", b"__keyspace@0__:*", 0)
        assert len(node.watches) == 0
        Asked(node, operations.Set("a", b"1"))
        assert await settled(talk) == b""


@virtual_clock
async def test_the_end_of_a_connection_is_the_end_of_its_watches() -> None:
    async with opened() as node:
        state = RespState()
        talk, other = Talk(node, state=state), Talk(node, state=state)
        await talk.do("PSUBSCRIBE", "*")
        assert await other.do("PUBSUB", "NUMPAT") == b":1\r\n"
        talk.session.lost()
        assert len(node.watches) == 0
        assert await other.do("PUBSUB", "NUMPAT") == b":0\r\n"


@virtual_clock
async def test_another_user_of_a_connection_has_the_messages_of_its_own_grants() -> None:
    async with opened() as node:
        talk, other = Talk(node), Talk(node)
        talk.session.set_protocol(3)
        await talk.do("SUBSCRIBE", "__keyspace@0__:app/x")
        talk.connection.caller.become(Limited(("app/*", ("read", "watch"))))
        await settled(talk)
        await other.do("SET", "app/x", "1")
        assert await settled(talk) == told(b"message", b"__keyspace@0__:app/x", b"set", head=b">")
        await talk.do("SUBSCRIBE", "__keyspace@0__:app/y")
        talk.connection.caller.become(Limited(("app/y", ("read", "watch"))))
        await settled(talk)
        assert talk.connection.ended is not None
        assert talk.connection.ended.code == 2004


@virtual_clock
async def test_a_channel_of_keys_that_may_not_be_watched_is_refused() -> None:
    async with opened() as node:
        talk = Talk(node, Limited(("app/*", ("read", "watch")), ("seen", ("read",))))
        assert (await talk.do("SUBSCRIBE", "__keyspace@0__:seen", "x")).startswith(b"-NOPERM")
        assert (await talk.do("SUBSCRIBE", "__keyevent@0__:set")).startswith(b"-NOPERM")
        assert (await talk.do("PSUBSCRIBE", "__keyspace@0__:app/*")).startswith(b"*3\r\n$10\r\npsubscribe")
        assert (await Talk(node, Limited()).do("PUBSUB", "CHANNELS")).startswith(b"-NOPERM")


@virtual_clock
async def test_pubsub_tells_the_subscriptions_of_all() -> None:
    async with opened() as node:
        state = RespState()
        talk, other, third = (Talk(node, state=state) for _ in range(3))
        await talk.do("SUBSCRIBE", "news", "olds")
        await other.do("SUBSCRIBE", "news")
        assert await third.do("PUBSUB", "CHANNELS", "n*") == told(b"news")
        assert await third.do("PUBSUB", "NUMSUB", "news", "x") == told(b"news", 2, b"x", 0)
        assert await third.do("PUBSUB", "channels") == told(b"news", b"olds")


@virtual_clock
async def test_a_slow_reader_loses_no_message_and_takes_no_memory() -> None:
    async with opened() as node:
        talk = Talk(node)
        await talk.do("SUBSCRIBE", "__keyevent@0__:set")
        talk.connection.room, talk.connection.full = 1000, True
        for number in range(500):
            Asked(node, operations.Set(f"k{number}", b"x" * 100))
            await asyncio.sleep(0)
        assert await settled(talk) == b""
        written = b""
        for _ in range(200):
            written += talk.make_room(1000)
            await asyncio.sleep(0)
        assert written.count(b"message") == 500


@virtual_clock
async def test_a_reader_without_progress_is_sent_away() -> None:
    async with opened() as node:
        talk = Talk(node)
        await talk.do("SUBSCRIBE", "__keyevent@0__:set")
        talk.connection.full = True
        Asked(node, operations.Set("a", b"x"))
        await asyncio.sleep(200)
        assert talk.connection.ended is not None
        assert talk.connection.ended.code == 3009


@virtual_clock
async def test_subscriptions_are_bounded_and_charged() -> None:
    async with opened() as node:
        talk = Talk(node)
        for number in range(RANGES_MAX):
            assert (await talk.do("SUBSCRIBE", f"__keyspace@0__:{number}")).endswith(b":%d\r\n" % (number + 1))
        assert (await talk.do("SUBSCRIBE", "__keyspace@0__:more")).startswith(b"-ERR too many subscriptions")
        assert (await talk.do("SUBSCRIBE", "x" * 9000)).startswith(b"-ERR the name is too long")
        assert (await talk.do("SUBSCRIBE", "other")).endswith(b":%d\r\n" % (RANGES_MAX + 1))
        assert talk.connection.charged > RANGES_MAX * 200
        await talk.do("UNSUBSCRIBE")
        await talk.do("PING")
        assert talk.connection.charged == 0


@virtual_clock
async def test_patterns_that_take_long_are_bounded() -> None:
    async with opened() as node:
        talk = Talk(node)
        long = "*" + "[a-z]" * (PATTERNS_SIZE_MAX // 6)
        assert (await talk.do("PSUBSCRIBE", long)).startswith(b"*3\r\n$10\r\npsubscribe")
        refused = await talk.do("PSUBSCRIBE", "*" + "a" * 100)
        assert refused.startswith(b"-ERR the patterns are too long together")
        assert (await talk.do("PSUBSCRIBE", "__keyspace@0__:" + "a" * 1000 + "*")).startswith(b"*3")


@pytest.mark.parametrize(
    ("channel", "about"),
    [
        (b"__keyspace@0__:a*", WatchedRange("a*", None)),
        (b"__keyspace@0__:", None),
        (b"__keyspace@0__:\xff", None),
        (b"__keyspace@1__:a", None),
        (b"__keyevent@0__:del", EVERYTHING),
        (b"news", None),
    ],
)
def test_a_channel_is_about_a_key_or_all_of_them(channel: bytes, about: WatchedRange | None) -> None:
    assert range_of_channel(channel) == about


@pytest.mark.parametrize(
    ("pattern", "about"),
    [
        (b"__keyspace@0__:app/*", WatchedRange(None, "app/")),
        (b"__keyspace@0__:app[12]x", WatchedRange(None, "app")),
        (b"__keyspace@0__:\\*x*", WatchedRange(None, "*x")),
        (b"__keyspace@*__:app/*", EVERYTHING),
        (b"__key*__:*", EVERYTHING),
        (b"__keyevent@0__:del*", EVERYTHING),
        (b"*", EVERYTHING),
        (b"news*", None),
        (b"__keyspace@0__:\xff*", None),
    ],
)
def test_a_pattern_is_about_the_keys_with_a_prefix(pattern: bytes, about: WatchedRange | None) -> None:
    assert range_of_pattern(pattern) == about


@virtual_clock
async def test_all_patterns_of_a_connection_are_bounded_together() -> None:
    async with opened() as node:
        talk = Talk(node)
        size = 4096
        names = [b"%0*d*" % (size - 1, number) for number in range(PREFIXES_SIZE_MAX // size + 1)]
        refused = b"-ERR the patterns are too long together: %d bytes at most\r\n" % PREFIXES_SIZE_MAX
        replies = await talk.say(command("PSUBSCRIBE", *names))
        assert replies.endswith(told(b"psubscribe", names[-2], len(names) - 1) + refused)
        await talk.do("PUNSUBSCRIBE", names[0])
        assert await talk.do("PSUBSCRIBE", names[-1]) == told(b"psubscribe", names[-1], len(names) - 1)
