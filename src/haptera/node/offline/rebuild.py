"""Replays the snapshots and the log of a data directory, up to the state that it had at a moment."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haptera.errors import CorruptionError
from haptera.node.apply_committed import ApplyFailed
from haptera.state import MalformedCommands, MalformedPieces, StateMachine, decode_commands, load_pieces
from haptera.storage import SnapshotReader

if TYPE_CHECKING:
    from haptera.storage import Base, Check, FileSystem, LogEntry, ReachableRange

__all__ = ["Moment", "Rebuilt", "advance", "load", "rebuild"]


@dataclass(frozen=True, slots=True)
class Moment:
    """The moment to rebuild: after the change that makes `revision`, after the last entry up to `time_ms` (Unix
    milliseconds), or after the entry `index`. None of them: the end of the range.
    """

    revision: int | None = None
    time_ms: int | None = None
    index: int | None = None


class Rebuilt:
    """The state of a base, and what it becomes. `term` is that of its last entry, `entries` counts those applied."""

    def __init__(self, machine: StateMachine, term: int) -> None:
        self.machine = machine
        self.term = term
        self.entries = 0


def rebuild(fs: FileSystem, check: Check, found: ReachableRange, base: Base, moment: Moment) -> Rebuilt:
    """The state at a moment of a range, from one of its bases that is not later.

    Memory holds the state and one entry. Raises CorruptionError (the entries or pieces are no state's), UnknownPart,
    ApplyFailed, DiskFailed.
    """
    rebuilt = load(fs, check, base)
    advance(rebuilt, fs, check, found, base, moment)
    return rebuilt


def load(fs: FileSystem, check: Check, base: Base) -> Rebuilt:
    """The state of a base. Raises CorruptionError, UnknownPart, DiskFailed."""
    if base.file is None:
        return Rebuilt(StateMachine(), 0)
    assert check.keyring is not None
    point = base.point
    with _uncollected(), SnapshotReader(fs, base.file, check.keyring) as reader:
        try:
            return Rebuilt(load_pieces(reader.pieces(), index=point.index, time_ms=point.time_ms), point.term)
        except MalformedPieces as error:
            raise CorruptionError(base.file, 0, "the pieces of a state", str(error)) from error


def advance(
    rebuilt: Rebuilt,
    fs: FileSystem,
    check: Check,
    found: ReachableRange,
    base: Base,
    moment: Moment,
    applied: Callable[[StateMachine], None] = lambda machine: None,
) -> None:
    """Take the state of a base to a moment; `applied` is called after each entry.

    Raises CorruptionError, UnknownPart, ApplyFailed, DiskFailed.
    """
    machine = rebuilt.machine
    with _uncollected():
        for entry in _until(found.entries(fs, check, base), machine, moment):
            _apply(machine, entry, moment, check)
            rebuilt.term = entry.term
            rebuilt.entries += 1
            applied(machine)


@contextmanager
def _uncollected() -> Iterator[None]:
    """The state is millions of objects and no circle: to look for circles among them would take most of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _until(entries: Iterator[LogEntry], machine: StateMachine, moment: Moment) -> Iterator[LogEntry]:
    """The entries up to a moment. Each is applied before the next is asked for."""
    for entry in entries:
        if moment.time_ms is not None and entry.time_ms > moment.time_ms:
            return
        if moment.index is not None and entry.index > moment.index:
            return
        if moment.revision is not None and machine.revision >= moment.revision:
            return
        yield entry


def _apply(machine: StateMachine, entry: LogEntry, moment: Moment, check: Check) -> None:
    try:
        commands = decode_commands(entry.payload)
    except MalformedCommands as error:
        expected = f"commands in the entry of index {entry.index}"
        raise CorruptionError(check.log_path, 0, expected, str(error)) from error
    try:
        if moment.revision is None:
            machine.apply(entry.index, entry.time_ms, commands)
        else:
            machine.apply_until(moment.revision, entry.index, entry.time_ms, commands)
    except Exception as error:
        raise ApplyFailed(entry.index, error) from error
