"""Data directories for the tests of the offline tools, written as a node writes them, with a record of each state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.node import NodeConfig
from haptera.node.recovery import DurableState
from haptera.state import Logged, encode_commands, operations
from haptera.storage import LogEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.state import Write
    from haptera.storage import FileSystem

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
