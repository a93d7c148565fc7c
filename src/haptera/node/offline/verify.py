"""The verification of a data directory: every byte, the states that follow from it, and what a start would do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haptera.errors import HapteraError
from haptera.node.recovery import DurableState
from haptera.storage import OverlayFileSystem, check_directory

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig
    from haptera.storage import Check, FileSystem, Unlock

__all__ = ["Start", "Verification", "verify"]


@dataclass(frozen=True, slots=True)
class Start:
    """What the start of a node would do: refuse with `error`, or open at `revision` with `keys` keys.

    `torn_bytes` of `torn_file` would be cut off. `digest` is that of the state.
    """

    error: HapteraError | OSError | None = None
    revision: int = 0
    keys: int = 0
    index: int = 0
    torn_bytes: int = 0
    torn_file: str | None = None
    digest: bytes = b""


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
    return Verification(check, rehearse(fs, config))


def rehearse(fs: FileSystem, config: NodeConfig) -> Start:
    """Start as a node would, with every change kept in memory."""
    view = OverlayFileSystem(fs)
    durable = DurableState(config, view)
    try:
        durable.open()
        machine, recovery = durable.machine, durable.log.recovery
        machine.check()
        return Start(
            revision=machine.revision,
            keys=len(machine.kv.entries),
            index=machine.index,
            torn_bytes=recovery.torn_bytes,
            torn_file=recovery.file and os.path.normpath(recovery.file),
            digest=machine.digest(),
        )
    except (HapteraError, OSError) as error:
        return Start(error)
    finally:
        durable.close()
        view.close()
