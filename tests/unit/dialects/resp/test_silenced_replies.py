"""CLIENT REPLY: which replies are left out, and what leaves all the same."""

from __future__ import annotations

from haptera.testing import virtual_clock
from tests.unit.dialects.resp.talks import Talk, command
from tests.unit.node.nodes import opened, turn

PONG = b"+PONG\r\n"
OK = b"+OK\r\n"
PING = command("PING")
ON, OFF, SKIP = (command("CLIENT", "REPLY", word) for word in ("ON", "OFF", "SKIP"))


async def said(talk: Talk, *commands: bytes) -> bytes:
    """What comes of some commands that are sent in one piece."""
    written = await talk.say(b"".join(commands))
    for _ in range(10):
        await turn()
    return written + talk.take()


@virtual_clock
async def test_the_replies_of_all_commands_are_left_out_and_the_commands_done() -> None:
    async with opened() as node:
        talk = Talk(node)
        commands = (
            command("SET", "a", "1"),
            command("GET", "a"),
            command("MGET", "a", "b"),
            command("SET", "a", "2", "IFEQ", "1"),
            command("KEYS", "*"),
            command("NONE"),
            command("GET"),
            PING,
        )
        assert await said(talk, PING, OFF, *commands) == PONG
        assert await said(talk, command("GET", "a"), command("CLIENT", "REPLY", "SKIP")) == b""
        assert await said(talk, command("MULTI"), command("INCR", "a"), command("EXEC")) == b""
        assert await said(talk, ON, command("GET", "a")) == OK + b"$1\r\n3\r\n"


@virtual_clock
async def test_the_reply_of_one_command_is_left_out() -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await said(talk, SKIP, command("SET", "a", "1"), command("GET", "a"), PING) == b"$1\r\n1\r\n" + PONG
        assert await said(talk, SKIP) == b""
        assert await said(talk, command("GET", "a")) == b""
        assert await said(talk, command("GET", "a")) == b"$1\r\n1\r\n"
        assert await said(talk, SKIP, ON, PING) == OK + PONG
        assert await said(talk, SKIP, SKIP, PING, PING) == PONG
        assert (await said(talk, command("CLIENT", "REPLY", "MAYBE"))).startswith(b"-ERR syntax error")


@virtual_clock
async def test_messages_leave_all_the_same() -> None:
    async with opened() as node:
        talk, other = Talk(node), Talk(node)
        talk.session.set_protocol(3)
        assert await said(talk, OFF, command("CLIENT", "TRACKING", "ON"), command("GET", "a")) == b""
        subscribed = b">3\r\n$9\r\nsubscribe\r\n$3\r\nany\r\n:1\r\n"
        assert await said(talk, command("SUBSCRIBE", "any")) == subscribed
        await other.do("SET", "a", "1")
        assert await said(talk) == b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n"


@virtual_clock
async def test_reset_has_replies_come_again() -> None:
    async with opened() as node:
        talk = Talk(node)
        talk.connection.caller.come_in = lambda signed: None  # type: ignore[attr-defined]
        assert await said(talk, OFF, PING, command("RESET"), PING) == b"+RESET\r\n" + PONG
