"""The commands of a connection are done in their order, within bounds, and each gets its reply."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from haptera.dialects.resp.bounds import (
    COMMANDS_IN_FLIGHT_MAX,
    COMMANDS_PER_TURN_MAX,
    READS_TOGETHER_MAX,
    UNPARSED_SIZE_MAX,
)
from haptera.dialects.resp.reply_encoding import bulk
from haptera.dialects.resp.steps import Slow
from haptera.errors import failure
from haptera.node.commands import STRANGER, operations
from haptera.testing import virtual_clock
from tests.unit.dialects.resp.talks import Limited, Talk, command
from tests.unit.node.nodes import ManualWriter, opened, turn

if TYPE_CHECKING:
    from haptera.dialects.resp.steps import Command

OK = b"+OK\r\n"
NULL = b"$-1\r\n"


@virtual_clock
async def test_a_command_sees_the_ones_before_it() -> None:
    async with opened() as node:
        talk = Talk(node)
        pipeline = command("SET", "a", 1) + command("INCR", "a") + command("GET", "a") + command("DEL", "a")
        assert await talk.say(pipeline + command("GET", "a")) == OK + b":2\r\n" + bulk(b"2") + b":1\r\n" + NULL


@virtual_clock
async def test_a_read_waits_for_the_writes_before_it_and_those_behind_it_wait_too() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        talk = Talk(node)
        talk.send(command("SET", "a", 1) + command("SET", "b", 2) + command("GET", "a") + command("SET", "a", 3))
        await turn()
        assert talk.take() == b""
        assert len(talk.connection.caller.batches) == 1, "consecutive writes are one submission"
        await writer.write()
        assert talk.take() == OK + OK + bulk(b"1")
        await writer.write()
        assert talk.take() == OK


@virtual_clock
async def test_writes_that_come_while_others_are_with_the_disk_are_submitted_at_once() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        talk = Talk(node)
        for number in range(3):
            talk.send(command("SET", "a", number))
            await turn()
        assert len(talk.connection.caller.batches) == 3
        await writer.write_all()
        assert talk.take() == OK * 3


@virtual_clock
async def test_replies_keep_the_order_though_a_later_write_is_refused_at_once() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        talk = Talk(node)
        talk.send(command("SET", "a", 1))
        await turn()
        talk.send(command("SET", "", 1) + b"PUNG\r\n")
        await turn()
        assert talk.take() == b""
        await writer.write_all()
        said = talk.take()
        assert said.startswith(OK + b"-ERR invalid key\r\n-ERR unknown command 'PUNG'")


@virtual_clock
async def test_consecutive_reads_are_one_submission() -> None:
    async with opened() as node:
        talk = Talk(node)
        await turn()
        assert await talk.say(command("GET", "a") * READS_TOGETHER_MAX) == NULL * READS_TOGETHER_MAX
        assert [len(batch) for batch in talk.connection.caller.batches] == [READS_TOGETHER_MAX]


@virtual_clock
async def test_each_command_of_a_run_has_its_own_reply() -> None:
    async with opened() as node:
        talk = Talk(node, Limited(("a*", ["read", "write"])))
        await turn()
        pairs = [(b"a", 1), (b"", 1), (b"a\xff", 2), (b"b", 3), (b"ab", 4)]
        said = await talk.say(b"".join(command("SET", *pair) for pair in pairs))
        refused = b"-NOPERM No permissions to access a key\r\n"
        assert said == OK + b"-ERR invalid key\r\n" * 2 + refused + OK
        keys = [b"a", b"b", b"ac", b"", b"a\xff", b"ab"]
        replies = [await talk.do("GET", key) for key in keys]
        assert await talk.say(b"".join(command("GET", key) for key in keys)) == b"".join(replies)
        assert replies[::5] == [bulk(b"1"), bulk(b"4")]
        assert await talk.say(command("get", "a") * 2 + command("GET", "ab") * 3) == bulk(b"1") * 2 + bulk(b"4") * 3


@virtual_clock
async def test_a_run_of_reads_waits_for_the_writes_before_it() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        talk = Talk(node)
        await turn()
        for _ in range(2):  # in one read with the writes, and in the next one
            talk.send(command("SET", "a", 1) * 2 + command("GET", "a") * 2)
            talk.send(command("GET", "a") * 2 + command("SET", "a", 2) * 2)
            await turn()
            assert talk.take() == b""
            await writer.write_all()
            assert talk.take() == OK * 2 + bulk(b"1") * 4 + OK * 2


@virtual_clock
async def test_the_parts_that_see_each_command_see_those_of_a_run_too() -> None:
    async with opened() as node:
        talk = Talk(node)
        await turn()
        queued = await talk.say(command("MULTI") + command("SET", "a", 1) * 2 + command("GET", "a") * 2)
        assert queued == OK + b"+QUEUED\r\n" * 4
        assert await talk.do("EXEC") == b"*4\r\n" + OK * 2 + bulk(b"1") * 2
        other = Talk(node)
        await turn()
        assert await other.say(command("CLIENT", "REPLY", "SKIP") + command("GET", "a") * 3) == bulk(b"1") * 2
        assert await other.do("CLIENT", "REPLY", "SKIP") == b""
        assert await other.do("GET", "a") == b""
        await talk.do("HELLO", 3)
        await talk.do("CLIENT", "TRACKING", "ON")
        await talk.say(command("GET", "a") + command("GET", "b"))
        told = await Talk(node).do("SET", "b", 1), await talk.waited()
        assert told == (OK, b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nb\r\n")


@virtual_clock
async def test_a_run_counts_as_so_many_commands_of_a_turn() -> None:
    async with opened() as node:
        talk = Talk(node)
        await turn()
        talk.send(command("SET", "a", 1) * (COMMANDS_PER_TURN_MAX + 10))
        assert sum(map(len, talk.connection.caller.batches)) == COMMANDS_PER_TURN_MAX
        await turn()
        assert sum(map(len, talk.connection.caller.batches)) == COMMANDS_PER_TURN_MAX + 10


@virtual_clock
async def test_large_values_of_a_run_are_replied_one_after_the_other() -> None:
    async with opened() as node:
        talk = Talk(node)
        for size in (1024, 1025, 70_000):
            await talk.do("SET", "a", b"x" * size)
            assert await talk.say(command("GET", "a") * 3) == bulk(b"x" * size) * 3


@virtual_clock
async def test_a_connection_that_reads_nothing_has_its_commands_done_step_by_step() -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await talk.do("SET", "a", b"x" * 100_000) == OK
        talk.connection.room = 1
        talk.send(command("GET", "a") * 500)
        await turn()
        asked = sum(map(len, talk.connection.caller.batches))
        assert asked <= 1 + READS_TOGETHER_MAX
        replies = 0
        for _ in range(2000):
            assert len(talk.connection.written) < 2 * 100_100, "a reply is written, and the next when it was taken"
            replies += talk.make_room(1).count(b"x" * 100_000)
            await turn()
            assert sum(map(len, talk.connection.caller.batches)) <= asked + replies + READS_TOGETHER_MAX
            if replies == 500:
                break
        assert replies == 500


@virtual_clock
async def test_a_deep_pipeline_stops_the_reading_and_goes_on() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        talk, count = Talk(node), 0
        while talk.is_reading():
            talk.send(command("SET", "a", "x" * 64) * 100)
            count += 100
            await turn()
            assert count < 100_000
        in_flight = sum(map(len, talk.connection.caller.batches))
        assert in_flight <= COMMANDS_IN_FLIGHT_MAX + COMMANDS_PER_TURN_MAX
        assert UNPARSED_SIZE_MAX < talk.connection.charged < 2 * UNPARSED_SIZE_MAX
        for _ in range(100):
            await writer.write_all()
        assert talk.is_reading()
        assert talk.take() == OK * count
        assert talk.connection.charged == 0


@virtual_clock
async def test_one_turn_has_a_bounded_number_of_commands() -> None:
    async with opened() as node:
        talk = Talk(node)
        talk.send(command("GET", "a") * (COMMANDS_PER_TURN_MAX + 10))
        assert talk.take() == NULL * COMMANDS_PER_TURN_MAX
        await turn()
        assert talk.take() == NULL * 10


@virtual_clock
async def test_an_unfinished_command_is_expected_to_become_whole() -> None:
    async with opened() as node:
        talk = Talk(node)
        await talk.say(b"*2\r\n$3\r\nGET\r\n$10\r\nabc")
        assert talk.expected() == 9
        assert talk.connection.charged > 0
        assert await talk.say(b"defghij\r\n") == NULL
        assert talk.expected() is None
        assert talk.connection.charged == 0
        await talk.say(command("GET", "a") + b"*")
        assert talk.expected() is not None


@virtual_clock
async def test_an_unfinished_command_that_no_memory_is_left_for_ends_the_connection() -> None:
    async with opened() as node:
        talk = Talk(node)
        talk.connection.affordable = False
        assert (
            await talk.say(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$8000000\r\n")
            == b"-OOM too many unfinished requests are held\r\n"
        )
        assert talk.is_closed()


@virtual_clock
async def test_bytes_that_are_no_request_end_the_connection_behind_the_replies_before() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        talk = Talk(node)
        talk.send(command("SET", "a", 1) + b"*1\r\n$-5\r\n" + command("SET", "a", 2))
        await turn()
        assert not talk.is_closed()
        await writer.write_all()
        assert talk.take() == OK + b"-ERR Protocol error: invalid bulk length\r\n"
        assert talk.is_closed()
        talk.send(command("GET", "a"))
        assert talk.take() == b""


@pytest.mark.parametrize(
    "line", [b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a 1\r\n", b"Host: localhost:6379\r\nSET a 1\r\n"]
)
@virtual_clock
async def test_a_connection_of_a_browser_is_closed(line: bytes) -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await talk.say(line) == b""
        assert talk.is_closed()
        assert node.commands.revision == 0


@virtual_clock
async def test_a_side_that_has_not_logged_in_is_told_so_and_is_not_established() -> None:
    async with opened() as node:
        talk = Talk(node, STRANGER)
        assert await talk.do("GET", "a") == b"-NOAUTH Authentication required.\r\n"
        assert await talk.do("SET", "a", 1) == b"-NOAUTH Authentication required.\r\n"
        first = Talk(node, STRANGER)
        assert await first.say(command("GET", "a") * 2) == b"-NOAUTH Authentication required.\r\n" * 2
        assert (await talk.do("PUNG")).startswith(b"-ERR unknown command")
        assert not talk.is_established()
        assert await talk.say(b"*11\r\n") == b"-ERR Protocol error: unauthenticated multibulk length\r\n"
        assert talk.is_closed()


@virtual_clock
async def test_a_side_that_needs_no_login_is_established_before_it_says_anything() -> None:
    async with opened() as node:
        talk = Talk(node)
        await turn()
        assert talk.is_established()


@virtual_clock
async def test_a_slow_command_runs_between_the_ones_before_and_behind_it() -> None:
    async with opened() as node:
        talk, gate = Talk(node), asyncio.Event()

        async def run() -> bytes:
            [found] = await talk.session.ask(operations.Get("a"))
            assert isinstance(found, tuple)
            await gate.wait()
            return bulk(found[0] + b"!")

        def slow(row: Command, arguments: list[bytes]) -> Any:
            return Slow(run) if row.name == "strlen" else None

        talk.session.gates = (slow,)
        said = await talk.say(
            command("SET", "a", 1) + command("STRLEN", "a") + command("SET", "a", 2) + command("GET", "a")
        )
        assert said == OK
        gate.set()
        await turn()
        assert await talk.say(b"") == bulk(b"1!") + OK + bulk(b"2")


@virtual_clock
async def test_a_slow_command_that_fails_is_an_error_and_the_connection_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with opened() as node:
        talk = Talk(node)

        async def run() -> bytes:
            raise ValueError("a defect")

        talk.session.gates = (lambda row, arguments: Slow(run) if row.name == "strlen" else None,)  # type: ignore[assignment, return-value]
        said = await talk.say(command("STRLEN", "a") + command("GET", "a"))
        assert said == b"-ERR the command has failed within the server\r\n" + NULL
        assert "command_failed" in caplog.text


@virtual_clock
async def test_writes_of_a_lost_connection_are_taken_back() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        talk = Talk(node)
        talk.send(command("SET", "first", 1))
        await turn()
        talk.send(command("SET", "second", 2))
        await turn()
        talk.session.lost()
        await writer.write_all()
        other = Talk(node)
        assert await other.say(command("EXISTS", "first") + command("EXISTS", "second")) == b":1\r\n:0\r\n"


@virtual_clock
async def test_a_session_that_stops_answers_what_is_in_flight_and_closes() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        talk = Talk(node)
        talk.send(command("SET", "a", 1))
        await turn()
        talk.session.stop()
        talk.send(command("SET", "a", 2))
        assert not talk.is_closed()
        await writer.write_all()
        assert talk.take() == OK
        assert talk.is_closed()
        idle = Talk(node)
        idle.session.stop()
        assert idle.is_closed()


@virtual_clock
async def test_the_node_ends_a_connection_with_words_of_redis() -> None:
    async with opened() as node:
        session = Talk(node).session
        assert session.refusal(failure(1013)) == b"-ERR max number of clients reached\r\n"
        assert session.refusal(failure(2001)) == b"-NOAUTH Authentication required.\r\n"
        assert session.refusal(failure(5005)).startswith(b"-LOADING ")


@virtual_clock
async def test_a_message_stands_between_replies_in_the_version_of_the_connection() -> None:
    async with opened() as node:
        talk = Talk(node)
        talk.session.push([bulk(b"message"), bulk(b"x")])
        assert talk.take() == b"*2\r\n$7\r\nmessage\r\n$1\r\nx\r\n"
        talk.session.set_protocol(3)
        talk.session.push([bulk(b"message"), bulk(b"x")])
        assert talk.take() == b">2\r\n$7\r\nmessage\r\n$1\r\nx\r\n"
        assert await talk.do("GET", "a") == b"_\r\n"


@virtual_clock
async def test_empty_lines_count_as_commands_of_a_turn() -> None:
    async with opened() as node:
        talk = Talk(node)
        talk.send(b"\n" * (COMMANDS_PER_TURN_MAX * 2) + command("PING"))
        assert talk.take() == b""
        assert await talk.waited() == b"+PONG\r\n"
