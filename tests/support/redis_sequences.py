"""Sequences of commands for a node and a real Redis to answer: each command with its options, right and wrong.

Times to live are long, or over at once, so that no reply depends on how fast a machine is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.redis_wire import Words

#: Unix seconds far in the future: some centuries before the last time that a node takes, and no round number.
FUTURE: Final = 4_000_000_123


class Step(NamedTuple):
    """Commands that one connection sends in one write."""

    connection: int
    commands: tuple[Words, ...]


def _text(number: int) -> bytes:
    return b"%d" % number


KEYS = st.sampled_from([b"a", b"b", b"c", b"k:1", b"k:22", "schlüssel".encode(), b"k[1]", b"k*"])
NUMBERS: Final = (b"10", b"-5", b"0", b"9223372036854775807", b"-9223372036854775808", b"9223372036854775800")
TEXTS: Final = (
    b"",
    b"text",
    b" 12",
    b"1.5",
    b"007",
    b"+5",
    b"-0",
    b"\x00\xff\r\n",
    b"99999999999999999999",
    b"x" * 200,
)
VALUES = st.sampled_from([*NUMBERS, *TEXTS])
DELTAS = st.sampled_from([*NUMBERS, b"1", b"-1", b"3", b"abc", b"", b"1.0", b"9223372036854775808"])
#: Places in a value, and none. An offset far behind the largest value of a node is in the table of differences.
OFFSETS = st.sampled_from([b"0", b"1", b"3", b"12", b"500", b"-1", b"-3", b"-500", b"-9223372036854775808", b"x", b""])
#: Seconds of a time to live that hold, are over at once, or are none.
SECONDS = st.sampled_from(
    [b"1000", b"5000", b"100000", b"0", b"-1", b"-5000", b"abc", b"", b"1.5", b"9223372036854775807"]
)
MILLISECONDS = st.sampled_from([b"1000000", b"5000000", b"0", b"-1", b"abc", b"9223372036854775807"])
UNIX_SECONDS = st.sampled_from([_text(FUTURE), _text(FUTURE + 500), b"1", b"0", b"-1", b"abc", b"9223372036854775807"])
UNIX_MILLISECONDS = st.sampled_from([_text(FUTURE * 1000 + 7), _text(FUTURE * 1000 + 9999), b"1", b"0", b"-1", b"abc"])

_EXPIRIES = st.one_of(
    st.tuples(st.sampled_from([b"EX", b"ex"]), SECONDS),
    st.tuples(st.sampled_from([b"PX", b"Px"]), MILLISECONDS),
    st.tuples(st.just(b"EXAT"), UNIX_SECONDS),
    st.tuples(st.just(b"PXAT"), UNIX_MILLISECONDS),
)


def _flags(*flags: bytes) -> st.SearchStrategy[Words]:
    return st.sampled_from(flags).map(lambda flag: (flag,))


def _command(name: bytes, *parts: st.SearchStrategy[bytes] | st.SearchStrategy[Words]) -> st.SearchStrategy[Words]:
    """A command whose words are drawn from parts, each of which is one word or several."""

    def joined(drawn: tuple[bytes | Words, ...]) -> Words:
        found: list[bytes] = [name]
        for part in drawn:
            found.extend([part] if isinstance(part, bytes) else part)
        return tuple(found)

    return st.tuples(*parts).map(joined)


def _options(*choices: st.SearchStrategy[Words], most: int = 3) -> st.SearchStrategy[Words]:
    """Some of several options, in any order, also ones that exclude each other."""
    return st.lists(st.one_of(*choices), max_size=most).map(
        lambda found: tuple(word for each in found for word in each)
    )


def _many(strategy: st.SearchStrategy[bytes], least: int = 1) -> st.SearchStrategy[Words]:
    return st.lists(strategy, min_size=least, max_size=4).map(tuple)


_PAIRS = st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=4).map(
    lambda pairs: tuple(word for pair in pairs for word in pair)
)
_EXPIRE_FLAGS = _options(_flags(b"NX", b"XX", b"GT", b"LT", b"gt", b"FOO"), most=2)
_PATTERNS = st.sampled_from(
    [
        b"*",
        b"k*",
        b"?",
        b"k:[0-9]*",
        b"k[[]1]",
        b"k\\[1\\]",
        b"[^a]",
        b"[a-b]",
        b"k\\*",
        b"",
        b"[b-a]",
        b"sch*l",
        b"[",
        b"k[",
    ]
)

SET = _command(
    b"SET",
    KEYS,
    VALUES,
    _options(_flags(b"NX", b"XX", b"GET", b"KEEPTTL", b"nx", b"get", b"FOO"), _EXPIRIES, _EXPIRIES),
)
GETEX = _command(b"GETEX", KEYS, _options(_flags(b"PERSIST", b"FOO"), _EXPIRIES, most=2))

#: Commands of strings, keys and expiry.
DATA: Final = (
    SET,
    SET,
    GETEX,
    *(_command(name, KEYS) for name in (b"GET", b"GETDEL", b"INCR", b"DECR", b"STRLEN", b"TYPE", b"PERSIST")),
    *(_command(name, KEYS) for name in (b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME")),
    *(_command(name, KEYS, DELTAS) for name in (b"INCRBY", b"DECRBY")),
    *(_command(name, KEYS, OFFSETS, OFFSETS) for name in (b"GETRANGE", b"SUBSTR")),
    _command(b"SETRANGE", KEYS, OFFSETS, VALUES),
    _command(b"APPEND", KEYS, VALUES),
    *(_command(name, KEYS, VALUES) for name in (b"GETSET", b"SETNX")),
    _command(b"SETEX", KEYS, SECONDS, VALUES),
    _command(b"PSETEX", KEYS, MILLISECONDS, VALUES),
    _command(b"EXPIRE", KEYS, SECONDS, _EXPIRE_FLAGS),
    _command(b"PEXPIRE", KEYS, MILLISECONDS, _EXPIRE_FLAGS),
    _command(b"EXPIREAT", KEYS, UNIX_SECONDS, _EXPIRE_FLAGS),
    _command(b"PEXPIREAT", KEYS, UNIX_MILLISECONDS, _EXPIRE_FLAGS),
    *(_command(name, _many(KEYS)) for name in (b"MGET", b"DEL", b"UNLINK", b"EXISTS")),
    *(_command(name, _PAIRS) for name in (b"MSET", b"MSETNX")),
    *(_command(name, KEYS, KEYS) for name in (b"RENAME", b"RENAMENX")),
    _command(b"OBJECT", st.sampled_from([b"ENCODING", b"encoding"]), KEYS),
)

#: Commands of the whole keyspace, which a transaction need not take. DBSIZE is none of them, because a Redis counts
#: keys whose time is over until it comes across them.
KEYSPACE: Final = (
    _command(b"KEYS", _PATTERNS),
    _command(
        b"SCAN",
        st.sampled_from([b"0", b"0", b"0", b"abc", b"1x"]),
        _options(
            _command(b"MATCH", _PATTERNS),
            st.sampled_from([(b"COUNT", b"1000"), (b"count", b"0"), (b"COUNT", b"abc"), (b"FOO", b"1"), (b"MATCH",)]),
            st.sampled_from([(b"TYPE", b"string"), (b"TYPE", b"STRING"), (b"TYPE", b"hash")]),
        ),
    ),
    st.sampled_from([(b"FLUSHDB",), (b"FLUSHALL", b"ASYNC"), (b"FLUSHDB", b"SYNC"), (b"FLUSHALL", b"FOO")]),
)

#: Commands that do not look at the store.
PLAIN: Final = (
    _command(b"ECHO", VALUES),
    st.sampled_from(
        [(b"PING",), (b"PING", b"hello"), (b"ping",), (b"SELECT", b"0"), (b"SELECT", b"abc"), (b"SELECT", b"99")]
    ),
    st.sampled_from(
        [
            (b"CLIENT", b"GETNAME"),
            (b"CLIENT", b"SETNAME", b"worker-1"),
            (b"CLIENT", b"SETNAME", b"two words"),
            (b"CLIENT", b"SETNAME", b""),
            (b"CLIENT", b"NO-EVICT", b"ON"),
            (b"CLIENT", b"NO-EVICT", b"FOO"),
            (b"CLIENT", b"FOO"),
            (b"CLIENT",),
            (b"COMMAND", b"GETKEYS", b"MSET", b"a", b"1", b"b", b"2"),
            (b"COMMAND", b"GETKEYS", b"GET", b"a", b"b", b"c"),
            (b"COMMAND", b"GETKEYS", b"ECHO", b"a"),
            (b"COMMAND", b"GETKEYS", b"FOO", b"a"),
            (b"COMMAND", b"GETKEYSANDFLAGS", b"SET", b"a", b"1"),
            (b"COMMAND", b"GETKEYSANDFLAGS", b"RENAME", b"a", b"b"),
            (b"COMMAND", b"FOO"),
            (b"CONFIG", b"GET", b"appendonly-no-such"),
            (b"CONFIG", b"GET"),
            (b"OBJECT", b"FOO", b"a"),
            (b"OBJECT", b"ENCODING"),
            (b"WAIT", b"0", b"0"),
            (b"WAIT", b"1", b"1"),
            (b"WAIT", b"x", b"1"),
            (b"WAIT", b"0", b"-1"),
            (b"NOSUCH", b"a", b"b"),
            (b"nosuch",),
            (b"HELLO", b"9"),
            (b"HELLO", b"abc"),
            (b"HELLO", b"3", b"FOO"),
            (b"AUTH",),
            (b"AUTH", b"a", b"b", b"c"),
            (b"TIME", b"x"),
            (b"ECHO",),
        ]
    ),
)

#: The commands of transactions, with those that no transaction may have before its EXEC.
TRANSACTIONS: Final = (
    st.sampled_from(
        [(b"MULTI",), (b"EXEC",), (b"DISCARD",), (b"UNWATCH",), (b"WATCH",), (b"MULTI", b"x"), (b"DISCARD", b"x")]
    ),
)
WATCH: Final = _command(b"WATCH", _many(KEYS))


#: Words that stand where another one belongs. Each may be a key or a time to live of a node too, and in milliseconds as
#: in seconds one that holds while a test runs.
MISFITS = st.sampled_from([b"4000000", b"0", b"-1", b"text", b"EX", b"NX", b"GET", b"a", b"x" * 200])


def _is_plain(command: Words) -> bool:
    """Whether each word may be a key, and a time that a node can tell (`docs/redis.md` names what it cannot)."""
    return all(word and word.isascii() and word.isprintable() and len(word) < 16 for word in map(_decoded, command))


def _decoded(word: bytes) -> str:
    return word.decode("latin-1")


#: Commands whose right forms a node answers otherwise than a Redis, or whose replies no two servers share.
_EXACT: Final = frozenset({b"SELECT", b"COMMAND", b"TIME", b"HELLO"})


def mangled(commands: st.SearchStrategy[Words]) -> st.SearchStrategy[Words]:
    """A command with a word too few or too many, another one in its place, or its name in small letters."""
    return _mangled(commands).filter(lambda command: not _lasts(command))


#: The time-out of the longest WAIT, in milliseconds.
_WAIT_MAX_MS: Final = 1


def _lasts(command: Words) -> bool:
    """Whether a Redis would wait: it has no replica, and its time-out 0 means for ever."""
    match command:
        case (name, replicas, timeout) if name.upper() == b"WAIT" and replicas.isdigit() and timeout.isdigit():
            return int(replicas) > 0 and not 0 < int(timeout) <= _WAIT_MAX_MS
        case _:
            return False


@st.composite
def _mangled(draw: st.DrawFn, commands: st.SearchStrategy[Words]) -> Words:
    command = list(draw(commands.filter(lambda found: found[0] not in _EXACT and _is_plain(found))))
    match draw(st.integers(0, 3)):
        case 0 if len(command) > 1:
            del command[draw(st.integers(1, len(command) - 1))]
        case 1:
            command.insert(draw(st.integers(1, len(command))), draw(MISFITS))
        case 2 if len(command) > 1:
            command[draw(st.integers(1, len(command) - 1))] = draw(MISFITS)
        case _:
            command[0] = command[0].lower()
    return tuple(command)


def _mostly(commands: Sequence[st.SearchStrategy[Words]]) -> st.SearchStrategy[Words]:
    right = st.one_of(*commands)
    return st.one_of(right, right, right, right, mangled(right))


@st.composite
def transactions(draw: st.DrawFn, most: int) -> tuple[Words, ...]:
    """Commands between MULTI and EXEC, with keys that are watched before, and what goes wrong with both."""
    body = draw(st.lists(_mostly(DATA), max_size=most))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1]))):
        body.insert(draw(st.integers(0, len(body))), draw(st.one_of(*PLAIN[:2], *TRANSACTIONS, WATCH)))
    end = draw(st.sampled_from([(b"EXEC",), (b"EXEC",), (b"EXEC",), (b"DISCARD",)]))
    return ((b"MULTI",), *body, end)


def sequences(*commands: st.SearchStrategy[Words], most: int = 14) -> st.SearchStrategy[list[Step]]:
    """Steps of two connections: commands of several kinds, some alone and some in a row."""
    row = st.lists(_mostly(commands), min_size=1, max_size=6).map(tuple)
    return st.lists(st.builds(Step, st.sampled_from([0, 0, 1]), row), min_size=1, max_size=most)


def with_transactions() -> st.SearchStrategy[list[Step]]:
    """Steps of two connections with transactions among them, whose watched keys the other one may change.

    A WATCH that watches is alone in its step.
    """
    row = st.one_of(
        st.lists(_mostly(DATA), min_size=1, max_size=3).map(tuple),
        transactions(6),
        WATCH.map(lambda found: (found,)),
        st.lists(st.one_of(*TRANSACTIONS), min_size=1, max_size=2).map(tuple),
    )
    return st.lists(st.builds(Step, st.sampled_from([0, 0, 1]), row), min_size=2, max_size=10)
