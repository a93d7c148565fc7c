"""Requests are found in any bytes that arrive, within bounds, and with the words of Redis where they are wrong."""

from __future__ import annotations

import tracemalloc

import pytest

from haptera.dialects.resp.bounds import ARGUMENTS_MAX, BULK_SIZE_MAX, LINE_SIZE_MAX, REQUEST_SIZE_MAX, SPLIT_SIZE_MAX
from haptera.dialects.resp.request_parser import ProtocolFault, RequestParser
from tests.unit.dialects.resp.talks import command

MIB = 1024 * 1024


def parsed(*pieces: bytes, limited: bool = False) -> list[list[bytes]]:
    """The commands in some bytes, which arrive in these pieces."""
    parser, found = RequestParser(), []
    parser.limited = limited
    for piece in pieces:
        parser.feed(piece)
        while (arguments := parser.next()) is not None:
            if arguments:
                found.append(arguments)
    return found


def fault_of(*pieces: bytes, limited: bool = False) -> str:
    with pytest.raises(ProtocolFault) as caught:
        parsed(*pieces, limited=limited)
    return str(caught.value)


def test_an_array_of_bulk_strings_is_a_command() -> None:
    assert parsed(command("SET", "k", b"v\r\n$1\r\nx")) == [[b"SET", b"k", b"v\r\n$1\r\nx"]]
    assert parsed(command("GET", "")) == [[b"GET", b""]]
    assert parsed(command(*range(100))) == [[str(number).encode() for number in range(100)]]


def test_a_pipeline_is_its_commands() -> None:
    pipeline = [command("SET", f"k{number}", bytes(number)) for number in range(200)]
    assert len(parsed(b"".join(pipeline))) == 200
    assert parsed(b"".join(pipeline)) == [each for one in pipeline for each in parsed(one)]


def test_commands_may_be_cut_anywhere() -> None:
    data = command("SET", "k", b"\r\n*1\r\n") + b"PING\r\n" + command("GET", "k")
    whole = parsed(data)
    assert len(whole) == 3
    for cut in range(len(data)):
        assert parsed(data[:cut], data[cut:]) == whole
    assert parsed(*(bytes([byte]) for byte in data)) == whole


def test_long_values_are_taken_whole() -> None:
    value = bytes(range(256)) * 4 * 1024
    data = command("SET", "k", value)
    pieces = [data[at : at + SPLIT_SIZE_MAX] for at in range(0, len(data), SPLIT_SIZE_MAX)]
    assert parsed(*pieces, command("GET", "k")) == [[b"SET", b"k", value], [b"GET", b"k"]]
    assert parsed(command("SET", "k", b"x" * BULK_SIZE_MAX))[0][2] == b"x" * BULK_SIZE_MAX


def test_inline_commands_are_lines_of_words() -> None:
    assert parsed(b"SET a 'b c'\r\nGET a\n\r\n \n") == [[b"SET", b"a", b"b c"], [b"GET", b"a"]]
    assert parsed(b"GET \xff\n") == [[b"GET", b"\xff"]]


def test_empty_arrays_are_passed_over() -> None:
    assert parsed(b"*0\r\n*-1\r\n*-7\r\n" + command("PING")) == [[b"PING"]]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"*%d\r\n" % (ARGUMENTS_MAX + 1), "invalid multibulk length"),
        (b"*99999999999999999999999999\r\n", "invalid multibulk length"),
        (b"*" + b"9" * (LINE_SIZE_MAX + 1), "too big mbulk count string"),
        (b"*1\r\nPING\r\n", "expected '$', got 'P'"),
        (b"*1\r\n\r\n", "expected '$', got '\r'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$%d\r\n" % (1 << 30), "invalid bulk length"),
        (b"*1\r\n$%d\r\n" % (BULK_SIZE_MAX + 1), "invalid bulk length"),
        (b"*1\r\n$" + b"1" * (LINE_SIZE_MAX + 1), "too big bulk count string"),
        (b"x" * (LINE_SIZE_MAX + 1), "too big inline request"),
        (b"x" * (LINE_SIZE_MAX + 1) + b"\n", "too big inline request"),
        (b'SET "a\r\n', "unbalanced quotes in request"),
        (b"SET 'a'b\r\n", "unbalanced quotes in request"),
    ],
)
def test_wrong_bytes_are_faults_with_the_words_of_redis(data: bytes, words: str) -> None:
    assert fault_of(data) == words
    assert fault_of(*(data[at : at + 1000] for at in range(0, len(data), 1000))) == words


