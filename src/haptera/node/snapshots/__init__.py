"""Snapshots of the state, made beside the serving node, and the files of the past that a data directory keeps.

A name is imported when it is first used: the second process, which needs none of them, goes behind the node before it
imports anything large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.lazy import lazily

if TYPE_CHECKING:
    from haptera.node.snapshots.assembly import keep_snapshots, snapshots_of
    from haptera.node.snapshots.decision import Snapshot
    from haptera.node.snapshots.keeper import SnapshotKeeper
    from haptera.node.snapshots.retention import Retention

__all__ = ["Retention", "Snapshot", "SnapshotKeeper", "keep_snapshots", "snapshots_of"]

_MODULES: Final = {
    "Retention": "haptera.node.snapshots.retention",
    "Snapshot": "haptera.node.snapshots.decision",
    "SnapshotKeeper": "haptera.node.snapshots.keeper",
    "keep_snapshots": "haptera.node.snapshots.assembly",
    "snapshots_of": "haptera.node.snapshots.assembly",
}

__getattr__: Final = lazily(__name__, _MODULES)
