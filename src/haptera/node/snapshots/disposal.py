"""Removes the snapshots and segments that retention has given up.

The order is the promise. The new snapshot is durable before anything goes. Then the old snapshots go, and are gone for
good before a segment is: an old snapshot without the segments behind it would be no help, only a way to start wrong.
The segments go oldest first, each for good before the next one, because a gap in their numbers is damage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.storage import remove_snapshots

if TYPE_CHECKING:
    from haptera.node.snapshots.decision import Disposal
    from haptera.storage import FileSystem, Log


def dispose(fs: FileSystem, log: Log, snapshots_path: str, disposal: Disposal) -> None:
    """Remove these files. May be interrupted anywhere: the next disposal goes on with what is left.

    Raises DiskFailed; then nothing more is removed, because an earlier removal may not be durable.
    """
    if disposal.snapshots:
        remove_snapshots(fs, snapshots_path, disposal.snapshots)
    if disposal.segments:
        log.forget_before(disposal.segments[-1] + 1)
