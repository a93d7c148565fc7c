"""Puts the parts of a node's snapshots together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from haptera.node.snapshots.decision import Snapshot
from haptera.node.snapshots.keeper import SnapshotKeeper
from haptera.node.snapshots.makers import SecondProcess, ThisProcess
from haptera.node.snapshots.retention import Retention
from haptera.node.snapshots.schedule import Schedule
from haptera.state import SNAPSHOT_BOUNDS
from haptera.storage import used_key_ids

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from haptera.node.config import NodeConfig
    from haptera.node.metrics import Metrics
    from haptera.node.recovery import DurableState, Recovered
    from haptera.node.snapshots.keeper import OnWriter

#: The events of a snapshot take this part of the bytes that are kept, at most: two snapshots and the log between them
#: have to stay within those.
EVENTS_WITHIN: Final = 16


def keep_snapshots(
    config: NodeConfig,
    storage: DurableState,
    *,
    on_writer: OnWriter,
    loop: asyncio.AbstractEventLoop,
    metrics: Metrics,
    time_ms: Callable[[], int],
    held_back: Callable[[], int | None],
    second_process: bool,
) -> SnapshotKeeper:
    """Return what keeps the snapshots of a node whose state was recovered; `SnapshotKeeper.start` begins.

    ``on_writer`` runs a job on the writer's thread, ``time_ms`` gives entry time, and ``held_back`` the number of the
    lowest segment that is still to be archived, if one is. Without a ``second_process``, which sees no files but the
    operating system's, this one makes the snapshots.
    """
    directory = storage.directory
    retention = Retention(
        directory.fs,
        storage.log,
        directory.snapshots_path,
        snapshots_of(storage.recovered),
        retain_bytes=config.retain_bytes,
        retain_ms=int(config.retain_for * 1000),
        time_ms=time_ms,
        held_back=held_back,
    )
    schedule = Schedule(
        snapshot_after=config.snapshot_after,
        retain_bytes=config.retain_bytes,
        retain_for=config.retain_for,
        now=loop.time(),
    )
    events_size = min(SNAPSHOT_BOUNDS.size, config.retain_bytes // EVENTS_WITHIN)
    maker = (SecondProcess if second_process else ThisProcess)(directory, storage.keyring, events_size)
    keeper = SnapshotKeeper(
        log=storage.log,
        machine=storage.machine,
        retention=retention,
        schedule=schedule,
        maker=maker,
        on_writer=on_writer,
        loop=loop,
        metrics=metrics,
        drop_keys=partial(_drop_keys, storage),
    )
    metrics.measure(_measures(keeper, time_ms))
    return keeper


def snapshots_of(recovered: Recovered) -> list[Snapshot]:
    """The snapshots that a start found, oldest first. Of one whose header is damaged the name is all that is known."""
    damaged = {file.index for file in recovered.damaged}
    snapshots = [
        Snapshot(file.index, 0, 0, file.size_bytes, whole=False)
        if file.point is None
        else Snapshot(
            file.index,
            file.point.next_segment,
            file.point.time_ms,
            file.size_bytes,
            file.revision or 0,
            whole=file.index not in damaged,
        )
        for file in recovered.snapshots
    ]
    return sorted(snapshots, key=lambda snapshot: snapshot.index)


def _drop_keys(storage: DurableState) -> list[bytes]:
    return [key.id for key in storage.keyring.drop_unused(lambda: used_key_ids(storage.directory))]


def _measures(keeper: SnapshotKeeper, time_ms: Callable[[], int]) -> dict[str, Callable[[], float]]:
    retention = keeper.retention
    nothing = Snapshot(0, 0, 0, 0)

    def age() -> float:
        newest = retention.newest
        return 0.0 if newest is None else (time_ms() - newest.time_ms) / 1000

    return {
        "history_oldest_revision": lambda: (retention.oldest or nothing).revision,
        "history_oldest_time_seconds": lambda: (retention.oldest or nothing).time_ms / 1000,
        "snapshot_age_seconds": age,
        "snapshot_index": lambda: (retention.newest or nothing).index,
        "snapshot_memory_needed_bytes": lambda: keeper.needed_bytes,
        "snapshot_seconds": lambda: 0.0 if keeper.last is None else keeper.last.seconds,
        "snapshot_size_bytes": lambda: (retention.newest or nothing).size_bytes,
        "snapshots": lambda: len(retention.snapshots),
        "snapshots_size_bytes": lambda: sum(each.size_bytes for each in retention.snapshots),
    }
