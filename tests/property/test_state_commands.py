"""The commands' form in the log, for any command and any bytes."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from haptera.state import (
    Logged,
    MalformedCommands,
    UnknownPart,
    accepted_size,
    decode_commands,
    encode_commands,
    size_bound,
    validate,
)
from haptera.state.operations import Clear, Delete, DeleteMany, Forget, Increment, Rename, Set, SetMany
from tests.support.nesting import nested
from tests.support.transacts import transacts

keys = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=50)
values = st.binary(max_size=300)
versions = st.none() | st.integers(0, 2**53 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
ids = st.binary(min_size=16, max_size=16)

writes = st.one_of(
    st.builds(Set, keys, values, versions, st.sampled_from([None, "absent", "present"]), st.booleans()),
    st.builds(Delete, keys, versions, st.booleans()),
    st.builds(SetMany, st.lists(st.tuples(keys, values), max_size=20)),
    st.builds(DeleteMany, st.lists(keys, max_size=20)),
    st.builds(Increment, keys, int64, int64),
    st.builds(Rename, keys, keys, st.booleans()),
    st.builds(Clear, st.none() | keys),
    transacts(keys, values),
    st.builds(Forget, st.text(st.characters(exclude_categories=["Cs"]), max_size=9), st.lists(ids, max_size=9)),
)
logged = st.builds(Logged, writes, st.text(st.characters(exclude_categories=["Cs"]), max_size=20)) | st.builds(
    Logged, writes, st.just("app"), ids, st.binary(min_size=32, max_size=32)
)


@given(st.lists(logged, max_size=10))
def test_commands_decode_as_they_were_encoded(commands: list[Logged]) -> None:
    assert all(validate(command.op) is None for command in commands)
    assert decode_commands(encode_commands(commands)) == commands


@given(logged)
def test_size_bound_bounds_the_encoded_size(command: Logged) -> None:
    assert accepted_size(command.op) == size_bound(command.op)
    size = len(encode_commands([command]))
    assert size <= size_bound(command.op) + len(command.user.encode()) + 64


def decodes_or_is_refused(payload: bytes) -> None:
    try:
        commands = decode_commands(payload)
    except (UnknownPart, MalformedCommands):
        return
    assert decode_commands(encode_commands(commands)) == commands


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(payload: bytes) -> None:
    decodes_or_is_refused(payload)


@given(st.lists(logged, min_size=1, max_size=4), st.data())
def test_damaged_commands_decode_or_are_refused(commands: list[Logged], data: st.DataObject) -> None:
    payload = bytearray(encode_commands(commands))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    decodes_or_is_refused(bytes(payload[: data.draw(st.integers(0, len(payload)))]))
    decodes_or_is_refused(bytes(payload))


plain = nested(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=20)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.sampled_from(["kv.set", "kv.clear", "kv.expire", "kv.transact", "requests.forget"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(plain)
def test_any_structure_decodes_or_is_refused(structure: object) -> None:
    decodes_or_is_refused(msgspec.msgpack.encode(structure))
    decodes_or_is_refused(msgspec.msgpack.encode([[structure]]))
    decodes_or_is_refused(msgspec.msgpack.encode([[["kv.set", structure, structure, structure]]]))
