"""Snapshots of the state, made beside the serving node, and the files of the past that a data directory keeps."""

from __future__ import annotations

from haptera.node.snapshots.assembly import keep_snapshots, snapshots_of
from haptera.node.snapshots.decision import Snapshot
from haptera.node.snapshots.keeper import SnapshotKeeper
from haptera.node.snapshots.retention import Retention

__all__ = ["Retention", "Snapshot", "SnapshotKeeper", "keep_snapshots", "snapshots_of"]
