"""The whole store against a dict: every operation through the command interface, with restarts and power failures.

Between two steps the node may be closed and opened again, killed (the next process finds all that was written), or lose
power with what was not synced dropped, kept, torn or out of order. What was answered must always be there; what was
handed over and not answered may be there or not, but only whole and in order.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, get_args

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from haptera.errors import Failure
from haptera.node.commands import ANONYMOUS, Envelope
from haptera.node.node import Node
from haptera.node.scans import Cursor
from haptera.state import Operation, Page, Result, Write
from haptera.state.operations import (
    Clear,
    Count,
    Delete,
    DeleteMany,
    Exists,
    GetMany,
    Increment,
    OpenScan,
    Rename,
    Set,
    SetMany,
    Transact,
)
from haptera.testing.filesystem import MemoryFileSystem, Unsynced
from tests.support.transacts import transact, transacts
from tests.unit.node.nodes import CONFIG, ManualWriter

KEYS = st.sampled_from(["a", "a/1", "a/2", "b", "c", "é", "€"])
VALUES = st.sampled_from([b"", b"1", b"-7", b"text", bytes(3000)])
PREFIXES = st.sampled_from(["", "a", "a/", "z"])


class Model:
    """The store as a dict: key to (value, version)."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[bytes, int]] = {}
        self.attached: dict[str, int] = {}
        self.revision = 0

    def copy(self) -> Model:
        other = Model()
        other.entries, other.revision = dict(self.entries), self.revision
        return other

    def entry(self, key: str) -> tuple[bytes, int, None] | None:
        found = self.entries.get(key)
        return None if found is None else (*found, None)

    def _put(self, items: dict[str, bytes]) -> int:
        self.revision += 1
        for key, value in items.items():
            self.entries[key] = (value, self.revision)
        return self.revision

    def _remove(self, keys: list[str]) -> tuple[int, int | None]:
        present = [key for key in dict.fromkeys(keys) if key in self.entries]
        if not present:
            return 0, None
        self.revision += 1
        for key in present:
            del self.entries[key]
        return len(present), self.revision

    def do(self, op: Operation) -> tuple[Any, ...] | int:
        """The result, or the code of the failure."""
        match op:
            case Transact():
                return transact(self, op)
            case Set(key, value, if_version, condition, return_previous):
                previous = self.entry(key)
                if if_version is not None and if_version != (previous[1] if previous else 0):
                    return 4002
                if condition is not None and (condition == "present") != (previous is not None):
                    return 4001 if condition == "present" else 4003
                return self._put({key: value}), previous if return_previous else None
            case Delete(key, if_version, return_previous):
                previous = self.entry(key)
                if if_version is not None and if_version != (previous[1] if previous else 0):
                    return 4002
                if previous is None:
                    return False, None, None
                return True, self._remove([key])[1], previous if return_previous else None
            case SetMany(items):
                return (self._put(dict(items)),) if items else (self.revision,)
            case DeleteMany(keys):
                return self._remove(keys)
            case Clear(prefix):
                return self._remove([key for key in self.entries if key.startswith(prefix or "")])
            case Increment(key, delta, initial):
                old = self.entries.get(key)
                try:
                    number = (initial if old is None else int(old[0])) + delta
                except ValueError:
                    return 4004
                return number, self._put({key: b"%d" % number})
            case Rename(key, new_key, if_absent):
                if key not in self.entries:
                    return 4001
                if if_absent and new_key in self.entries:
                    return 4003
                value = self.entries[key][0]
                del self.entries[key]
                return (self._put({new_key: value}),)
            case _:
                raise AssertionError(op)


VERSIONS = st.none() | st.integers(0, 8)
WRITES: st.SearchStrategy[Write] = st.one_of(
    st.builds(Set, KEYS, VALUES, VERSIONS, st.sampled_from([None, None, "absent", "present"]), st.booleans()),
    st.builds(Delete, KEYS, VERSIONS, st.booleans()),
    st.builds(SetMany, st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=4)),
    st.builds(DeleteMany, st.lists(KEYS, max_size=4)),
    st.builds(Increment, KEYS, st.integers(-5, 5), st.integers(-5, 5)),
    st.builds(Rename, KEYS, KEYS, st.booleans()).filter(lambda op: op.key != op.new_key),
    st.builds(Clear, PREFIXES),
    transacts(KEYS, st.sampled_from([b"1", b"text"])).filter(
        lambda op: not any(map(_to_itself, (*op.then, *op.otherwise)))
    ),
)


def _to_itself(op: Operation) -> bool:
    return isinstance(op, Rename) and op.key == op.new_key


