"""Makes a data directory of a state: a new identity and new keys, a snapshot, and an empty log behind it.

Nothing opens it before it is whole. `node.toml` comes last, when what is there was opened in a view and found to give
the same state.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from haptera.errors import CorruptionError
from haptera.node.offline.verify import rehearse
from haptera.state import dump_pieces
from haptera.storage import TAG_SIZE, LogPoint, NewDirectory, OverlayFileSystem, write_snapshot

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig
    from haptera.node.offline.rebuild import Rebuilt
    from haptera.storage import FileSystem, Unlock

__all__ = ["build_directory"]


def build_directory(fs: FileSystem, config: NodeConfig, unlock: Unlock, rebuilt: Rebuilt) -> bytes:
    """Make the data directory of `config` with a state, and return its node id.

    The directory must not exist, or be empty. The state is freed. Raises StorageError (something is there), DiskFull,
    DiskFailed, CorruptionError (what was written is not what was to be written); what was written before is removed.
    """
    machine = rebuilt.machine
    digest = machine.digest()
    with NewDirectory.make(fs, config.data_dir) as new:
        keyring = unlock(new.directory)
        # A random tag: no segment of another directory can be put behind this snapshot.
        point = LogPoint(machine.index, rebuilt.term, machine.time_ms, secrets.token_bytes(TAG_SIZE), 1)
        write_snapshot(fs, new.directory.snapshots_path, keyring, point, machine.revision, dump_pieces(machine))
        new.begin_log(keyring, point)
        del machine, rebuilt.machine  # its memory is for the state that is read back
        view = OverlayFileSystem(fs)
        new.finish(view)
        start = rehearse(view, config)
        if start.error is not None:
            raise start.error
        if start.digest != digest:
            raise CorruptionError(config.data_dir, 0, "the state that was written", "another state")
        new.finish(fs)
        return new.directory.node_id
