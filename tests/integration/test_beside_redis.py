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
from tests.support.redis_sequences import DATA, KEYSPACE, PLAIN, TRANSACTIONS, sequences, with_transactions
from tests.support.redis_server import needs_redis, real_redis
from tests.support.redis_wire import RedisWire, Words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.redis_sequences import Step

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
        lines = {path: [RedisWire(path) for _ in range(2)] for path in (self.node, self.redis)}
        try:
            for wires in lines.values():
                for wire in wires:
                    wire.one(f"HELLO {protocol}")
                assert wires[0].one("FLUSHALL") == ("+", b"OK")
            queued: list[list[Words]] = [[], []]
            for connection, commands in steps:
                found, expected = (lines[path][connection].ask(*commands) for path in (self.node, self.redis))
                for command, ours, theirs in zip(commands, found, expected, strict=True):
                    note_replies(queued[connection], command, theirs, ours)
        finally:
            for wires in lines.values():
                for wire in wires:
                    wire.close()


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
@given(steps=sequences(*PLAIN, *TRANSACTIONS, DATA[0]))
@pytest.mark.parametrize("protocol", [2, 3])
def test_commands_of_connections_and_the_server(pair: Pair, protocol: int, steps: list[Step]) -> None:
    pair.replay(steps, protocol)


@EXAMPLES
@given(steps=with_transactions())
@pytest.mark.parametrize("protocol", [2, 3])
def test_transactions(pair: Pair, protocol: int, steps: list[Step]) -> None:
    pair.replay(steps, protocol)