class Store(RuleBasedStateMachine):
    """Hypothesis chooses the steps; a writer that works on command stands for the disk."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.fs = MemoryFileSystem()
        self.writer = ManualWriter()
        self.model = Model()
        self.pending: list[tuple[list[Write], list[list[Result]]]] = []
        self.node: Node

    def teardown(self) -> None:
        self._write_all()
        self.loop.run_until_complete(self.node.aclose())
        self.loop.close()

    def _open(self) -> None:
        # A loop of its own, as another process has: what the node before it still had to say is never heard.
        self.loop.close()
        self.loop = asyncio.new_event_loop()
        self.writer = ManualWriter()
        opening = Node.open(CONFIG, filesystem=self.fs, writer=self.writer)
        self.node = self.loop.run_until_complete(opening)

    def _turn(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.run_until_complete(asyncio.sleep(0))

    def _write_all(self) -> None:
        self._turn()
        while self.writer.jobs:
            self.writer.jobs.popleft()()
            self._turn()
        self._settle()
        assert not self.pending

    def _settle(self) -> None:
        """Let the model do what was answered, and compare."""
        while self.pending and self.pending[0][1]:
            ops, (results,) = self.pending.pop(0)
            for op, result in zip(ops, results, strict=True):
                expected = self.model.do(op)
                actual = result.code if isinstance(result, Failure) else result
                assert actual == expected, op
        assert not any(answered for _, answered in self.pending), "answers come in the order of the log"

    @initialize()
    def start(self) -> None:
        self._open()

    @rule(ops=st.lists(WRITES, min_size=1, max_size=3))
    def submit(self, ops: list[Write]) -> None:
        answered: list[list[Result]] = []
        self.node.commands.submit(ANONYMOUS, [Envelope(op) for op in ops], answered.append)
        self.pending.append((ops, answered))

    @rule(ops=st.lists(WRITES, min_size=1, max_size=3))
    def submit_and_wait(self, ops: list[Write]) -> None:
        self.submit(ops)
        self._write_all()

    @rule()
    def turn_of_the_loop(self) -> None:
        self._turn()
        self._settle()

    @precondition(lambda self: self.writer.jobs)
    @rule()
    def disk_writes(self) -> None:
        self.writer.jobs.popleft()()
        self._turn()
        self._settle()

    @rule(prefix=PREFIXES, reverse=st.booleans(), limit=st.none() | st.integers(0, 4))
    def scan(self, prefix: str, reverse: bool, limit: int | None) -> None:
        opening = self.node.commands.open_scan(ANONYMOUS, OpenScan(prefix=prefix, reverse=reverse, limit=limit))
        cursor = self.loop.run_until_complete(opening)
        assert isinstance(cursor, Cursor)
        rows = []
        while True:
            page = cursor.page(5000, 2)
            assert isinstance(page, Page)
            rows += page.rows
            if page.done:
                break
        keys = sorted((key for key in self.model.entries if key.startswith(prefix)), reverse=reverse)[:limit]
        assert rows == [(key, *self.model.entries[key], None) for key in keys]
        assert cursor.result == (len(keys), keys[-1] if keys else None, self.model.revision)

    @rule(prefix=PREFIXES, keys=st.lists(KEYS, max_size=3))
    def read(self, prefix: str, keys: list[str]) -> None:
        answered: list[list[Result]] = []
        commands = [Envelope(Count(prefix)), Envelope(GetMany(keys)), *(Envelope(Exists(key)) for key in keys)]
        self.node.commands.submit(ANONYMOUS, commands, answered.append)
        ((count, many, *exist),) = answered
        assert count == (sum(key.startswith(prefix) for key in self.model.entries),)
        assert many == ([self.model.entry(key) for key in keys],)
        assert exist == [(key in self.model.entries,) for key in keys]

    @rule()
    def close_and_reopen(self) -> None:
        self._write_all()
        self.loop.run_until_complete(self.node.aclose())
        self._open()

    @rule(
        how=st.sampled_from(["kill", *get_args(Unsynced)]),
        seed=st.integers(0, 1000),
        last=st.lists(WRITES, max_size=3),
        calls=st.integers(0, 8),
    )
    def crash_and_reopen(self, how: Any, seed: int, last: list[Write], calls: int) -> None:
        """Stop everything, possibly in the middle of a write of the log, and open what is left."""
        if last:
            self.submit(last)
        self._turn()
        self._settle()
        if self.writer.jobs:
            self._write_in_part(calls)
        self.fs = self.fs.restart() if how == "kill" else self.fs.power_failure(how, seed)
        waiting = [op for ops, _ in self.pending for op in ops]
        self.pending.clear()
        self._open()
        self._find(waiting)

    def _write_in_part(self, calls: int) -> None:
        """Let the log make so many calls, and no more. Nobody hears of it any more: the loop is not run again."""
        self.fs.stop_after = len(self.fs.calls) + calls
        self.writer.jobs.popleft()()

    def _find(self, waiting: list[Write]) -> None:
        """What is there now is the model, or the model and some of what waited, in order and from its beginning."""
        machine = self.node._machine
        found = {key: entry[:2] for key, entry in machine.kv.entries.items()}
        model = self.model.copy()
        while (model.entries, model.revision) != (found, machine.revision):
            assert waiting, "something was lost, or is there that was never written"
            model.do(waiting.pop(0))
        self.model = model

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "node"):
            return
        assert self.node.revision == self.model.revision
        assert self.node.keys == len(self.model.entries)
        self.node._machine.check()


TestStore = Store.TestCase
#: Each example starts a node, with its threads and its files: four tenths as many as other properties have.
EXAMPLES: Final = (settings.default.max_examples if settings.default else 100) * 2 // 5
TestStore.settings = settings(stateful_step_count=30, max_examples=EXAMPLES)
