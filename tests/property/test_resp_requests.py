"""Any split of a stream of requests gives the same commands, or the same fault; patterns match as their definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haptera.dialects.resp.redis_glob import redis_glob
from haptera.dialects.resp.request_parser import ProtocolFault, RequestParser
from tests.unit.dialects.resp.talks import command

_arguments = st.lists(
    st.binary(max_size=40) | st.sampled_from([b"\r\n", b"$1\r\nx\r\n", b"*1\r\n"]), min_size=1, max_size=5
)
_requests = _arguments.map(
    lambda parts: b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
)
_rubbish = st.sampled_from(
    [b"*1\r\n$-1\r\n", b"*x\r\n", b"*2\r\n+a\r\n", b"GET 'a\r\n", b"*0\r\n", b"PING\n", b"\r\n", b"*1"]
)


def commands(pieces: list[bytes]) -> list[object]:
    """The commands in bytes that arrive in pieces, with the fault that ends them, if there is one."""
    parser, found = RequestParser(), list[object]()
    try:
        for piece in pieces:
            parser.feed(piece)
            while (arguments := parser.next()) is not None:
                if arguments:  # an empty line or array is none
                    found.append(arguments)
    except ProtocolFault as fault:
        found.append(str(fault))
    return found


@given(st.lists(_requests | _rubbish, max_size=6).map(b"".join), st.data())
def test_any_split_gives_the_same_commands(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[low:high] for low, high in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    single = [bytes([byte]) for byte in stream]
    assert commands([stream]) == commands(pieces) == commands(single)


@given(st.lists(_arguments, max_size=8))
def test_what_is_sent_is_found(sent: list[list[bytes]]) -> None:
    stream = b"".join(
        b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts) for parts in sent
    )
    assert commands([stream]) == sent


_gets = st.binary(max_size=40).map(lambda key: [b"GET", key])
_sets = st.tuples(st.binary(max_size=4), st.binary(max_size=1100)).map(lambda pair: [b"SET", *pair])
_in_runs = st.lists(
    st.lists(_gets, min_size=1, max_size=4)
    | st.lists(_sets, min_size=1, max_size=4)
    | st.lists(_arguments, min_size=1, max_size=2),
    min_size=1,
)


def commands_in_runs(data: bytes, limit: int) -> list[list[bytes]]:
    """The commands in bytes, those of one kind in a row together."""
    parser, found = RequestParser(), []
    lone = parser.feed_or_take(data)
    if lone is not None:
        assert parser.idle
        return [lone]
    while not parser.idle:
        columns = parser.run({b"GET": 2, b"SET": 3}, limit)
        if columns is None:
            arguments = parser.next()
            assert arguments is not None
            found.append(arguments)
        else:
            assert 2 <= len(columns[0]) <= limit
            found += map(list, zip(*columns, strict=True))
            parser.pass_run()
    return found


@given(_in_runs, st.integers(2, 5))
def test_commands_that_are_taken_together_are_those_that_were_sent(parts: list[list[list[bytes]]], limit: int) -> None:
    sent = [arguments for part in parts for arguments in part]
    stream = b"".join(command(*arguments) for arguments in sent)
    assert commands_in_runs(stream, limit) == sent


def fits(pattern: bytes, key: bytes) -> bool:
    """The definition of a pattern of stars, question marks and letters: each way to spend a star is tried."""
    if not pattern:
        return not key
    if pattern[:1] == b"*":
        return any(fits(pattern[1:], key[at:]) for at in range(len(key) + 1))
    return bool(key) and pattern[:1] in {b"?", key[:1]} and fits(pattern[1:], key[1:])


@given(
    st.lists(st.sampled_from([b"*", b"?", b"a", b"b"]), max_size=8), st.lists(st.sampled_from([b"a", b"b"]), max_size=9)
)
def test_a_pattern_matches_as_its_definition_says(pattern: list[bytes], key: list[bytes]) -> None:
    whole = b"".join(pattern), b"".join(key)
    assert redis_glob(whole[0]).matches(whole[1]) == fits(*whole)
