"""Trap: a condition that is judged before the log and not in its order. What is answered without an entry is what an
entry would have answered, and an entry would have changed nothing.
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import example, given

from haptera.state import Logged, Replayed, StateMachine, Write
from haptera.state.operations import (
    Clear,
    Delete,
    DeleteMany,
    Expire,
    GetAndDelete,
    GetAndExpire,
    Increment,
    Rename,
    Set,
    SetMany,
)
from tests.support.transacts import transacts

keys = st.sampled_from(["a", "a/1", "b", "é"])
#: Integers at the ends of their range, texts that look like one, and other values.
values = st.sampled_from(
    [
        b"",
        b"0",
        b"-0",
        b"-7",
        b"+7",
        b"07",
        b" 7",
        b"7\n",
        b"9223372036854775807",
        b"-9223372036854775808",
        b"9" * 19,
        b"9" * 20,
    ]
)
numbers = st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)])
versions = st.none() | st.integers(0, 6)
#: Entries are a second apart, and the last one has the time of the one before it.
ttls = st.sampled_from([1, 1000, 1001, 2000])
writes: st.SearchStrategy[Write] = st.one_of(
    st.builds(Set, keys, values, versions, st.sampled_from([None, "absent", "present"]), st.booleans()),
    st.builds(Delete, keys, versions, st.booleans()),
    st.builds(SetMany, st.lists(st.tuples(keys, values), max_size=2)),
    st.builds(DeleteMany, st.lists(keys, max_size=3)),
    st.builds(Increment, keys, numbers, numbers),
    st.builds(Rename, keys, keys, st.booleans()),
    st.builds(Clear, st.sampled_from([None, "", "a", "a/", "z"])),
    st.builds(Set, keys, values, ttl_ms=ttls) | st.builds(Set, keys, values, versions, keep_ttl=st.just(True)),
    st.builds(SetMany, st.lists(st.tuples(keys, values), max_size=2), ttls),
    st.builds(Expire, keys, st.none() | ttls),
    st.builds(GetAndExpire, keys, ttls) | st.builds(GetAndDelete, keys),
    transacts(keys, values),
)
commands = st.builds(
    Logged,
    writes,
    st.sampled_from(["", "bob"]),
    st.none() | st.sampled_from([bytes([number]) * 16 for number in range(3)]),
    st.sampled_from([bytes(32), b"x" * 32]),
    st.booleans(),
)


@given(st.lists(commands, max_size=8), commands)
@example([], Logged(Increment("a", 2**63 - 1, 1)))
@example([Logged(Set("a", b"9" * 19))], Logged(Increment("a", 0)))
@example([Logged(Set("a", b""))], Logged(Rename("a", "a", if_absent=True)))
def test_what_takes_no_entry_is_answered_as_its_entry_would_be(before: list[Logged], last: Logged) -> None:
    machine = StateMachine()
    for index, command in enumerate(before, 1):
        machine.apply(index, 1000 * index, [command])
    known = machine.known(last)
    kv, remembered, revision = machine.kv.digest(), machine.requests.digest(), machine.revision
    assert (machine.known(last), machine.kv.digest(), machine.requests.digest()) == (known, kv, remembered)
    [result] = machine.apply(machine.index + 1, machine.time_ms, [last])
    if known is None:
        changed = machine.revision > revision
        assert changed or last.resent, "what changes nothing is known, but for what is remembered whatever it is"
    else:
        assert known == result
        assert (machine.revision, machine.kv.digest()) == (revision, kv)
        if isinstance(known, Replayed):
            assert machine.requests.digest() == remembered
