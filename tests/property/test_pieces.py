"""Arguments and answers in pieces against the codec in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.errors import Failure
from haptera.node.services import msgpack_slices
from haptera.node.services.kv_methods import METHODS
from haptera.node.services.method_arguments import Argument
from haptera.node.services.msgpack_slices import convert_steps, decode_steps, encode_steps
from haptera.state.sliced_work import finish

if TYPE_CHECKING:
    from collections.abc import Iterator

encode = msgspec.msgpack.encode
keys = st.text(max_size=4) | st.text("k", min_size=30, max_size=300)
values = st.binary(max_size=4) | st.sampled_from([bytes(300), bytes(70_000)])
arguments: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(st.just("get_many"), st.tuples(st.lists(keys, max_size=20))),
    st.tuples(st.just("delete_many"), st.tuples(st.lists(keys, max_size=20))),
    st.tuples(st.just("set_many"), st.tuples(st.lists(st.tuples(keys, values), max_size=20))),
    st.tuples(st.just("set_many"), st.tuples(st.lists(st.tuples(keys, values)), st.sampled_from([{}, {"x": 1}]))),
)
malformed: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(
        st.sampled_from(["get_many", "set_many", "delete_many"]), st.lists(st.lists(st.none() | st.integers(-5, 300)))
    ),
    st.tuples(st.just("set_many"), st.tuples(st.lists(st.lists(keys | values, max_size=3)))),
    st.tuples(st.just("get_many"), st.tuples(st.lists(keys | values), st.none())),
    st.tuples(st.just("get_many"), st.sampled_from([(), None, 7, {}, ["k"], [[]], [[], [], []], [None]])),
)


@pytest.fixture(autouse=True, scope="module")
def _small_pieces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(msgpack_slices, "ELEMENTS_MAX", 3)
        patch.setattr(msgpack_slices, "PIECE_SIZE", 400)
        yield


def agree(method: str, payload: bytes) -> None:
    reads = METHODS[method]
    assert isinstance(reads, Argument)
    expected, found = reads.decode(payload), finish(decode_steps(reads, payload, []))
    if isinstance(expected, Failure):
        assert isinstance(found, Failure)
        assert (found.code, found.outcome) == (expected.code, expected.outcome)
    else:
        assert found == expected


@given(arguments | malformed)
def test_an_argument_in_pieces_is_the_argument(asked: tuple[str, Any]) -> None:
    method, argument = asked
    agree(method, encode(argument))


@given(arguments, st.integers(0, 200), st.integers(0, 255), st.integers(0, 200))
def test_a_damaged_argument_is_read_as_the_codec_reads_it(asked: tuple[str, Any], at: int, byte: int, cut: int) -> None:
    method, argument = asked
    payload = bytearray(encode(argument))
    payload[at % len(payload)] = byte
    agree(method, bytes(payload))
    agree(method, encode(argument)[: cut % len(payload)])
    agree(method, encode(argument) + b"\xc0")


@given(st.lists(st.lists(keys, min_size=2, max_size=2)))
def test_any_header_of_the_same_length_is_as_good(pairs: list[list[str]]) -> None:
    """MessagePack has three headers for an array and four for a text; a peer may choose."""
    long_text = [b"\xdb" + len(key.encode()).to_bytes(4, "big") + key.encode() for pair in pairs for key in pair]
    payload = b"\xdd\x00\x00\x00\x01\xdd" + len(long_text).to_bytes(4, "big") + b"".join(long_text)
    agree("get_many", payload)
    items = [b"\xdc\x00\x02" + text + b"\xc6\x00\x00\x00\x01x" for text in long_text]
    agree("set_many", b"\xdc\x00\x01\xdc" + len(items).to_bytes(2, "big") + b"".join(items))


@given(arguments)
def test_an_argument_that_was_never_encoded_is_converted_in_pieces(asked: tuple[str, Any]) -> None:
    method, argument = asked
    reads = METHODS[method]
    assert isinstance(reads, Argument)
    expected, found = reads.convert(argument), finish(convert_steps(reads, argument, []))
    assert found == expected


@given(st.lists(st.none() | st.tuples(values, st.integers(0, 2**53), st.none()), max_size=20))
def test_an_answer_in_pieces_is_the_answer(entries: list[Any]) -> None:
    assert finish(encode_steps((entries,))) == encode((entries,))
    for entry in entries:
        if entry is not None:
            assert finish(encode_steps(entry)) == encode(entry)


entry_or_none = st.none() | st.tuples(values, st.integers(0, 2**53), st.none())
inner = st.none() | entry_or_none | st.tuples(st.booleans(), st.none() | st.integers(1, 9), entry_or_none)


@given(st.booleans(), st.none() | st.integers(1, 2**53), st.lists(inner, max_size=9).map(tuple))
def test_the_answer_to_a_transact_in_pieces_is_the_answer(succeeded: bool, version: Any, results: Any) -> None:
    answer = (succeeded, version, results)
    assert finish(encode_steps(answer)) == encode(answer)
