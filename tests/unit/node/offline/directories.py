"""Data directories for the tests of the offline tools, written as a node writes them, with a record of each state."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from haptera.node import NodeConfig
from haptera.node.recovery import DurableState
from haptera.state import Logged, dump_pieces, encode_commands, operations
from haptera.storage import LogEntry, open_keyring, write_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.state import Write
    from haptera.storage import FileSystem, LogPoint

PATH = "data"
LOG_PATH = "data/log"
CONFIG = NodeConfig(data_dir=PATH, segment_size=64 * 1024)
START_MS = 1_700_000_000_000


def opened(fs: FileSystem, config: NodeConfig = CONFIG) -> DurableState:
    durable = DurableState(config, fs)
    try:
        durable.open()
    except BaseException:
        durable.close()
        raise
    return durable


def append(durable: DurableState, changes: Sequence[Write], time_ms: int) -> None:
    """Log one entry and apply it."""
    commands = [Logged(change) for change in changes]
    machine = durable.machine
    durable.log.append(LogEntry(1, machine.index + 1, time_ms, encode_commands(commands)))
    machine.apply(machine.index + 1, time_ms, commands)


def write_sets(fs: FileSystem, count: int, size: int = 2000) -> DurableState:
    """A directory with `count` entries of one set each, left open."""
    durable = opened(fs)
    for number in range(count):
        value = b"%d " % number * (size // 4)
        append(durable, [operations.Set(f"key {number % 10}", value)], START_MS + number)
    return durable


def snapshot(durable: DurableState, fs: FileSystem) -> LogPoint:
    """Seal the segment, and make a snapshot of the state behind it."""
    point = durable.log.roll()
    directory, machine = durable.directory, durable.machine
    assert point.index == machine.index
    keyring = open_keyring(directory)
    write_snapshot(fs, directory.snapshots_path, keyring, point, machine.revision, dump_pieces(machine))
    return point


class Recorded:
    """A history of a store, and the independent record of what it held at each revision and time.

    `states` has the keys and values of each revision, and `times` (time, revision) after each entry.
    """

    def __init__(
        self,
        fs: FileSystem,
        seed: int,
        entries: int = 120,
        snapshot_each: int = 25,
        after: Callable[[int, DurableState], None] = lambda number, durable: None,
    ) -> None:
        choices = random.Random(seed)
        self.states: list[dict[str, bytes]] = [{}]
        self.times: list[tuple[int, int]] = []
        self.durable = durable = opened(fs)
        now = START_MS
        for number in range(1, entries + 1):
            now += choices.choice((0, 1, 1, 40, 5000))
            append(durable, [self._change(choices) for _ in range(choices.choice((1, 1, 2, 7)))], now)
            self.times.append((now, durable.machine.revision))
            assert durable.machine.revision == len(self.states) - 1
            if number % snapshot_each == 0:
                snapshot(durable, fs)
            after(number, durable)

    def _change(self, choices: random.Random) -> Write:
        """A change, which the record follows by its own rules."""
        state, key = dict(self.states[-1]), f"key {choices.randrange(30)}"
        kind = choices.randrange(8)
        if kind == 0:
            changed = state.pop(key, None) is not None
            change: Write = operations.Delete(key)
        elif kind == 1:
            pairs = [(f"key {choices.randrange(30)}", choices.randbytes(20)) for _ in range(3)]
            state.update(pairs)
            changed, change = True, operations.SetMany(pairs)
        elif kind == 2:
            changed = key not in state
            state.setdefault(key, b"first")
            change = operations.Set(key, b"first", condition="absent")
        else:
            value = choices.randbytes(choices.choice((8, 100, 4000)))
            state[key] = value
            changed, change = True, operations.Set(key, value)
        if changed:
            self.states.append(state)
        return change

    def at(self, time_ms: int) -> dict[str, bytes]:
        """What the store held at a time."""
        revision = max((revision for time, revision in self.times if time <= time_ms), default=0)
        return self.states[revision]
