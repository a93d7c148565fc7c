"""Any history, dumped and loaded, goes on as if nothing had happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from haptera.state import (
    Logged,
    MalformedPieces,
    StateMachine,
    UnknownPart,
    dump_pieces,
    limits,
    load_pieces,
    snapshot_pieces,
    validate,
)
from haptera.state.operations import Forget, Set, Write
from tests.property.test_state_model import keys, writes

if TYPE_CHECKING:
    from collections.abc import Iterator

Entry = tuple[int, list[Logged]]

request_ids = st.integers(0, 5).map(lambda number: number.to_bytes(16, "big"))
digests = st.sampled_from([b"d" * 32, b"e" * 32, None])
large_writes: st.SearchStrategy[Write] = st.builds(
    Set, keys, st.sampled_from([b"l" * 70, b"m" * 3000, b"h" * 5000]), return_previous=st.booleans()
)
forgets = st.builds(Forget, st.sampled_from(["ann", "bob"]), st.lists(request_ids, max_size=3))
commands = st.one_of(
    st.builds(Logged, writes | large_writes, st.sampled_from(["ann", "bob"]), request_ids, digests, st.booleans()),
    st.builds(Logged, writes),
    st.builds(Logged, forgets),
)
histories: st.SearchStrategy[list[Entry]] = st.lists(
    st.tuples(st.sampled_from([0, 1, 1000, 59_999, 700_000]), st.lists(commands, max_size=5)), max_size=25
)


@pytest.fixture(scope="module", autouse=True)
def small_limits() -> Iterator[None]:
    """Limits that a short history meets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot_pieces, "PIECE_SIZE", 200)
        patch.setattr(limits, "ANSWERS_PER_USER_MAX", 4)
        patch.setattr(limits, "ANSWERS_SIZE_PER_USER_MAX", 4000)
        patch.setattr(limits, "ANSWERS_SIZE_MAX", 6000)
        yield


def apply(machine: StateMachine, entry: Entry) -> list[str]:
    """The results as they look: a tuple is not a list."""
    elapsed_ms, logged = entry
    accepted = [each for each in logged if validate(each.op) is None]
    return [repr(result) for result in machine.apply(machine.index + 1, machine.time_ms + elapsed_ms, accepted)]


@given(before=histories, after=histories)
@settings(max_examples=80)
def test_a_loaded_machine_goes_on_as_the_one_that_was_dumped(before: list[Entry], after: list[Entry]) -> None:
    machine = StateMachine()
    for entry in before:
        apply(machine, entry)
    again = load_pieces(dump_pieces(machine), index=machine.index, time_ms=machine.time_ms)
    again.check()
    assert again.digest() == machine.digest()
    assert list(dump_pieces(again)) == list(dump_pieces(machine))
    for entry in after:
        assert apply(again, entry) == apply(machine, entry)
        assert again.digest() == machine.digest()
    again.check()


@given(before=histories, at=st.integers(0), place=st.integers(0), mask=st.integers(1, 255))
@settings(max_examples=80)
def test_a_changed_byte_is_refused_or_makes_a_whole_state(before: list[Entry], at: int, place: int, mask: int) -> None:
    machine = StateMachine()
    for entry in before:
        apply(machine, entry)
    pieces = list(dump_pieces(machine))
    section, piece = pieces[at % len(pieces)]
    changed = bytearray(piece)
    changed[place % len(piece)] ^= mask
    pieces[at % len(pieces)] = (section, bytes(changed))
    try:
        found = load_pieces(pieces, index=machine.index, time_ms=machine.time_ms)
    except (MalformedPieces, UnknownPart):
        return
    found.check()


@given(st.lists(st.tuples(st.sampled_from(["kv", "requests", "x"]), st.binary(max_size=60)), max_size=6))
def test_any_bytes_are_refused_or_make_a_whole_state(pieces: list[tuple[str, bytes]]) -> None:
    try:
        load_pieces(pieces, index=0, time_ms=0).check()
    except (MalformedPieces, UnknownPart):
        pass
