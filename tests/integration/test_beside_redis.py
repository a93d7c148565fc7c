"""A node beside a real Redis: the same commands, and for each the same reply, its type and its error words included.

Hypothesis makes the sequences. Differences that are meant are in docs/redis.md, and in the table at the end.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

from haptera.testing import node_in_thread
from tests.support.redis_sequences import DATA, KEYSPACE, PLAIN, sequences, with_transactions
from tests.support.redis_server import needs_redis, real_redis
from tests.support.redis_wire import RedisWire, plain, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.redis_sequences import Step
    from tests.support.redis_wire import Words

pytestmark = needs_redis

#: The replies that tell a time to live, or an end: how far two of them may be apart, because two servers read their
#: clocks one after the other.
TOLERANCES = {b"TTL": 2, b"EXPIRETIME": 2, b"PTTL": 2000, b"PEXPIRETIME": 2000}

#: Commands whose replies are in no order.
UNORDERED = frozenset({b"KEYS", b"SCAN"})

EXAMPLES = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


class Pair:
    """A node and a Redis, by the paths of their sockets."""

    def __init__(self, node: str, redis: str) -> None:
        self.node = node
        self.redis = redis

    def replay(self, steps: Sequence[Step], protocol: int) -> None:
        """Have both do the steps, and compare their replies. Both stores are empty before."""
        lines = {path: [RedisWire(path) for _ in range(3)] for path in (self.node, self.redis)}
        try:
            for wires in lines.values():
                for wire in wires:
                    wire.one(f"HELLO {protocol}")
                assert wires[0].one("FLUSHALL") == ("+", b"OK")
            queued: list[list[Words]] = [[], []]
            exec_of_others = [False, False]  # whether there was one since the connection watched keys
            for connection, commands in steps:
                found, expected = (lines[path][connection].ask(*commands) for path in (self.node, self.redis))
                for command, ours, theirs in zip(commands, found, expected, strict=True):
                    name = command[0].upper()
                    if name == b"WATCH" and theirs == ("+", b"OK"):
                        exec_of_others[connection] = False
                    elif name == b"EXEC" and is_null(theirs) and not is_null(ours):
                        # The difference that is meant: a key that comes and goes in one transaction has no event.
                        assert exec_of_others[connection], (command, ours, theirs)
                        return
                    elif name == b"EXEC":
                        exec_of_others[1 - connection] = True
                    note_replies(queued[connection], command, theirs, ours)
        finally:
            for wires in lines.values():
                for wire in wires:
                    wire.close()


def is_null(reply: Any) -> bool:
    """Whether a reply is no array, by either version of the protocol."""
    return reply in {("*", None), ("_", b"")} if not isinstance(reply[1], list) else False


def note_replies(queued: list[Words], command: Words, theirs: Any, ours: Any) -> None:
    """Compare the replies to a command; those of an EXEC each by the command that was queued for it."""
    name = command[0].upper()
    if name == b"EXEC" and theirs[0] == "*" and theirs[1] is not None and len(theirs[1]) == len(queued):
        assert ours[0] == "*", (command, ours, theirs)
        assert ours[1] is not None, (command, ours, theirs)
        assert len(ours[1]) == len(queued), (command, ours, theirs)
        for each, one, other in zip(queued, ours[1], theirs[1], strict=True):
            assert normal(each, one, other) == ordered(each, other), (each, one, other)
    else:
        assert normal(command, ours, theirs) == ordered(command, theirs), (command, ours, theirs)
    if theirs == ("+", b"QUEUED"):
        queued.append(command)
    elif (name in {b"EXEC", b"DISCARD", b"RESET"} and theirs[0] != "-") or (
        name == b"EXEC" and theirs[1].startswith(b"EXECABORT")
    ):
        queued.clear()


def normal(command: Words, ours: Any, theirs: Any) -> Any:
    """Our reply, or theirs where both mean the same."""
    tolerance = TOLERANCES.get(command[0].upper())
    if tolerance is not None and ours[0] == theirs[0] == ":" and int(ours[1]) > 0 and int(theirs[1]) > 0:
        return theirs if abs(int(ours[1]) - int(theirs[1])) <= tolerance else ours
    if command[0].upper() == b"OBJECT" and theirs == ("$", b"raw") and ours in {("$", b"int"), ("$", b"embstr")}:
        return theirs  # the difference that is meant: a Redis keeps a string raw that APPEND or SETRANGE has changed
    return ordered(command, ours)


def ordered(command: Words, reply: Any) -> Any:
    """A reply whose elements are sorted where their order means nothing."""
    if command[0].upper() not in UNORDERED or reply[0] not in "*~" or reply[1] is None:
        return reply
    kind, elements = reply
    return kind, sorted(elements) if command[0].upper() == b"KEYS" else [elements[0], sorted(elements[1][1])]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    path = tempfile.mkdtemp(prefix="ht-", dir="/tmp")
    socket = os.path.join(path, "node.sock")
    with real_redis() as redis, node_in_thread(storage="memory", listen=f"resp+unix://{socket}"):
        yield Pair(socket, redis)
    shutil.rmtree(path)


@EXAMPLES
@given(steps=sequences(*DATA, *KEYSPACE))
@pytest.mark.parametrize("protocol", [2, 3])
def test_commands_of_strings_keys_and_expiry(pair: Pair, protocol: int, steps: list[Step]) -> None:
    pair.replay(steps, protocol)


@EXAMPLES
@given(steps=sequences(*PLAIN, DATA[0]))
@pytest.mark.parametrize("protocol", [2, 3])
def test_commands_of_connections_and_the_server(pair: Pair, protocol: int, steps: list[Step]) -> None:
    pair.replay(steps, protocol)


@EXAMPLES
@given(steps=with_transactions())
@pytest.mark.parametrize("protocol", [2, 3])
def test_transactions(pair: Pair, protocol: int, steps: list[Step]) -> None:
    pair.replay(steps, protocol)


# -- the table of commands ------------------------------------------------------------------------------------------

#: Newer than the oldest Redis that may be there, so that it need not know them.
NEWER = frozenset({"client|no-touch", "client|setinfo", "delex", "delifeq", "increx", "msetex", "waitaof"})
#: Redis 7.0 asks COMMAND GETKEYS for two arguments more, and later ones for one, as we do.
OTHER_ARITY = frozenset({"command|getkeys", "command|getkeysandflags"})

ROW = ("name", "arity", "flags", "first key", "last key", "step", "categories", "hints", "key specifications")


def described(path: str) -> dict[str, dict[str, Any]]:
    """The rows of COMMAND, and those of the parts, by name; sets are sets, and what is only a note is left out."""
    with RedisWire(path) as wire:
        heads = plain(wire.one("COMMAND"))
    found: dict[str, dict[str, Any]] = {}
    for row in [*heads, *(part for head in heads for part in head[9])]:
        fields = dict(zip(ROW, row, strict=False))
        del fields["hints"]
        for name in ("flags", "categories"):
            fields[name] = set(fields[name])
        fields["key specifications"] = [specification(each) for each in fields["key specifications"]]
        found[row[0].decode()] = fields
    return found


def specification(fields: list[Any]) -> dict[bytes, Any]:
    """A key specification, whose flags are in no order."""
    pairs = dict(zip(fields[::2], fields[1::2], strict=True))
    pairs.pop(b"notes", None)
    return {**pairs, b"flags": set(pairs[b"flags"])}


def test_a_command_has_the_arity_the_flags_and_the_keys_of_its_namesake(pair: Pair) -> None:
    ours, theirs = described(pair.node), described(pair.redis)
    assert ours.keys() - theirs.keys() <= NEWER
    for name in ours.keys() & theirs.keys():
        if name in OTHER_ARITY:
            del ours[name]["arity"], theirs[name]["arity"]
        assert ours[name] == theirs[name], name


#: The conditions of SET, and the one of CLIENT KILL, that the oldest Redis 7 does not know.
NEW_CONDITIONS = frozenset({b"ifeq-value", b"ifne-value", b"maxage"})
#: Conditions that a node does not have: no connection of it knows the address at which it came in.
OTHER_TOKENS = frozenset({b"LADDR"})


def documented_arguments(path: str) -> dict[str, list[dict[str, Any]]]:
    """The arguments of the commands and their parts, by name, as COMMAND DOCS has them."""
    with RedisWire(path) as wire:
        heads = plain(wire.one("COMMAND DOCS"))
    found: dict[str, list[dict[str, Any]]] = {}
    for name, fields in zip(heads[::2], heads[1::2], strict=True):
        document = dict(zip(fields[::2], fields[1::2], strict=True))
        parts = document.get(b"subcommands", [])
        for each, told in ((name, fields), *zip(parts[::2], parts[1::2], strict=True)):
            arguments = dict(zip(told[::2], told[1::2], strict=True)).get(b"arguments")
            found[each.decode()] = [documented_argument(each) for each in arguments or ()]
    return found


def documented_argument(fields: list[Any]) -> dict[str, Any]:
    """One argument, without the versions of Redis that have it first."""
    found = {name.decode(): value for name, value in zip(fields[::2], fields[1::2], strict=True)}
    for note in ("since", "deprecated_since", "display_text"):
        found.pop(note, None)
    parts = [documented_argument(each) for each in found.get("arguments", ())]
    return {
        **found,
        "flags": set(found.get("flags", ())),
        "arguments": [
            part for part in parts if part["name"] not in NEW_CONDITIONS and part.get("token") not in OTHER_TOKENS
        ],
    }


def test_a_command_documents_the_arguments_of_its_namesake(pair: Pair) -> None:
    ours, theirs = documented_arguments(pair.node), documented_arguments(pair.redis)
    told = {name for name, arguments in ours.items() if arguments}
    assert {"set", "getex", "expire", "scan", "hello", "client|kill", "client|list", "client|tracking"} <= told
    assert {"delex", "increx"} <= told
    for name in told & theirs.keys():
        assert ours[name] == theirs[name], name


# -- differences that are meant -------------------------------------------------------------------------------------

INVALID_KEY = ("-", b"ERR invalid key")

#: A command, the reply of a node, and the reply of a Redis: docs/redis.md gives the reason of each. The key `a` has the
#: value 5. The reply of a Redis is None where its words differ between versions.
MEANT: list[tuple[str, Words, tuple[str, Any], tuple[str, Any] | None]] = [
    ("an empty key", (b"SET", b"", b"x"), INVALID_KEY, ("+", b"OK")),
    ("a key with a NUL", (b"SET", b"a\0b", b"x"), INVALID_KEY, ("+", b"OK")),
    ("a key that is not UTF-8", (b"SET", b"\xff", b"x"), INVALID_KEY, ("+", b"OK")),
    ("a long key", (b"SET", b"k" * 4097, b"x"), INVALID_KEY, ("+", b"OK")),
    ("another database", words("SELECT 1"), ("-", b"ERR DB index is out of range"), ("+", b"OK")),
    (
        "a time to live of more than 100 years",
        words("EXPIRE a 4000000000"),
        ("-", b"ERR invalid expire time in 'expire' command"),
        (":", b"1"),
    ),
    (
        "the time since a key was read",
        words("OBJECT IDLETIME a"),
        ("-", b"ERR idle time not tracked: a read changes nothing that is kept of a key"),
        None,
    ),
    ("references to a small number", words("OBJECT REFCOUNT a"), (":", b"1"), None),
    (
        "a parameter of a server that runs",
        words("CONFIG SET maxmemory 1000000000"),
        ("-", b"ERR CONFIG SET failed (possibly related to argument 'maxmemory') - can't set it in a node that runs"),
        ("+", b"OK"),
    ),
    (
        "lists",
        words("LPUSH list x"),
        ("-", b"ERR unknown command 'LPUSH', with args beginning with: 'list' 'x' "),
        (":", b"1"),
    ),
    (
        "scripts",
        (b"EVAL", b"return 1", b"0"),
        ("-", b"ERR unknown command 'EVAL', with args beginning with: 'return 1' '0' "),
        (":", b"1"),
    ),
    (
        "messages of programs",
        words("PUBLISH news x"),
        ("-", b"ERR unknown command 'PUBLISH', with args beginning with: 'news' 'x' "),
        (":", b"0"),
    ),
    ("an empty cursor", (b"SCAN", b""), ("-", b"ERR invalid cursor"), None),
    (
        "an EXEC with an argument",
        words("EXEC x"),
        ("-", b"ERR wrong number of arguments for 'exec' command"),
        ("-", b"EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command"),
    ),
]


@pytest.mark.parametrize(("command", "ours", "theirs"), [row[1:] for row in MEANT], ids=[row[0] for row in MEANT])
def test_a_difference_is_as_it_is_told(
    pair: Pair, command: Words, ours: tuple[str, Any], theirs: tuple[str, Any] | None
) -> None:
    with RedisWire(pair.node) as node, RedisWire(pair.redis) as redis:
        for wire in (node, redis):
            assert wire.ask("FLUSHALL", "SET a 5") == [("+", b"OK")] * 2
        assert node.one(command) == ours
        reply = redis.one(command)
        assert reply != ours or theirs is None
        assert theirs is None or reply == theirs


@pytest.mark.parametrize("change", ["APPEND a 6", "SETRANGE a 0 6"])
def test_the_encoding_of_a_value_does_not_tell_how_it_was_made(pair: Pair, change: str) -> None:
    for path, reply in ((pair.node, b"int"), (pair.redis, b"raw")):
        with RedisWire(path) as wire:
            assert wire.ask("SET a 5", change, "OBJECT ENCODING a")[-1] == ("$", reply)


@pytest.mark.parametrize("command", ["KEYS *", "SCAN 0", "DBSIZE", "RANDOMKEY", "FLUSHALL", "WAIT 0 0", "HELLO"])
def test_a_command_of_all_keys_is_no_part_of_a_transaction(pair: Pair, command: str) -> None:
    with RedisWire(pair.node) as node, RedisWire(pair.redis) as redis:
        assert redis.ask("MULTI", command, "DISCARD") == [("+", b"OK"), ("+", b"QUEUED"), ("+", b"OK")]
        refused = ("-", b"ERR Command not allowed inside a transaction")
        aborted = ("-", b"EXECABORT Transaction discarded because of previous errors.")
        assert node.ask("MULTI", command, "EXEC") == [("+", b"OK"), refused, aborted]


def test_keys_are_counted_without_those_whose_time_is_over(pair: Pair) -> None:
    for path, counts in ((pair.node, {b"2"}), (pair.redis, {b"2", b"3"})):
        with RedisWire(path) as wire:
            wire.ask("FLUSHALL", "MSET a 1 b 2")
            assert wire.one("DBSIZE") == (":", b"2")
            assert wire.ask("SET over 1 PXAT 1", "DBSIZE")[1][1] in counts


def test_a_watched_key_that_comes_and_goes_has_changed(pair: Pair) -> None:
    for path in (pair.node, pair.redis):
        with RedisWire(path) as wire, RedisWire(path) as other:
            other.one("DEL a b")
            wire.one("WATCH a b")
            other.ask("SET a 1", "DEL a")
            assert wire.ask("MULTI", "SET b 1", "EXEC")[-1] == ("*", None)
            wire.one("WATCH a b")
            assert wire.ask("MULTI", "SET b 1", "EXEC")[-1] == ("*", [("+", b"OK")])


def test_a_watched_key_that_comes_and_goes_in_one_transaction_is_unchanged(pair: Pair) -> None:
    """A transaction is one change of the store, which has no event of a key that it leaves as it was."""
    for path, reply in ((pair.node, ("*", [("+", b"PONG")])), (pair.redis, ("*", None))):
        with RedisWire(path) as wire, RedisWire(path) as other:
            other.one("DEL a")
            wire.one("WATCH a")
            other.ask("MULTI", "SET a 1", "DEL a", "EXEC")
            assert wire.ask("MULTI", "PING", "EXEC")[-1] == reply
