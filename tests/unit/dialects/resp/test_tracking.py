"""Client-side caching: a connection is told of the changes of keys that it has read, or that have a prefix."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from haptera.dialects.resp import tracked_keys
from haptera.dialects.resp.resp_state import RespState
from haptera.node.commands import operations
from haptera.state import Permits
from haptera.testing import virtual_clock
from tests.unit.dialects.resp.talks import Limited, Talk, command
from tests.unit.node.nodes import Asked, ManualWriter, opened

if TYPE_CHECKING:
    from haptera.node.node import Node

OK = b"+OK\r\n"
NIL = b"_\r\n"
FLUSH = b">2\r\n$10\r\ninvalidate\r\n_\r\n"


def told(*keys: bytes) -> bytes:
    names = b"".join(b"$%d\r\n%b\r\n" % (len(key), key) for key in keys)
    return b">2\r\n$10\r\ninvalidate\r\n*%d\r\n%b" % (len(keys), names)


async def tracking(node: Node, *options: str | int, state: RespState | None = None) -> Talk:
    talk = Talk(node, state=state)
    talk.session.set_protocol(3)
    assert await talk.do("CLIENT", "TRACKING", "ON", *options) == OK
    return talk


async def settled(talk: Talk) -> bytes:
    for _ in range(20):
        await asyncio.sleep(0)
    return talk.take()


async def change(node: Node, *keys: str) -> None:
    for key in keys:
        Asked(node, operations.Set(key, b"new"))
    await asyncio.sleep(0)


@virtual_clock
async def test_the_next_change_of_a_key_that_was_read_is_told_once() -> None:
    async with opened() as node:
        talk = await tracking(node)
        assert await talk.do("GET", "a") == NIL
        await change(node, "a", "b")
        assert await settled(talk) == told(b"a")
        await change(node, "a")
        assert await settled(talk) == b""
        await talk.do("MGET", "a", "b")
        Asked(node, operations.Delete("a"))
        Asked(node, operations.Expire("b", 1000))
        assert await settled(talk) == told(b"a", b"b")


@virtual_clock
async def test_a_change_between_a_read_and_its_reply_is_told_behind_the_reply() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        talk, other = await tracking(node), Talk(node)
        other.send(command("SET", "x", "1"))
        await settled(other)
        talk.send(command("MULTI") + command("GET", "a") + command("SET", "b", "1") + command("EXEC"))
        await settled(talk)
        other.send(command("SET", "a", "new"))  # with the disk together with the transaction, and behind it
        await writer.write_all()
        assert await settled(talk) == b"*2\r\n" + NIL + OK + told(b"a")


@virtual_clock
async def test_a_key_is_tracked_from_the_moment_of_its_read_in_a_pipeline() -> None:
    async with opened() as node:
        talk, other = await tracking(node), Talk(node)
        talk.send(command("SET", "a", "1") + command("GET", "a"))
        written = await settled(talk)
        await other.do("SET", "a", "2")
        written += await settled(talk)
        assert written.startswith(OK + b"$1\r\n1\r\n" + told(b"a"))


@virtual_clock
async def test_reads_of_a_transaction_are_tracked() -> None:
    async with opened() as node:
        talk = await tracking(node)
        written = await talk.say(command("MULTI") + command("GET", "a") + command("INCR", "n") + command("EXEC"))
        written += await settled(talk)
        assert written.endswith(b"*2\r\n_\r\n:1\r\n")
        await change(node, "a", "n")
        assert await settled(talk) == told(b"a")


@virtual_clock
async def test_own_changes_are_told_unless_the_client_asks_otherwise() -> None:
    async with opened() as node:
        talk = await tracking(node)
        await talk.do("GET", "a")
        assert await talk.do("SET", "a", "1") + await settled(talk) == OK + told(b"a")
        quiet = await tracking(node, "NOLOOP")
        for own in (("SET", "a", "2"), ("DEL", "a"), ("MSET", "a", "1", "b", "2"), ("INCR", "a"), ("PERSIST", "a")):
            await quiet.do("GET", "a")
            assert told(b"a") not in await quiet.do(*own) + await settled(quiet), own
        await quiet.say(command("MULTI") + command("SET", "a", "7") + command("EXEC"))
        assert told(b"a") not in await settled(quiet)
        await change(node, "a")
        assert await settled(quiet) == told(b"a")


@virtual_clock
async def test_broadcasts_tell_each_change_of_a_prefix() -> None:
    async with opened() as node:
        talk = await tracking(node, "BCAST", "PREFIX", "app/", "PREFIX", "sys/")
        await change(node, "app/x", "b", "sys/y")
        written = await settled(talk)
        assert told(b"app/x") in written
        assert told(b"sys/y") in written
        assert b"\r\nb\r\n" not in written
        await change(node, "app/x")
        assert await settled(talk) == told(b"app/x")
        every = await tracking(node, "BCAST")
        await change(node, "z")
        assert await settled(every) == told(b"z")


@virtual_clock
async def test_opt_in_tracks_what_is_asked_for() -> None:
    async with opened() as node:
        talk = await tracking(node, "OPTIN")
        await talk.do("GET", "a")
        assert await talk.do("CLIENT", "CACHING", "YES") == OK
        await talk.say(command("GET", "b") + command("GET", "c"))
        await change(node, "a", "b", "c")
        assert await settled(talk) == told(b"b")
        await talk.say(
            command("CLIENT", "CACHING", "YES") + command("MULTI") + command("GET", "a") + command("GET", "b")
        )
        await talk.say(command("EXEC"))
        await talk.do("GET", "c")
        await change(node, "a", "b", "c")
        assert await settled(talk) == told(b"a", b"b")


@virtual_clock
async def test_opt_out_tracks_all_but_what_is_excepted() -> None:
    async with opened() as node:
        talk = await tracking(node, "OPTOUT")
        await talk.say(
            command("GET", "a") + command("CLIENT", "CACHING", "NO") + command("GET", "b") + command("GET", "c")
        )
        await change(node, "a", "b", "c")
        assert await settled(talk) == told(b"a", b"c")


@virtual_clock
async def test_version_2_has_another_connection_told() -> None:
    async with opened() as node:
        state = RespState()
        listener, talk = Talk(node, state=state), Talk(node, state=state)
        number = listener.connection.caller.number
        await listener.do("SUBSCRIBE", "__redis__:invalidate")
        assert await talk.do("CLIENT", "TRACKING", "ON", "REDIRECT", number) == OK
        assert await talk.do("CLIENT", "GETREDIR") == b":%d\r\n" % number
        await talk.do("GET", "a")
        await change(node, "a")
        assert await settled(listener) == b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n$1\r\na\r\n"
        assert await settled(talk) == b""
        talk.session.set_protocol(3)
        listener.session.lost()
        await talk.do("GET", "a")
        await change(node, "a")
        assert await settled(talk) == b">2\r\n$21\r\ntracking-redir-broken\r\n:%d\r\n" % number
        assert b"broken_redirect" in await talk.do("CLIENT", "TRACKINGINFO")


@virtual_clock
async def test_a_connection_that_becomes_another_user_is_told_no_longer() -> None:
    async with opened() as node:
        state = RespState()
        listener, talk = Talk(node, state=state), Talk(node, state=state)
        number = listener.connection.caller.number
        assert await talk.do("CLIENT", "TRACKING", "ON", "REDIRECT", number) == OK
        listener.connection.caller.become(Limited(("read", ["other/*"])))
        await listener.do("SUBSCRIBE", "__redis__:invalidate")
        await talk.do("GET", "a")
        await change(node, "a")
        assert await settled(listener) == b""
        assert b"broken_redirect" in await talk.do("CLIENT", "TRACKINGINFO")


@virtual_clock
async def test_a_connection_that_has_said_quit_is_told_nothing_more() -> None:
    async with opened() as node:
        state = RespState()
        listener = Talk(node, state=state)
        number = listener.connection.caller.number
        talk = await tracking(node, "REDIRECT", number, state=state)
        await talk.do("GET", "a")
        await listener.do("QUIT")  # and it keeps its socket open
        await change(node, "a")
        assert await settled(talk) == b">2\r\n$21\r\ntracking-redir-broken\r\n:%d\r\n" % number
        assert b"broken_redirect" in await talk.do("CLIENT", "TRACKINGINFO")
        words = b"-ERR The client ID you want redirect to does not exist\r\n"
        assert await talk.do("CLIENT", "TRACKING", "ON", "REDIRECT", number) == words


@virtual_clock
async def test_a_connection_of_another_user_is_not_told() -> None:
    async with opened() as node:
        state = RespState()
        other, talk = Talk(node, Limited(("*", ("read",))), state=state), Talk(node, state=state)
        number = other.connection.caller.number
        words = b"-ERR The client ID you want redirect to does not exist\r\n"
        assert await talk.do("CLIENT", "TRACKING", "ON", "REDIRECT", number) == words


@virtual_clock
async def test_a_listener_without_room_is_told_to_keep_nothing_once_it_has() -> None:
    async with opened() as node:
        state = RespState()
        listener = Talk(node, state=state)
        listener.session.set_protocol(3)
        talk = await tracking(node, "REDIRECT", listener.connection.caller.number, state=state)
        await talk.do("MGET", "a", "b")
        listener.connection.full = True
        await change(node, "a")
        await settled(talk)
        await change(node, "b")
        await settled(talk)
        assert listener.take() == b""
        listener.make_room(None)
        assert listener.take() == FLUSH


@virtual_clock
async def test_a_user_is_told_of_keys_that_it_may_watch() -> None:
    async with opened() as node:
        rights = ("read", "watch")
        limited = Limited(("app/*", rights), ("one", rights), ("seen", ("read",)), ("x*y", rights))
        talk = Talk(node, limited)
        talk.session.set_protocol(3)
        assert await talk.do("CLIENT", "TRACKING", "ON") == OK
        await talk.do("MGET", "app/1", "app/2", "one", "xay")
        assert len(node.watches) == 3
        await change(node, "app/1", "app/2", "one", "xay")
        written = await settled(talk)
        assert all(b"\r\n%b\r\n" % key in written for key in (b"app/1", b"app/2", b"one", b"xay"))
        assert await talk.do("GET", "seen") == NIL + told(b"seen"), "it may be kept by no one"
        assert (await talk.do("CLIENT", "TRACKING", "OFF")) == OK
        assert (await talk.do("CLIENT", "TRACKING", "ON", "BCAST")).startswith(b"-NOPERM")
        assert await talk.do("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "app/") == OK


@virtual_clock
async def test_another_user_of_a_connection_is_told_by_its_own_grants() -> None:
    async with opened() as node:
        talk = await tracking(node)
        await talk.do("GET", "app/x")
        talk.connection.caller.become(Limited(("app/*", ("read", "watch"))))
        assert await settled(talk) == FLUSH
        await talk.do("MGET", "app/x")
        await change(node, "app/x")
        assert await settled(talk) == told(b"app/x")
        every = await tracking(node, "BCAST")
        every.connection.caller.become(Limited(("app/*", ("read", "watch"))))
        assert await settled(every) == FLUSH
        assert every.connection.ended is not None
        assert every.connection.ended.code == 2004


@virtual_clock
async def test_a_watch_that_ends_by_itself_has_the_client_keep_nothing() -> None:
    async with opened() as node:
        limited = Limited(("app/*", ("read", "watch")))
        talk = Talk(node, limited)
        talk.session.set_protocol(3)
        await talk.do("CLIENT", "TRACKING", "ON")
        await talk.do("GET", "app/1")
        limited.given = Permits([("app/*", ("read",))])
        for watch in list(node.watches._open):
            node.watches._judge(watch)
        assert await settled(talk) == FLUSH
        assert len(node.watches) == 0
        assert await talk.do("GET", "app/1") == NIL + told(b"app/1")


@virtual_clock
async def test_the_oldest_of_too_many_keys_is_told_as_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracked_keys, "KEYS_MAX", 3)
    async with opened() as node:
        talk = await tracking(node)
        await talk.do("MGET", "a", "b", "c")
        assert await talk.do("GET", "a") == NIL
        assert await talk.do("GET", "d") + await settled(talk) == NIL + told(b"b")
        await change(node, "a", "b", "c", "d")
        assert await settled(talk) == told(b"a", b"c", b"d")


@virtual_clock
async def test_tracking_ends_with_off_and_with_the_connection() -> None:
    async with opened() as node:
        talk = await tracking(node)
        await talk.do("GET", "a" * 1000)
        assert talk.connection.charged > 1000
        assert await talk.do("CLIENT", "TRACKING", "OFF") == OK
        assert talk.connection.charged == 0
        assert len(node.watches) == 0
        await change(node, "a")
        assert await settled(talk) == b""
        assert await talk.do("CLIENT", "GETREDIR") == b":-1\r\n"
        await talk.do("CLIENT", "TRACKING", "ON")
        await talk.do("GET", "a")
        talk.session.lost()
        assert len(node.watches) == 0


@virtual_clock
async def test_parts_that_come_and_go_leave_nothing_behind() -> None:
    async with opened() as node:
        talk = await tracking(node)
        await talk.do("CLIENT", "TRACKING", "OFF")
        session = talk.session

        def hooks() -> list[int]:
            parts = (session.gates, session.wraps, session.on_fault, session.on_change, session.on_other_user)
            return [*map(len, parts), len(session.at_room), len(session.at_end), len(talk.connection.caller.on_leave)]

        before = hooks()
        for _ in range(5):
            await talk.say(command("CLIENT", "TRACKING", "ON") + command("CLIENT", "TRACKING", "OFF"))
            await talk.say(command("SUBSCRIBE", "__keyevent@0__:set") + command("MULTI"))
            session.leave()
        assert hooks() == before


@virtual_clock
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("MAYBE",), b"-ERR syntax error"),
        (("ON", "REDIRECT"), b"-ERR syntax error"),
        (("ON", "REDIRECT", "x"), b"-ERR value is not an integer or out of range"),
        (("ON", "REDIRECT", "999999"), b"-ERR The client ID you want redirect to does not exist"),
        (("ON", "PREFIX", "a"), b"-ERR PREFIX option requires BCAST mode to be enabled"),
        (("ON", "BCAST", "OPTIN"), b"-ERR OPTIN and OPTOUT are not compatible with BCAST"),
        (("ON", "OPTIN", "OPTOUT"), b"-ERR You can't specify both OPTIN mode and OPTOUT mode"),
        (
            ("ON", "BCAST", "PREFIX", "ab", "PREFIX", "a"),
            b"-ERR Prefix 'ab' overlaps with another provided prefix 'a'. Prefixes",
        ),
        (("ON", "BCAST", "PREFIX", b"\xff"), b"-ERR invalid key"),
    ],
)
async def test_wrong_options_have_the_words_of_redis(options: tuple[str | bytes, ...], words: bytes) -> None:
    async with opened() as node:
        talk = Talk(node)
        assert (await talk.do("CLIENT", "TRACKING", *options)).startswith(words)
        assert await talk.do("CLIENT", "GETREDIR") == b":-1\r\n"


@virtual_clock
async def test_modes_are_not_switched_while_tracking_is_on() -> None:
    async with opened() as node:
        talk = await tracking(node, "OPTIN")
        switched = b"before disabling tracking for this client, and then re-enabling it with a different mode.\r\n"
        assert (await talk.do("CLIENT", "TRACKING", "ON", "BCAST")).endswith(b"BCAST mode on/off " + switched)
        assert (await talk.do("CLIENT", "TRACKING", "ON", "OPTOUT")).endswith(b"OPTIN/OPTOUT mode " + switched)
        assert (await talk.do("CLIENT", "CACHING", "NO")).startswith(b"-ERR CLIENT CACHING NO is only valid")
        assert await talk.do("CLIENT", "CACHING", "YES") == OK
        assert b"caching-yes" in await talk.do("CLIENT", "TRACKINGINFO")
        assert (await Talk(node).do("CLIENT", "CACHING", "YES")).startswith(b"-ERR CLIENT CACHING can be called only")
