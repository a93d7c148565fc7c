"""A state with its log and its snapshots, without a node: what recovery has to find again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from haptera.node.recovery import DurableState
from haptera.state import Logged, dump_pieces, encode_commands
from haptera.state.operations import Delete, Set
from haptera.storage import LogEntry, write_snapshot
from tests.unit.node.nodes import CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.state import StateMachine
    from haptera.storage import Durability, FileSystem, SnapshotFile

PATH = CONFIG.data_dir
LOG_PATH = f"{PATH}/log"
SNAPSHOTS_PATH = f"{PATH}/snapshots"
_CONFIG = msgspec.structs.replace(CONFIG, segment_size=600)


class StoredState(DurableState):
    """An open directory whose entries follow from their indexes, so that any number of them has one digest."""

    @classmethod
    def begin(cls, fs: FileSystem, durability: Durability = "sync") -> StoredState:
        state = cls(msgspec.structs.replace(_CONFIG, durability=durability), fs)
        try:
            state.open()
        except BaseException:
            state.close()
            raise
        return state

    def write(self, count: int) -> None:
        """Log the next entries, and apply them."""
        for index in range(self.machine.index + 1, self.machine.index + count + 1):
            entry = entry_of(index)
            self.log.append(entry)
            apply(self.machine, entry)

    def snapshot(self) -> SnapshotFile:
        """Take a snapshot of all that was written."""
        point = self.log.roll()
        assert point.index == self.machine.index
        pieces = dump_pieces(self.machine)
        return write_snapshot(
            self._fs, self.directory.snapshots_path, self.keyring, point, self.machine.revision, pieces
        )


@contextmanager
def stored(fs: FileSystem) -> Iterator[StoredState]:
    state = StoredState.begin(fs)
    try:
        yield state
    finally:
        state.close()


def commands_of(index: int) -> list[Logged]:
    request_id = index.to_bytes(16, "big")
    change = Set(f"key/{index % 7}", b"%d" % index * 4, return_previous=True)
    return [Logged(change, "ann", request_id, b"d" * 32), Logged(Delete(f"key/{index % 5}"))]


def entry_of(index: int) -> LogEntry:
    return LogEntry(1, index, 1_000 * index, encode_commands(commands_of(index)))


def apply(machine: StateMachine, entry: LogEntry) -> None:
    machine.apply(entry.index, entry.time_ms, commands_of(entry.index))


def digest_after(count: int) -> bytes:
    """The digest of the state after so many entries, made without a disk."""
    from haptera.state import StateMachine

    machine = StateMachine()
    for index in range(1, count + 1):
        apply(machine, entry_of(index))
    return machine.digest()