def test_the_arguments_of_one_command_are_bounded_together() -> None:
    parser = RequestParser()
    value = b"$%d\r\n%b\r\n" % (BULK_SIZE_MAX, bytes(BULK_SIZE_MAX))
    parser.feed(b"*%d\r\n" % ARGUMENTS_MAX)
    for _ in range(REQUEST_SIZE_MAX // BULK_SIZE_MAX - 1):
        parser.feed(value)
        assert parser.next() is None
        assert parser.held <= REQUEST_SIZE_MAX
    parser.feed(value)
    with pytest.raises(ProtocolFault, match="too big request"):
        parser.next()


def test_a_side_that_has_not_logged_in_has_narrow_bounds() -> None:
    assert parsed(command("AUTH", "u", "x" * 16384), limited=True) == [[b"AUTH", b"u", b"x" * 16384]]
    assert fault_of(b"*11\r\n", limited=True) == "unauthenticated multibulk length"
    assert fault_of(b"*2\r\n$16385\r\n", limited=True) == "unauthenticated bulk length"


def test_announced_counts_and_lengths_take_no_memory() -> None:
    tracemalloc.start()
    try:
        parsers = []
        for _ in range(20):
            parser = RequestParser()
            parser.feed(b"*%d\r\n$%d\r\n" % (ARGUMENTS_MAX, BULK_SIZE_MAX))
            assert parser.next() is None
            parsers.append(parser)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


class Watched(bytearray):
    """A buffer that knows from where on it was searched."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.searched: list[int] = []

    def find(self, what: object, start: object = 0, end: object = None) -> int:
        self.searched.append(start)  # type: ignore[arg-type]
        return super().find(what, start)  # type: ignore[arg-type]


@pytest.mark.parametrize("begun", [b"x", b"*", b"*1\r\n$"])
def test_a_line_that_grows_is_not_searched_again_from_its_beginning(begun: bytes) -> None:
    parser = RequestParser()
    parser.feed(begun)
    assert parser.next() is None
    parser._buffer = buffer = Watched(bytes(parser._buffer))
    for _ in range(1000):
        parser.feed(b"1")
        assert parser.next() is None
    assert buffer.searched[-1] >= len(buffer) - 3


def test_what_is_held_and_missing_is_told() -> None:
    parser = RequestParser()
    assert (parser.idle, parser.held, parser.missing) == (True, 0, None)
    parser.feed(b"*2\r\n$3\r\nGET\r\n$10\r\nabc")
    assert parser.next() is None
    assert (parser.idle, parser.missing) == (False, 9)
    assert 3 <= parser.held < 200
    parser.feed(b"defghij\r\n")
    assert parser.next() == [b"GET", b"abcdefghij"]
    assert (parser.idle, parser.held, parser.missing) == (True, 0, None)


def test_a_large_command_leaves_no_memory_behind() -> None:
    parser = RequestParser()
    data = command("SET", "k", bytes(BULK_SIZE_MAX))
    tracemalloc.start()
    try:
        for at in range(0, len(data), MIB):
            parser.feed(data[at : at + MIB])
            parser.next()
        assert parser.next() is None
        assert tracemalloc.get_traced_memory()[0] < MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("empty", [b"\n", b"\r\n", b"*0\r\n", b"*-1\r\n"])
def test_each_empty_line_and_array_is_handed_on_so_that_they_can_be_counted(empty: bytes) -> None:
    parser = RequestParser()
    parser.feed(empty * 3 + b"PING\r\n")
    assert [parser.next() for _ in range(5)] == [[], [], [], [b"PING"], None]
    assert parser.idle


COUNTS = {b"GET": 2, b"SET": 3}


def test_a_run_ends_where_another_command_begins_and_at_its_limit() -> None:
    parser = RequestParser()
    parser.feed(command("GET", "a") * 3 + command("GET", "a", "b") + command("SET", "c", "d") * 2)
    assert parser.run(COUNTS, 2) == [[b"GET"] * 2, [b"a"] * 2]
    assert parser.run(COUNTS, 9) == [[b"GET"] * 3, [b"a"] * 3]
    parser.pass_run()
    assert parser.run(COUNTS, 9) is None, "it has another number of arguments"
    assert parser.next() == [b"GET", b"a", b"b"]
    assert parser.run({b"GET": 2}, 9) is None, "it is not asked for"
    assert parser.run(COUNTS, 9) == [[b"SET"] * 2, [b"c"] * 2, [b"d"] * 2]
    parser.pass_run()
    assert parser.idle
    parser.feed(command("GET", "a") * 2 + command("TTL", "a") * 2)
    assert parser.run(COUNTS, 9) == [[b"GET"] * 2, [b"a"] * 2]


@pytest.mark.parametrize("bad", [b"*2\r\n$3\r\nGET\r\n$2\r\na\r\n", b"*2\r\n$4\r\nGET\r\n$1\r\na\r\n"])
def test_a_run_with_a_wrong_length_is_left_to_the_commands_one_by_one(bad: bytes) -> None:
    parser = RequestParser()
    parser.feed(command("GET", "a") + bad)
    assert parser.run(COUNTS, 9) is None
    assert parser.next() == [b"GET", b"a"]
    assert parser.run(COUNTS, 9) is None
    if b"$4" in bad:
        with pytest.raises(ProtocolFault, match="expected '\\$', got '1'"):
            parser.next()
    else:
        assert (parser.next(), parser.idle) == (None, False)


def test_a_run_that_is_refused_is_not_looked_at_again() -> None:
    parser = RequestParser()
    parser.feed(command("GET", "a") * 2 + command("GET", "b") * 2 + command("PING"))
    assert parser.run(COUNTS, 2) is not None
    parser.refuse_run()
    assert [parser.run(COUNTS, 2), parser.next(), parser.run(COUNTS, 2), parser.next()] == [None, [b"GET", b"a"]] * 2
    assert parser.run(COUNTS, 2) == [[b"GET"] * 2, [b"b"] * 2]


def test_a_command_that_comes_by_itself_is_taken_without_being_held() -> None:
    parser = RequestParser()
    assert parser.feed_or_take(command("SET", "a", "b")) == [b"SET", b"a", b"b"]
    assert (parser.idle, parser.next()) == (True, None)
    for data in (command("GET", "a") + b"*", command("GET", "a" * 2000), b"GET a\r\n", command("GET", "a")[:-1]):
        assert parser.feed_or_take(data) is None
        assert not parser.idle
        parser = RequestParser()
