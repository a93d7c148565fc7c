"""A transaction gives the replies, and leaves the store, of its commands in a row."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from haptera.testing import virtual_clock
from tests.unit.dialects.resp.talks import Talk, command
from tests.unit.node.nodes import opened

KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from(["x", "7", "-3", "", "9223372036854775806"])
ENDS = st.sampled_from([("EX", "1000"), ("PX", "500000"), ("KEEPTTL",), ()])
CONDITIONS = st.sampled_from([("NX",), ("XX",), ("IFEQ", "x"), ("IFNE", "7"), ()])
GET = st.sampled_from([("GET",), ()])
SECONDS = st.sampled_from(["1000", "-1", "2000"])
COMPARED = st.sampled_from(["NX", "XX", "GT", "LT"])

COMMANDS = st.one_of(
    st.tuples(st.sampled_from(["GET", "DEL", "INCR", "DECR", "GETDEL", "EXISTS", "PTTL", "PERSIST", "STRLEN"]), KEYS),
    st.builds(lambda key, value, *options: ("SET", key, value, *sum(options, ())), KEYS, VALUES, CONDITIONS, GET, ENDS),
    st.tuples(st.sampled_from(["GETSET", "SETNX", "DELIFEQ"]), KEYS, VALUES),
    st.tuples(st.just("DELEX"), KEYS, st.sampled_from(["IFEQ", "IFNE"]), VALUES),
    st.tuples(st.sampled_from(["RENAME", "RENAMENX"]), KEYS, KEYS),
    st.tuples(st.sampled_from(["MGET", "DEL", "EXISTS"]), KEYS, KEYS),
    st.tuples(st.sampled_from(["MSET", "MSETNX"]), KEYS, VALUES, KEYS, VALUES),
    st.tuples(st.just("EXPIRE"), KEYS, SECONDS),
    st.tuples(st.just("EXPIRE"), KEYS, SECONDS, COMPARED),
    st.tuples(st.just("GETEX"), KEYS, st.sampled_from(["EX", "PX"]), st.just("400000")),
    st.tuples(st.just("GETEX"), KEYS, st.just("PERSIST")),
    st.tuples(st.just("INCREX"), KEYS, st.just("BYINT"), st.sampled_from(["1", "-5"]), st.just("UBOUND"), st.just("9")),
    st.tuples(st.just("INCREX"), KEYS, st.just("EX"), st.just("1000"), st.just("ENX")),
    st.tuples(st.just("MSETEX"), st.just("2"), KEYS, VALUES, KEYS, VALUES, st.just("XX"), st.just("KEEPTTL")),
)

#: Clocks that stand, so that both stores are asked at the same time.
STOPPED: dict[str, Any] = {"clock_ms": lambda: 1_700_000_000_000, "monotonic_ns": lambda: 0}


@given(before=st.lists(COMMANDS, max_size=4), transaction=st.lists(COMMANDS, max_size=8))
@virtual_clock
async def test_a_transaction_is_its_commands_in_a_row(
    before: list[tuple[str, ...]], transaction: list[tuple[str, ...]]
) -> None:
    looks = [command("MGET", "a", "b", "c"), *(command("PTTL", key) for key in "abc")]
    async with opened(**STOPPED) as node, opened(**STOPPED) as other:
        in_a_row, together = Talk(node), Talk(other)
        expected = b""
        for talk in (in_a_row, together):
            for each in before:
                await _answered(talk, command(*each))
        for each in transaction:
            expected += await _answered(in_a_row, command(*each))
        await _answered(together, b"".join([command("MULTI"), *(command(*each) for each in transaction)]))
        assert await _answered(together, command("EXEC")) == b"*%d\r\n%b" % (len(transaction), expected)
        for look in looks:
            assert await _answered(together, look) == await _answered(in_a_row, look)


async def _answered(talk: Talk, sent: bytes) -> bytes:
    return (await talk.say(sent)) or (await talk.waited())
