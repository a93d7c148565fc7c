"""The verification of a data directory: every byte, the states that follow from it, and what a start would do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from haptera.errors import HapteraError, StorageError
from haptera.node.audit.chain import Head
from haptera.node.offline.rebuild import Moment, Rebuilt, advance, load
from haptera.node.recovery import DurableState
from haptera.storage import Check, Finding, OverlayFileSystem, check_directory, reachable_ranges

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig
    from haptera.state import StateMachine
    from haptera.storage import Base, FileSystem, ReachableRange, Unlock

__all__ = ["Start", "Verification", "verify"]


#: Times that a start is rehearsed if it is refused although nothing is damaged.
_REHEARSALS: Final = 3


@dataclass(frozen=True, slots=True)
class Start:
    """The outcome that the start of a node would have: refuse with `error`, or open at `revision` with `keys` keys.

    `torn_bytes` of `torn_file` would be cut off. `digest` is that of the state. A node would leave a gap behind the
    revision where `leaves_gap` says so. `audit_head` is the head of the audit log that the store has noted.
    """

    error: HapteraError | OSError | None = None
    revision: int = 0
    keys: int = 0
    index: int = 0
    torn_bytes: int = 0
    torn_file: str | None = None
    digest: bytes = b""
    leaves_gap: bool = False
    audit_head: Head | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of `verify`."""

    check: Check
    start: Start

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged and a node would start."""
        return self.start.error is None and not self.check.findings.damaged


def verify(fs: FileSystem, config: NodeConfig, unlock: Unlock) -> Verification:
    """Check every byte of the data directory that a node with this configuration would open, and rehearse its start.

    Changes nothing and takes no lock. Raises StorageError where there is no data directory. Needs as much memory as the
    node.
    """
    check = check_directory(fs, config.data_dir, unlock)
    for found in reachable_ranges(check):
        _check_states(fs, check, found)
    start = rehearse(fs, config)
    for _ in range(_REHEARSALS - 1):
        if start.error is None or check.findings.damaged:
            break
        start = rehearse(fs, config)  # a node that runs may have written a record, or removed a file, in its middle
    return Verification(check, start)


def _check_states(fs: FileSystem, check: Check, found: ReachableRange) -> None:
    """Whether each snapshot of a range holds the state that the log gives from the oldest one on.

    The entries behind the newest are left to the rehearsal, and trouble with files that a node has removed meanwhile is
    none. Memory holds one state: the digests are compared.
    """
    loaded: dict[int, tuple[Base, bytes]] = {}
    for base in found.bases:
        try:
            revision, digest = _described(load(fs, check, base))
        except StorageError as error:
            if not found.is_removed(fs):
                check.findings.add_error(error, base.file or check.log_path)
            continue
        loaded[base.point.index] = (base, digest)
        if revision != base.revision:
            _differs(check, base, f"revision {base.revision}, as in its header", f"revision {revision}")

    def compare(machine: StateMachine) -> None:
        base, digest = loaded.get(machine.index, (None, b""))
        if base is not None and digest != machine.digest():
            _differs(check, base, "the state that the log before it gives", "another state")

    if len(loaded) < 2:
        return
    oldest, newest = loaded[min(loaded)][0], max(loaded)
    try:
        advance(load(fs, check, oldest), fs, check, found, oldest, Moment(index=newest), compare)
    except StorageError as error:
        if not found.is_removed(fs):
            check.findings.add_error(error, check.log_path)


def _described(rebuilt: Rebuilt) -> tuple[int, bytes]:
    return rebuilt.machine.revision, rebuilt.machine.digest()


def _differs(check: Check, base: Base, expected: str, actual: str) -> None:
    check.findings.add(Finding("damage", base.file or check.log_path, 0, expected, actual))


def rehearse(fs: FileSystem, config: NodeConfig) -> Start:
    """Start as a node would, with every change kept in memory."""
    view = OverlayFileSystem(fs)
    durable = DurableState(config, view)
    try:
        durable.open()
        machine, recovery = durable.machine, durable.log.recovery
        machine.check()
        kept = machine.node.audit_head
        return Start(
            revision=machine.revision,
            keys=len(machine.kv.entries),
            index=machine.index,
            torn_bytes=recovery.torn_bytes,
            torn_file=recovery.file and os.path.normpath(recovery.file),
            digest=machine.digest(),
            leaves_gap=durable.log.changes_lost,
            audit_head=None if kept is None else Head(kept.sequence, kept.digest),
        )
    except (HapteraError, OSError) as error:
        return Start(error)
    finally:
        durable.close()
        view.close()
