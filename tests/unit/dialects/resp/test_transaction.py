"""Transactions: the queue, the watched keys, and the replies of commands that run with nothing between them."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from msgspec import structs

from haptera.dialects.resp.bounds import REPLY_SIZE_MAX
from haptera.dialects.resp.resp_state import RespState
from haptera.key_rules import VALUE_SIZE_MAX
from haptera.node.commands import operations
from haptera.state import Permits
from haptera.state.event_history import BLOCK_EVENTS
from haptera.testing import virtual_clock
from tests.unit.dialects.resp.talks import Clock, Limited, Talk, at_a_time, command
from tests.unit.node.nodes import CONFIG, ManualWriter, opened, turn

NIL = b"$-1\r\n"
QUEUED = b"+QUEUED\r\n"


async def transact(talk: Talk, *commands: tuple[bytes | str | int, ...]) -> bytes:
    """The reply to EXEC behind some commands, which are sent in one piece with it."""
    lines = [command("MULTI"), *(command(*each) for each in commands), command("EXEC")]
    begun = b"+OK\r\n" + QUEUED * len(commands)
    written = await talk.say(b"".join(lines))
    while written == begun:
        written += await talk.waited()
    assert written.startswith(begun)
    return written.removeprefix(begun)


@virtual_clock
async def test_the_commands_of_a_transaction_see_each_other() -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await transact(talk, ("SET", "a", "1"), ("INCR", "a"), ("GET", "a"), ("DEL", "a"), ("GET", "a")) == (
            b"*5\r\n+OK\r\n:2\r\n$1\r\n2\r\n:1\r\n" + NIL
        )
        assert await transact(talk) == b"*0\r\n"
        assert await transact(talk, ("MSET", "a", "1", "b", "2"), ("MGET", "a", "b", "c")) == (
            b"*2\r\n+OK\r\n*3\r\n$1\r\n1\r\n$1\r\n2\r\n" + NIL
        )


@virtual_clock
async def test_a_command_that_fails_undoes_none_of_the_others() -> None:
    async with opened() as node:
        talk = Talk(node)
        await talk.do("SET", "text", "x")
        replies = await transact(
            talk, ("SET", "a", "1"), ("INCR", "text"), ("SET", "text", "y", "NX"), ("SET", "a", "2", "XX"), ("GET", "a")
        )
        assert replies == (
            b"*5\r\n+OK\r\n-ERR value is not an integer or out of range\r\n" + NIL + b"+OK\r\n$1\r\n2\r\n"
        )
        assert await talk.do("GET", "text") == b"$1\r\nx\r\n"


@virtual_clock
async def test_a_transaction_is_one_change_of_the_store() -> None:
    async with opened() as node:
        talk = Talk(node)
        before = node.revision
        await transact(talk, ("SET", "a", "1"), ("INCR", "a"), ("SET", "b", "x"))
        assert node.revision == before + 1
        await transact(talk, ("INCR", "b"), ("SET", "a", "5"), ("INCR", "c"))
        assert node.revision == before + 2
        await transact(talk, ("GET", "b"), ("GET", "a"))
        assert node.revision == before + 2


@virtual_clock
async def test_the_commands_of_connections_wait_until_the_changes_are_made() -> None:
    async with opened() as node:
        talk, other = Talk(node), Talk(node)
        await talk.do("CLIENT", "SETNAME", "before")
        named = (("CLIENT", "SETNAME", "after"), ("SET", "b", "1"), ("CLIENT", "GETNAME"))
        await talk.do("WATCH", "a")
        await other.do("SET", "a", "1")
        assert await transact(talk, *named) == b"*-1\r\n"
        assert await talk.do("CLIENT", "GETNAME") == b"$6\r\nbefore\r\n"
        assert await transact(talk, *named) == b"*3\r\n+OK\r\n+OK\r\n$5\r\nafter\r\n"
        assert await transact(talk, ("CLIENT", "SETNAME", "a b"), ("CLIENT", "ID")) == (
            b"*2\r\n-ERR Client names cannot contain spaces, newlines or special characters.\r\n:%d\r\n"
            % talk.connection.caller.number
        )


@virtual_clock
async def test_exec_makes_nothing_once_a_watched_key_has_changed() -> None:
    async with opened() as node:
        talk, other = Talk(node), Talk(node)
        await talk.do("SET", "a", "1")
        for change in (("SET", "a", "1"), ("DEL", "a"), ("SET", "a", "3"), ("INCR", "a"), ("DEL", "a")):
            assert await talk.do("WATCH", "a", "never") == b"+OK\r\n"
            assert await talk.do("WATCH", "a") == b"+OK\r\n", "it is watched already"
            await other.do(*change)
            assert await transact(talk, ("SET", "b", "made")) == b"*-1\r\n"
            assert await transact(talk, ("GET", "b")) == b"*1\r\n" + NIL, "EXEC forgets the watched keys"
        assert await talk.do("WATCH", "a") == b"+OK\r\n"
        await other.do("SET", "a", "created")
        assert await transact(talk, ("GET", "b")) == b"*-1\r\n", "reads depend on it too"


@pytest.mark.parametrize(
    "queued", [(("SET", "b", "1"),), (("GET", "a"),), (("SET", "b", "1", "NX"), ("APPEND", "b", "x"))]
)
@virtual_clock
async def test_exec_makes_nothing_once_a_missing_key_has_come_and_gone(queued: tuple[tuple[str, ...], ...]) -> None:
    async with opened() as node:
        talk, other = Talk(node), Talk(node)
        await other.do("SET", "z", "1")
        for changes in (
            [("SET", "a", "1"), ("DEL", "a")],
            [("RENAME", "z", "a"), ("RENAME", "a", "z")],
            [("SET", "a", "1"), ("FLUSHALL",)],
        ):
            await talk.do("WATCH", "a", "z", "never")
            for change in changes:
                await other.do(*change)
            assert await transact(talk, *queued) == b"*-1\r\n"
            await talk.do("WATCH", "a", "never")
            assert (await transact(talk, ("SET", "c", "1"))) == b"*1\r\n+OK\r\n", "the changes were before the WATCH"


@virtual_clock
async def test_a_key_is_missing_from_its_own_watch_on() -> None:
    async with opened() as node:
        talk, other = Talk(node), Talk(node)
        await talk.do("WATCH", "first")
        await other.do("SET", "second", "1")
        await other.do("DEL", "second")
        await talk.do("WATCH", "second")
        assert await transact(talk, ("SET", "b", "1")) == b"*1\r\n+OK\r\n"


@virtual_clock
async def test_the_end_of_a_key_that_was_over_when_it_was_watched_is_no_change() -> None:
    clock = Clock()
    async with at_a_time(clock) as node:
        talk, other = Talk(node), Talk(node)
        await other.do("SET", "a", "1", "PX", "5")
        clock.now_ms += 5
        await talk.do("WATCH", "a")
        await asyncio.sleep(5)
        assert node.revision == 2, "the removal is a change of the store"
        assert await transact(talk, ("SET", "b", "1")) == b"*1\r\n+OK\r\n"


@virtual_clock
async def test_a_key_that_comes_with_a_time_to_live_and_expires_has_changed() -> None:
    clock = Clock()
    async with at_a_time(clock) as node:
        talk, other = Talk(node), Talk(node)
        await talk.do("WATCH", "a")
        await other.do("SET", "a", "1", "PX", "5")
        clock.now_ms += 5
        await asyncio.sleep(5)
        assert node.revision == 2
        assert await transact(talk, ("SET", "b", "1")) == b"*-1\r\n"


@virtual_clock
async def test_exec_makes_nothing_where_the_history_does_not_reach_back() -> None:
    async with opened(config=structs.replace(CONFIG, history_events=1, history_bytes=1)) as node:
        talk, other = Talk(node), Talk(node)
        await talk.do("WATCH", "never")
        for _ in range(3):
            await other.do("MSET", *(word for number in range(BLOCK_EVENTS) for word in (f"k{number}", "1")))
        assert await transact(talk, ("SET", "b", "1")) == b"*-1\r\n"


@virtual_clock
async def test_a_user_that_may_not_read_a_watched_key_any_more_is_not_told_that_it_came() -> None:
    async with opened() as node:
        limited = Limited(("*", ("read", "write", "delete")))
        talk, other = Talk(node, limited), Talk(node)
        await talk.do("WATCH", "a")
        await other.do("SET", "a", "1")
        await other.do("DEL", "a")
        limited.given = Permits((("b", ("write",)),))
        assert (await transact(talk, ("SET", "b", "1"))).startswith(
            b"-EXECABORT Transaction discarded because of: NOPERM"
        )


@pytest.mark.parametrize(
    ("change", "reply"),
    [
        (("GETEX", "a", "PERSIST"), b"$1\r\n1\r\n"),
        (("RENAME", "a", "a"), b"+OK\r\n"),
        (("RENAMENX", "a", "a"), b":0\r\n"),
        (("SET", "a", "2", "NX"), NIL),
        (("PERSIST", "a"), b":0\r\n"),
        (("SETRANGE", "a", "5", ""), b":1\r\n"),
    ],
)
@virtual_clock
async def test_a_command_that_leaves_a_watched_key_as_it_is_lets_exec_run(
    change: tuple[str, ...], reply: bytes
) -> None:
    async with opened() as node:
        talk, other = Talk(node), Talk(node)
        await talk.do("SET", "a", "1")
        await talk.do("WATCH", "a")
        assert (await other.do(*change) or await other.waited()) == reply
        assert await transact(talk, ("GET", "a")) == b"*1\r\n$1\r\n1\r\n"
        assert await talk.do("RENAME", "none", "none") == b"-ERR no such key\r\n"


@virtual_clock
async def test_a_connection_s_own_change_of_a_watched_key_counts_too() -> None:
    async with opened() as node:
        talk = Talk(node)
        await talk.say(command("WATCH", "a") + command("SET", "a", "1"))
        assert await transact(talk, ("SET", "b", "made")) == b"*-1\r\n"


@virtual_clock
async def test_unwatch_and_discard_forget_the_watched_keys() -> None:
    async with opened() as node:
        talk = Talk(node)
        for forget in (command("UNWATCH"), command("MULTI") + command("DISCARD")):
            await talk.say(command("WATCH", "a") + command("SET", "a", "1") + forget)
            assert await transact(talk, ("INCR", "a")) == b"*1\r\n:2\r\n"


@virtual_clock
async def test_watch_sees_the_commands_before_it() -> None:
    async with opened() as node:
        talk = Talk(node)
        sent = command("SET", "a", "1") + command("WATCH", "a") + command("MULTI") + command("INCR", "a")
        written = await talk.say(sent + command("EXEC") + command("GET", "a"))
        while not written.endswith(b"$1\r\n2\r\n"):
            written += await talk.waited()
        assert written == b"+OK\r\n" * 3 + QUEUED + b"*1\r\n:2\r\n$1\r\n2\r\n"


@virtual_clock
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("NOSUCH", "a"), b"-ERR unknown command 'NOSUCH', with args beginning with: 'a' \r\n"),
        (("GET",), b"-ERR wrong number of arguments for 'get' command\r\n"),
    ],
)
async def test_a_command_that_cannot_be_queued_spoils_the_transaction(wrong: tuple[str, ...], words: bytes) -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await talk.say(command("MULTI") + command("SET", "a", "1")) == b"+OK\r\n" + QUEUED
        assert await talk.do(*wrong) == words
        assert await talk.do("SET", "b", "1") == QUEUED
        assert await talk.do("EXEC") == b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        assert await talk.do("MGET", "a", "b") == b"*2\r\n" + NIL * 2
        assert await transact(talk, ("SET", "a", "1")) == b"*1\r\n+OK\r\n"


@virtual_clock
async def test_the_words_of_commands_out_of_their_place_are_those_of_redis() -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await talk.do("EXEC") == b"-ERR EXEC without MULTI\r\n"
        assert await talk.do("DISCARD") == b"-ERR DISCARD without MULTI\r\n"
        await talk.do("MULTI")
        assert await talk.do("MULTI") == b"-ERR MULTI calls can not be nested\r\n"
        assert await talk.do("WATCH", "a") == b"-ERR WATCH inside MULTI is not allowed\r\n"
        assert await talk.do("GET", "a") == QUEUED
        assert await talk.do("EXEC") == b"*1\r\n" + NIL


@virtual_clock
async def test_many_transactions_on_one_key_are_each_made_once() -> None:
    async with opened() as node:
        state = RespState()
        talks = [Talk(node, state=state) for _ in range(20)]
        await talks[0].do("SET", "text", "x")
        # INCR of a text fails, so each transaction is judged by what it reads.
        for talk in talks:
            talk.send(command("MULTI") + command("INCR", "n") + command("INCR", "text") + command("EXEC"))
        replies = [b"" for _ in talks]
        while not all(reply.count(b"integer") for reply in replies):
            await asyncio.sleep(0)
            replies = [before + talk.take() for before, talk in zip(replies, talks, strict=True)]
        counted = sorted(int(reply.partition(b"*2\r\n:")[2].partition(b"\r")[0]) for reply in replies)
        assert counted == list(range(1, 21))
        assert len(state.lines) == 0
        tried = [op for talk in talks for batch in talk.connection.caller.batches for op in batch]
        transacts = [op for op in tried if isinstance(op, operations.Transact)]
        assert len(transacts) <= 3 * len(talks), "each is made in its turn"


@virtual_clock
async def test_a_transaction_is_judged_again_where_an_entry_has_changed_meanwhile() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        talk, other = Talk(node), Talk(node)
        other.send(command("SET", "text", "x") + command("SET", "n", "1"))
        await writer.write_all()
        other.send(command("SET", "x", "1"))
        talk.send(command("MULTI") + command("INCR", "n") + command("INCR", "text") + command("EXEC"))
        await turn()
        await writer.write()  # the transaction is with the disk: it will fail, because a text is no number
        other.send(command("SET", "n", "100"))
        await turn()
        await writer.write()  # it is judged by an n of 1, while 100 is with the disk
        await writer.write_all()
        assert talk.take().endswith(b"*2\r\n:101\r\n-ERR value is not an integer or out of range\r\n")
        assert await talk.do("GET", "n") == b"$3\r\n101\r\n"


@virtual_clock
async def test_plain_sets_of_any_number_are_one_change() -> None:
    async with opened() as node:
        talk = Talk(node)
        before = node.revision
        sets = [("SETEX", f"k{number}", 100, number) for number in range(1000)]
        assert await transact(talk, *sets) == b"*1000\r\n" + b"+OK\r\n" * 1000
        assert node.revision == before + 1
        assert await talk.do("GET", "k999") == b"$3\r\n999\r\n"


@virtual_clock
async def test_a_long_mset_is_part_of_a_transaction_like_any_other() -> None:
    async with opened() as node:
        talk = Talk(node)
        pairs = [part for number in range(2000) for part in (f"k{number}", number)]
        assert await transact(talk, ("MSET", *pairs), ("SET", "k1", "x")) == b"*2\r\n+OK\r\n+OK\r\n"
        assert await talk.do("MGET", "k0", "k1", "k1999") == b"*3\r\n$1\r\n0\r\n$1\r\nx\r\n$4\r\n1999\r\n"
        keys = [f"k{number}" for number in range(1000)]
        assert (await transact(talk, ("MGET", *keys))).count(b"$") == 1000
        refused = await transact(talk, ("MGET", *keys), ("MGET", *keys))
        assert refused.startswith(b"-EXECABORT Transaction discarded because of: ERR the change has too many parts")


@virtual_clock
async def test_many_commands_on_few_keys_are_one_change() -> None:
    async with opened() as node:
        talk = Talk(node)
        await talk.do("SET", "b", "x", "EX", "100")
        increments = [("INCR", f"n{number % 7}") for number in range(700)]
        reply = await transact(talk, *increments, ("DEL", "a"), ("INCR", "b"))
        assert reply.endswith(b":100\r\n:0\r\n-ERR value is not an integer or out of range\r\n")
        assert await talk.do("MGET", "n0", "n6") == b"*2\r\n$3\r\n100\r\n$3\r\n100\r\n"


@virtual_clock
async def test_a_transaction_of_too_many_keys_is_refused_whole() -> None:
    async with opened() as node:
        talk = Talk(node)
        reply = await transact(talk, *(("INCR", f"n{number}") for number in range(129)))
        assert reply.startswith(b"-EXECABORT Transaction discarded because of: ERR the change has too many parts")
        assert await talk.do("GET", "n0") == NIL


@virtual_clock
async def test_a_lost_connection_takes_its_transaction_back() -> None:
    async with opened() as node:
        talk = Talk(node)
        await talk.do("SET", "a", "1")
        talk.send(command("MULTI") + command("SET", "b", "1"))
        talk.session.lost()
        assert await Talk(node).do("GET", "b") == NIL


@virtual_clock
async def test_queued_commands_are_charged_and_bounded() -> None:
    async with opened() as node:
        talk = Talk(node)
        await talk.do("MULTI")
        await talk.do("SET", "a", b"x" * 100_000)
        assert talk.connection.charged > 100_000
        await talk.do("EXEC")
        assert talk.connection.charged < 1000
        await talk.do("MULTI")
        replies = [await talk.do("SET", "a", b"x" * 8_000_000) for _ in range(5)]
        assert replies[-1] == b"-ERR the transaction is too large: it is discarded\r\n"
        assert await talk.do("SET", "a", b"x" * 8_000_000) == QUEUED
        assert talk.connection.charged < 1000
        assert await talk.do("EXEC") == b"-EXECABORT Transaction discarded because of previous errors.\r\n"


@virtual_clock
async def test_a_transaction_of_changes_that_succeed_reads_nothing() -> None:
    """So a user needs the permissions of the commands alone, and counters that many change need no second attempt."""
    async with opened() as node:
        talk = Talk(node)
        await transact(talk, ("INCR", "a"), ("SETEX", "b", 10, "x"))
        assert [type(op) for batch in talk.connection.caller.batches for op in batch] == [operations.Transact]


@virtual_clock
async def test_a_transaction_whose_replies_are_too_large_together_makes_nothing() -> None:
    async with opened() as node:
        talk = Talk(node)
        large = bytes(VALUE_SIZE_MAX)
        await talk.do("SET", "large", large)
        before = node.revision
        refused = b"-EXECABORT Transaction discarded because of: "
        too_many = REPLY_SIZE_MAX // VALUE_SIZE_MAX + 1
        reads = [("GET", "large")] * too_many
        assert (await transact(talk, *reads)).startswith(refused)
        assert (await transact(talk, ("SET", "a", "1"), *reads)).startswith(refused)
        assert (await transact(talk, ("INCR", "large"), ("SET", "a", "1"), *reads)).startswith(refused)
        assert node.revision == before
        fits = await transact(talk, *reads[1:-1], ("SET", "a", "1", "NX"), ("INCR", "large"))
        assert len(fits) > (too_many - 2) * VALUE_SIZE_MAX
        assert node.revision == before + 1


@pytest.mark.parametrize(
    "commands",
    [
        (("GET", "open"), ("GET", "closed")),
        (("GET", "closed"), ("EXISTS", "open")),
        (("SET", "open", "2"), ("GET", "closed")),
        (("SET", "open", "2"), ("SET", "closed", "2")),
        (("SET", "open", "2"), ("PERSIST", "closed")),
        (("SET", "open", "2"), ("SET", "open", "3", "NX"), ("GET", "closed")),
    ],
)
@virtual_clock
async def test_a_transaction_runs_none_of_its_commands_where_a_permission_is_lacking_for_one(
    commands: tuple[tuple[str, ...], ...],
) -> None:
    async with opened() as node:
        await Talk(node).do("MSET", "open", "1", "closed", "1")
        talk = Talk(node, Limited(("open", ["read", "write"])))
        reply = await transact(talk, *commands)
        assert reply.startswith(b"-EXECABORT Transaction discarded because of: NOPERM"), reply
        assert await talk.do("GET", "open") == b"$1\r\n1\r\n"


@virtual_clock
@pytest.mark.parametrize("one_key", [False, True])
async def test_short_commands_that_make_large_values_fill_no_memory(one_key: bool) -> None:
    async with opened() as node:
        talk = Talk(node)
        ranges = [("SETRANGE", "k" if one_key else f"k{n}", VALUE_SIZE_MAX - 1, "x") for n in range(40)]
        tracemalloc.start()
        try:
            reply = await transact(talk, *ranges)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert reply.startswith(b"-EXECABORT ")
        assert peak < 2 * REPLY_SIZE_MAX
        assert await talk.do("STRLEN", "k" if one_key else "k0") == b":0\r\n"
